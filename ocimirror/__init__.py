"""ocimirror moves OCI images and never changes a byte of them.

As a library:

    from ocimirror import Layout, Registry, copy, verify

    with Registry("registry.example.com") as registry, Layout("./layout", write=True) as layout:
        image = copy(registry["team/app:1.0"], layout)
        verify(layout)

What is exported here is public. It is loaded when it is first used, so that what stays on this
machine needs no network library.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from ocimirror.errors import (
    AuthenticationFailed,
    DamagedEngineStore,
    DamagedLayout,
    DamagedLockFile,
    DigestMismatch,
    DigestNotPreserved,
    DigestTaken,
    EngineFailed,
    EngineRunning,
    EngineUnavailable,
    ForeignLayer,
    IntegrityError,
    Interrupted,
    InvalidConfiguration,
    InvalidReference,
    LocalStorageError,
    LockConflict,
    Locked,
    MalformedManifest,
    ManifestBlobUnknown,
    MissingContent,
    NoPlace,
    NoSpace,
    NotFound,
    NotReached,
    OciMirrorError,
    OutOfResources,
    PruneRefused,
    PushRejected,
    RateLimited,
    RegistryRefused,
    RegistryUnavailable,
    RemoteError,
    ShardsMissing,
    SizeMismatch,
    SourceMoved,
    SparseRefused,
    TokenServiceUnavailable,
    Unsupported,
    UntrustedCertificate,
    UrlRefused,
    UsageError,
)
from ocimirror.version import __version__

if TYPE_CHECKING:
    from ocimirror.care.verify import verify
    from ocimirror.copy.library import copy, copy_many, pull, push, request
    from ocimirror.copy.outcome import ByteCounts, ImageResult, Options, Outcome, Reporter, Request
    from ocimirror.copy.plan import LeftOut, Plan
    from ocimirror.fault import Fault
    from ocimirror.model.descriptor import Descriptor
    from ocimirror.model.digest import Digest
    from ocimirror.model.failure import Failure
    from ocimirror.model.manifest import Manifest
    from ocimirror.model.platform import Platform
    from ocimirror.model.reference import Location, Reference
    from ocimirror.registry.environment import from_environment
    from ocimirror.registry.options import AuthFile, NetworkOptions
    from ocimirror.registry.registry import Registry
    from ocimirror.stores.archive.archive import Archive, ArchiveWriter
    from ocimirror.stores.dockerarchive.read import DockerArchive
    from ocimirror.stores.dockerarchive.write import DockerArchiveWriter
    from ocimirror.stores.entry import Entry
    from ocimirror.stores.layout.layout import Layout
    from ocimirror.stores.memory import MemoryStore
    from ocimirror.stores.store import Image, Referrer, Source, Store, Stored
    from ocimirror.stores.stream import VerifiedStream
    from ocimirror.stores.unreadable import UnreadableEntry

_HOMES = {
    "Archive": "ocimirror.stores.archive.archive",
    "ArchiveWriter": "ocimirror.stores.archive.archive",
    "AuthFile": "ocimirror.registry.options",
    "ByteCounts": "ocimirror.copy.outcome",
    "Descriptor": "ocimirror.model.descriptor",
    "Digest": "ocimirror.model.digest",
    "DockerArchive": "ocimirror.stores.dockerarchive.read",
    "DockerArchiveWriter": "ocimirror.stores.dockerarchive.write",
    "Entry": "ocimirror.stores.entry",
    "Failure": "ocimirror.model.failure",
    "Fault": "ocimirror.fault",
    "Image": "ocimirror.stores.store",
    "ImageResult": "ocimirror.copy.outcome",
    "Layout": "ocimirror.stores.layout.layout",
    "LeftOut": "ocimirror.copy.plan",
    "Location": "ocimirror.model.reference",
    "Manifest": "ocimirror.model.manifest",
    "MemoryStore": "ocimirror.stores.memory",
    "NetworkOptions": "ocimirror.registry.options",
    "Options": "ocimirror.copy.outcome",
    "Outcome": "ocimirror.copy.outcome",
    "Plan": "ocimirror.copy.plan",
    "Platform": "ocimirror.model.platform",
    "Reference": "ocimirror.model.reference",
    "Referrer": "ocimirror.stores.store",
    "Registry": "ocimirror.registry.registry",
    "Reporter": "ocimirror.copy.outcome",
    "Request": "ocimirror.copy.outcome",
    "Source": "ocimirror.stores.store",
    "Store": "ocimirror.stores.store",
    "Stored": "ocimirror.stores.store",
    "UnreadableEntry": "ocimirror.stores.unreadable",
    "VerifiedStream": "ocimirror.stores.stream",
    "copy": "ocimirror.copy.library",
    "copy_many": "ocimirror.copy.library",
    "from_environment": "ocimirror.registry.environment",
    "pull": "ocimirror.copy.library",
    "push": "ocimirror.copy.library",
    "request": "ocimirror.copy.library",
    "verify": "ocimirror.care.verify",
}

__all__ = [
    "Archive",
    "ArchiveWriter",
    "AuthFile",
    "AuthenticationFailed",
    "ByteCounts",
    "DamagedEngineStore",
    "DamagedLayout",
    "DamagedLockFile",
    "Descriptor",
    "Digest",
    "DigestMismatch",
    "DigestNotPreserved",
    "DigestTaken",
    "DockerArchive",
    "DockerArchiveWriter",
    "EngineFailed",
    "EngineRunning",
    "EngineUnavailable",
    "Entry",
    "Failure",
    "Fault",
    "ForeignLayer",
    "Image",
    "ImageResult",
    "IntegrityError",
    "Interrupted",
    "InvalidConfiguration",
    "InvalidReference",
    "Layout",
    "LeftOut",
    "LocalStorageError",
    "Location",
    "LockConflict",
    "Locked",
    "MalformedManifest",
    "Manifest",
    "ManifestBlobUnknown",
    "MemoryStore",
    "MissingContent",
    "NetworkOptions",
    "NoPlace",
    "NoSpace",
    "NotFound",
    "NotReached",
    "OciMirrorError",
    "Options",
    "OutOfResources",
    "Outcome",
    "Plan",
    "Platform",
    "PruneRefused",
    "PushRejected",
    "RateLimited",
    "Reference",
    "Referrer",
    "Registry",
    "RegistryRefused",
    "RegistryUnavailable",
    "RemoteError",
    "Reporter",
    "Request",
    "ShardsMissing",
    "SizeMismatch",
    "Source",
    "SourceMoved",
    "SparseRefused",
    "Store",
    "Stored",
    "TokenServiceUnavailable",
    "UnreadableEntry",
    "Unsupported",
    "UntrustedCertificate",
    "UrlRefused",
    "UsageError",
    "VerifiedStream",
    "__version__",
    "copy",
    "copy_many",
    "from_environment",
    "pull",
    "push",
    "request",
    "verify",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: object = getattr(import_module(_HOMES[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """Keeps a verb from becoming the package of that name, which Python sets when it is loaded."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
