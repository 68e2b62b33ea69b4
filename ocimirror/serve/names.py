"""Which repository a client means. Never one of another registry than the client has named.

1. With `ns=HOST`, as containerd sends it: that host's, and no other's.
2. With the host in front, as `push --keep-host` writes it (`host_5000` for `host:5000`): that
   host's.
3. With the repository alone: docker.io's (or that of `prefer`), as Docker asks its mirrors;
   otherwise the only one of that name; of several, none.
"""

from __future__ import annotations

from dataclasses import dataclass

from ocimirror.errors import InvalidReference
from ocimirror.model.clash import Clash
from ocimirror.model.platform import sparse_text
from ocimirror.model.reference import DOCKER_HUB, check_registry, check_repository
from ocimirror.serve.answers import Refused
from ocimirror.serve.shelf import Repository, Snapshot


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose repositories are served.

    Attributes:
        only: the one registry that is served; empty for all.
        prefer: the registry that a path without one means, if it has that path.
    """

    only: str = ""
    prefer: str = DOCKER_HUB


def folder_of(registry: str) -> str:
    """Return a host as it is written in a path."""
    return registry.replace(":", "_")


def find_repository(
    snapshot: Snapshot, name: str, ns: str = "", scope: Scope = Scope()
) -> Repository:
    """Return the repository of that name.

    Args:
        name: as it is in the path of the request.
        ns: the host that the client asks for; empty for none.
        scope: whose repositories are served.

    Raises:
        Refused: not a name, not one of ours, or one that several registries have.
    """
    try:
        check_repository(name)
        registry = _host(ns, scope)
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
        found = found or _of_path(snapshot, name, scope)
    if found is None:
        raise Refused(404, "NAME_UNKNOWN", f"no repository {name}" + (f" of {ns}" if ns else ""))
    return found


def _of_path(snapshot: Snapshot, name: str, scope: Scope) -> Repository | None:
    several = snapshot.by_name.get(name, ())
    if len(several) < 2:
        return next(iter(several), None)
    clash = Clash(name, tuple(sorted(repository.registry for repository in several)))
    answered = clash.answered_by(scope.prefer)
    if answered:
        return snapshot.repositories[answered, name]
    paths = [f"{folder_of(registry)}/{name}" for registry in clash.registries if registry]
    raise Refused(
        404,
        "NAME_UNKNOWN",
        f"{clash.text(scope.prefer)}: ask for {' or '.join(paths)}, or with ?ns=",
        ambiguous=True,
    )


def shortest_name(snapshot: Snapshot, repository: Repository, scope: Scope = Scope()) -> str:
    """Return the shortest name under which a client without `ns=` finds a repository."""
    try:
        found = find_repository(snapshot, repository.name, scope=scope)
    except Refused:
        found = None
    if found is repository or not repository.registry:
        return repository.name
    return f"{folder_of(repository.registry)}/{repository.name}"


def listed_names(snapshot: Snapshot, ns: str = "", scope: Scope = Scope()) -> list[str]:
    """Return the names of all repositories, sorted; of two with one path both are found by theirs.

    A repository without a registry, whose path registries have too, has no name and is left out.

    Raises:
        Refused: `ns` is no host.
    """
    try:
        registry = _host(ns, scope)
    except InvalidReference as error:
        raise Refused(400, "NAME_INVALID", error.message) from error
    if registry:
        return sorted(name for host, name in snapshot.repositories if host == registry)
    return sorted(
        {
            shortest_name(snapshot, found, scope)
            for found in snapshot.repositories.values()
            if found.registry or len(snapshot.by_name[found.name]) == 1
        }
    )


def warnings_of(snapshot: Snapshot, scope: Scope) -> list[str]:
    """Return one line for each path that several registries have, and each image not whole."""
    lines = [] if scope.only else [clash.text(scope.prefer) for clash in snapshot.clashes]
    for name, platforms in snapshot.sparse.items():
        if not scope.only or name.startswith(f"{scope.only}/"):
            lines.append(sparse_text(name, platforms))
    return lines


def _host(ns: str, scope: Scope) -> str:
    """Return the host whose repositories are meant, empty for any."""
    registry = check_registry(ns) if ns else scope.only
    if scope.only and registry != scope.only:
        raise Refused(404, "NAME_UNKNOWN", f"nothing of {registry} is served here")
    return registry
