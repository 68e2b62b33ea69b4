"""The same in a tar: `archive` is the store, `tarmembers` reads at random, `tar` writes.

Everything in a tar is hostile: nothing is ever extracted from one.
"""
