"""Auditor and Engine: what can be asked of every container engine, and what can be done."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from ocimirror.engines.client import Client
from ocimirror.engines.receipt import Part, Receipt, Tag
from ocimirror.engines.wanted import PlatformImage, Wanted
from ocimirror.errors import EngineFailed, InvalidReference, NotFound, UsageError
from ocimirror.model.digest import Digest
from ocimirror.model.platform import Platform
from ocimirror.model.reference import Reference
from ocimirror.stores.store import Source
from ocimirror.stores.stream import Watch


class Auditor(ABC):
    """What can tell what it has of an image.

    Attributes:
        name: docker, containerd, podman or cri.
        version: as it states it.
        store: what keeps its images: graphdriver, containerd or containers-storage.
        keeps: the parts of an identity that an import leaves there.
        keeps_index: it keeps all platforms of an index, not the one that it runs.
    """

    name: str
    version: str
    store: str
    keeps: frozenset[Part] = frozenset(("tag", "index", "manifest", "config"))
    keeps_index = False

    @abstractmethod
    def platform(self) -> Platform:
        """Return the platform that it runs."""

    def chosen(self, wanted: Wanted) -> PlatformImage:
        """Return the one platform's image that an engine which keeps one is to have.

        Raises:
            NotFound: several, and none of them is for its platform.
        """
        if len(wanted.images) == 1:
            return wanted.images[0]
        found = wanted.image_for(self.platform())
        if found is None:
            here = ", ".join(image.label for image in wanted.images)
            raise NotFound(
                f"image {wanted.name}: nothing here for {self.platform()}, which {self.name} runs",
                advice=f"--platform names one of: {here}",
            )
        return found

    @abstractmethod
    def audit(self, wanted: Wanted) -> Receipt:
        """Ask the engine what it has of an image; nothing is changed.

        Raises:
            EngineUnavailable, EngineFailed: it does not answer.
        """

    def reread(self, wanted: Wanted) -> str:
        """Hash all that the engine has of an image, as it gives it back; say what was hashed.

        Raises:
            UsageError: this engine gives no content back.
            DamagedEngineStore: some of it is not what its digest says.
        """
        raise UsageError(
            f"--deep: image {wanted.name}: {self.name} gives no content back",
            advice="The engine below it does: --in containerd --namespace k8s.io.",
        )

    def receipt(
        self,
        wanted: Wanted,
        kept: Sequence[PlatformImage],
        *,
        notes: Sequence[str] = (),
        **parts: Any,
    ) -> Receipt:
        """Return a receipt of this engine for an image."""
        foreign = dict.fromkeys(layer.digest for i in kept for layer in wanted.foreign(i))
        return Receipt(
            image=wanted.name,
            engine=self.name,
            version=self.version,
            store=self.store,
            kept=tuple(image.label for image in kept),
            asked=tuple(image.label for image in wanted.images),
            notes=(
                *notes,
                *(f"{digest} is a foreign layer: it was not looked for" for digest in foreign),
            ),
            **parts,
        )

    def close(self) -> None:
        """End the connection, where there is one."""
        return


class Engine(Auditor):
    """A container engine that takes images.

    Args:
        client: its command-line client.
    """

    def __init__(self, client: Client) -> None:
        self.client = client

    @abstractmethod
    def load(self, source: Source, wanted: Wanted, watch: Watch) -> None:
        """Import an image that was proved; what came of it, `audit` tells.

        Raises:
            EngineUnavailable, EngineFailed, IntegrityError.
        """


def answer(raw: bytes, what: str) -> Any:
    """Parse JSON that an engine's client printed.

    Raises:
        EngineFailed: it is none.
    """
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise EngineFailed(f"{what}: the answer is no JSON: {raw[:200]!r}") from error


def first(raw: bytes, what: str) -> Mapping[str, Any]:
    """Return the first image of a list that an engine's client printed.

    Raises:
        EngineFailed: it is none; what cannot be read does not say that an image is absent.
    """
    found = answer(raw, what)
    image = found[0] if isinstance(found, list) and found else None
    if not isinstance(image, dict) or not isinstance(image.get("Id"), str):
        raise EngineFailed(f"{what}: the answer is no list of images: {raw[:200]!r}")
    return cast("Mapping[str, Any]", found[0])


def words(document: Mapping[str, Any], key: str) -> list[str]:
    """Return a list of texts of an answer; absent or null is an empty one."""
    value = document.get(key)
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def tag_of(wanted: Wanted, *, found: bool, same: bool) -> Tag:
    """Return what became of the tag: whether the name was found, and stands for the image."""
    if not wanted.reference.tag:
        return "not_applicable"
    return "lost" if not found else "kept" if same else "moved"


Answers = Mapping[str, Mapping[str, Any] | None]
"""What `image inspect` says of each name that was asked for; None: no such image."""


def ask_each(
    inspect: Callable[[str], Mapping[str, Any] | None], wanted: Wanted, digests: Sequence[Digest]
) -> dict[str, Mapping[str, Any] | None]:
    """Ask for an image by its name, and by each of its digests."""
    names = [wanted.name, *(wanted.by_digest(digest) for digest in digests)]
    return {name: inspect(name) for name in dict.fromkeys(names)}


def one_platform(
    engine: Auditor, wanted: Wanted, image: PlatformImage, answers: Answers, *, image_id: str
) -> Receipt:
    """Return the receipt of an engine that keeps one platform, from `image inspect` of each name.

    Args:
        engine: whose answer it is.
        wanted: the image.
        image: the platform that it should have.
        answers: Id, RepoDigests and RootFS of each name, as docker and podman print them.
        image_id: the config's digest as this engine writes it.
    """
    same = {name: found for name, found in answers.items() if found and found.get("Id") == image_id}
    found = next(iter(same.values()), {})
    whole = bool(same) and layers_of(found) == [str(d) for d in image.config.diff_ids]
    index = wanted.by_digest(wanted.root.digest) in same
    manifest = wanted.by_digest(image.manifest.digest) in same
    return engine.receipt(
        wanted.only(image),
        [image] if whole else [],
        tag=tag_of(wanted, found=answers.get(wanted.name) is not None, same=wanted.name in same),
        index="not_applicable" if not wanted.is_index else "kept" if index else "lost",
        manifest="kept" if manifest else "lost",
        config="kept" if whole else "lost",
        evidence=evidence_of(engine, answers),
    )


def evidence_of(engine: Auditor, answers: Answers) -> tuple[str, ...]:
    """Return each question to `image inspect` with its answer."""
    return tuple(
        told(f"{engine.name} image inspect {name}", found) for name, found in answers.items()
    )


def told(asked: str, inspected: Mapping[str, Any] | None) -> str:
    """Return the answer to `image inspect` as evidence."""
    if inspected is None:
        return f"{asked}: no such image"
    digests = " ".join(words(inspected, "RepoDigests"))
    return f"{asked}: Id={inspected.get('Id')} RepoDigests=[{digests}]"


def layers_of(inspected: Mapping[str, Any]) -> list[str]:
    """Return the diff_ids that `image inspect` tells."""
    rootfs = inspected.get("RootFS")
    return words(rootfs, "Layers") if isinstance(rootfs, dict) else []


def canonical(names: Sequence[str]) -> set[str]:
    """Return references as they are written in full; Docker shortens those of docker.io."""
    found = set()
    for name in names:
        try:
            found.add(str(Reference.parse(name)))
        except InvalidReference:
            continue
    return found
