"""containerd: through `ctr`, which comes with it.

containerd keeps all bytes, and an image is a record: a name and what it stands for. CRI finds an
image by digest only where a record has that name, so the archive names its own digests. What an
import without `--all-platforms` leaves unlabelled goes at the next garbage collection.
"""

from __future__ import annotations

from collections.abc import Sequence

from ocimirror.engines.archive import write_archive
from ocimirror.engines.client import Client
from ocimirror.engines.engine import Engine, tag_of
from ocimirror.engines.receipt import Receipt
from ocimirror.engines.wanted import Wanted
from ocimirror.model.platform import Platform
from ocimirror.stores.profiles import this_linux
from ocimirror.stores.store import Source
from ocimirror.stores.stream import Watch


class Containerd(Engine):
    """containerd's content store and the image records of one namespace.

    Args:
        client: `ctr`, with its address and namespace.

    Raises:
        EngineUnavailable: no `ctr`, or no containerd behind it.
    """

    name = "containerd"
    store = "containerd"
    keeps_index = True

    def __init__(self, client: Client) -> None:
        super().__init__(client)
        server = client.ask("version").decode("utf-8", "replace").partition("Server:")[2]
        self.version = server.partition("Version:")[2].strip().partition("\n")[0].strip()

    def platform(self) -> Platform:
        """Return the platform of this machine; containerd's socket is local."""
        return this_linux()

    def records(self) -> dict[str, str]:
        """Return what each name of the namespace stands for, by digest."""
        lines = self.client.ask("images", "ls").decode("utf-8", "replace").splitlines()[1:]
        columns = [line.split() for line in lines]
        return {row[0]: row[2] for row in columns if len(row) > 2}

    def content(self) -> set[str]:
        """Return the digests of the namespace's content; containerd computed them itself."""
        return set(self.client.ask("content", "ls", "-q").decode("utf-8", "replace").split())

    def audit(self, wanted: Wanted) -> Receipt:
        """Compare the records and the closure with what containerd has, by digest."""
        return self.judge(wanted, self.records(), self.content())

    def judge(self, wanted: Wanted, records: dict[str, str], content: set[str]) -> Receipt:
        """Return the receipt for the records and the content of a namespace."""
        root = str(wanted.root.digest)
        shared = [wanted.root, *(m for m in wanted.manifests if m.manifests)]
        held = all(str(manifest.digest) in content for manifest in shared)
        kept = [
            image
            for image in wanted.images
            if held
            and str(image.manifest.digest) in content
            and all(
                str(blob.digest) in content for blob in image.manifest.blobs if blob in wanted.blobs
            )
        ]
        named = {
            digest: records.get(wanted.by_digest(digest))
            for digest in (wanted.root.digest, *(image.manifest.digest for image in kept))
        }
        by_digest = all(target == str(digest) for digest, target in named.items())
        found = records.get(wanted.name)
        index = named[wanted.root.digest] == root and held
        return self.receipt(
            wanted,
            [image.platform for image in kept],
            tag=tag_of(wanted, found=found is not None, same=found == root),
            index="not_applicable" if not wanted.is_index else "kept" if index else "lost",
            manifest="kept" if by_digest and kept else "lost",
            config="kept" if kept else "lost",
            evidence=(
                *(
                    f"ctr images ls: {name} -> {records.get(name, 'absent')}"
                    for name in dict.fromkeys(
                        (wanted.name, *(wanted.by_digest(digest) for digest in named))
                    )
                ),
                f"ctr content ls: {len(content & _closure(wanted))} of {len(_closure(wanted))}",
            ),
        )

    def load(self, source: Source, wanted: Wanted, watch: Watch) -> None:
        """Feed `ctr images import` with an archive that names its own digests."""
        for options in _imports(wanted):
            self.client.feed(
                lambda write: write_archive(source, wanted, "containerd", write, watch),
                *("images", "import", "--no-unpack", *options, "-"),
            )


def _imports(wanted: Wanted) -> list[Sequence[str]]:
    """Return the options of each import that is needed.

    `--all-platforms` reads each manifest that the index names, and fails where one is absent
    (containerd#11344).
    """
    if not wanted.absent:
        return [["--all-platforms"]]
    return [["--platform", str(image.platform)] for image in wanted.images]


def _closure(wanted: Wanted) -> set[str]:
    manifests = {str(manifest.digest) for manifest in wanted.manifests}
    return manifests | {str(blob.digest) for blob in wanted.blobs}
