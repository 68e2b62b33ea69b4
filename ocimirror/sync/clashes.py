"""Images of several registries that become hard to tell apart where a sync puts them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ocimirror.errors import InvalidReference
from ocimirror.model.clash import Clash, find_clashes
from ocimirror.model.reference import Location


@dataclass(frozen=True, slots=True)
class TargetClash:
    """A repository path that several registries have in one layout, or repository, of a sync.

    Attributes:
        target: the layout, the directory of the layouts, or the repository at a registry.
        clash: which registries; its repository is the path in the target.
    """

    target: str
    clash: Clash

    def text(self) -> str:
        """Return one line that says what comes of it."""
        if self.target.startswith("oci:"):
            return f"{self.target}: {self.clash.text()}"
        *names, last = self.clash.registries
        sources = f"{', '.join(names)} and {last}"
        return f"{self.target} is filled from {sources}: nothing tells their tags apart there"

    def document(self) -> dict[str, object]:
        """Return it as reports have it."""
        answered = self.clash.document() if self.target.startswith("oci:") else {}
        return {
            "destination": self.target,
            "repository": self.clash.repository,
            "registries": list(self.clash.registries),
            "answered_by": answered.get("answered_by"),
        }


def target_clashes(
    images: Iterable[tuple[str, str, str]], targets: Mapping[str, Sequence[str]]
) -> list[TargetClash]:
    """Return the clashes of a run, sorted.

    Args:
        images: entry, source and target of each, as a report has them.
        targets: of each entry, as they are written in the configuration.
    """
    found: dict[str, set[tuple[str, str]]] = {}
    for entry, source, target in images:
        try:
            read, place = Location.parse(source).reference, Location.parse(target)
        except InvalidReference:
            continue
        if read is None:
            continue
        if place.reference is None:
            tree = f"oci:{_tree(place.path, targets.get(entry, ()))}"
            found.setdefault(tree, set()).add((read.registry, read.repository))
        else:
            name = place.reference.name
            found.setdefault(name, set()).add((read.registry, place.reference.repository))
    return [
        TargetClash(target, clash)
        for target in sorted(found)
        for clash in find_clashes(found[target])
    ]


def _tree(path: str, targets: Sequence[str]) -> str:
    """Return the directory below which a target has all its layouts: the part without fields."""
    for text in targets:
        fixed, field, _ = text.removeprefix("oci:").partition("{")
        at = path.find(fixed) if field and text.startswith("oci:") and fixed else -1
        if at >= 0:
            return path[: at + len(fixed)].rpartition("/")[0] or path
    return path
