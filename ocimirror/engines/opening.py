"""Opens the engine that a command names."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Literal

from ocimirror.engines.client import Client
from ocimirror.engines.containerd import Containerd
from ocimirror.engines.cri import Cri
from ocimirror.engines.docker.engine import docker
from ocimirror.engines.engine import Auditor, Engine
from ocimirror.engines.podman import Podman
from ocimirror.errors import UsageError

EngineName = Literal["docker", "containerd", "podman", "cri"]


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Which engine, and where.

    Attributes:
        name: whose client is run.
        host: another socket than the client's own choice; for podman there is none.
        namespace: containerd's; empty for the client's own choice.
    """

    name: EngineName
    host: str = ""
    namespace: str = ""


def open_auditor(options: EngineOptions, stop: threading.Event) -> Auditor:
    """Find an engine that is asked only; CRI can be asked, and takes no images.

    Raises:
        EngineUnavailable: it is not there, or does not answer.
        UsageError: an option that this engine does not have.
    """
    if options.name == "cri":
        if options.namespace:
            raise UsageError("--namespace is containerd's; CRI has its own")
        return Cri(options.host)
    return open_engine(options, stop)


def open_engine(options: EngineOptions, stop: threading.Event) -> Engine:
    """Find an engine and its store.

    Raises:
        EngineUnavailable: it is not there, or does not answer.
        UsageError: an option that this engine does not have.
    """
    if options.namespace and options.name != "containerd":
        raise UsageError(f"--namespace is containerd's; {options.name} has none")
    if options.name == "docker":
        argv = ["docker", *(["--host", options.host] if options.host else [])]
        return docker(Client(argv, options.host or "its default socket", stop=stop))
    if options.name == "podman":
        if options.host:
            raise UsageError("--host: a remote podman cannot read an archive of this machine")
        return Podman(Client(["podman"], "its storage", stop=stop))
    argv = [
        "ctr",
        "--connect-timeout",
        "3s",
        *(["--address", options.host.removeprefix("unix://")] if options.host else []),
    ]
    argv += ["--namespace", options.namespace] if options.namespace else []
    return Containerd(Client(argv, options.host or "its default socket", stop=stop))
