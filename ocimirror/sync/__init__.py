"""The nightly mirror: what it knows before it runs, the run, and what it keeps.

Before: `config` makes one `Config` of a strict YAML file, or one error that lists every fault with
its line. `entries` are the values that it consists of, `patterns` says which repositories an entry
reads and where its images go. `vocabulary` has every word of the file, made of `shapes` and
`fields`, of which the loader and the JSON Schema for editors are two views; `yamlfile` below them
knows YAML and nothing else. `filters` decides which tags are mirrored, `matching` whether an
expression matches them, `versions` what a tag is as a version. `importing` translates the files of
`skopeo` sync and `regsync` into `drafts` of ours.

The run: `plan` lists and filters, and knows in the end which image goes where. `run` copies that as
one plan (`carry`), remembers it, takes away what the sources have no more (`prune`, opt-in, and
only what is this mirror's `ownership`), and reports (`events`); an entry that fails fails alone.
`access` says how registries with settings of their own are reached.

After: `lock` keeps records, each one image as its source offered it, in a file for version control;
`records` is what a run will write there. `state` keeps what is complete where, what each tag stood
for and what this mirror created, and `report` what came of one run. Of these only the lock file
decides anything: without the state more is asked, and nothing is done wrongly.

A source is a `Reference` here and a destination a `Location`, from where a file, a row or an
argument is read to where one is written.

Refused here: to guess. An unknown key, `1.10` without quotes and `yes` are errors, and where
another tool's file cannot be carried over, its translation says so.
"""
