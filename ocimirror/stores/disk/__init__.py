"""Files on this machine: opened without following links, written whole or not at all.

`oslayer` has the operations that change the disk, `atomic` makes them durable, `files` reads.
"""
