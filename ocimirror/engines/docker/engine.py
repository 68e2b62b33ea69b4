"""Docker: through its client, into whichever of its two stores it has.

The graphdriver's store knows an image by its config's digest and keeps no manifest: what an
archive leaves of the identity is the tag and the image ID (moby#22011), and a digest is known
only for what was pulled. The containerd store keeps all bytes, and knows an image by the digest
that its name stands for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import IO, Any

from ocimirror.engines.archive import write_archive
from ocimirror.engines.client import Client
from ocimirror.engines.engine import (
    Answers,
    Engine,
    answer,
    ask_each,
    canonical,
    evidence_of,
    first,
    layers_of,
    one_platform,
    tag_of,
    words,
)
from ocimirror.engines.receipt import Part, Receipt
from ocimirror.engines.saved import hash_blobs, hash_unpacked
from ocimirror.engines.wanted import PlatformImage, Wanted
from ocimirror.errors import EngineFailed, EngineUnavailable
from ocimirror.model.digest import Digest
from ocimirror.model.platform import Platform
from ocimirror.stores.archive.tar import TarWriter
from ocimirror.stores.dockerarchive.write import write_image
from ocimirror.stores.store import Source
from ocimirror.stores.stream import Watch

CONTAINERD_STORE = "io.containerd.snapshotter.v1"
_ABSENT = ("no such image", "the specified platform")


def store_of(info: Mapping[str, Any]) -> str:
    """Return which store `docker info` speaks of: `containerd` or `graphdriver`."""
    status = info.get("DriverStatus")
    pairs = status if isinstance(status, list) else []
    return "containerd" if any(CONTAINERD_STORE in pair for pair in pairs) else "graphdriver"


def docker(client: Client) -> Docker:
    """Find out which store a Docker has.

    Raises:
        EngineUnavailable: no client, or no daemon behind it.
    """
    info = info_of(client)
    kind = DockerContainerd if store_of(info) == "containerd" else DockerGraphdriver
    return kind(client, info)


def info_of(client: Client) -> Mapping[str, Any]:
    """Return what `docker info` says.

    Raises:
        EngineUnavailable: no client, or no daemon behind it.
    """
    info = answer(client.ask("info", "--format", "{{json .}}"), "docker info")
    if not isinstance(info, dict) or not info.get("ServerVersion"):
        said = "; ".join(words(info, "ServerErrors")) if isinstance(info, dict) else ""
        raise EngineUnavailable(f"docker does not answer ({client.where}): {said}")
    return info


def is_of(inspected: Mapping[str, Any], image: PlatformImage) -> bool:
    """Whether `docker image inspect` tells of this platform's image: layers and architecture."""
    platform = image.config.platform
    if layers_of(inspected) != [str(diff_id) for diff_id in image.config.diff_ids]:
        return False
    stated = inspected.get("Os"), inspected.get("Architecture")
    return not all(stated) or not platform.os or stated == (platform.os, platform.architecture)


class Docker(Engine):
    """What both stores have in common.

    Args:
        client: `docker`, with the options that say which daemon.
        info: what `docker info` says.
    """

    name = "docker"

    def __init__(self, client: Client, info: Mapping[str, Any]) -> None:
        super().__init__(client)
        self.info = info
        self.version = str(info["ServerVersion"])

    def platform(self) -> Platform:
        """Return the daemon's platform."""
        system = str(self.info.get("OSType") or "linux")
        return Platform.of_machine(str(self.info.get("Architecture") or ""), system)

    def pull_options(self, image: PlatformImage, asked: str = "") -> Sequence[str]:
        """Return what `docker pull` has to be told where it would look for another platform."""
        offered = image.platform
        known = offered.os and offered.architecture
        if not asked and (not known or self.platform().matches(offered)):
            return ()
        return "--platform", asked or str(offered)

    def current_info(self) -> Mapping[str, Any]:
        """Ask for the information again, also in a run that was told to stop."""
        return info_of(self.unstopped())

    def unstopped(self) -> Client:
        """Return the client for questions that are asked also in a run that was told to stop."""
        return Client(self.client.argv, self.client.where)

    def export(self, name: str, file: IO[bytes]) -> None:
        """Write what `docker save` makes of an image into a file."""
        self.client.save(file, "save", name)

    def inspect(self, name: str, *options: str) -> Mapping[str, Any] | None:
        """Return what docker knows of an image, None where it has no such image."""
        try:
            raw = self.client.ask("image", "inspect", *options, name)
        except EngineFailed as error:
            if any(words in error.message.lower() for words in _ABSENT):
                return None
            raise
        return first(raw, "docker image inspect")


class DockerGraphdriver(Docker):
    """The store of Docker up to 28 by default: configs and unpacked layers, no manifests."""

    store = "graphdriver"
    keeps: frozenset[Part] = frozenset(("tag", "config"))

    def audit(self, wanted: Wanted) -> Receipt:
        """Ask by name and by each digest: those that were pulled, or put back, are known."""
        image = self.chosen(wanted)
        answers = ask_each(self.inspect, wanted, (wanted.root.digest, image.manifest.digest))
        if not any(answers.values()):
            image_id = str(image.config_digest)
            answers[image_id] = self.inspect(image_id)
        return self.judge(wanted, image, answers)

    def judge(self, wanted: Wanted, image: PlatformImage, answers: Answers) -> Receipt:
        """Return the receipt for what `docker image inspect` says of each name."""
        return one_platform(self, wanted, image, answers, image_id=str(image.config_digest))

    def reread(self, wanted: Wanted) -> str:
        """Have docker save the image, and hash the config and the unpacked layers."""
        image = self.chosen(wanted)
        image_id = str(image.config_digest)
        if self.inspect(image_id) is None:
            return f"docker image inspect {image_id}: no such image, nothing to hash"
        words = ("save", image_id)
        return f"docker save: {hash_unpacked(self.client, words, wanted, image, self.name)} hashed"

    def load(self, source: Source, wanted: Wanted, watch: Watch) -> None:
        """Feed `docker load` with what every version of it reads: zstd layers decompressed."""
        image = self.chosen(wanted)
        wanted.refuse_foreign(image)
        self.client.feed(
            lambda write: write_image(
                TarWriter(write), source, image.manifest, str(wanted.reference), None, watch
            ),
            "load",
        )


class DockerContainerd(Docker):
    """The containerd store: a choice since 24, the default of a fresh 29."""

    store = "containerd"
    keeps: frozenset[Part] = frozenset(("tag", "index", "config"))
    keeps_index = True

    def audit(self, wanted: Wanted) -> Receipt:
        """Ask by name and by each digest; an Id is the digest that the name stands for."""
        digests = [wanted.root.digest, *(image.manifest.digest for image in wanted.images)]
        answers = ask_each(self.inspect, wanted, digests)
        others: dict[Digest, Mapping[str, Any] | None] = {}
        name = self._name_of_root(wanted, answers)
        for image in wanted.images if name else ():
            if is_of(answers[name] or {}, image):
                continue
            try:
                found = self.inspect(name, "--platform", str(image.platform))
            except EngineFailed:
                break  # (before 28.1: "unknown flag", or it "requires API version 1.49")
            # (Of two manifests for one platform, docker tells of one.)
            alike = [i for i in wanted.images if i.platform == image.platform]
            if found is None or len(alike) == 1 or is_of(found, image):
                others[image.manifest.digest] = found
        return self.judge(wanted, answers, others)

    def _name_of_root(self, wanted: Wanted, answers: Answers) -> str:
        """Return a name that stands for the whole image; empty if none does."""
        root = str(wanted.root.digest)
        return next(
            (name for name, found in answers.items() if found and found.get("Id") == root), ""
        )

    def judge(
        self,
        wanted: Wanted,
        answers: Answers,
        others: Mapping[Digest, Mapping[str, Any] | None] = MappingProxyType({}),
    ) -> Receipt:
        """Return the receipt for what `docker image inspect` says.

        The digest chain is the proof of what lies below the root. Docker tells of one platform:
        its own where it has that. What it cannot be asked of is neither kept nor lost.

        Args:
            wanted: the image.
            answers: what it says of the name and of each digest.
            others: the answers for further platforms, by the digests of their manifests.
        """
        root = wanted.by_digest(wanted.root.digest)
        name = self._name_of_root(wanted, answers)
        found = answers.get(name) or {}
        known = (answers.get(root) or {}).get("Id") == str(wanted.root.digest) and (
            root in canonical(words(answers.get(root) or {}, "RepoDigests"))
        )
        kept, untold, by_digest = [], [], []
        for image in wanted.images:
            digest = image.manifest.digest
            own = answers.get(wanted.by_digest(digest)) or {}
            if own.get("Id") not in (str(digest), str(wanted.root.digest)):
                own = {}
            if is_of(own, image):
                by_digest.append(image)
            if any(is_of(a, image) for a in (own, found, others.get(digest) or {})):
                kept.append(image)
            elif name and digest not in others:
                untold.append(image)
        asked = [i for i in wanted.images if i not in untold] if kept else wanted.images
        unknown = ", ".join(image.label for image in untold)
        notes = []
        if kept and untold:
            notes = [f"this docker does not tell whether it has the content for {unknown}"]
        unnamed = [image for image in kept if image not in by_digest]
        if known and unnamed:
            notes.append(
                "this store finds an image by its index's digest, not by a manifest's: "
                + ", ".join(wanted.by_digest(image.manifest.digest) for image in unnamed)
            )
        return self.receipt(
            replace(wanted, images=tuple(asked)),
            kept,
            tag=tag_of(
                wanted, found=answers.get(wanted.name) is not None, same=name == wanted.name
            ),
            index="not_applicable" if not wanted.is_index else "kept" if known else "lost",
            manifest="kept" if kept and not unnamed else "lost",
            config="differs_by_design" if kept else "lost",
            evidence=evidence_of(self, answers),
            notes=notes,
        )

    def reread(self, wanted: Wanted) -> str:
        """Have docker save the image, and hash each manifest and blob."""
        digests = [wanted.root.digest]
        answers = ask_each(self.inspect, wanted, digests)
        name = self._name_of_root(wanted, answers)
        if not name:
            return f"docker image inspect {wanted.name}: not this image, nothing to hash"
        return f"docker save: {hash_blobs(self.client, ('save', name), wanted, self.name)} hashed"

    def load(self, source: Source, wanted: Wanted, watch: Watch) -> None:
        """Feed `docker load`, which reads index.json."""
        self.client.feed(
            lambda write: write_archive(source, wanted, "docker", write, watch), "load"
        )
