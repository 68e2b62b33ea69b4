"""The strict registry's blobs and uploads."""

from __future__ import annotations

import re

from tests.support.registry_http import Refusal, RegistryHandler, checked_digest
from tests.support.registry_storage import NAME, Upload, new_state


class BlobRoutes(RegistryHandler):
    """Answers under /v2/NAME/blobs/."""

    def blob(self, name: str, text: str) -> None:
        """GET or HEAD a blob, the whole or one range."""
        digest = checked_digest(text)
        if not self.storage.has_blob(name, digest):
            raise self.unknown(name, "BLOB_UNKNOWN")
        with self.storage.content(digest).open("rb") as file:
            size = file.seek(0, 2)
            part = self._range(size)
            first, last = part or (0, size - 1)
            headers = {"Content-Type": "application/octet-stream", **self.digest_header(digest)}
            headers["Content-Length"] = str(last - first + 1)
            status = 200
            if self.options.ranges:
                headers["Accept-Ranges"] = "bytes"
                if part:
                    status, headers["Content-Range"] = 206, f"bytes {first}-{last}/{size}"
            self.reply(status, b"", headers)
            if self.command == "GET" and last >= first:
                sent = self.connection.sendfile(file, first, last - first + 1)
                self.close_connection |= sent != last - first + 1

    def _range(self, size: int) -> tuple[int, int] | None:
        """Return the first and last position asked for; None for the whole blob."""
        asked = re.fullmatch(r"bytes=([0-9]*)-([0-9]*)", self.headers.get("Range", ""), re.ASCII)
        ignored = not self.options.ranges or self.command != "GET" or "If-Range" in self.headers
        if ignored or asked is None or not any(asked.groups()):
            return None
        if not asked[1]:
            first, last = max(0, size - int(asked[2])), size - 1
        else:
            first, last = int(asked[1]), min(int(asked[2] or size - 1), size - 1)
        if first > last or first >= size:
            raise Refusal(416, "SIZE_INVALID", headers={"Content-Range": f"bytes */{size}"})
        return first, last

    def delete_blob(self, name: str, text: str) -> None:
        """DELETE a blob."""
        digest = checked_digest(text)
        self.check_deletable()
        if not self.storage.has_blob(name, digest):
            raise self.unknown(name, "BLOB_UNKNOWN")
        self.storage.unlink_blob(name, digest)
        self.reply(202)

    def start_upload(self, name: str) -> None:
        """POST: mount a blob, upload one at once, or open a session."""
        mount, source = self.parameter("mount"), self.parameter("from")
        digest = self.parameter("digest")
        if mount and self._can_mount(source, checked_digest(mount)):
            self.storage.link_blob(name, mount)
            self._created_blob(name, mount)
            return
        identifier = self.storage.start_upload(name)
        if digest and not mount and self.options.single_post:
            self._finish(identifier, self.storage.uploads[identifier], checked_digest(digest))
            return
        headers = {"Docker-Upload-UUID": identifier}
        if self.options.chunk_min_bytes is not None:
            headers["OCI-Chunk-Min-Length"] = str(self.options.chunk_min_bytes)
        self._reply_upload(202, name, identifier, headers)

    def _can_mount(self, source: str | None, digest: str) -> bool:
        if not self.options.mount or source is None or not NAME.fullmatch(source):
            return False
        return self.storage.has_blob(source, digest)

    def upload_status(self, name: str, identifier: str) -> None:
        """GET: say how far an upload is, and give its newest Location."""
        self._upload(name, identifier)
        self._reply_upload(204, name, identifier)

    def cancel_upload(self, name: str, identifier: str) -> None:
        """DELETE an upload session."""
        upload = self._upload(name, identifier)
        with upload.lock:
            self._check_open(upload)
            self.storage.cancel_upload(identifier)
        self.reply(204)

    def append(self, name: str, identifier: str) -> None:
        """PATCH: append a chunk, or a stream without Content-Range."""
        upload = self._upload(name, identifier)
        with upload.lock:
            before = upload.size
            self._check_position(upload)
            limit, minimum = self.options.patch_limit_bytes, self.options.chunk_min_bytes
            if minimum is not None and upload.short_chunk:
                raise Refusal(400, "SIZE_INVALID", "an earlier chunk was too short")
            if limit is not None and (self.content_length() or 0) > limit:
                raise Refusal(416, "SIZE_INVALID", f"exceeds {limit} bytes")
            upload.append(self.pieces)
            if limit is not None and upload.size - before > limit:
                upload.truncate(before)
                raise Refusal(416, "SIZE_INVALID", f"exceeds {limit} bytes")
            upload.short_chunk = minimum is not None and upload.size - before < minimum
            upload.state = new_state()
            self._reply_upload(202, name, identifier)

    def finish_upload(self, name: str, identifier: str) -> None:
        """PUT: append what there is, verify, and make it a blob."""
        upload = self._upload(name, identifier)
        with upload.lock:
            self._check_position(upload)
            self._finish(identifier, upload, checked_digest(self.parameter("digest") or ""))

    def _finish(self, identifier: str, upload: Upload, digest: str) -> None:
        upload.append(self.pieces)
        if not upload.matches(digest):
            self.storage.cancel_upload(identifier)
            raise Refusal(400, "DIGEST_INVALID", f"the content is not {digest}")
        self.storage.finish_upload(identifier, digest)
        self._created_blob(upload.repository, digest)

    def _upload(self, name: str, identifier: str) -> Upload:
        upload = self.storage.uploads.get(identifier)
        if upload is None or upload.repository != name:
            raise Refusal(404, "BLOB_UPLOAD_UNKNOWN")
        if self.parameter("_state") is None:
            raise Refusal(400, "BLOB_UPLOAD_INVALID", "the Location lost its parameters")
        return upload

    def _check_open(self, upload: Upload) -> None:
        """Refuse an upload that ended while we waited for its lock."""
        if self.storage.uploads.get(upload.path.name) is not upload:
            raise Refusal(404, "BLOB_UPLOAD_UNKNOWN")

    def _check_position(self, upload: Upload) -> None:
        """Refuse a chunk that does not begin where the upload ends, or a stale Location."""
        self._check_open(upload)
        asked = self.headers.get("Content-Range")
        if asked is not None:
            found = re.fullmatch("([0-9]+)-([0-9]+)", asked, re.ASCII)
            if found is None:
                raise Refusal(416, "BLOB_UPLOAD_INVALID", "Content-Range is FIRST-LAST")
            if int(found[1]) != upload.size:
                raise Refusal(416, "BLOB_UPLOAD_INVALID", f"the upload has {upload.size} bytes")
            length = self.content_length()
            if length is not None and length != int(found[2]) - int(found[1]) + 1:
                raise Refusal(400, "SIZE_INVALID", "Content-Range and Content-Length differ")
        if self.parameter("_state") != upload.state:
            raise Refusal(404, "BLOB_UPLOAD_INVALID", "not the newest Location")

    def _created_blob(self, name: str, digest: str) -> None:
        location = self.location(f"/v2/{name}/blobs/{digest}")
        self.reply(201, b"", {"Location": location, **self.digest_header(digest)})

    def _reply_upload(
        self, status: int, name: str, identifier: str, headers: dict[str, str] | None = None
    ) -> None:
        upload = self.storage.uploads[identifier]
        path = f"/v2/{name}/blobs/uploads/{identifier}?_state={upload.state}"
        # No byte and one byte look the same, "0-0": all registries have this.
        position = f"0-{max(0, upload.size - 1)}"
        self.reply(
            status, b"", {"Location": self.location(path), "Range": position, **(headers or {})}
        )
