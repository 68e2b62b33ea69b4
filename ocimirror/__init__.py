"""ocimirror moves OCI images and never changes a byte of them.

1. `ocimirror.model`: the specification's words as values: digests, manifests, references.
2. `ocimirror.stores`: places that hold content. Bytes enter and leave only as a VerifiedStream.
3. `ocimirror.copy`: walk the graph, plan, transfer blobs, publish manifests; names move last.
4. `ocimirror.workflows`: one file a command: pull, push, copy, verify, inspect, list.
5. `ocimirror.cli`: arguments, printing and exit codes, and nothing else.
"""

__version__ = "0.1.0"
