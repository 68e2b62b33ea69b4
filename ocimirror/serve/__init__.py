"""A read-only registry over image layouts, with a page for people.

It answers what the distribution-spec calls pull and discovery, from the layouts as they are on the
disk at that moment: what a pull adds or a tag moves is served at once, without a restart. It
refuses every write, and sends no byte of content that was not hashed.

`shelf` says what is on offer, `names` which repository a client means, `files` hands out content,
`registry` answers clients, `page` people, `access` asks who they are, and `server` is the wire.
"""
