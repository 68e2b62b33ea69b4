"""CRI: what a kubelet finds when it looks an image up, by tag or by digest.

A kubelet asks over the Container Runtime Interface, and pulls what it is not told of. There is no
import in that interface, so this is an audit only. The few messages that it takes are described
here instead of carrying generated code (runtime.v1, kubernetes/cri-api api.proto).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ocimirror.engines.engine import Auditor, tag_of
from ocimirror.engines.receipt import Part, Receipt
from ocimirror.engines.wanted import Wanted
from ocimirror.errors import EngineFailed, EngineUnavailable, UsageError
from ocimirror.model.digest import Digest
from ocimirror.model.platform import Platform
from ocimirror.stores.profiles import this_linux

DEFAULT_SOCKET = "/run/containerd/containerd.sock"
_TIMEOUT_S = 30.0
_TEXT, _MESSAGE, _ONE, _MANY = 9, 11, 1, 3
# message: field: (number, type, label, type name); what is not asked for is left out.
_MESSAGES: Mapping[str, Mapping[str, tuple[int, int, int, str]]] = {
    "VersionRequest": {},
    "VersionResponse": {
        "runtime_name": (2, _TEXT, _ONE, ""),
        "runtime_version": (3, _TEXT, _ONE, ""),
    },
    "ImageSpec": {"image": (1, _TEXT, _ONE, "")},
    "ImageStatusRequest": {"image": (1, _MESSAGE, _ONE, "ImageSpec")},
    "Image": {
        "id": (1, _TEXT, _ONE, ""),
        "repo_tags": (2, _TEXT, _MANY, ""),
        "repo_digests": (3, _TEXT, _MANY, ""),
    },
    "ImageStatusResponse": {"image": (1, _MESSAGE, _ONE, "Image")},
}
_PACKAGE = "runtime.v1"
_UNSEEN = "CRI tells of names and image IDs only: whether the layers are there was not looked at"
_NOT_ASKED = {"containerd": f"{_UNSEEN}; --in containerd --namespace k8s.io looks"}


@dataclass(frozen=True, slots=True)
class Status:
    """An image as CRI tells it: its ID is the config's digest."""

    id: str
    digests: tuple[str, ...]

    def is_of(self, config: Digest) -> bool:
        """Whether this is the image of a config; CRI-O writes its digest without the algorithm."""
        return self.id in (str(config), config.encoded)


class Cri(Auditor):
    """A runtime behind its CRI socket.

    Args:
        socket: its path; `unix://` may be left out.

    Raises:
        UsageError: the library for it is not installed.
        EngineUnavailable: nobody answers.
    """

    name = "cri"
    keeps: frozenset[Part] = frozenset(("tag", "index", "config"))

    def __init__(self, socket: str) -> None:
        try:
            import grpc
        except ImportError as error:
            raise UsageError(
                "asking CRI needs grpcio and protobuf", advice="pip install 'ocimirror[cri]'"
            ) from error
        self.where = f"unix://{socket.removeprefix('unix://') or DEFAULT_SOCKET}"
        self._errors = grpc.RpcError
        self._types = _message_types()
        # (The default authority is the path, which servers in Go refuse.)
        self._channel = grpc.insecure_channel(
            self.where, options=[("grpc.default_authority", "localhost")]
        )
        version = self._call("RuntimeService", "Version", "VersionRequest", "VersionResponse")
        self.store, self.version = version.runtime_name, version.runtime_version

    def close(self) -> None:
        """End the connection."""
        self._channel.close()

    def platform(self) -> Platform:
        """Return the platform of this machine; a runtime's socket is local."""
        return this_linux()

    def status(self, name: str) -> Status | None:
        """Return what the runtime has under a name, None where a kubelet would pull."""
        asked = {"image": self._types["ImageSpec"](image=name)}
        found = self._call(
            "ImageService", "ImageStatus", "ImageStatusRequest", "ImageStatusResponse", **asked
        )
        if not found.HasField("image"):
            return None
        return Status(found.image.id, tuple(found.image.repo_digests))

    def audit(self, wanted: Wanted) -> Receipt:
        """Ask for the tag, the index's digest and the manifest's, as a pod may name them."""
        image = self.chosen(wanted)
        names = {
            "tag": wanted.name,
            "index": wanted.by_digest(wanted.root.digest),
            "manifest": wanted.by_digest(image.manifest.digest),
        }
        found = {part: self.status(name) for part, name in names.items()}
        same = {
            part: status is not None and status.is_of(image.config_digest)
            for part, status in found.items()
        }
        return self.receipt(
            wanted.only(image),
            [image] if any(same.values()) else [],
            tag=tag_of(wanted, found=found["tag"] is not None, same=same["tag"]),
            index="not_applicable" if not wanted.is_index else "kept" if same["index"] else "lost",
            manifest="kept" if same["manifest"] else "lost",
            config="kept" if any(same.values()) else "lost",
            notes=(_NOT_ASKED.get(self.store, _UNSEEN),) if any(same.values()) else (),
            evidence=tuple(
                f"ImageStatus {names[part]}: {status.id if status else 'no such image'}"
                for part, status in found.items()
            ),
        )

    def _call(self, service: str, method: str, asked: str, answered: str, **fields: Any) -> Any:
        ask = self._channel.unary_unary(
            f"/{_PACKAGE}.{service}/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=self._types[answered].FromString,
        )
        try:
            return ask(self._types[asked](**fields), timeout=_TIMEOUT_S)
        except self._errors as error:
            code, said = error.code().name, error.details()
            kind = (
                EngineUnavailable if code in ("UNAVAILABLE", "DEADLINE_EXCEEDED") else EngineFailed
            )
            raise kind(f"CRI at {self.where}: {code}: {said}") from error


def _message_types() -> dict[str, Any]:
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(
        name="ocimirror_cri.proto", package=_PACKAGE, syntax="proto3"
    )
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind, label, type_name) in fields.items():
            added = message.field.add(name=field, number=number, type=kind, label=label)
            if type_name:
                added.type_name = f".{_PACKAGE}.{type_name}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))
        for name in _MESSAGES
    }
