"""Container engines: an archive goes in, and a receipt says what the engine kept of it.

Engines are no stores: nothing can be written into them under a digest, they take an archive or
pull from a registry, and keep of an image's identity what their own stores can hold. So each is
asked afterwards what it has, and only its answers are believed.

Start with `engine` (what can be asked and done), `wanted` (what an engine is to have, proved) and
`receipt` (what it kept). `load` and `save` are the two journeys, `routes` the ways in, and
`opening` finds the engine that a command names: `docker`, `containerd`, `podman` or `cri`. Below
them `client` runs an engine's command-line client, `archive` is what it is fed with, `saved` is
what comes out, and `contentstore` reads containerd's.
"""
