"""The benchmark: whole processes, side by side, on one machine in one run.

    .venv/bin/python -m bench [--quick] [--only ROW] [--runs N] [--markdown FILE]

Numbers of two machines, or of two hours, cannot be compared; ratios of neighbouring runs can. So
every tool does the same work in turns (A B A B), each turn gives a ratio to Debian's skopeo, and
the median of those is what is printed, between the smallest and the largest.

Start with `__main__`. `rows_bulk`, `rows_tags` and `rows_small` hold the rows of the table,
`tools` the command lines of the tools, `content` what is copied, `sites` the registries, `measure`
takes the time and `report` prints. `launch`, `delay` and `many` run as processes of their own: what
starts a measured process, a slow network, and a copy of many tags in one process.

Nothing is left out silently: a tool that is absent is named, one that fails is a line that says so.
"""
