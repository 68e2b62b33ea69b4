"""Which repository a client means.

1. With `ns=HOST`, as containerd sends it: that host's, and no other's.
2. With the host in front, as `push --keep-host` writes it (`host_5000` for `host:5000`): that
   host's.
3. With the repository alone: the only one of that name, else that of the first layout.
"""

from __future__ import annotations

from ocimirror.errors import InvalidReference
from ocimirror.model.reference import check_registry, check_repository
from ocimirror.serve.answers import Refused
from ocimirror.serve.shelf import Repository, Snapshot


def folder_of(registry: str) -> str:
    """Return a host as it is written in a path."""
    return registry.replace(":", "_")


def find_repository(snapshot: Snapshot, name: str, ns: str = "", only: str = "") -> Repository:
    """Return the repository of that name.

    Args:
        name: as it is in the path of the request.
        ns: the host that the client asks for; empty for none.
        only: the one host that is served; empty for all.

    Raises:
        Refused: no name, or not one of ours.
    """
    try:
        check_repository(name)
        registry = _host(ns, only)
    except InvalidReference as error:
        raise Refused(400, "NAME_INVALID", error.message) from error
    found: Repository | None
    first, _, rest = name.partition("/")
    if registry:
        found = snapshot.repositories.get((registry, name))
        if found is None and first == folder_of(registry):
            found = snapshot.repositories.get((registry, rest))
    else:
        # (The host in front first: a repository of another may be called like it.)
        host = snapshot.folders.get(first, "")
        found = snapshot.repositories.get((host, rest)) if host else None
        found = found or next(iter(snapshot.by_name.get(name, ())), None)
    if found is None:
        raise Refused(404, "NAME_UNKNOWN", f"no repository {name}" + (f" of {ns}" if ns else ""))
    return found


def shortest_name(snapshot: Snapshot, repository: Repository, only: str = "") -> str:
    """Return the shortest name under which a client without `ns=` finds a repository."""
    found = find_repository(snapshot, repository.name, only=only)
    if found is repository or not repository.registry:
        return repository.name
    return f"{folder_of(repository.registry)}/{repository.name}"


def listed_names(snapshot: Snapshot, ns: str = "", only: str = "") -> list[str]:
    """Return the names of all repositories, sorted; of two with one path both are found by theirs.

    Raises:
        Refused: `ns` is no host.
    """
    try:
        registry = _host(ns, only)
    except InvalidReference as error:
        raise Refused(400, "NAME_INVALID", error.message) from error
    if registry:
        return sorted(name for host, name in snapshot.repositories if host == registry)
    return sorted({shortest_name(snapshot, found) for found in snapshot.repositories.values()})


def _host(ns: str, only: str) -> str:
    """Return the host whose repositories are meant, empty for any."""
    registry = check_registry(ns) if ns else only
    if only and registry != only:
        raise Refused(404, "NAME_UNKNOWN", f"nothing of {registry} is served here")
    return registry
