"""`make demo`: pull → verify → push, on a registry of this machine, and both ends side by side.

The source is embedded: images of several platforms, with an attestation, one with Docker's media
types. docker-registry from Debian serves it, or the registry of the test support where that
package is absent. Nothing is fetched from the internet, and nothing stays.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support import images
from tests.support.registry import run_registry
from tests.support.servers import run_docker_registry
from tests.support.witness import Registry

IMAGES = {
    ("demo/app", "1.0"): images.multi,
    ("demo/legacy", "2.0"): images.docker_list,
    ("demo/artifact", "sbom"): images.artifact,
}


def main() -> int:
    """Run the demo; return 0 when every digest at the end is the digest at the start."""
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ocimirror-")))
        source, destination = (_registry(stack, directory / name) for name in ("source", "mirror"))
        for (repository, tag), make in IMAGES.items():
            images.push(source, repository, tag, make())
        references = [f"{source.host}/{repository}:{tag}" for repository, tag in IMAGES]
        _run(directory, "pull", *references, "./layout")
        _run(directory, "list", "./layout")
        _run(directory, "verify", "./layout")
        _run(directory, "push", "./layout", destination.host)
        return _side_by_side(source, destination)


def _registry(stack: contextlib.ExitStack, directory: Path) -> Registry:
    directory.mkdir()
    if shutil.which("docker-registry"):
        registry: Registry = stack.enter_context(run_docker_registry(directory))
        kind = "docker-registry"
    else:
        registry = stack.enter_context(run_registry(directory))
        kind = "the registry of the test support (docker-registry is not installed)"
    print(f"# {directory.name}: {kind} at {registry.host}")
    return registry


def _run(directory: Path, *arguments: str) -> None:
    print(f"\n$ ocimirror {' '.join(arguments)}", flush=True)
    command = str(Path(sys.executable).with_name("ocimirror"))
    subprocess.run([command, *arguments], check=True, cwd=directory)


def _side_by_side(source: Registry, destination: Registry) -> int:
    print(f"\n{'sha256 of the bytes at':<24}{'the source':<20}{'the mirror':<20}")
    different = 0
    for repository, tag in IMAGES:
        ends = [
            hashlib.sha256(registry.get_manifest(repository, tag)).hexdigest()
            for registry in (source, destination)
        ]
        different += ends[0] != ends[1]
        verdict = "the same" if ends[0] == ends[1] else "DIFFERENT"
        print(f"{repository + ':' + tag:<24}{ends[0][:16]}…   {ends[1][:16]}…   {verdict}")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
