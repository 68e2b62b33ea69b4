"""Care of a layout: verify, repair, gc, names and what is to be seen of an image.

`verify` hashes everything again and reports every fault, `repair` fetches what is missing or
damaged, `gc` removes what nothing reaches, `names` tags and removes, `inspect` shows an image.
None of them changes content: what was damaged is replaced, by the same digest or not at all.
"""
