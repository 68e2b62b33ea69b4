"""Docker: two kinds of store behind one client, and on its own machine more than a client can do.

`engine` loads images and asks about them, in either store. What needs the machine of the daemon:

`alias` lets dockerd pull original names from here: `redirect` is what it is told for that moment,
and `borrowed` changes those files and puts them back, also after a crash. `refs` shows the digests
that an older Docker has lost, and `restore` writes them back: `references` is repositories.json as
a document, `root` Docker's data root around it, and `chains` proves what is written, down to the
layers that `diffid` unpacks. `use` tells whether a dockerd uses that root, `process` and `socket`
find the one that does, and `daemon` stops and starts it.
"""
