"""From a root to the plan of its copy: a descent over manifests, and what refers to them.

`Walk` is pure: whoever reads the manifests (one thread or a pool) hands them in and is told what
to read next. A subject is followed up only: what refers to a manifest is attached to the walk
by whoever asked the source for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from ocimirror.copy.plan import LeftOut, Plan
from ocimirror.errors import (
    ForeignLayer,
    MalformedManifest,
    MissingContent,
    NotFound,
    OciMirrorError,
    Unsupported,
)
from ocimirror.model import mediatype
from ocimirror.model.descriptor import Descriptor
from ocimirror.model.digest import Digest
from ocimirror.model.graph import (
    MAX_GENERATIONS,
    Descent,
    attestation_of,
    children_for,
    levels,
)
from ocimirror.model.manifest import Manifest
from ocimirror.model.platform import WITHOUT_ATTESTATIONS, Platform
from ocimirror.stores.store import Referrer, Source

MAX_MANIFEST_BYTES = 256 * 1024 * 1024  # of one image, since a plan keeps them in memory
_ABSENT = (NotFound, MissingContent, MalformedManifest, Unsupported)


class Walk:
    """The closure of one root, as its manifests become known.

    Args:
        root: where it begins.
        platforms: what is wanted of each index; children for others stay absent (a sparse
            image), and the index keeps its bytes. None means everything.
    """

    def __init__(self, root: Descriptor, platforms: Sequence[Platform] = ()) -> None:
        self._root = root
        self._platforms = platforms
        self._absent: dict[Digest, Descriptor] = {}
        self._attached: dict[tuple[str, Digest], None] = {}
        self._generation: dict[Digest, int] = {}
        self._about: dict[Digest, Digest] = {}
        self._left_out: dict[Digest, str] = {}
        self._children: set[Digest] = {root.digest}
        self._subjects: dict[Digest, set[Digest]] = {}
        self._tagged: set[Digest] = set()
        self._descent = Descent(root)
        self._unread()  # (the root is read without being told)
        self._named_as: dict[Digest, Descriptor] = {root.digest: root}
        self._manifests: dict[Digest, Manifest] = {}
        self._blobs: dict[Digest, Descriptor] = {}
        self._size_bytes = 0

    def add(self, manifest: Manifest) -> list[Descriptor]:
        """Take in a manifest that was asked for; return its children that nobody asked for yet.

        What was attached and has another subject is left out: a registry was wrong about it.

        Raises:
            MalformedManifest: too deep, too many, or one digest named as two different things.
        """
        if self._falsely_attached(manifest):
            reason = "its subject is another manifest"
            if manifest.opaque:
                reason = f"it is a {manifest.media_type}, which says no subject"
            self._left_out[manifest.digest] = reason
            return []
        self._manifests[manifest.digest] = manifest
        self._size_bytes += manifest.descriptor.size
        wanted = children_for(manifest, self._platforms)
        if len(wanted) < len(manifest.manifests):
            kept = {child.digest for child in wanted}
            self._absent |= {c.digest: c for c in manifest.manifests if c.digest not in kept}
        for child in wanted:
            self._children.add(child.digest)
            self._look_again(child.digest)  # (no attachment, but a part)
            known = self._named_as.get(child.digest)
            if known is None:
                self._named_as[child.digest] = child
            elif known != child and not _may_be_one(known, child):
                raise MalformedManifest(f"{child.digest} is named as {known} and as {child}")
        for blob in manifest.blobs:
            known = self._blobs.setdefault(blob.digest, blob)
            if known.size != blob.size:
                raise MalformedManifest(f"{blob.digest} is named as {known} and as {blob}")
            if mediatype.is_foreign(known.media_type):
                self._blobs[blob.digest] = blob  # (foreign only where every place says so)
        self._refuse_too_large()
        self._descent.add(self._named_as[manifest.digest], wanted)
        return self._unread()

    def attach(self, subject: Manifest, referrer: Referrer) -> list[Descriptor]:
        """Take in what is said to refer to a manifest of this walk; return what is to be read.

        Attachments of attachments, deeper than four, are left out.
        """
        descriptor = referrer.descriptor
        self._attached[referrer.tag, descriptor.digest] = None
        if referrer.tag:
            self._tagged.add(descriptor.digest)
        else:
            self._subjects.setdefault(descriptor.digest, set()).add(subject.digest)
        self._look_again(descriptor.digest)
        if descriptor.digest in self._named_as:
            return []
        generation = self._generation.get(subject.digest, 0) + 1
        self._about[descriptor.digest] = subject.digest
        self._named_as[descriptor.digest] = descriptor
        self._descent.start(descriptor)
        unread = self._unread()
        if generation > MAX_GENERATIONS:
            reason = f"attachments of attachments are carried {MAX_GENERATIONS} deep"
            self._left_out[descriptor.digest] = reason
            return []
        self._generation[descriptor.digest] = generation
        return unread

    def _unread(self) -> list[Descriptor]:
        """Return what nobody was told to read yet."""
        return list(self._descent)

    def leave_out(self, descriptor: Descriptor, error: OciMirrorError) -> bool:
        """Go on without an attachment that cannot be read; False if it is no such attachment.

        Content that fails its check is another matter: that is no absence.
        """
        digest = descriptor.digest
        alone = digest in self._about and digest not in self._children
        if not alone or not isinstance(error, _ABSENT):
            return False
        self._left_out[digest] = error.message
        return True

    def _look_again(self, digest: Digest) -> None:
        """Forget that something was left out: it was found once more, in another place."""
        if self._left_out.pop(digest, None) is not None:
            self._descent.forget(self._named_as.pop(digest))

    def holds(self, manifest: Manifest) -> bool:
        """Whether a manifest that was added is part of the image."""
        return manifest.digest in self._manifests

    def _falsely_attached(self, manifest: Manifest) -> bool:
        subjects = self._subjects.get(manifest.digest)
        if subjects is None or manifest.digest not in self._generation:
            return False
        if manifest.digest in self._children:
            return False
        if manifest.subject is not None and manifest.subject.digest in subjects:
            return False
        return manifest.digest not in self._tagged

    def _refuse_too_large(self) -> None:
        if self._size_bytes > MAX_MANIFEST_BYTES:
            text = f"image {self._root.digest}: more than {MAX_MANIFEST_BYTES} bytes of manifests"
            raise MalformedManifest(text)

    def plan(self) -> Plan:
        """Return the plan, once everything that was asked for has been added.

        Raises:
            NotFound: an index has nothing for a platform that was asked for.
        """
        self._refuse_missing_platforms()
        root = self._manifests[self._root.digest]
        others = [tuple(m for m in level if m is not root) for level in levels(self._manifests)]
        blobs = self._blobs.values()
        return Plan(
            levels=(*filter(None, others), (root,)),  # (last, after what refers to it)
            blobs=tuple(b for b in blobs if not mediatype.is_foreign(b.media_type)),
            foreign=tuple(b for b in blobs if mediatype.is_foreign(b.media_type)),
            opaque=tuple(m for m in self._manifests.values() if m.opaque),
            attachments=tuple(
                (tag, self._manifests[digest])
                for tag, digest in self._attached
                if digest in self._manifests and digest != self._root.digest
            ),
            left_out=tuple(
                LeftOut(digest, self._about[digest], reason)
                for digest, reason in self._left_out.items()
            ),
            absent=tuple(d for d in self._absent.values() if d.digest not in self._manifests),
        )

    def _refuse_missing_platforms(self) -> None:
        offered = [
            child.platform
            for manifest in self._manifests.values()
            for child in manifest.manifests
            if child.platform is not None and attestation_of(child) is None
        ]
        for platform in self._platforms if offered else ():
            missing = not any(platform.matches(other) for other in offered)
            if missing and platform != WITHOUT_ATTESTATIONS:
                raise NotFound(
                    f"image {self._root.digest} has nothing for {platform}",
                    advice=f"It has: {', '.join(dict.fromkeys(map(str, offered)))}",
                )


def _may_be_one(known: Descriptor, other: Descriptor) -> bool:
    """Whether two places may mean the same manifest: of one size, and not of two known types."""
    types = {mediatype.known(d.media_type) for d in (known, other)} - {""}
    return known.size == other.size and len(types) < 2


def walk(source: Source, root: Descriptor, platforms: Sequence[Platform] = ()) -> Plan:
    """Read the closure of a root, one manifest after the other.

    Raises:
        NotFound, IntegrityError: a manifest is absent, damaged or malformed.
    """
    progress = Walk(root, platforms)
    unread = deque([root])
    while unread:
        unread += progress.add(source.read_manifest(unread.popleft()))
    return progress.plan()


def refuse_foreign(plan: Plan) -> None:
    """Raise ForeignLayer where the plan has layers that cannot be carried."""
    if plan.foreign:
        listed = "; ".join(
            f"{layer.digest} ({', '.join(layer.urls) or 'no URL'})" for layer in plan.foreign[:5]
        )
        count = (
            "1 foreign layer" if len(plan.foreign) == 1 else f"{len(plan.foreign)} foreign layers"
        )
        raise ForeignLayer(f"{count} would be left out: {listed}")
