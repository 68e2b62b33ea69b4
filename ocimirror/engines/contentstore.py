"""containerd's content store as a source: every byte that it has, under its digest.

containerd computed the digests itself when it took the content in. What comes out passes the same
check as any other content here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ocimirror.engines.client import Output
from ocimirror.engines.containerd import Containerd, reachable
from ocimirror.errors import NotFound
from ocimirror.model import mediatype
from ocimirror.model.descriptor import Descriptor
from ocimirror.model.digest import Digest
from ocimirror.model.manifest import MAX_SIZE_BYTES, sniff_media_type
from ocimirror.model.reference import Reference
from ocimirror.stores.store import Referrer, Source, skipped
from ocimirror.stores.stream import Reader


class ContentStore(Source):
    """The images of one namespace, as they are when it is opened.

    Args:
        containerd: asked for the records and the content once.
    """

    def __init__(self, containerd: Containerd) -> None:
        self._client = containerd.client
        self.location = f"containerd:{self._client.where}"
        self._records = containerd.records()
        self._content = containerd.content()

    def _resolve(self, name: str) -> Descriptor:
        digest = self._digest_of(name, Reference.parse(name).readable())
        if digest is None:
            raise NotFound(
                f"{self.location}: no image {name}",
                advice="`ctr images ls` lists them; --namespace says which it looks in.",
            )
        found = Digest.parse(digest)
        with Output(self._client, "content", "get", digest) as output:
            raw = output.read_up_to(MAX_SIZE_BYTES)
        media_type = sniff_media_type(raw, name) or mediatype.OCTET_STREAM
        return Descriptor(media_type, found, len(raw), "manifest")

    def _digest_of(self, name: str, reference: Reference) -> str | None:
        """Return what a name stands for; a digest needs no record, where the repository has one."""
        stated = str(reference.digest or "")
        for spelling in (name, str(reference), str(replace(reference, digest=None))):
            target = self._records.get(spelling)
            if target is not None and stated in ("", target):
                return target
        # (A digest says nothing of repositories: it has to be below a name of this one.)
        beginnings = f"{reference.name}:", f"{reference.name}@"
        targets = [d for name, d in self._records.items() if name.startswith(beginnings)]
        return stated if stated in reachable(targets, self._content) else None

    def _open(self, descriptor: Descriptor, position: int) -> Reader:
        if not self._exists(descriptor):
            raise NotFound(f"{self.location}: no {descriptor}")
        content = Output(self._client, "content", "get", str(descriptor.digest))
        return skipped(content, position)

    def _exists(self, descriptor: Descriptor) -> bool:
        return str(descriptor.digest) in self._content

    def _names(self) -> list[str]:
        return list(self._records)

    def _referrers(self, _: Descriptor) -> Iterable[Referrer]:
        return ()
