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
    Engine,
    answer,
    canonical,
    first,
    layers_of,
    one_platform,
    tag_of,
    told,
    words,
)
from ocimirror.engines.receipt import Part, Receipt
from ocimirror.engines.wanted import PlatformImage, Wanted
from ocimirror.errors import EngineFailed, EngineUnavailable
from ocimirror.model.digest import Digest
from ocimirror.model.platform import Platform
from ocimirror.stores.dockerarchive.write import write_image
from ocimirror.stores.store import Source
from ocimirror.stores.stream import Watch
from ocimirror.stores.tar import TarWriter

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
        """Ask by name; the digests of a name are those that were pulled, or put back."""
        image = self.chosen(wanted)
        found = self.inspect(wanted.name)
        if found is None and not wanted.reference.tag:
            found = self.inspect(str(image.config_digest))
        return self.judge(wanted, image, found)

    def judge(
        self, wanted: Wanted, image: PlatformImage, inspected: Mapping[str, Any] | None
    ) -> Receipt:
        """Return the receipt for what `docker image inspect` says of the name."""
        return one_platform(
            self,
            wanted,
            image,
            inspected,
            image_id=str(image.config_digest),
            asked=f"docker image inspect {wanted.name}",
        )

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
    keeps_index = True

    def audit(self, wanted: Wanted) -> Receipt:
        """Ask by name; its Id is the digest that the name stands for."""
        found = self.inspect(wanted.name)
        others: dict[Digest, Mapping[str, Any] | None] = {}
        if found is not None and found.get("Id") == str(wanted.root.digest):
            for image in wanted.images:
                if is_of(found, image):
                    continue
                option = "--platform", str(image.platform)
                try:
                    others[image.manifest.digest] = self.inspect(wanted.name, *option)
                except EngineFailed:
                    break  # (before 28.1: "unknown flag", or it "requires API version 1.49")
        return self.judge(wanted, found, others)

    def judge(
        self,
        wanted: Wanted,
        inspected: Mapping[str, Any] | None,
        others: Mapping[Digest, Mapping[str, Any] | None] = MappingProxyType({}),
    ) -> Receipt:
        """Return the receipt for what `docker image inspect` says.

        The digest chain is the proof of what lies below the root. Docker tells of one platform:
        its own where it has that. What it cannot be asked of is neither kept nor lost.

        Args:
            wanted: the image.
            inspected: the answer for the name; None: no image.
            others: the answers for further platforms, by the digests of their manifests.
        """
        found = inspected or {}
        same = found.get("Id") == str(wanted.root.digest)
        known = same and (
            wanted.by_digest(wanted.root.digest) in canonical(words(found, "RepoDigests"))
        )
        kept, untold = [], []
        for image in wanted.images if same else ():
            digest = image.manifest.digest
            if is_of(found, image) or is_of(others.get(digest) or {}, image):
                kept.append(image)
            elif digest not in others:
                untold.append(image)
        asked = [i for i in wanted.images if i not in untold] if kept else wanted.images
        unknown = ", ".join(image.label for image in untold)
        note = f"this docker does not tell whether it has the content for {unknown}"
        return self.receipt(
            replace(wanted, images=tuple(asked)),
            kept,
            tag=tag_of(wanted, found=inspected is not None, same=same),
            index="not_applicable" if not wanted.is_index else "kept" if known else "lost",
            manifest="kept" if known and kept else "lost",
            config="differs_by_design" if kept else "lost",
            evidence=(told(f"docker image inspect {wanted.name}", inspected),),
            notes=(note,) if kept and untold else (),
        )

    def load(self, source: Source, wanted: Wanted, watch: Watch) -> None:
        """Feed `docker load`, which reads index.json."""
        self.client.feed(
            lambda write: write_archive(source, wanted, "docker", write, watch), "load"
        )
