"""tag, remove, repair and gc, as a user runs them."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ocimirror import (
    Layout,
    NetworkOptions,
    Options,
    Outcome,
    Plan,
    Request,
    copy,
)
from ocimirror import (
    Registry as Source,
)
from tests.support import images
from tests.support.command import PROGRAM, environment, ocimirror
from tests.support.faults import Drip, Rule
from tests.support.images import Graph
from tests.support.judge import contents_of, faults_of, leftovers_of, names_of
from tests.support.proxy import run_proxy
from tests.support.servers import run_docker_registry
from tests.support.stores import named
from tests.support.witness import Registry

ROOT = Path(__file__).parents[2]
APP, OTHER = "registry.example.com/app:v1", "registry.example.com/other:v2"
IMAGE, SECOND = images.multi(), images.docker_schema2()


def start(*arguments: str | Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [PROGRAM, *map(str, arguments)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def put_aside(layout: Path) -> set[str]:
    found = (layout / ".ocimirror" / "quarantine").glob("*/*")
    return {f"{path.parent.name}:{path.name}" for path in found}


def lonely(graph: Graph, *others: Graph) -> set[str]:
    """Return the digests that only this image has."""
    return set(graph.contents) - {digest for other in others for digest in other.contents}


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    """Write a layout of two images."""
    return images.write_layout(tmp_path / "layout", {APP: IMAGE, OTHER: SECOND})


# --- names --------------------------------------------------------------------------------------


def test_tag_gives_an_image_one_more_name_and_keeps_the_index_before(layout: Path) -> None:
    before = (layout / "index.json").read_bytes()

    tagged = ocimirror("tag", layout, "v1", "stable", "--json")

    assert tagged.code == 0, tagged.stderr
    assert tagged.document == {
        "schema": "ocimirror.tag/v1",
        "exit_code": 0,
        "name": "registry.example.com/app:stable",
        "digest": IMAGE.root,
        "previous": None,
    }
    assert (layout / "index.json.prev").read_bytes() == before
    wanted = {APP: IMAGE.root, OTHER: SECOND.root, "registry.example.com/app:stable": IMAGE.root}
    assert names_of(layout) == wanted
    assert ocimirror("verify", layout).code == 0


def test_tag_moves_a_name_and_says_what_had_it(layout: Path) -> None:
    moved = ocimirror("tag", layout, APP, OTHER, "--json")
    assert moved.document["previous"] == SECOND.root
    assert names_of(layout) == {APP: IMAGE.root, OTHER: IMAGE.root}


def test_a_short_name_is_written_in_full(layout: Path) -> None:
    assert ocimirror("tag", layout, IMAGE.root, "library/alpine").code == 0
    assert names_of(layout)["docker.io/library/alpine:latest"] == IMAGE.root


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("tag", "absent", "new"), 4),
        (("tag", APP, "not a tag"), 2),
        (("tag", APP, f"registry.example.com/app@{SECOND.root}"), 2),
        (("tag", "same", "new"), 2),
        (("remove", "absent"), 4),
        (("remove", "same"), 2),
        (("remove", IMAGE.root), 2),
    ],
)
def test_a_name_that_is_unknown_is_4_and_one_that_could_be_several_is_2(
    layout: Path, arguments: tuple[str, ...], code: int
) -> None:
    for repository, graph in (("one", IMAGE), ("two", SECOND)):
        ocimirror("tag", layout, graph.root, f"registry.example.com/{repository}:same")
    before = (layout / "index.json").read_bytes()

    command, *rest = arguments
    assert ocimirror(command, layout, *rest).code == code
    assert (layout / "index.json").read_bytes() == before


@pytest.mark.parametrize("command", [("tag", "a", "b"), ("remove", "a"), ("gc",), ("repair",)])
def test_no_layout_is_made_where_there_is_none(command: tuple[str, ...], tmp_path: Path) -> None:
    name, *rest = command
    assert ocimirror(name, tmp_path / "absent", *rest).code == 4
    assert ocimirror(name, tmp_path, *rest).code == 5
    assert list(tmp_path.iterdir()) == []


def test_removing_the_last_name_leaves_the_content_to_gc(layout: Path) -> None:
    ocimirror("tag", layout, APP, "again")

    first = ocimirror("remove", layout, APP)
    last = ocimirror("remove", layout, "again")

    assert "still registry.example.com/app:again" in first.stdout
    assert f"ocimirror gc {layout}" in last.stdout
    assert names_of(layout) == {OTHER: SECOND.root}
    assert set(IMAGE.contents) <= set(contents_of(layout))
    for _ in range(2):
        assert ocimirror("gc", layout, "--grace", "0").code == 0
    assert set(contents_of(layout)) == set(SECOND.contents)


def test_an_image_takes_along_what_refers_to_it_alone(tmp_path: Path) -> None:
    subject, note = images.single(), images.with_subject()
    layout = images.write_layout(tmp_path / "layout", {APP: subject, OTHER: SECOND}, [note])
    subjects = json.loads(note.raw)["subject"]["digest"]
    assert subjects in subject.contents

    removed = ocimirror("remove", layout, APP, "--json").document

    assert [attachment["digest"] for attachment in removed["attachments"]] == [note.root]
    document = json.loads((layout / "index.json").read_bytes())
    assert [entry["digest"] for entry in document["manifests"]] == [SECOND.root]


# --- gc -----------------------------------------------------------------------------------------


def test_gc_deletes_in_two_runs_and_tells_what_it_did(layout: Path) -> None:
    ocimirror("remove", layout, APP)
    gone = lonely(IMAGE, SECOND)
    size = sum(len(IMAGE.contents[digest]) for digest in gone)

    young = ocimirror("gc", layout, "--json").document
    planned = ocimirror("gc", layout, "--grace", "0", "--dry-run", "--json").document
    first = ocimirror("gc", layout, "--grace", "0", "--json").document
    waiting = ocimirror("gc", layout, "--json").document
    second = ocimirror("gc", layout, "--grace", "0", "--json").document

    assert young["schema"] == "ocimirror.gc/v1"
    assert young["quarantined"] == {"blobs": 0, "bytes": 0}
    assert planned == {**first, "dry_run": True}
    assert first["quarantined"] == {"blobs": len(gone), "bytes": size}
    assert first["kept"]["blobs"] == len(SECOND.contents)
    assert (waiting["waiting"]["blobs"], waiting["deleted"]["blobs"]) == (len(gone), 0)
    assert second["deleted"] == {"blobs": len(gone), "bytes": size}
    assert put_aside(layout) == set()
    assert ocimirror("verify", layout).code == 0


def test_gc_puts_back_what_has_become_needed(layout: Path) -> None:
    index = (layout / "index.json").read_bytes()
    ocimirror("remove", layout, APP)
    ocimirror("gc", layout, "--grace", "0")
    (layout / "index.json").write_bytes(index)

    restored = ocimirror("gc", layout, "--grace", "0", "--json").document["restored"]

    assert restored["blobs"] == len(lonely(IMAGE, SECOND))
    assert faults_of(layout) == []


def test_gc_quiet_is_silent_and_a_grace_is_a_time_span(layout: Path) -> None:
    for grace in ("0", "90s", "15m", "1h30m", "7d", "2w"):
        done = ocimirror("gc", layout, "-q", "--grace", grace)
        assert (done.code, done.stdout, done.stderr) == (0, "", "")
    assert ocimirror("gc", layout, "--grace", "1 week").code == 2


def test_gc_removes_nothing_where_a_manifest_is_damaged(layout: Path) -> None:
    ocimirror("remove", layout, APP)
    path = images.blob_path(layout, SECOND.root)
    path.write_bytes(path.read_bytes()[:-1])

    refused = ocimirror("gc", layout, "--grace", "0", "--json")

    assert refused.code == 5
    assert refused.document["error"]["code"] == "damaged_layout"
    assert "nothing was removed" in refused.stderr
    assert set(IMAGE.contents) <= set(contents_of(layout))


def test_gc_keeps_sparse_images_and_images_without_their_foreign_layers(
    docker_registry: Registry, repository: str, tmp_path: Path
) -> None:
    images.push(docker_registry, repository, "1", IMAGE)
    layout = tmp_path / "layout"
    name = f"{docker_registry.host}/{repository}:1"
    assert ocimirror("pull", name, layout, "--platform", "linux/arm64").code == 0
    foreign = images.write_layout(tmp_path / "foreign", {APP: images.foreign_layer()})

    for directory in (layout, foreign):
        before = contents_of(directory)
        for _ in range(2):
            assert ocimirror("gc", directory, "--grace", "0").code == 0
        assert contents_of(directory) == before


@pytest.mark.bar("R09")
def test_gc_exits_7_while_a_pull_runs_and_wait_waits(
    docker_registry: Registry, repository: str, layout: Path
) -> None:
    images.push(docker_registry, repository, "1", images.shared_layers(1, 4, 60_000, 0)[0])
    with run_proxy(docker_registry, Rule("GET", r"/blobs/", Drip(2000, 0.05))) as proxy:
        pull = start("pull", f"{proxy.host}/{repository}:1", layout)
        while not proxy.count("GET", "/blobs/"):
            time.sleep(0.02)

        refused = ocimirror("gc", layout, "--grace", "0", "--json")
        waits = start("gc", layout, "--grace", "0", "--wait")
        time.sleep(0.5)
        assert pull.poll() is None
        assert waits.poll() is None
        pull.communicate(timeout=60)
        waits.communicate(timeout=60)

    assert refused.code == 7
    assert refused.document["error"]["code"] == "locked"
    assert (pull.returncode, waits.returncode) == (0, 0)
    assert f"{proxy.host}/{repository}:1" in names_of(layout)
    assert faults_of(layout) == []


@pytest.mark.bar("R09")
def test_gc_beside_pulls_never_takes_what_they_need(
    docker_registry: Registry, repository: str, tmp_path: Path
) -> None:
    """Names come and go, so that what gc may take in one round is needed in the next."""
    layout = tmp_path / "layout"
    graphs = images.shared_layers(3, 3, 20_000, 0.67)
    for number, graph in enumerate(graphs):
        images.push(docker_registry, repository, f"t{number}", graph)
    names = [f"{docker_registry.host}/{repository}:t{number}" for number in range(3)]
    assert ocimirror("pull", *names, layout).code == 0
    codes = []
    for round_number in range(9):
        name = names[round_number % 3]
        ocimirror("remove", layout, name, "--wait")
        processes = [
            start("gc", layout, "--grace", "0", "--wait", "-q"),
            start("pull", name, layout, "--wait", "-q"),
            start("gc", layout, "--grace", "0", "--wait", "-q"),
        ]
        codes += [process.communicate(timeout=60) and process.returncode for process in processes]
        assert set(names_of(layout)) == set(names)
        assert faults_of(layout) == []

    assert set(codes) == {0}
    assert ocimirror("verify", layout).code == 0
    assert leftovers_of(layout) == []


class Pausing:
    """Holds a copy up once it knows what it needs."""

    def __init__(self, pause_s: float) -> None:
        self._pause_s = pause_s

    def planned(self, request: Request, plan: Plan) -> None:
        time.sleep(self._pause_s)

    def moved(self, request: Request, count: int) -> None:
        pass

    def finished(self, outcome: Outcome) -> None:
        pass


@pytest.mark.bar("R09")
def test_gc_in_a_loop_beside_two_hundred_copies_never_takes_what_they_need(
    docker_registry: Registry, repository: str, tmp_path: Path
) -> None:
    """Two processes collect all the time; a name moves from image to image, some held up."""
    directory = tmp_path / "layout"
    graphs = images.shared_layers(3, 3, 5000, 0.67)
    for number, graph in enumerate(graphs):
        images.push(docker_registry, repository, f"t{number}", graph)
    images.write_layout(directory, {})
    command = [sys.executable, "-m", "tests.support.gcloop", str(directory)]
    collectors = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT)
        for _ in range(2)
    ]
    for collector in collectors:
        assert collector.stdout is not None
        assert collector.stdout.readline() == b"ready\n"
    with Source(docker_registry.host, NetworkOptions()) as source:
        for round_number in range(200):
            time.sleep(0.001 * (round_number % 7))
            pausing = Pausing(0.05 * (round_number % 10 == 0))
            image = source[f"{repository}:t{round_number % 3}"]
            with Layout(directory, write=True, durable=False, wait=True) as layout:
                copy(image, layout[APP], Options(jobs=2), pausing)
            with Layout(directory, wait=True):  # (gc waits meanwhile)
                assert names_of(directory) == {APP: graphs[round_number % 3].root}
                assert faults_of(directory) == []
    told = [collector.communicate(b"stop", timeout=60)[0] for collector in collectors]
    runs, put_away, deleted = (
        sum(counts) for counts in zip(*(map(int, t.split()) for t in told), strict=True)
    )
    assert runs >= 200
    assert min(put_away, deleted) >= 100, (runs, put_away, deleted)
    assert ocimirror("verify", directory).code == 0
    assert leftovers_of(directory) == []


def test_gc_that_is_killed_leaves_a_valid_layout_and_the_next_one_finishes(tmp_path: Path) -> None:
    graphs = images.shared_layers(150, 4, 300, 0)
    base = images.write_layout(tmp_path / "base", {APP: IMAGE, **named(graphs)})
    images.write_layout(base, {APP: IMAGE})
    killed = 0
    for moment in range(12):
        layout = tmp_path / f"layout{moment}"
        shutil.copytree(base, layout)
        process = start("gc", layout, "--grace", "0")
        while not put_aside(layout) and process.poll() is None:
            time.sleep(0.001)
        time.sleep(0.003 * moment)
        process.kill()
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
        assert faults_of(layout) == []
        assert names_of(layout) == {APP: IMAGE.root}
        if moment % 6 == 0:
            for _ in range(2):
                assert ocimirror("gc", layout, "--grace", "0").code == 0
            assert set(contents_of(layout)) == set(IMAGE.contents)
            assert put_aside(layout) == set()
        shutil.rmtree(layout)
    assert killed >= 3


# --- repair -------------------------------------------------------------------------------------


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "a flipped bit": ("blob", flip),
    "a missing file": ("blob", Path.unlink),
    "a wrong size": ("blob", lambda path: path.write_bytes(b"short")),
    "a damaged manifest": ("child", flip),
    "a missing manifest": ("child", Path.unlink),
    "a damaged root": ("root", flip),
}


def damage(layout: Path, graph: Graph, what: str) -> None:
    which, spoil = DAMAGES[what]
    digest = {"blob": next(iter(graph.blobs)), "child": next(iter(graph.manifests))}.get(which)
    spoil(images.blob_path(layout, digest or graph.root))


@pytest.mark.parametrize("what", DAMAGES)
@pytest.mark.parametrize("place", ["its registry", "another registry", "a layout", "an archive"])
@pytest.mark.bar("R13")
def test_repair_fetches_what_is_damaged_again(
    what: str, place: str, docker_registry: Registry, repository: str, tmp_path: Path
) -> None:
    host = docker_registry.host if place == "its registry" else "registry.example.com"
    name = f"{host}/{repository}:1"
    layout = images.write_layout(tmp_path / "layout", {name: IMAGE, OTHER: SECOND})
    whole = images.write_layout(tmp_path / "whole", {"elsewhere.example.com/x:9": IMAGE})
    archive = images.write_archive(tmp_path / "whole.tar", whole)
    images.push(docker_registry, repository, "1", IMAGE)
    images.push(docker_registry, f"mirror/{repository}", "1", IMAGE)
    origin = {
        "its registry": (),
        "another registry": ("--from", f"docker://{docker_registry.host}/mirror"),
        "a layout": ("--from", f"oci:{whole}"),
        "an archive": ("--from", f"oci-archive:{archive}"),
    }[place]
    index = (layout / "index.json").read_bytes()
    damage(layout, IMAGE, what)
    assert ocimirror("verify", layout).code == 5

    repaired = ocimirror("repair", layout, *origin, "--json")

    assert repaired.code == 0, repaired.stderr
    document = repaired.document
    assert document["schema"] == "ocimirror.repair/v1"
    assert (document["index"], document["faults"]) == ("kept", [])
    (image,) = document["images"]
    assert (image["status"], image["digest"]) == ("copied", IMAGE.root)
    assert image["manifests"]["copied"] + image["blobs"]["copied"] == 1
    assert faults_of(layout) == []
    assert (layout / "index.json").read_bytes() == index


def test_repair_finds_what_push_keep_host_made(
    docker_registry: Registry, repository: str, tmp_path: Path
) -> None:
    name = f"registry.example.com/{repository}:1"
    layout = images.write_layout(tmp_path / "layout", {name: IMAGE})
    assert ocimirror("push", layout, f"{docker_registry.host}/kept", "--keep-host").code == 0
    damage(layout, IMAGE, "a flipped bit")

    repaired = ocimirror("repair", layout, "--from", f"docker://{docker_registry.host}/kept")

    assert repaired.code == 0, repaired.stderr
    assert faults_of(layout) == []


def test_repair_of_a_good_layout_does_nothing(layout: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in layout.glob("blobs/*/*")}
    done = ocimirror("repair", layout)
    assert (done.code, done.stdout) == (0, f"ok  {layout}: no faults\n")
    assert ocimirror("repair", layout, "-q").stdout == ""
    assert {path: path.stat().st_mtime_ns for path in layout.glob("blobs/*/*")} == before


def test_repair_says_what_it_would_fetch_and_changes_nothing(layout: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    shutil.copytree(layout, whole)
    damage(layout, IMAGE, "a missing file")

    planned = ocimirror("repair", layout, "--from", whole, "--dry-run", "--json")

    assert planned.code == 0
    (image,) = planned.document["images"]
    assert (image["status"], image["blobs"]["copied"]) == ("planned", 1)
    assert len(planned.document["faults"]) == 1
    assert len(faults_of(layout)) == 1


def test_repair_repairs_what_it_can_and_returns_the_code_of_what_failed(
    docker_registry: Registry, repository: str, tmp_path: Path
) -> None:
    there = f"{docker_registry.host}/{repository}:1"
    absent = f"{docker_registry.host}/{repository}/absent:1"
    layout = images.write_layout(tmp_path / "l", {there: IMAGE, absent: SECOND})
    images.push(docker_registry, repository, "1", IMAGE)
    damage(layout, IMAGE, "a flipped bit")
    damage(layout, SECOND, "a flipped bit")

    repaired = ocimirror("repair", layout, "--json")

    assert repaired.code == 4
    found = {image["destination"]: image for image in repaired.document["images"]}
    assert found[f"oci:{layout}:{there}"]["status"] == "copied"
    assert found[f"oci:{layout}:{absent}"]["error"]["code"] == "not_found"
    (fault,) = repaired.document["faults"]
    assert (fault["kind"], fault["digest"]) == ("corrupt", next(iter(SECOND.blobs)))


def test_repair_says_where_it_does_not_know_the_place_to_fetch_from(tmp_path: Path) -> None:
    layout = images.write_layout(tmp_path / "layout", {"v1": IMAGE})
    damage(layout, IMAGE, "a flipped bit")

    repaired = ocimirror("repair", layout)

    assert repaired.code == 4
    assert "--from" in repaired.stderr


def test_repair_of_a_sparse_image_includes_what_another_image_brought(
    docker_registry: Registry, repository: str, tmp_path: Path
) -> None:
    images.push(docker_registry, repository, "1", IMAGE)
    layout = tmp_path / "layout"
    name = f"{docker_registry.host}/{repository}:1"
    children = json.loads(IMAGE.raw)["manifests"]
    amd64 = next(c["digest"] for c in children if c["platform"]["architecture"] == "amd64")
    by_digest = f"{docker_registry.host}/{repository}@{amd64}"
    assert ocimirror("pull", name, layout, "--platform", "linux/arm64").code == 0
    assert ocimirror("pull", by_digest, layout).code == 0
    assert ocimirror("remove", layout, by_digest).code == 0
    config = json.loads(IMAGE.contents[amd64])["config"]["digest"]
    flip(images.blob_path(layout, config))

    assert ocimirror("repair", layout).code == 0
    assert ocimirror("verify", layout).code == 0
    others = [child["digest"] for child in children if child["platform"].get("variant") == "v7"]
    assert others
    assert not set(others) & set(contents_of(layout))


def test_repair_takes_an_attachment_from_the_repository_of_its_image(
    docker_registry: Registry, repository: str, tmp_path: Path
) -> None:
    note = images.with_subject()
    images.push(docker_registry, repository, "1", images.single())
    images.push(docker_registry, repository, None, note)
    name = f"{docker_registry.host}/{repository}:1"
    layout = images.write_layout(tmp_path / "layout", {name: images.single()}, [note])
    damage(layout, note, "a damaged root")

    repaired = ocimirror("repair", layout)

    assert repaired.code == 0, repaired.stderr
    assert faults_of(layout) == []


def test_repair_of_a_sparse_image_fetches_its_platform_only(
    docker_registry: Registry, repository: str, tmp_path: Path
) -> None:
    images.push(docker_registry, repository, "1", IMAGE)
    layout = tmp_path / "layout"
    name = f"{docker_registry.host}/{repository}:1"
    assert ocimirror("pull", name, layout, "--platform", "linux/arm64").code == 0
    whole = contents_of(layout)
    flip(images.blob_path(layout, max(whole, key=lambda digest: len(whole[digest]))))

    assert ocimirror("repair", layout).code == 0
    assert contents_of(layout) == whole


def test_a_signal_stops_a_repair_and_what_was_there_stays(
    docker_registry: Registry, repository: str, tmp_path: Path
) -> None:
    large = images.shared_layers(1, 2, 400_000, 0)[0]
    images.push(docker_registry, repository, "1", large)
    with run_proxy(docker_registry, Rule("GET", r"/blobs/", Drip(2000, 0.05))) as proxy:
        name = f"{proxy.host}/{repository}:1"
        layout = images.write_layout(tmp_path / "layout", {name: large, APP: IMAGE})
        for digest in large.blobs:
            images.blob_path(layout, digest).unlink()
        repair = start("repair", layout, "--json")
        while not proxy.count("GET", "/blobs/"):
            time.sleep(0.02)
        repair.send_signal(signal.SIGTERM)
        stdout, _ = repair.communicate(timeout=5)

    assert repair.returncode == 128 + signal.SIGTERM
    assert json.loads(stdout)["exit_code"] == 143
    assert leftovers_of(layout) == []
    assert names_of(layout) == {name: large.root, APP: IMAGE.root}


@pytest.mark.parametrize("torn", [b"", b'{"schemaVersion":2,"manif', b"\0" * 500, None])
@pytest.mark.bar("R12")
def test_repair_takes_a_damaged_index_from_the_one_before(layout: Path, torn: bytes | None) -> None:
    ocimirror("tag", layout, APP, "last")
    damaged = layout / "index.json"
    damaged.unlink()
    if torn is not None:
        damaged.write_bytes(torn)
    assert ocimirror("verify", layout).code == 5
    assert ocimirror("repair", layout, "--dry-run").code == 5

    repaired = ocimirror("repair", layout, "--json")

    assert repaired.code == 0, repaired.stderr
    assert repaired.document["index"] == "restored"
    assert names_of(layout) == {APP: IMAGE.root, OTHER: SECOND.root}
    if torn is not None:
        assert (layout / ".ocimirror" / "index.json.damaged").read_bytes() == torn


@pytest.mark.parametrize("flags", [[], ["--rebuild-index"]])
def test_repair_makes_the_index_of_the_blobs_and_wants_a_name_for_each_image(
    layout: Path, flags: list[str]
) -> None:
    index = layout / "index.json"
    index.write_bytes(b"")
    (layout / "index.json.prev").write_bytes(b"{torn")

    rebuilt = ocimirror("repair", layout, *flags, "--json")

    assert rebuilt.code == 5, rebuilt.stderr
    assert rebuilt.document["index"] == "rebuilt"
    assert rebuilt.document["unnamed"] == sorted([IMAGE.root, SECOND.root])
    entries = json.loads(index.read_bytes())["manifests"]
    assert {e["digest"]: e["mediaType"] for e in entries} == {
        IMAGE.root: IMAGE.root_media_type,
        SECOND.root: SECOND.root_media_type,
    }
    assert ocimirror("verify", layout).code == 0
    assert ocimirror("tag", layout, f"@{SECOND.root}", APP).code == 0
    assert ocimirror("repair", layout, "--json").document["unnamed"] == [IMAGE.root]
    assert ocimirror("remove", layout, f"@{IMAGE.root}").code == 0
    assert ocimirror("repair", layout).code == 0
    assert names_of(layout) == {APP: SECOND.root}


def test_repair_merges_the_index_before_with_the_images_that_it_does_not_have(layout: Path) -> None:
    ocimirror("remove", layout, OTHER)
    shutil.copy(layout / "index.json", layout / "index.json.prev")
    (layout / "index.json").write_bytes(b"")

    repaired = ocimirror("repair", layout)

    assert repaired.code == 5
    assert f"unnamed  {SECOND.root}" in repaired.stdout
    assert names_of(layout) == {APP: IMAGE.root}
    entries = json.loads((layout / "index.json").read_bytes())["manifests"]
    assert [entry["digest"] for entry in entries] == [IMAGE.root, SECOND.root]


@pytest.mark.parametrize("known", ["layout", "lock file"])
@pytest.mark.parametrize("late", [False, True])
def test_repair_takes_names_from_another_layout_or_a_lock_file(
    layout: Path, tmp_path: Path, known: str, late: bool
) -> None:
    if known == "layout":
        other = images.write_layout(tmp_path / "other", {APP: IMAGE, OTHER: SECOND})
        where = ["--from", f"oci:{other}"]
    else:
        lock = tmp_path / "names.lock"
        records = [
            {
                "source": f"docker://{name}",
                "digest": graph.root,
                "size": 1,
                "media_type": graph.root_media_type,
                "time": "2026-01-01T00:00:00Z",
                "platforms": [],
                "attachments": [],
            }
            for name, graph in ((APP, IMAGE), (OTHER, SECOND))
        ]
        lock.write_text(json.dumps({"schema": "ocimirror.lock/v1", "images": records}))
        where = ["--lock", str(lock)]
    (layout / "index.json").unlink()
    if late:
        assert ocimirror("repair", layout).code == 5

    repaired = ocimirror("repair", layout, *where)

    assert repaired.code == 0, repaired.stdout + repaired.stderr
    assert names_of(layout) == {APP: IMAGE.root, OTHER: SECOND.root}
    assert len(json.loads((layout / "index.json").read_bytes())["manifests"]) == 2
    assert ocimirror("repair", layout, *where).code == 0


def test_repair_moves_no_name_for_a_place_that_knows_another_image_by_it(
    layout: Path, tmp_path: Path
) -> None:
    other = images.write_layout(tmp_path / "other", {APP: SECOND})
    ocimirror("remove", layout, OTHER)
    before = names_of(layout)

    repaired = ocimirror("repair", layout, "--rebuild-index", "--from", f"oci:{other}", "--json")

    assert repaired.code == 5
    assert repaired.document["unnamed"] == [SECOND.root]
    assert names_of(layout) == before == {APP: IMAGE.root}


def test_rebuild_index_adds_what_a_valid_but_smaller_index_lacks_also_from_quarantine(
    layout: Path,
) -> None:
    index = layout / "index.json"
    index.write_bytes(b'{"schemaVersion":2,"manifests":[]}')
    assert ocimirror("gc", layout, "--grace", "0").code == 0
    assert put_aside(layout) == set(IMAGE.contents) | set(SECOND.contents)

    repaired = ocimirror("repair", layout, "--rebuild-index", "--json")

    assert repaired.code == 5
    assert repaired.document["unnamed"] == sorted([IMAGE.root, SECOND.root])
    assert put_aside(layout) == set()
    assert ocimirror("verify", layout).code == 0


def test_a_layout_made_by_one_copy_survives_a_torn_index_repair_and_gc(tmp_path: Path) -> None:
    source = images.write_layout(tmp_path / "source", {APP: IMAGE})
    layout = tmp_path / "layout"
    assert ocimirror("copy", f"oci:{source}:{APP}", f"oci:{layout}").code == 0
    assert not (layout / "index.json.prev").exists()
    (layout / "index.json").write_bytes(b"")

    assert ocimirror("repair", layout).code == 5
    refused = ocimirror("gc", layout, "--grace", "0")
    for _ in range(2):
        assert ocimirror("gc", layout, "--grace", "0", "--after-repair").code == 0

    assert refused.code == 5
    assert "--after-repair" in refused.stderr
    assert set(contents_of(layout)) == set(IMAGE.contents)
    assert ocimirror("gc", layout).code == 0


def test_a_repair_that_was_killed_before_it_wrote_is_made_again(layout: Path) -> None:
    kept = layout / ".ocimirror" / "index.json.damaged"
    kept.parent.mkdir(exist_ok=True)
    (layout / "index.json").write_bytes(b"{torn")
    (layout / "index.json").rename(kept)
    assert ocimirror("gc", layout).code == 5

    assert ocimirror("repair", layout).code == 5
    assert kept.read_bytes() == b"{torn"
    assert ocimirror("verify", layout).code == 0


BAD = {
    "null": None,
    "empty digest": {"mediaType": IMAGE.root_media_type, "digest": "", "size": 2},
    "odd media type": {"mediaType": "odd", "digest": SECOND.root, "size": 2},
    "empty media type": {"mediaType": "", "digest": SECOND.root, "size": 2},
    "parameters": {
        "mediaType": f"{SECOND.root_media_type}; charset=utf-8",
        "digest": SECOND.root,
        "size": len(SECOND.contents[SECOND.root]),
    },
    "no size": {"mediaType": SECOND.root_media_type, "digest": SECOND.root},
}


@pytest.mark.parametrize("bad", BAD)
def test_one_bad_entry_is_a_fault_that_stops_nobody_and_that_repair_mends(
    layout: Path, tmp_path: Path, bad: str
) -> None:
    index = layout / "index.json"
    document = json.loads(index.read_bytes())
    entry = BAD[bad]
    if entry is not None:
        entry = {**entry, "annotations": {"io.containerd.image.name": OTHER}}
    whole = [e for e in document["manifests"] if e["digest"] != SECOND.root]
    index.write_text(json.dumps({**document, "manifests": [entry, *whole]}))

    verified = ocimirror("verify", layout, "--json")
    assert verified.code == 5
    assert [fault["path"] for fault in verified.document["faults"]] == ["index.json"]
    assert ocimirror("list", layout).code == 0
    assert len(ocimirror("list", layout, "--json").document["unreadable"]) == 1
    assert ocimirror("copy", f"oci:{layout}:{APP}", f"oci:{tmp_path}/copy").code == 0
    assert ocimirror("tag", layout, APP, "more").code == 0
    assert json.loads(index.read_bytes())["manifests"][0] == entry
    proved = entry is not None and entry["digest"]
    if proved:
        assert ocimirror("copy", f"oci:{layout}:{OTHER}", f"oci:{tmp_path}/copy").code == 5
        assert ocimirror("gc", layout, "--grace", "0").code == 0
        assert put_aside(layout) == set()

    repaired = ocimirror("repair", layout)

    assert repaired.code == (0 if proved else 5), repaired.stdout
    assert ocimirror("verify", layout).code == 0
    assert names_of(layout).get(OTHER) == (SECOND.root if proved else None)


@pytest.mark.parametrize("bad", ["odd media type", "null"])
def test_who_asks_for_all_of_a_layout_with_a_bad_entry_gets_the_others_and_a_failure(
    layout: Path, docker_registry: Registry, tmp_path: Path, bad: str
) -> None:
    index = layout / "index.json"
    document = json.loads(index.read_bytes())
    whole = [e for e in document["manifests"] if e["digest"] != SECOND.root]
    index.write_text(json.dumps({**document, "manifests": [*whole, BAD[bad]]}))
    named = "manifests[1]" if BAD[bad] is None else SECOND.root
    prefix = f"{docker_registry.host}/{tmp_path.name.replace('_', '')}"

    pushed = ocimirror("push", layout, prefix, "--json")
    assert pushed.code == 5
    statuses = [image["status"] for image in pushed.document["images"]]
    assert statuses == ["copied", "failed"]
    assert named in pushed.document["images"][1]["source"]
    assert ocimirror("push", layout, prefix).code == 5
    assert ocimirror("push", layout, prefix, "--image", APP).code == 0
    copied = ocimirror("copy", layout, f"oci:{tmp_path}/copy")
    assert copied.code == 5
    assert named in copied.stdout + copied.stderr
    assert names_of(tmp_path / "copy") == {APP: IMAGE.root}
    pulled = ocimirror("pull", f"{prefix}/app:1", layout)
    listed = ocimirror("list", layout)
    assert named in listed.stdout
    assert pulled.code in (0, 4)
    assert "repair" in pulled.stderr

    index.write_text(json.dumps({**document, "manifests": [BAD[bad]]}))
    assert ocimirror("push", layout, prefix).code == 5
    assert ocimirror("copy", layout, f"oci:{tmp_path}/copy").code == 5


@pytest.mark.parametrize("there", ["absent", "deep/and/absent", "an empty directory"])
def test_a_first_pull_that_failed_leaves_no_layout(
    docker_registry: Registry, repository: str, tmp_path: Path, there: str
) -> None:
    layout = tmp_path / there
    if there == "an empty directory":
        layout.mkdir()
    before = sorted(tmp_path.rglob("*"))
    absent = f"{docker_registry.host}/{repository}:absent"
    assert ocimirror("pull", absent, layout).code == 4
    assert ocimirror("copy", f"docker://{absent}", f"oci:{layout}:{APP}").code == 4
    assert sorted(tmp_path.rglob("*")) == before
    # What is there already stays.
    images.write_layout(layout, {})
    assert ocimirror("pull", absent, layout).code == 4
    assert ocimirror("verify", layout).code == 0


def test_a_first_pull_that_fails_beside_others_takes_nothing_from_them(
    docker_registry: Registry, repository: str, tmp_path: Path
) -> None:
    images.push(docker_registry, repository, "1", SECOND)
    name = f"{docker_registry.host}/{repository}"
    for moment in range(4):
        layout = tmp_path / f"layout{moment}"
        failing = [start("pull", f"{name}:absent", layout) for _ in range(2)]
        time.sleep(0.1 * moment)
        good = start("pull", f"{name}:1", layout)
        for process in (*failing, good):
            process.communicate(timeout=60)
        assert [process.returncode for process in (*failing, good)] == [4, 4, 0]
        assert names_of(layout) == {f"{name}:1": SECOND.root}
        assert faults_of(layout) == []


@pytest.mark.parametrize("part", ["", ".ocimirror", "blobs", "blobs/sha256", ".ocimirror/tmp"])
def test_a_directory_that_is_replaced_by_a_link_during_a_pull_redirects_no_write(
    docker_registry: Registry, repository: str, layout: Path, tmp_path: Path, part: str
) -> None:
    images.push(docker_registry, repository, "1", images.shared_layers(1, 4, 60_000, 0)[0])
    assert ocimirror("tag", layout, APP, "more").code == 0  # (makes .ocimirror)
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(layout / part, elsewhere)
    before = {path: path.stat().st_mtime_ns for path in [elsewhere, *elsewhere.rglob("*")]}
    index = (layout / "index.json").read_bytes()
    with run_proxy(docker_registry, Rule("GET", r"/blobs/", Drip(4000, 0.05))) as proxy:
        pull = start("pull", f"{proxy.host}/{repository}:1", layout)
        while not proxy.count("GET", "/blobs/"):
            time.sleep(0.02)
        held = tmp_path / "held"
        (layout / part).rename(held)
        (layout / part).symlink_to(elsewhere)
        told = pull.communicate(timeout=60)

    assert pull.returncode == 8, told
    assert {p: p.stat().st_mtime_ns for p in [elsewhere, *elsewhere.rglob("*")]} == before
    assert ((held if not part else layout) / "index.json").read_bytes() == index


@pytest.mark.parametrize("torn", [b"", b"{", b"\0" * 30])
def test_a_torn_oci_layout_file_is_an_error_that_repair_mends(layout: Path, torn: bytes) -> None:
    (layout / "oci-layout").write_bytes(torn)
    assert ocimirror("verify", layout).code == 5
    assert ocimirror("gc", layout, "--grace", "0").code == 5
    assert ocimirror("repair", layout, "--dry-run").code == 5
    assert (layout / "oci-layout").read_bytes() == torn
    assert ocimirror("repair", layout).code == 0
    assert ocimirror("verify", layout).code == 0
    # Another version is no damage, and a link leads nowhere.
    (layout / "oci-layout").write_bytes(b'{"imageLayoutVersion":"2.0.0"}')
    assert ocimirror("repair", layout).code == 5
    (layout / "oci-layout").unlink()
    (layout / "other").write_bytes(b"")
    (layout / "oci-layout").symlink_to("other")
    assert ocimirror("repair", layout).code == 5
    assert (layout / "other").read_bytes() == b""


def test_an_archive_without_the_file_oci_layout_is_read(layout: Path, tmp_path: Path) -> None:
    (layout / "oci-layout").unlink()
    archive = tmp_path / "images.tar"
    with tarfile.open(archive, "w") as tar:
        for name in ("index.json", "blobs"):
            tar.add(layout / name, name)
    assert ocimirror("verify", archive).code == 0
    assert ocimirror("copy", f"oci-archive:{archive}:{APP}", f"oci:{tmp_path}/copy").code == 0


def test_schema_1_is_4_for_verify_and_inspect_alike_and_gc_keeps_it(layout: Path) -> None:
    raw = json.dumps(
        {
            "schemaVersion": 1,
            "name": "app",
            "tag": "1",
            "architecture": "amd64",
            "fsLayers": [{"blobSum": digest} for digest in SECOND.blobs],
            "history": [{"v1Compatibility": "{}"} for _ in SECOND.blobs],
        }
    ).encode()
    digest = "sha256:" + hashlib.sha256(raw).hexdigest()
    images.blob_path(layout, digest).write_bytes(raw)
    index = layout / "index.json"
    document = json.loads(index.read_bytes())
    entry = {
        "mediaType": "application/vnd.docker.distribution.manifest.v1+json",
        "digest": digest,
        "size": len(raw),
        "annotations": {"io.containerd.image.name": OTHER},
    }
    whole = [e for e in document["manifests"] if e["digest"] != SECOND.root]
    index.write_text(json.dumps({**document, "manifests": [*whole, entry]}))

    assert ocimirror("inspect", f"oci:{layout}:{OTHER}").code == 4
    assert ocimirror("verify", f"oci:{layout}:{OTHER}").code == 4
    assert ocimirror("verify", layout).code == 4
    for _ in range(2):
        assert ocimirror("gc", layout, "--grace", "0").code == 0
    assert {digest, *SECOND.blobs} <= set(contents_of(layout))


def test_repair_finds_a_sparse_index_and_leaves_what_refers_to_an_image_without_a_name(
    docker_registry: Registry, repository: str, tmp_path: Path
) -> None:
    images.push(docker_registry, repository, "1", IMAGE)
    layout = tmp_path / "layout"
    name = f"{docker_registry.host}/{repository}:1"
    assert ocimirror("pull", name, layout, "--platform", "linux/arm64").code == 0
    note = images.with_subject()
    images.write_layout(tmp_path / "other", {APP: images.single()}, [note])
    for path in (tmp_path / "other" / "blobs" / "sha256").iterdir():
        shutil.copy(path, layout / "blobs" / "sha256" / path.name)
    (layout / "index.json").write_bytes(b"")
    (layout / "index.json.prev").unlink(missing_ok=True)

    repaired = ocimirror("repair", layout, "--json")

    assert repaired.code == 5
    assert sorted(repaired.document["unnamed"]) == sorted([IMAGE.root, images.single().root])
    entries = json.loads((layout / "index.json").read_bytes())["manifests"]
    assert {e["digest"] for e in entries} == {IMAGE.root, images.single().root, note.root}
    assert ocimirror("tag", layout, IMAGE.root, name).code == 0
    assert ocimirror("tag", layout, images.single().root, APP).code == 0
    assert ocimirror("repair", layout).code == 0
    assert ocimirror("verify", layout).code == 0
    assert ocimirror("gc", layout, "--grace", "0", "--after-repair").code == 0
    assert put_aside(layout) == set()


def test_a_layout_without_the_file_oci_layout_is_read_and_repair_adds_it(
    layout: Path, tmp_path: Path
) -> None:
    (layout / "oci-layout").unlink()
    assert ocimirror("verify", layout).code == 0
    assert ocimirror("copy", f"oci:{layout}:{APP}", f"oci:{tmp_path}/copy").code == 0
    assert not (layout / "oci-layout").exists()
    assert ocimirror("repair", layout).code == 0
    assert json.loads((layout / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}


def test_an_empty_layout_is_reported_as_empty(tmp_path: Path) -> None:
    layout = images.write_layout(tmp_path / "layout", {})
    verified = ocimirror("verify", layout)
    assert verified.code == 0
    assert verified.stdout.startswith("empty")
    assert ocimirror("verify", layout, "--json").document["images"] == 0


def test_gc_says_what_the_grace_spares_and_until_when(layout: Path) -> None:
    ocimirror("remove", layout, OTHER)
    spared = ocimirror("gc", layout, "--json").document
    assert spared["spared"]["blobs"] == len(lonely(SECOND, IMAGE))
    assert spared["spared_until"].endswith("Z")
    assert f"until {spared['spared_until']}" in ocimirror("gc", layout).stdout
    ocimirror("gc", layout, "--grace", "0")
    assert ocimirror("gc", layout, "--json").document["waiting_until"] is not None


def test_repair_never_overwrites_a_valid_index(layout: Path) -> None:
    before = (layout / "index.json").read_bytes()
    assert ocimirror("repair", layout, "--rebuild-index", "--json").document["index"] == "kept"
    assert (layout / "index.json").read_bytes() == before


@pytest.mark.parametrize("origin", ["itself", "an image of a layout", "no host", "nothing"])
def test_repair_refuses_a_place_that_is_none(layout: Path, origin: str) -> None:
    text, code = {
        "itself": (f"oci:{layout}", 2),
        "an image of a layout": (f"oci:{layout}:{APP}", 2),
        "no host": ("docker://not a host", 2),
        "nothing": ("oci:/nonexistent", 4),
    }[origin]
    assert ocimirror("repair", layout, "--from", text).code == code


def test_repair_of_a_damaged_index_exits_7_while_another_run_is_at_work(
    repository: str, layout: Path
) -> None:
    with run_docker_registry() as registry:
        images.push(registry, repository, "1", images.shared_layers(1, 4, 60_000, 0)[0])
        with run_proxy(registry, Rule("GET", r"/blobs/", Drip(2000, 0.05))) as proxy:
            pull = start("pull", f"{proxy.host}/{repository}:1", layout)
            while not proxy.count("GET", "/blobs/"):
                time.sleep(0.02)
            shutil.copy(layout / "index.json", layout / "index.json.prev")
            (layout / "index.json").write_bytes(b"")
            assert ocimirror("repair", layout).code == 7
            pull.communicate(timeout=60)
    assert pull.returncode == 5  # (it does not overwrite the torn one either)
    repaired = ocimirror("repair", layout)  # (the image came whole, and has lost its name)
    assert repaired.code == 5
    assert "unnamed" in repaired.stdout
    assert names_of(layout) == {APP: IMAGE.root, OTHER: SECOND.root}
