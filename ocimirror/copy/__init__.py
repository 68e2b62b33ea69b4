"""The one verb: copy images from a source to a store without changing a byte.

Refuses to convert: what cannot be carried byte for byte fails with the reason. Read `pipeline`
first (resolve, walk, plan, transfer, publish; names move last), then `walk` (what an image consists
of), `plan` (what there is to do) and `transfer` (one piece of content, tried again if that helps).

Above them are the journeys: `pull`, `push`, and a copy between any two `locations`, which `places`
opens and `naming` names; `library` has the same for a program.
"""
