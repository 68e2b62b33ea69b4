"""Row 12: `ocimirror load` beside the engine's own import of a tar that is ready."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bench.measure import Contender, Failed, Sample, run
from bench.report import Line, failed_line
from bench.rows_serve import against
from bench.sites import MIB, Sites
from bench.tools import OCIMIRROR
from tests.support.engines import Containerd, remove, run_containerd

LOAD_BAR = 1.1


def load(sites: Sites) -> Iterator[Line]:
    """One large image into containerd; both sync nothing, and unpack nothing."""
    image = sites.one
    work = f"load {image.size_bytes // MIB} MiB into containerd"
    if shutil.which("containerd") is None or shutil.which("ctr") is None:
        yield failed_line("12", work, "ctr", "containerd is not on PATH")
        return
    file = sites.scratch / "ready.tar"
    name = f"registry.example.com/{image.repository}:1"
    source = f"oci:{image.layout}"
    made = [OCIMIRROR, "copy", "-q", source, f"oci-archive:{file}:{name}", "--profile=containerd"]
    run(made, scratch=sites.scratch)

    def ours(engine: Containerd) -> list[str]:
        where = ["--into", "containerd", "--host", engine.address]
        return [OCIMIRROR, "load", "-q", str(image.layout), *where]

    def theirs(engine: Containerd) -> list[str]:
        options = ["--all-platforms", "--no-unpack"]
        return ["ctr", "-a", engine.address, "images", "import", *options, str(file)]

    try:
        yield from against(
            "12",
            sites,
            work,
            LOAD_BAR,
            Contender("ocimirror load", _into(sites, ours)),
            Contender("ctr images import", _into(sites, theirs)),
        )
    finally:
        file.unlink()


def _into(
    sites: Sites, command: Callable[[Containerd], list[str]]
) -> Callable[[Path], Sequence[Sample]]:
    def work(_: Path) -> Sequence[Sample]:
        # (A socket's path is short, and the scratch directory's may not be.)
        directory = Path(tempfile.mkdtemp(prefix="bench-c-"))
        try:
            with run_containerd(directory) as engine:
                sample = run(command(engine), servers=[engine.pid], scratch=sites.scratch)
                if len(engine.ctr("content", "ls", "-q").split()) < 3:
                    raise Failed("containerd has not got everything")
                return (sample,)
        finally:
            remove(directory)

    return work
