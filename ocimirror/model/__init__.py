"""The specifications' words as immutable values. Pure: no I/O, standard library only.

Parsing happens here and nowhere else, so a Digest, Reference or Manifest that exists is valid.
Start with `digest`, then `descriptor`, then `manifest`: it holds the raw bytes beside the parsed
view and has no serialiser, which is why a copy cannot change a digest.
"""
