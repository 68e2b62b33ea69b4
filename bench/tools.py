"""The tools and their command lines: ocimirror, Debian's skopeo, and the peers found on PATH."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from bench.content import HOST
from bench.sites import Site

OCIMIRROR = str(Path(sys.executable).with_name("ocimirror"))
Command = list[str]


class Tool(Protocol):
    """What can do the work of some rows.

    An image is `repository:tag`; a pull goes into a directory that is not there yet.
    """

    name: str

    def pull(self, site: Site, image: str, directory: Path) -> Command:
        """Return what pulls an image into an OCI layout."""
        ...

    def push(self, layout: Path, site: Site, image: str) -> Command:
        """Return what pushes the image of a layout."""
        ...

    def copy(self, source: Site, destination: Site, image: str) -> Command:
        """Return what copies an image from registry to registry."""
        ...

    def copy_tags(self, source: Site, destination: Site, repository: str) -> Command | None:
        """Return what copies every tag from registry to registry; None where it cannot."""


class Ocimirror(Tool):
    """ocimirror, with more options or without."""

    def __init__(self, *options: str) -> None:
        self.name = " ".join(["ocimirror", *options])
        self._options = options

    def command(self, name: str, site: Site, *arguments: object) -> Command:
        """Return a command line; `site` is the one whose certificate has to be trusted."""
        trust = ["--ca-file", str(site.ca_file)] if site.ca_file else []
        return [OCIMIRROR, name, "-q", *trust, *self._options, *map(str, arguments)]

    def pull(self, site: Site, image: str, directory: Path) -> Command:
        return self.command("pull", site, f"{site.host}/{image}", directory)

    def push(self, layout: Path, site: Site, image: str) -> Command:
        return self.command("push", site, layout, site.host, "--image", f"{HOST}/{image}")

    def copy(self, source: Site, destination: Site, image: str) -> Command:
        ends = (f"docker://{site.host}/{image}" for site in (source, destination))
        return self.command("copy", source, *ends)

    def copy_tags(self, source: Site, destination: Site, repository: str) -> Command:
        ends = (f"{site.host}/{repository}" for site in (source, destination))
        return [sys.executable, "-m", "bench.many", *ends]


class Skopeo(Tool):
    """skopeo; everything else is compared with it."""

    name = "skopeo"
    _copy = ("skopeo", "copy", "--quiet", "--all", "--preserve-digests")

    def pull(self, site: Site, image: str, directory: Path) -> Command:
        verify = f"--src-tls-verify={_yes(site.ca_file)}"
        return [*self._copy, verify, f"docker://{site.host}/{image}", f"oci:{directory}:1"]

    def push(self, layout: Path, site: Site, image: str) -> Command:
        verify = f"--dest-tls-verify={_yes(site.ca_file)}"
        return [*self._copy, verify, f"oci:{layout}:1", f"docker://{site.host}/{image}"]

    def copy(self, source: Site, destination: Site, image: str) -> Command:
        ends = (f"docker://{site.host}/{image}" for site in (source, destination))
        return [*self._copy, "--src-tls-verify=false", "--dest-tls-verify=false", *ends]

    def copy_tags(self, source: Site, destination: Site, repository: str) -> Command:
        project = repository.rpartition("/")[0]
        plain = ("--src-tls-verify=false", "--dest-tls-verify=false")
        options = ("--all", "--preserve-digests", "--src", "docker", "--dest", "docker", *plain)
        ends = (f"{source.host}/{repository}", f"{destination.host}/{project}")
        return ["skopeo", "sync", *options, *ends]


class Crane(Tool):
    """crane; on loopback it finds out by itself what does not speak TLS."""

    name = "crane"

    def pull(self, site: Site, image: str, directory: Path) -> Command:
        return ["crane", "pull", "--format=oci", f"{site.host}/{image}", str(directory)]

    def push(self, layout: Path, site: Site, image: str) -> Command:
        return ["crane", "push", "--index", str(layout), f"{site.host}/{image}"]

    def copy(self, source: Site, destination: Site, image: str) -> Command:
        return ["crane", "copy", f"{source.host}/{image}", f"{destination.host}/{image}"]

    def copy_tags(self, source: Site, destination: Site, repository: str) -> Command:
        ends = (f"{site.host}/{repository}" for site in (source, destination))
        return ["crane", "copy", "--all-tags", *ends]


class Oras(Tool):
    """oras."""

    name = "oras"

    def pull(self, site: Site, image: str, directory: Path) -> Command:
        plain = [] if site.ca_file else ["--from-plain-http"]
        ends = (f"{site.host}/{image}", "--to-oci-layout", f"{directory}:1")
        return ["oras", "cp", *plain, *ends]

    def push(self, layout: Path, site: Site, image: str) -> Command:
        plain = [] if site.ca_file else ["--to-plain-http"]
        ends = ("--from-oci-layout", f"{layout}:1", f"{site.host}/{image}")
        return ["oras", "cp", *plain, *ends]

    def copy(self, source: Site, destination: Site, image: str) -> Command:
        plain = ("--from-plain-http", "--to-plain-http")
        return ["oras", "cp", *plain, f"{source.host}/{image}", f"{destination.host}/{image}"]


class Regctl(Tool):
    """regctl; copying all tags is another program's work, regsync's."""

    name = "regctl"

    def pull(self, site: Site, image: str, directory: Path) -> Command:
        return self._copy((site,), f"{site.host}/{image}", f"ocidir://{directory}:1")

    def push(self, layout: Path, site: Site, image: str) -> Command:
        return self._copy((site,), f"ocidir://{layout}:1", f"{site.host}/{image}")

    def copy(self, source: Site, destination: Site, image: str) -> Command:
        ends = (f"{site.host}/{image}" for site in (source, destination))
        return self._copy((source, destination), *ends)

    def _copy(self, sites: Sequence[Site], *ends: str) -> Command:
        plain = [f"--host=reg={site.host},tls=disabled" for site in sites if not site.ca_file]
        return ["regctl", *plain, "image", "copy", *ends]


_PEERS: dict[str, tuple[type[Tool], str]] = {
    "skopeo": (Skopeo, "--version"),
    "crane": (Crane, "version"),
    "oras": (Oras, "version"),
    "regctl": (Regctl, "version"),
}


def peers() -> list[Tool]:
    """Return the peers that are on PATH, skopeo first."""
    return [tool() for name, (tool, _) in _PEERS.items() if shutil.which(name)]


def versions() -> dict[str, str]:
    """Return what each program says of its version, "absent" where it is not on PATH."""
    asked = {name: (name, argument) for name, (_, argument) in _PEERS.items()}
    asked["docker-registry"] = ("docker-registry", "--version")
    asked["curl"] = ("curl", "--version")
    return {name: _version(command) for name, command in asked.items()}


def _version(command: Sequence[str]) -> str:
    if not shutil.which(command[0]):
        return "absent"
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    words = said.replace("VCSTag:", "").split()
    return next((word.strip("v,") for word in words if word.strip("v")[:1].isdigit()), "unknown")


def curl(site: Site, repository: str, digests: Sequence[str], directory: Path) -> Command:
    """Return what fetches blobs side by side, unhashed, to files named 0, 1, 2 …"""
    command = ["curl", "--silent", "--show-error", "--fail", "--parallel"]
    for number, digest in enumerate(digests):
        url = f"http://{site.host}/v2/{repository}/blobs/{digest}"
        command += ["--output", f"{directory}/{number}", url]
    return command


def curl_and_sync(site: Site, repository: str, digests: Sequence[str], directory: Path) -> Command:
    """Return the same, and then sync the files."""
    files = [f"{directory}/{number}" for number in range(len(digests))]
    script = f'"$@" && sync {" ".join(files)}'
    return ["sh", "-c", script, "sh", *curl(site, repository, digests, directory)]


def _yes(value: object) -> str:
    return "true" if value else "false"
