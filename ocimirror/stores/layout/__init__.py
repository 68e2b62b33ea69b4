"""The OCI image layout: a directory of blobs named by digest, and index.json naming the roots.

Start with `directory`, what a reader sees, `index`, the document, and `layout`, the store, which
adds locks and writes. `links` writes into a layout beside others and links what they have;
`exclusive` is for removal and mending, with `quarantine` and `mending`.
"""
