"""Places that hold content. Read `memory` first: it is the contract, executed.

`store` defines Source and Store: the public methods are final, backends fill in underscore
hooks. `stream` holds VerifiedStream, the only door out of and into every store: whoever received
all the bytes of a descriptor received verified bytes. Nothing here follows a graph.
"""
