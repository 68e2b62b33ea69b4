"""Repositories of one path in several registries, which a request without a registry confuses."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ocimirror.model.reference import DOCKER_HUB


@dataclass(frozen=True, slots=True)
class Clash:
    """A repository path that several registries have.

    Attributes:
        repository: the path.
        registries: which have it, sorted; empty text for names without a registry.
    """

    repository: str
    registries: tuple[str, ...]

    def answered_by(self, prefer: str = DOCKER_HUB) -> str:
        """Return the registry whose repository a path without a registry means; empty for none."""
        return prefer if prefer in self.registries else ""

    def text(self, prefer: str = DOCKER_HUB) -> str:
        """Return one line that says what `serve` answers."""
        *names, last = [registry or "no registry" for registry in self.registries]
        where = f"{self.repository} is in {', '.join(names)} and {last}"
        answered = self.answered_by(prefer)
        if answered:
            return f"{where}; a request that names no registry gets that of {answered}"
        return f"{where}; a request that names no registry gets 404"

    def document(self, prefer: str = DOCKER_HUB) -> dict[str, object]:
        """Return it as reports have it."""
        return {
            "repository": self.repository,
            "registries": list(self.registries),
            "answered_by": self.answered_by(prefer) or None,
        }


def find_clashes(repositories: Iterable[tuple[str, str]]) -> tuple[Clash, ...]:
    """Return the clashes among (registry, repository) pairs, sorted by repository."""
    registries: dict[str, set[str]] = {}
    for registry, repository in repositories:
        registries.setdefault(repository, set()).add(registry)
    return tuple(
        Clash(repository, tuple(sorted(found)))
        for repository, found in sorted(registries.items())
        if len(found) > 1
    )
