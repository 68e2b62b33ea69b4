"""A pull that was killed goes on where it was, and believes nothing that it finds."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import images
from tests.support.command import PROGRAM, environment, ocimirror
from tests.support.faults import Drip, Rule, Stall
from tests.support.proxy import Proxy
from tests.support.registry import StrictRegistry, run_registry
from tests.support.witness import Registry

SIZE = 40_000_000
Front = Callable[..., Proxy]


@pytest.fixture
def name(docker_registry: Registry, repository: str) -> str:
    (graph,) = images.shared_layers(1, 1, SIZE, 0.0)
    images.push(docker_registry, repository, "1.0", graph)
    return f"{repository}:1.0"


def partials(layout: Path) -> list[Path]:
    return list((layout / ".ocimirror" / "tmp").glob("*.partial"))


def killed_at(share: float, size: int, front: Proxy, name: str, layout: Path, number: int) -> int:
    """Kill a pull once this share of the layer is on the disk; return the bytes that were."""
    process = subprocess.Popen(
        [PROGRAM, "pull", f"{front.host}/{name}", layout, "-j1"],
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not any(path.stat().st_size >= share * size for path in partials(layout)):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    process.wait()
    return max(path.stat().st_size for path in partials(layout))


HUGE_BYTES = 500 * 1024 * 1024
HUGE_PART_BYTES = 1024 * 1024


@pytest.fixture(scope="module")
def huge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StrictRegistry]:
    """Serve huge:1.0, a layer of 500 MiB that is nowhere the same, from a disk that is freed."""
    directory = tmp_path_factory.mktemp("huge")
    noise = images.noise("huge", HUGE_PART_BYTES - 8)
    parts = range(HUGE_BYTES // HUGE_PART_BYTES)
    builder = images.Builder()
    layer = builder.blob(
        b"".join(number.to_bytes(8) + noise for number in parts), images.OCI_LAYER_GZIP
    )
    document = {
        "schemaVersion": 2,
        "mediaType": images.OCI_MANIFEST,
        "config": builder.blob(b"{}", images.OCI_CONFIG),
        "layers": [layer],
    }
    root = builder.manifest(json.dumps(document).encode(), images.OCI_MANIFEST)
    with run_registry(directory) as registry:
        images.push(registry, "huge", "1.0", builder.graph(root))
        del builder
        yield registry
    shutil.rmtree(directory)


@pytest.fixture
def layout(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "layout"
    shutil.rmtree(tmp_path / "layout")


@pytest.mark.bar("R01", "R46")
@pytest.mark.parametrize(
    ("share", "number"),
    [
        (0.1, signal.SIGKILL),
        (0.5, signal.SIGKILL),
        (0.99, signal.SIGKILL),
        (0.5, signal.SIGTERM),
    ],
)
def test_after_a_kill_the_next_pull_transfers_only_the_rest(
    share: float, number: signal.Signals, huge: StrictRegistry, proxy: Front, layout: Path
) -> None:
    """A layer of 500 MiB; what the killed run had read and not written yet comes twice."""
    layer = max((huge.directory / "blobs" / "sha256").iterdir(), key=lambda p: p.stat().st_size)
    stuck = proxy(huge, Rule("GET", layer.name, Stall(when=int(share * HUGE_BYTES))))
    on_disk = share - 4 * HUGE_PART_BYTES / HUGE_BYTES
    kept = killed_at(on_disk, HUGE_BYTES, stuck, "huge:1.0", layout, number)
    front = proxy(huge)

    pulled = ocimirror("pull", f"{front.host}/huge:1.0", layout, "--json", "-j1")

    assert pulled.code == 0, pulled.stderr
    sent = sum(r.sent_bytes for r in front.requests if "/blobs/" in r.path and r.method == "GET")
    assert HUGE_BYTES - kept <= sent <= HUGE_BYTES - kept + 1000  # (and the config)
    manifests = sum(r.sent_bytes for r in front.requests if "/manifests/" in r.path)
    assert pulled.document["images"][0]["bytes"]["copied"] == sent + manifests
    assert sent <= (1 - share) * HUGE_BYTES + 4 * HUGE_PART_BYTES
    assert ocimirror("verify", layout).code == 0
    assert partials(layout) == []


def test_a_kept_part_that_was_damaged_costs_a_second_fetch_and_nothing_else(
    name: str, docker_registry: Registry, proxy: Front, tmp_path: Path
) -> None:
    slow = proxy(docker_registry, Rule("GET", r"/blobs/", Drip(500_000, 0.01)))
    killed_at(0.3, SIZE, slow, name, tmp_path / "layout", signal.SIGKILL)
    (part,) = partials(tmp_path / "layout")
    with part.open("r+b") as file:
        file.seek(1000)
        file.write(b"damage")

    pulled = ocimirror("pull", f"{docker_registry.host}/{name}", tmp_path / "layout")

    assert pulled.code == 0, pulled.stderr
    assert ocimirror("verify", tmp_path / "layout").code == 0


def test_two_pulls_of_one_blob_do_not_write_into_one_file(
    name: str, docker_registry: Registry, proxy: Front, tmp_path: Path
) -> None:
    slow = proxy(docker_registry, Rule("GET", r"/blobs/", Drip(1_000_000, 0.02)))
    command = [PROGRAM, "pull", f"{slow.host}/{name}", str(tmp_path / "layout")]

    processes = [subprocess.Popen(command, env=environment()) for _ in range(3)]

    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert ocimirror("verify", tmp_path / "layout").code == 0


def test_a_kept_part_that_is_longer_than_the_blob_is_discarded(
    name: str, docker_registry: Registry, tmp_path: Path
) -> None:
    layout = tmp_path / "layout"
    graph = images.shared_layers(1, 1, SIZE, 0.0)[0]
    layer = max(graph.blobs, key=lambda digest: len(graph.blobs[digest]))
    part = layout / ".ocimirror" / "tmp" / f"{layer.replace(':', '-')}.partial"
    part.parent.mkdir(parents=True)
    (layout / "blobs" / "sha256").mkdir(parents=True)
    part.write_bytes(bytes(SIZE + 1))

    pulled = ocimirror("pull", f"{docker_registry.host}/{name}", layout)

    assert pulled.code == 0, pulled.stderr
    assert ocimirror("verify", layout).code == 0
