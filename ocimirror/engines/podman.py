"""Podman, and all who share its storage: one platform of an image, with its digests.

Podman guesses what an archive is and hides why a guess failed, so the transport is named and the
archive holds one image and nothing that could be taken for another kind (podman#18809).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import IO, Any

from ocimirror.engines.archive import write_archive
from ocimirror.engines.client import Client
from ocimirror.engines.engine import Answers, Engine, answer, ask_each, first, one_platform
from ocimirror.engines.receipt import Receipt
from ocimirror.engines.saved import hash_unpacked
from ocimirror.engines.scratch import scratch_file
from ocimirror.engines.wanted import PlatformImage, Wanted
from ocimirror.errors import EngineFailed, storage_errors
from ocimirror.model.platform import Platform
from ocimirror.stores.store import Source
from ocimirror.stores.stream import Watch


class Podman(Engine):
    """The containers-storage of one Podman.

    Args:
        client: `podman`, with its options.

    Raises:
        EngineUnavailable: it is not installed.
    """

    name = "podman"
    store = "containers-storage"

    def __init__(self, client: Client) -> None:
        super().__init__(client)
        info = answer(client.ask("info", "--format", "json"), "podman info")
        self._host = info.get("host", {}) if isinstance(info, dict) else {}
        version = info.get("version", {}) if isinstance(info, dict) else {}
        self.version = str(version.get("Version", ""))

    def platform(self) -> Platform:
        """Return the platform that it runs."""
        system = str(self._host.get("os") or "linux")
        return Platform.of_machine(str(self._host.get("arch") or ""), system)

    def inspect(self, name: str) -> Mapping[str, Any] | None:
        """Return what podman knows of an image, None where it has no such image."""
        try:
            raw = self.client.ask("image", "inspect", name)
        except EngineFailed as error:
            if "not known" in error.message or "no such image" in error.message.lower():
                return None
            raise
        return first(raw, "podman image inspect")

    def audit(self, wanted: Wanted) -> Receipt:
        """Ask by name, by the index's digest and by the manifest's."""
        image = self.chosen(wanted)
        digests = wanted.root.digest, image.manifest.digest
        return self.judge(wanted, image, ask_each(self.inspect, wanted, digests))

    def judge(self, wanted: Wanted, image: PlatformImage, answers: Answers) -> Receipt:
        """Return the receipt for what `podman image inspect` says of each name."""
        return one_platform(self, wanted, image, answers, image_id=image.config_digest.encoded)

    def reread(self, wanted: Wanted) -> str:
        """Have podman save the image, and hash the config and the unpacked layers."""
        image = self.chosen(wanted)
        image_id = image.config_digest.encoded
        if self.inspect(image_id) is None:
            return f"podman image inspect {image_id}: no such image, nothing to hash"
        words = ("save", "--quiet", "--format", "docker-archive", image_id)
        return f"podman save: {hash_unpacked(self.client, words, wanted, image, self.name)} hashed"

    def export(self, name: str, file: IO[bytes]) -> None:
        """Write an image as docker would into a file.

        In podman's own format too, the layers would be compressed anew (podman#18809).
        """
        self.client.save(file, "save", "--quiet", "--format", "docker-archive", name)

    def load(self, source: Source, wanted: Wanted, watch: Watch) -> None:
        """Write an archive of one image and one entry, and have it pulled from there."""
        image = self.chosen(wanted)
        one = wanted.only(image)
        one.refuse_foreign(image)
        with storage_errors("cannot write the archive for podman"):
            with scratch_file("ocimirror-podman-") as file:
                write_archive(source, one, "podman", file.write, watch)
                file.flush()
                # (Podman looks for its own platform unless it is told.)
                known = image.platform.os and image.platform.architecture
                options = ["--platform", str(image.platform)] if known else []
                self.client.run("pull", *options, f"oci-archive:{file.name}")
