"""Container engines: an archive goes in, and a receipt says what the engine kept of it.

Engines are no stores: nothing can be written into them under a digest, they take an archive or
pull from a registry, and keep of an image's identity what their own stores can hold. So each is
asked afterwards what it has, and only its answers are believed.

`client` runs an engine's command-line client.
"""
