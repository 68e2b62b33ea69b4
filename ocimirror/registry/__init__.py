"""Registries, over the HTTP API of the distribution specification, as stores.

    with Registry("ghcr.io") as registry:
        image = registry["org/app:1.0"]

A run has one `Transport` and for each registry one `RegistryHost`, which knows the endpoint, the
credentials and what was seen there in this run; `RegistryRepository` is the store. `Registry` is
both of them, for a program.

Start with `repository`, and `uploads`, `referrers`, `listing` and `resume` beside it; `parts` says
what those need to know of it. Below them `host` finds the
endpoint and answers challenges, `http` sends and receives `messages`, `limits` says when, `url`
judges every URL that came from outside, `answers` reads header fields and error documents, `tls`
says whom we trust, `notices` passes on what registries want people to know.
`bodies` are read and sent at the rate of the run, `connections` ends each exchange in time,
`failures` says what went wrong below HTTP.
`auth`, which imports oras, and `credentials` are loaded when a registry first asks who we are;
`credential_store` writes what `credentials` reads.

Refused here: a secret for another origin than its own, a URL into a private network, content that
something on the way encoded, and a body sent twice: an upload that failed begins again with a
fresh fetch, and that is the caller's to make.
"""

from ocimirror.registry.host import RegistryHost
from ocimirror.registry.http import Transport
from ocimirror.registry.options import AuthFile, NetworkOptions
from ocimirror.registry.repository import RegistryRepository

__all__ = ["AuthFile", "NetworkOptions", "RegistryHost", "RegistryRepository", "Transport"]
