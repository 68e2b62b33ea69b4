"""The one verb: copy images from a source to a store without changing a byte.

Refuses to convert: what cannot be carried byte for byte fails with the reason. Read `copy` first
(resolve, walk, transfer, publish; names move last), then `walk` (pure: which manifest leads
where), `plan` (what there is to do) and `transfer` (one blob, tried again where that helps).
"""
