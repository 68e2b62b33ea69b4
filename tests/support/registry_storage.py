"""What the strict registry keeps on disk: content once, and per repository what is in it.

    blobs/ALGORITHM/ENCODED                           the bytes of blobs and manifests
    repositories/NAME/_blobs/ALGORITHM/ENCODED        empty: this blob is in the repository
    repositories/NAME/_manifests/ALGORITHM/ENCODED    the media type the manifest was pushed with
    repositories/NAME/_tags/TAG                       a digest
    repositories/NAME/_referrers/SUBJECT/DIGEST       a descriptor ("-" for ":" in both names)
    uploads/ID                                        the bytes of an upload so far

Names of repositories never begin with "_", so the two kinds of directory cannot meet.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import shutil
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
NAME = re.compile(rf"{COMPONENT}(?:/{COMPONENT})*", re.ASCII)
TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}", re.ASCII)
DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}", re.ASCII)


class Manifest(NamedTuple):
    """A stored manifest."""

    digest: str
    media_type: str
    data: bytes


def new_state() -> str:
    """Return a value for the `_state` parameter of an upload Location."""
    return secrets.token_hex(4)


def digest_of(data: bytes, algorithm: str = "sha256") -> str:
    """Return the digest of bytes."""
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


@dataclass
class Upload:
    """An upload session: the bytes so far in a file, and their running sha256.

    `state` changes with every PATCH: a client that keeps using its first Location is found out.
    """

    repository: str
    path: Path
    size: int = 0
    short_chunk: bool = False
    state: str = field(default_factory=new_state)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._sha256 = hashlib.sha256()
        self.path.touch()

    def append(self, pieces: Iterable[bytes]) -> None:
        """Keep every piece as it comes; when the client stops early, what came stays."""
        with self.path.open("ab") as file:
            for piece in pieces:
                file.write(piece)
                self._sha256.update(piece)
                self.size += len(piece)

    def truncate(self, size: int) -> None:
        """Forget what came after the first `size` bytes."""
        with self.path.open("r+b") as file:
            file.truncate(size)
            file.seek(0)
            self._sha256 = hashlib.sha256()
            while piece := file.read(1 << 20):
                self._sha256.update(piece)
        self.size = size

    def matches(self, digest: str) -> bool:
        """Say whether the bytes so far have this digest."""
        algorithm, _, encoded = digest.partition(":")
        if algorithm == "sha256":
            return self._sha256.hexdigest() == encoded
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, algorithm).hexdigest() == encoded


class Storage:
    """The directory of a registry. Names, tags and digests must have been checked before."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.lock = threading.RLock()
        self.uploads: dict[str, Upload] = {}
        self._sorted_tags: dict[str, list[str]] = {}
        shutil.rmtree(directory / "uploads", ignore_errors=True)
        (directory / "uploads").mkdir(parents=True)

    def content(self, digest: str) -> Path:
        """Return the file that holds, or would hold, the bytes of a digest."""
        return self.directory / "blobs" / digest.replace(":", "/")

    def has_repository(self, repository: str) -> bool:
        """Say whether anything was ever pushed to the repository."""
        return any(
            (self._repository(repository) / kind).is_dir() for kind in ("_blobs", "_manifests")
        )

    def has_blob(self, repository: str, digest: str) -> bool:
        """Say whether the blob is in this repository (not only somewhere in the registry)."""
        return self._link(repository, "_blobs", digest).is_file()

    def has_manifest(self, repository: str, digest: str) -> bool:
        """Say whether the manifest is in this repository."""
        return self._link(repository, "_manifests", digest).is_file()

    def link_blob(self, repository: str, digest: str) -> None:
        """Put a blob that the registry has into a repository."""
        _write(self._link(repository, "_blobs", digest), b"")

    def unlink_blob(self, repository: str, digest: str) -> None:
        """Take a blob out of a repository; its bytes stay."""
        self._link(repository, "_blobs", digest).unlink()

    def start_upload(self, repository: str) -> str:
        """Open an upload session; return its identifier."""
        identifier = secrets.token_hex(16)
        path = self.directory / "uploads" / identifier
        self.uploads[identifier] = Upload(repository, path)
        return identifier

    def cancel_upload(self, identifier: str) -> None:
        """Forget an upload session and its bytes."""
        self.uploads.pop(identifier).path.unlink()

    def finish_upload(self, identifier: str, digest: str) -> None:
        """Make the verified bytes of an upload a blob of its repository."""
        upload = self.uploads.pop(identifier)
        path = self.content(digest)
        path.parent.mkdir(parents=True, exist_ok=True)
        upload.path.replace(path)
        self.link_blob(upload.repository, digest)

    def put_manifest(self, repository: str, manifest: Manifest) -> None:
        """Store a verified manifest and list it with its subject's referrers."""
        with self.lock:
            _write(self.content(manifest.digest), manifest.data)
            link = self._link(repository, "_manifests", manifest.digest)
            _write(link, manifest.media_type.encode())
            entry = self._referrer(repository, manifest)
            if entry is not None:
                _write(entry, json.dumps(describe(manifest)).encode())

    def manifest(self, repository: str, reference: str) -> Manifest | None:
        """Return the manifest that a tag or a digest names."""
        try:
            digest = reference
            if ":" not in reference:
                digest = (self._repository(repository) / "_tags" / reference).read_text()
            media_type = self._link(repository, "_manifests", digest).read_text()
            return Manifest(digest, media_type, self.content(digest).read_bytes())
        except OSError:
            return None

    def delete_manifest(self, repository: str, manifest: Manifest) -> None:
        """Take a manifest out of a repository, with the tags that name it."""
        with self.lock:
            self._link(repository, "_manifests", manifest.digest).unlink()
            entry = self._referrer(repository, manifest)
            if entry is not None:
                entry.unlink(missing_ok=True)
            for tag in self.tags(repository):
                if (self._repository(repository) / "_tags" / tag).read_text() == manifest.digest:
                    self.untag(repository, tag)

    def tag(self, repository: str, tag: str, digest: str) -> None:
        """Make a tag name a manifest that is there."""
        with self.lock:
            path = self._repository(repository) / "_tags" / tag
            if not path.exists():
                self._sorted_tags.pop(repository, None)
            _write(path, digest.encode())

    def untag(self, repository: str, tag: str) -> None:
        """Remove a tag."""
        with self.lock:
            self._sorted_tags.pop(repository, None)
            (self._repository(repository) / "_tags" / tag).unlink()

    def tags(self, repository: str) -> list[str]:
        """Return the tags of a repository in ASCII order."""
        with self.lock:
            if repository not in self._sorted_tags:
                directory = self._repository(repository) / "_tags"
                names = sorted(p.name for p in directory.iterdir()) if directory.is_dir() else []
                self._sorted_tags[repository] = [name for name in names if name[0] != "."]
            return self._sorted_tags[repository]

    def referrers(self, repository: str, subject: str) -> list[dict[str, Any]]:
        """Return the descriptors of the manifests with this subject, in the order of digests."""
        directory = self._repository(repository) / "_referrers" / subject.replace(":", "-")
        if not directory.is_dir():
            return []
        with self.lock:
            return [
                json.loads(path.read_bytes())
                for path in sorted(directory.iterdir())
                if path.name[0] != "."
            ]

    def _repository(self, repository: str) -> Path:
        return self.directory / "repositories" / repository

    def _link(self, repository: str, kind: str, digest: str) -> Path:
        return self._repository(repository) / kind / digest.replace(":", "/")

    def _referrer(self, repository: str, manifest: Manifest) -> Path | None:
        subject = subject_of(fields_of(manifest.data))
        if subject is None:
            return None
        directory = self._repository(repository) / "_referrers" / subject.replace(":", "-")
        return directory / manifest.digest.replace(":", "-")


def fields_of(data: bytes) -> dict[str, Any]:
    """Return the fields of a manifest, or {} when it is not a JSON object."""
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}


def subject_of(fields: dict[str, Any]) -> str | None:
    """Return the digest of the subject, if there is a usable one."""
    subject = fields.get("subject")
    digest = subject.get("digest") if isinstance(subject, dict) else None
    return digest if isinstance(digest, str) and DIGEST.fullmatch(digest) else None


def describe(manifest: Manifest) -> dict[str, Any]:
    """Return the descriptor that the referrers API lists for a manifest.

    Spec: distribution-spec, "Listing Referrers": the artifactType is the manifest's own, or the
    media type of its config; annotations are those of the manifest.
    """
    fields = fields_of(manifest.data)
    config = fields.get("config")
    artifact_type = fields.get("artifactType")
    if not artifact_type and isinstance(config, dict):
        artifact_type = config.get("mediaType")
    descriptor: dict[str, Any] = {
        "mediaType": manifest.media_type,
        "digest": manifest.digest,
        "size": len(manifest.data),
    }
    if artifact_type:
        descriptor["artifactType"] = artifact_type
    if isinstance(fields.get("annotations"), dict):
        descriptor["annotations"] = fields["annotations"]
    return descriptor


def _write(path: Path, data: bytes) -> None:
    """Write a file at once: a reader sees the old bytes or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{secrets.token_hex(4)}")
    temporary.write_bytes(data)
    temporary.replace(path)
