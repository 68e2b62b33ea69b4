"""What a nightly sync knows before it runs and keeps afterwards; the run is `workflows.sync`.

Start with `config`: a strict YAML file becomes one `Config`, or one error that lists every fault
with its line. `entries` are the values that it consists of, `patterns` says which repositories an
entry reads and where its images go. `shapes` is the vocabulary's grammar, of which the loader and
the JSON Schema for editors are two views; `yamlfile` below it knows YAML and nothing else.
`filters` decides which tags are mirrored, `versions` what a tag is as a version, `importing`
translates the files of skopeo sync and regsync.

Refused here: to guess. An unknown key, `1.10` without quotes and `yes` are errors, and where
another tool's file cannot be carried over, its translation says so.
"""
