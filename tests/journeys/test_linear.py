"""What looks at a whole layout costs in proportion to it, and stops where it is."""

import contextlib
import hashlib
import json
import os
import resource
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import PROGRAM, environment, ocimirror

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"


class Made:
    """A layout of many small images, made quickly."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "blobs" / "sha256").mkdir(parents=True)
        (path / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
        self._config = self.put({"architecture": "amd64", "os": "linux"}, CONFIG)

    def put(self, document: object, media_type: str) -> dict[str, Any]:
        """Store a document; return its descriptor."""
        raw = json.dumps(document).encode()
        encoded = hashlib.sha256(raw).hexdigest()
        (self.path / "blobs" / "sha256" / encoded).write_bytes(raw)
        return {"mediaType": media_type, "digest": f"sha256:{encoded}", "size": len(raw)}

    def images(self, count: int) -> list[dict[str, Any]]:
        """Store images that differ by an annotation."""
        return [
            self.put(
                {
                    "schemaVersion": 2,
                    "mediaType": MANIFEST,
                    "config": self._config,
                    "layers": [],
                    "annotations": {"number": str(number)},
                },
                MANIFEST,
            )
            for number in range(count)
        ]

    def index(self, children: list[dict[str, Any]]) -> dict[str, Any]:
        """Store an index."""
        document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": children}
        return self.put(document, INDEX)

    def name(self, roots: list[dict[str, Any]]) -> None:
        """Write index.json, with a tag for each."""
        key = "org.opencontainers.image.ref.name"
        entries = [{**root, "annotations": {key: f"t{n}"}} for n, root in enumerate(roots)]
        (self.path / "index.json").write_text(
            json.dumps({"schemaVersion": 2, "manifests": entries})
        )


def made(path: Path, shape: str, count: int) -> Path:
    """Return a layout of so many images with a name each, or in one index, or in many."""
    layout = Made(path)
    images = layout.images(count)
    if shape == "names":
        layout.name(images)
    elif shape == "children":
        layout.name([layout.index(images)])
    else:
        parts = [layout.index(images[n : n + 50]) for n in range(0, count, 50)]
        layout.name([layout.index(parts)])
    return path


def cpu_s(*arguments: object, code: int = 0) -> float:
    """Run the command; return the processor time that it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    result = ocimirror(*map(str, arguments), fresh=True)
    assert result.code == code, result.stderr
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before


@pytest.mark.parametrize("shape", ["names", "children", "tree"])
def test_four_times_the_images_cost_at_most_five_times_the_work(tmp_path: Path, shape: str) -> None:
    small = made(tmp_path / "small", shape, 1000)
    large = made(tmp_path / "large", shape, 4000)
    for command in (["verify"], ["gc", "--dry-run"]):
        assert cpu_s(*command, large) <= 5 * cpu_s(*command, small), command


def test_gc_of_many_files_costs_in_proportion(tmp_path: Path) -> None:
    small, large = (made(tmp_path / str(count), "names", count) for count in (4000, 16_000))
    assert cpu_s("gc", "--dry-run", large) <= 5 * cpu_s("gc", "--dry-run", small)


def test_images_without_a_name_are_told_apart_in_proportion(tmp_path: Path) -> None:
    def unnamed(count: int) -> Path:
        layout = Made(tmp_path / str(count))
        document = {"schemaVersion": 2, "manifests": layout.images(count)}
        (layout.path / "index.json").write_text(json.dumps(document))
        return layout.path

    small, large = unnamed(1000), unnamed(4000)
    assert cpu_s("inspect", large, code=2) <= 5 * cpu_s("inspect", small, code=2)


def test_repair_reads_what_many_names_share_once(tmp_path: Path) -> None:
    def damaged(count: int) -> Path:
        layout = Made(tmp_path / str(count))
        images = layout.images(count)
        last = layout.path / "blobs" / "sha256" / images[-1]["digest"].removeprefix("sha256:")
        last.unlink()
        layout.name([layout.index(images)] * count)
        return layout.path

    small, large = damaged(60), damaged(240)
    command = ("repair", "--dry-run")
    assert cpu_s(*command, large, code=4) <= 5 * cpu_s(*command, small, code=4)


def test_repair_stops_while_it_reads_manifests(tmp_path: Path) -> None:
    layout = made(tmp_path / "layout", "names", 10_000)
    process = subprocess.Popen(
        [PROGRAM, "repair", layout],
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    lock = str(layout / ".ocimirror" / "lock")
    end = time.monotonic() + 60
    while lock not in _open_files(process.pid) and time.monotonic() < end:
        time.sleep(0.02)
    assert _stopped(process) < 1, "it went on reading"


def test_copy_stops_while_it_plans(tmp_path: Path) -> None:
    layout = made(tmp_path / "layout", "children", 25_000)
    process = subprocess.Popen(
        [PROGRAM, "copy", f"oci:{layout}:t0", f"oci:{tmp_path}/copied"],
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    end = time.monotonic() + 120
    while _cpu_s(process.pid) < 1 and process.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    assert _stopped(process) < 1, "it went on with what was planned"


def _stopped(process: subprocess.Popen[bytes]) -> float:
    """Tell it to stop; return the processor time in seconds that it took to end."""
    before = _cpu_s(process.pid)
    process.send_signal(signal.SIGTERM)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.stderr is not None
    with process.stderr as stderr:
        said = stderr.read().decode()
    assert process.returncode == 143, said
    return used.ru_utime + used.ru_stime - before


def _open_files(pid: int) -> set[str]:
    found = set()
    with contextlib.suppress(OSError):
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                found.add(str(fd.readlink()))
    return found


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_no_command_needs_300_mb_for_a_layout_of_many_images(tmp_path: Path) -> None:
    # (Less than index.json may have at most: what reads that much at once fails with one image.)
    layout = made(tmp_path / "layout", "names", 500)
    for command in ("verify", "list", "tag {} t0 new", "remove {} t1", "gc", "repair"):
        line = command if "{}" in command else f"{command} {{}}"
        done = subprocess.run(
            ["bash", "-c", f"ulimit -v 250000; {PROGRAM} {line.format(layout)}"],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, (command, done.stderr)
