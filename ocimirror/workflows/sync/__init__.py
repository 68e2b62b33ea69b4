"""sync: what a configuration asks for, night after night.

`plan` lists and filters: it knows in the end which image goes where. `run` copies that as one
plan, remembers it, and reports; an entry that fails fails alone.
"""
