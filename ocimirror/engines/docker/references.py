"""Docker's reference store, `repositories.json`: which name stands for which image.

dockerd with a graphdriver keeps it in image/<driver>/ below its data root, reads it once, when it
starts, and writes it anew with every name that it adds. Upstream calls it an implementation detail
(moby#49386), so it is edited as it was parsed: what is not understood here stays.

    {"Repositories": {"example.com/app": {"example.com/app:1.0": "sha256:<image ID>",
                                          "example.com/app@sha256:…": "sha256:<image ID>"}}}

Names are written as Docker shows them, without `docker.io/` and `library/`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

from ocimirror.errors import (
    DamagedEngineStore,
    DigestTaken,
    InvalidReference,
    MalformedManifest,
)
from ocimirror.model import strictjson
from ocimirror.model.digest import Digest
from ocimirror.model.reference import DOCKER_HUB, Reference

MAX_SIZE_BYTES = 256 * 1024 * 1024
_REPOSITORIES = "Repositories"


@dataclass(frozen=True, slots=True)
class DockerName:
    """A name in Docker, with a tag or a digest and never both, and the image it stands for."""

    reference: Reference
    image_id: Digest

    def __str__(self) -> str:
        return familiar(self.reference)


def familiar(reference: Reference) -> str:
    """Return a reference as Docker writes it: `docker.io/library/alpine:3` is `alpine:3`."""
    tag = f":{reference.tag}" if reference.tag else ""
    digest = f"@{reference.digest}" if reference.digest else ""
    return f"{_familiar_name(reference)}{tag}{digest}"


def _familiar_name(reference: Reference) -> str:
    if reference.registry != DOCKER_HUB:
        return reference.name
    library, slash, rest = reference.repository.partition("/")
    official = library == "library" and slash and "/" not in rest
    return rest if official else reference.repository


class DockerReferences:
    """The parsed document; immutable, `with_digests` returns the bytes of a new one.

    Attributes:
        names: what dockerd would read, in the document's order.
        unread: keys that dockerd keeps out of use, because they are no names or stand for no
            image ID.
    """

    def __init__(self, document: dict[str, object], what: str) -> None:
        self._document = document
        self._what = what
        self.names: tuple[DockerName, ...] = ()
        self.unread: tuple[str, ...] = ()
        names, unread = [], []
        for key, image_id in _pairs(document, what):
            try:
                reference = Reference.parse(key)
                names.append(DockerName(reference, Digest.parse(image_id)))
            except InvalidReference:
                unread.append(key)
        self.names, self.unread = tuple(names), tuple(unread)
        self._images = {name.reference: name.image_id for name in names}

    @classmethod
    def parse(cls, raw: bytes, what: str) -> DockerReferences:
        """Parse repositories.json.

        Args:
            raw: the whole file.
            what: its path, for errors.

        Raises:
            DamagedEngineStore: truncated, not strict JSON, or of another shape.
        """
        try:
            return cls(strictjson.loads(raw, what), what)
        except MalformedManifest as error:
            raise DamagedEngineStore(error.message) from error

    def image_of(self, reference: Reference) -> Digest | None:
        """Return the ID of the image that a name stands for, None where Docker has no such name."""
        return self._images.get(reference)

    def with_digests(self, additions: Iterable[DockerName]) -> bytes:
        """Return the document with names by digest added, in the bytes that dockerd would write.

        A name that is there already for the same image stays as it is.

        Raises:
            DigestTaken: a name stands for another image; none is ever moved.
        """
        repositories = {
            name: dict(cast("dict[str, str]", names))
            for name, names in cast("dict[str, object]", self._document[_REPOSITORIES]).items()
        }
        for name in additions:
            if name.reference.digest is None or name.reference.tag:
                raise ValueError(f"{name} is no name by digest")
            names = repositories.setdefault(_familiar_name(name.reference), {})
            there = self._images.get(name.reference) or names.get(str(name))
            if there is None:
                names[str(name)] = str(name.image_id)
            elif str(there) != str(name.image_id):
                raise taken(name, str(there), self._what)
        ordered = {name: dict(sorted(names.items())) for name, names in repositories.items()}
        whole = {**self._document, _REPOSITORIES: dict(sorted(ordered.items()))}
        text = json.dumps(whole, ensure_ascii=False, separators=(",", ":"))
        # (As Go's encoding/json does, so that the file stays byte for byte what dockerd writes.)
        for character in "<>&\u2028\u2029":
            text = text.replace(character, f"\\u{ord(character):04x}")
        return text.encode()


def taken(name: DockerName, image_id: str, what: str) -> DigestTaken:
    """Return the error for a name by digest that stands for another image."""
    return DigestTaken(f"{what}: {name} stands for the image {image_id}, not for {name.image_id}")


def _pairs(document: dict[str, object], what: str) -> Iterable[tuple[str, str]]:
    repositories = document.get(_REPOSITORIES)
    if not isinstance(repositories, dict):
        raise DamagedEngineStore(f"{what}: no {_REPOSITORIES}")
    if any(key != _REPOSITORIES and key.lower() == _REPOSITORIES.lower() for key in document):
        raise DamagedEngineStore(f"{what}: {_REPOSITORIES} twice, which dockerd would read as one")
    for repository, names in repositories.items():
        if not isinstance(names, dict) or not all(isinstance(v, str) for v in names.values()):
            raise DamagedEngineStore(f"{what}: {repository!r} does not map names to image IDs")
        yield from names.items()
