"""containerd: through `ctr`, which comes with it.

containerd keeps all bytes, and an image is a record: a name and what it stands for. CRI finds an
image by digest only where a record has that name, so the archive names its own digests. What an
import without `--all-platforms` leaves unlabelled goes at the next garbage collection.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence

from ocimirror.engines.archive import write_archive
from ocimirror.engines.client import Client, Output
from ocimirror.engines.engine import Engine, tag_of
from ocimirror.engines.receipt import Receipt
from ocimirror.engines.wanted import Wanted
from ocimirror.errors import DamagedEngineStore, EngineFailed, IntegrityError
from ocimirror.model.chain import chain_ids
from ocimirror.model.descriptor import Descriptor
from ocimirror.model.digest import Digest
from ocimirror.model.platform import Platform
from ocimirror.stores.profiles import this_linux
from ocimirror.stores.store import Source
from ocimirror.stores.stream import VerifiedStream, Watch

_LABEL = "containerd.io/gc.ref.content"
_SNAPSHOT = re.compile(
    r"containerd\.io/gc\.ref\.snapshot\.([a-z0-9][a-z0-9._-]*)=(sha256:[0-9a-f]{64})", re.ASCII
)
_KEPT = re.compile(r"containerd\.io/gc\.ref\.content[^=,\s]*=([a-z0-9]+:[0-9a-f]+)", re.ASCII)


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
        self.version = server_version(client.ask("version").decode("utf-8", "replace"))

    def platform(self) -> Platform:
        """Return the platform of this machine; containerd's socket is local."""
        return this_linux()

    def records(self) -> dict[str, str]:
        """Return what each name of the namespace stands for, by digest."""
        columns = [line.split() for line in self._table("images", "REF")]
        return {row[0]: row[2] for row in columns if len(row) > 2}

    def content(self) -> dict[str, list[str]]:
        """Return the digests of the namespace's content, each with those that its labels keep.

        containerd computed them itself.
        """
        lines = self._table("content", "DIGEST")
        return {line.split()[0]: _KEPT.findall(line) for line in lines if line.strip()}

    def _table(self, kind: str, column: str) -> list[str]:
        """Return the lines of `ctr KIND ls` below its title, which is there if nothing else is."""
        raw = self.client.ask(kind, "ls")
        title, *lines = raw.decode("utf-8", "replace").splitlines() or [""]
        if not title.startswith(column):
            raise EngineFailed(f"ctr {kind} ls: the answer is no list: {raw[:200]!r}")
        return lines

    def audit(self, wanted: Wanted) -> Receipt:
        """Compare the records and the closure with what containerd has, by digest."""
        content = self.content()
        return self.judge(wanted, self.records(), content, self._unpacked(wanted, content))

    def _unpacked(self, wanted: Wanted, content: Mapping[str, Sequence[str]]) -> set[Digest]:
        """Return the manifests of images whose layers are there as snapshots, if not as blobs.

        containerd may be told to discard layers once they are unpacked.
        """
        lacking = [
            image
            for image in wanted.images
            if any(str(layer.digest) not in content for layer in image.manifest.blobs[1:])
        ]
        rows = [line.split() for line in self._table("content", "DIGEST")] if lacking else []
        labels = {row[0]: _SNAPSHOT.findall(row[-1]) for row in rows if row}
        found = set[Digest]()
        for image in lacking:
            top = [str(chain_id) for chain_id in chain_ids(image.config.diff_ids)[-1:]]
            for snapshotter, key in labels.get(str(image.config_digest), ()):
                if key in top and key in self._snapshots(snapshotter):
                    found.add(image.manifest.digest)
        return found

    def _snapshots(self, snapshotter: str) -> set[str]:
        raw = self.client.ask("snapshots", f"--snapshotter={snapshotter}", "ls")
        lines = raw.decode("utf-8", "replace").splitlines()
        return {line.split()[0] for line in lines if line.strip()}

    def judge(
        self,
        wanted: Wanted,
        records: Mapping[str, str],
        content: Mapping[str, Sequence[str]],
        unpacked: Collection[Digest] = (),
    ) -> Receipt:
        """Return the receipt for the records and the content of a namespace.

        What no record leads to is not kept: it goes at the next garbage collection.

        Args:
            wanted: the image.
            records: what each name stands for.
            content: digests, each with those that its labels keep.
            unpacked: manifests of images that run without their layers' blobs.
        """
        safe = reachable(records.values(), content)
        here = {blob.digest for blob in wanted.blobs}
        root = str(wanted.root.digest)
        shared = [wanted.root, *(m for m in wanted.manifests if m.manifests)]
        held = all(str(manifest.digest) in safe for manifest in shared)
        kept = [
            image
            for image in wanted.images
            if held
            and str(image.manifest.digest) in safe
            and all(
                str(blob.digest) in safe
                for blob in image.manifest.blobs[: 1 if image.manifest.digest in unpacked else None]
                if blob.digest in here
            )
        ]
        notes = [
            f"{image.label} is kept (unpacked): its layers are there as snapshots, so it runs; it"
            " cannot be exported or pushed"
            for image in kept
            if image.manifest.digest in unpacked
        ]
        named = {
            digest: records.get(wanted.by_digest(digest))
            for digest in (wanted.root.digest, *(image.manifest.digest for image in kept))
        }
        by_digest = all(target == str(digest) for digest, target in named.items())
        found = records.get(wanted.name)
        beside = _closure(wanted) - _needed(wanted) - safe
        index = named[wanted.root.digest] == root and held and not beside
        note = (
            f"{len(beside)} of what belongs to the image beside its platforms (attestations), which"
            f" no record keeps: {', '.join(sorted(beside))}"
        )
        return self.receipt(
            wanted,
            kept,
            tag=tag_of(wanted, found=found is not None, same=found == root),
            index="not_applicable" if not wanted.is_index else "kept" if index else "lost",
            manifest="kept" if by_digest and kept else "lost",
            config="kept" if kept else "lost",
            notes=(*notes, *((note,) if beside and found == root else ())),
            evidence=(
                *(
                    f"ctr images ls: {name} -> {records.get(name, 'absent')}"
                    for name in dict.fromkeys(
                        (wanted.name, *(wanted.by_digest(digest) for digest in named))
                    )
                ),
                f"ctr content ls: {len(_closure(wanted) & set(content))} of"
                f" {len(_closure(wanted))}, {len(_closure(wanted) & safe)} kept by a record",
            ),
        )

    def reread(self, wanted: Wanted) -> str:
        """Read each manifest and blob by `ctr content get`, and hash it."""
        here = set(self.content())
        descriptors = [*(m.descriptor for m in wanted.manifests), *wanted.blobs]
        known = {d.digest: d for d in descriptors if str(d.digest) in here}
        damaged = []
        for descriptor in known.values():
            try:
                with self._checked(descriptor) as stream:
                    while stream.read():
                        pass
            except IntegrityError:
                damaged.append(str(descriptor.digest))
        if damaged:
            raise DamagedEngineStore(
                f"image {wanted.name}: containerd gives back other bytes than"
                f" {', '.join(damaged)} ({len(damaged)} of {len(known)})",
                advice="Remove the images that need it and `ctr content rm` it, then load again.",
            )
        return f"ctr content get: {len(known)} of {len(known)} hashed"

    def _checked(self, descriptor: Descriptor) -> VerifiedStream:
        raw = Output(self.client, "content", "get", str(descriptor.digest))
        return VerifiedStream(descriptor, lambda _: raw)

    def load(self, source: Source, wanted: Wanted, watch: Watch) -> None:
        """Feed `ctr images import` with an archive that names its own digests."""
        for options in _imports(wanted):
            self._import(source, wanted, watch, options)
        if wanted.absent:
            self._keep(source, wanted, watch)

    def _import(self, source: Source, wanted: Wanted, watch: Watch, options: Sequence[str]) -> None:
        self.client.feed(
            lambda write: write_archive(source, wanted, "containerd", write, watch),
            *("images", "import", "--no-unpack", *options, "-"),
        )

    def _keep(self, source: Source, wanted: Wanted, watch: Watch) -> None:
        """Have the root keep what an import by platform leaves unlabelled: attestations.

        A garbage collection may take it before the label is there; then it is sent once more.
        """
        content = self.content()
        left = _closure(wanted) - reachable(self.records().values(), content)
        root = str(wanted.root.digest)
        if not left or root in left:
            return
        labels = [f"{_LABEL}.ocimirror.{d.partition(':')[2][:32]}={d}" for d in sorted(left)]
        self.client.ask("content", "label", root, *labels)
        if left - set(self.content()):
            self._import(source, wanted, watch, _imports(wanted)[0])


def server_version(printed: str) -> str:
    """Return the server's version of what `ctr version` prints, which is the client's too."""
    server = printed.partition("Server:")[2]
    return server.partition("Version:")[2].strip().partition("\n")[0].strip()


def reachable(roots: Iterable[str], content: Mapping[str, Sequence[str]]) -> set[str]:
    """Return what a garbage collection would leave of the content, for the records' targets."""
    found: set[str] = set()
    waiting = list(roots)
    while waiting:
        digest = waiting.pop()
        if digest in content and digest not in found:
            found.add(digest)
            waiting += content[digest]
    return found


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


def _needed(wanted: Wanted) -> set[str]:
    """Return what the platforms of an image need, and the indexes above them."""
    found = {str(manifest.digest) for manifest in wanted.manifests if manifest.manifests}
    found.add(str(wanted.root.digest))
    for image in wanted.images:
        found.add(str(image.manifest.digest))
        found.update(str(blob.digest) for blob in image.manifest.blobs)
    return found
