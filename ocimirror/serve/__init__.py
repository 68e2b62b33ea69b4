"""A read-only registry over image layouts, with a page for people.

It answers what the distribution-spec calls pull and discovery, from the layouts as they are on the
disk at that moment: what a pull adds or a tag moves is served at once, without a restart. It
refuses every write, and sends no byte of content that was not hashed.

Start with `shelf`, what is on offer, and `registry`, what clients are answered. `names` says which
repository they mean, `content` reads and hashes beside the event loop with the help of `proofs` and
`relations`, `page` and `image` are for people. `access` asks who it is, and `turns` in which order;
`watch` sees what changes, `wire` alone speaks HTTP, and `server` puts all of it together.
"""
