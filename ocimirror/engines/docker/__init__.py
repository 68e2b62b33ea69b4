"""Docker: two kinds of store behind one client, and on its own machine more than a client can do.

`engine` loads images and asks about them, in either store. What needs the machine of the daemon:
`alias` is what dockerd is told for a moment so that it pulls original names from here; `references`
is repositories.json as a document and `root` Docker's data root around it; `use` tells whether a
dockerd uses that root, `process` finds the one that does, and `daemon` stops and starts it.
"""
