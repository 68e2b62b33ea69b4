"""docker-refs on files of Docker that are made by hand: read strictly, and never torn."""

from __future__ import annotations

import fcntl
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support import images
from tests.support.command import PROGRAM, Result, environment, ocimirror
from tests.support.dockerroot import DataRoot, document
from tests.support.engines import require_root
from tests.support.powerloss import disk_of
from tests.support.recorded import Answer, Runs, recorded
from tests.support.runnable import image_id_of, manifest_of
from tests.support.traced import FirstThread

NOWHERE = "--host=unix:///nonexistent.sock"
APP = "registry.example.com/app"
HUB = "docker.io/library/alpine:3"
GRAPH, OTHER_GRAPH = images.multi(), images.single()
ID, OTHER = image_id_of(GRAPH), image_id_of(OTHER_GRAPH)
ROOT, MANIFEST = GRAPH.root, manifest_of(GRAPH)


@pytest.fixture
def root(tmp_path: Path) -> DataRoot:
    """A data root that has both images, and the tag of one."""
    made = DataRoot(tmp_path / "docker").make(alpine={"alpine:3": ID})
    made.add(GRAPH)
    made.add(OTHER_GRAPH)
    return made


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A layout that knows what the data root has lost of one image."""
    return images.write_layout(tmp_path_factory.mktemp("L"), {HUB: GRAPH})


def show(root: DataRoot, *options: object) -> Result:
    """Run `docker-refs show` on a data root that no docker answers for."""
    where = [NOWHERE, f"--data-root={root.path}", *map(str, options)]
    return ocimirror("docker-refs", "show", *where, "--json")


def restoring(layout: Path, root: DataRoot, *options: object) -> list[str]:
    """Return what restores what a data root has lost, of a docker that is down."""
    where = [NOWHERE, f"--data-root={root.path}", *map(str, options)]
    return ["docker-refs", "restore", str(layout), *where, "--json"]


def restore(layout: Path, root: DataRoot, *options: object) -> Result:
    return ocimirror(*restoring(layout, root, *options))


# --- what docker info says --------------------------------------------------------------------

INFO: dict[str, Any] = {
    "ServerVersion": "20.10.24",
    "Driver": "vfs",
    "DriverStatus": [["Backing Filesystem", "extfs"], ["userxattr", "false"]],
    "ContainersRunning": 3,
    "LiveRestoreEnabled": False,
}
STOPS = ["stopping Docker would stop 3 containers"]


def told(tmp_path: Path, layout: Path, root: DataRoot, **changes: object) -> Result:
    """Plan a restoration while a docker says this of itself, and has the data root in use."""
    info = {**INFO, "DockerRootDir": str(root.path), **changes}
    answers: dict[str, Answer] = {"info --format {{json .}}": json.dumps(info).encode()}
    env = recorded(tmp_path / "bin", "docker", answers)
    with root.database.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        return ocimirror("docker-refs", "restore", layout, "--dry-run", "--json", env=env)


@pytest.mark.parametrize(
    ("changes", "notes"),
    [
        ({}, STOPS),
        ({"DriverStatus": None}, STOPS),
        ({"LiveRestoreEnabled": True}, []),
        ({"ContainersRunning": 0}, []),
    ],
)
def test_docker_says_where_its_files_are_and_what_it_runs(
    tmp_path: Path, layout: Path, root: DataRoot, changes: dict[str, object], notes: list[str]
) -> None:
    planned = told(tmp_path, layout, root, **changes)
    assert planned.code == 0, planned.stderr
    assert planned.document["path"] == str(root.references)
    assert planned.document["notes"] == notes


def test_a_docker_with_the_containerd_store_has_lost_nothing(
    tmp_path: Path, layout: Path, root: DataRoot
) -> None:
    status = [["driver-type", "io.containerd.snapshotter.v1"]]
    refused = told(tmp_path, layout, root, Driver="overlayfs", DriverStatus=status)
    assert refused.code == 4
    assert refused.document["error"]["code"] == "unsupported"
    assert "digests are not lost" in refused.stderr


@pytest.mark.parametrize("change", [{"DockerRootDir": ""}, {"Driver": None}, {"Driver": 5}])
def test_an_answer_without_root_or_driver_is_refused(
    tmp_path: Path, layout: Path, root: DataRoot, change: dict[str, object]
) -> None:
    refused = told(tmp_path, layout, root, **change)
    assert refused.code == 4
    assert refused.document["error"]["code"] == "engine_failed"
    assert "no DockerRootDir and Driver" in refused.stderr


# --- repositories.json ------------------------------------------------------------------------

FAMILIAR = [
    (HUB, "alpine:3"),
    (f"docker.io/library/alpine@{ROOT}", f"alpine@{ROOT}"),
    ("docker.io/team/app:1", "team/app:1"),
    ("docker.io/library/a/b:1", "library/a/b:1"),
    ("localhost:5000/app:1", "localhost:5000/app:1"),
    ("quay.io/library/app:1", "quay.io/library/app:1"),
]


def test_a_name_is_written_as_docker_shows_it(root: DataRoot) -> None:
    root.make(**{f"r{n}": {full: f"sha256:{n:064}"} for n, (full, _) in enumerate(FAMILIAR)})
    shown = {i["image_id"]: [*i["tags"], *i["digests"]] for i in show(root).document["images"]}
    for number, (_, short) in enumerate(FAMILIAR):
        assert shown[f"sha256:{number:064}"] == [short]


def test_digests_are_added_in_the_bytes_that_go_writes(tmp_path: Path, root: DataRoot) -> None:
    names = {f"{APP}:1": OTHER_GRAPH, HUB: GRAPH}
    done = restore(images.write_layout(tmp_path / "L", names), root)
    assert done.code == 0, done.stderr
    digests = {f"alpine@{digest}": ID for digest in sorted((ROOT, MANIFEST))}
    expected = {
        "alpine": {"alpine:3": ID, **digests},
        APP: {f"{APP}@{OTHER_GRAPH.root}": OTHER},
    }
    assert list(expected["alpine"]) == sorted(expected["alpine"])
    assert root.references.read_bytes() == document(**expected)


def test_what_is_not_understood_stays(layout: Path, root: DataRoot) -> None:
    strange = {"a:1": "no digest", "b@sha256:zz": ID, "<&>": ID}
    whole = {"Repositories": {"x": strange}, "Later": {"version": [1, None]}}
    root.references.write_text(json.dumps(whole))
    shown = show(root).document
    assert sorted(shown["unread"]) == sorted(strange)
    assert all(image["tags"] == image["digests"] == [] for image in shown["images"])
    assert restore(layout, root).code == 0
    raw = root.references.read_bytes()
    new = json.loads(raw)
    assert new["Later"] == whole["Later"]
    assert new["Repositories"]["x"] == strange
    assert f"alpine@{ROOT}" in new["Repositories"]["alpine"]
    assert rb"\u003c\u0026\u003e" in raw


def test_a_digest_is_never_moved_to_another_image(layout: Path, root: DataRoot) -> None:
    root.make(alpine={"alpine:3": ID, f"alpine@{ROOT}": OTHER})
    before = root.references.read_bytes()
    refused = restore(layout, root)
    assert refused.code == 9
    (image,) = refused.document["images"]
    assert image["error"]["code"] == "digest_taken"
    assert OTHER in image["error"]["message"]
    root.make(alpine={"alpine:3": ID, f"alpine@{ROOT}": "no digest"})
    refused = restore(layout, root)
    assert refused.code == 9
    assert refused.document["error"]["code"] == "digest_taken"
    assert root.references.read_bytes() == before.replace(OTHER.encode(), b"no digest")


def test_a_digest_that_is_there_for_the_same_image_stays(layout: Path, root: DataRoot) -> None:
    root.make(alpine={"alpine:3": ID, f"alpine@{ROOT}": ID, f"alpine@{MANIFEST}": ID})
    before = root.references.read_bytes()
    done = restore(layout, root)
    assert (done.code, [i["status"] for i in done.document["images"]]) == (0, ["unchanged"])
    assert (root.references.read_bytes(), root.backups) == (before, [])


SHAPES = [
    b"",
    b"{}",
    b"[]",
    b'{"Repositories":{}',
    b'{"Repositories":null}',
    b'{"Repositories":[]}',
    b'{"Repositories":{"a":[]}}',
    b'{"Repositories":{"a":{"a:1":1}}}',
    b'{"Repositories":{},"repositories":{}}',
    b'{"Repositories":{},"Repositories":{}}',
    b'{"Repositories":{}} trailing',
    b'\xff{"Repositories":{}}',
]


@pytest.fixture(scope="module")
def shown_shapes(tmp_path_factory: pytest.TempPathFactory) -> list[Result]:
    """Show a data root for each shape, a few at a time."""
    roots = []
    for raw in SHAPES:
        roots.append(DataRoot(tmp_path_factory.mktemp("shape")).make())
        roots[-1].references.write_bytes(raw)
    with ThreadPoolExecutor(3) as pool:
        return list(pool.map(show, roots))


@pytest.mark.parametrize("number", range(len(SHAPES)), ids=lambda n: repr(SHAPES[n]))
def test_another_shape_is_refused(shown_shapes: list[Result], number: int) -> None:
    refused = shown_shapes[number]
    assert refused.code == 5
    assert refused.document["error"]["code"] == "damaged_engine_store"


def test_a_truncated_store_is_refused_and_left_as_it_is(layout: Path, root: DataRoot) -> None:
    torn = root.references.read_bytes()[:-20]
    root.references.write_bytes(torn)
    refused = restore(layout, root)
    assert refused.code == 5
    assert refused.document["error"]["code"] == "damaged_engine_store"
    assert (root.references.read_bytes(), root.backups) == (torn, [])


def test_show_tells_names_of_images_that_are_gone_and_what_is_no_name(
    layout: Path, root: DataRoot
) -> None:
    gone = "sha256:" + "0" * 64
    names = {f"{APP}:gone": gone, f"{APP}@sha256:zz": gone}
    root.make(alpine={"alpine:3": ID}, **{APP: names})
    shown = ocimirror(
        *("docker-refs", "show", layout, NOWHERE, f"--data-root={root.path}", "--json")
    ).document
    assert (shown["running"], shown["unread"]) == (False, [f"{APP}@sha256:zz"])
    found = {i["image_id"]: (i["present"], i["tags"], i["digests"]) for i in shown["images"]}
    assert found[ID] == (True, ["alpine:3"], [])
    assert found[gone] == (False, [f"{APP}:gone"], [])
    lost = {i["image_id"]: {lost["name"] for lost in i["lost"]} for i in shown["images"]}
    assert lost[ID] == {f"alpine@{ROOT}", f"alpine@{MANIFEST}"}
    assert lost[OTHER] == set()


def test_who_may_not_read_dockers_files_is_told_to_be_root(root: DataRoot) -> None:
    require_root()
    root.path.chmod(0o700)
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    command = [*nobody, PROGRAM, "docker-refs", "show", NOWHERE, f"--data-root={root.path}"]
    refused = subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, env=environment()
    )
    assert refused.returncode == 8, refused.stderr
    assert "run this as root" in refused.stderr


# --- what a layout has to prove, and of which image -------------------------------------------


def names_of(root: DataRoot, repository: str = "alpine") -> dict[str, str]:
    """Return the names of a repository in the reference store."""
    return dict(json.loads(root.references.read_bytes())["Repositories"].get(repository, {}))


def test_a_layout_that_gives_an_image_other_layers_proves_nothing(
    tmp_path: Path, root: DataRoot
) -> None:
    builder = images.Builder()
    builder.blobs.update(GRAPH.blobs)
    tar = images.tar_of({"etc/os-release": b"ID=evil\n"})
    evil_layer = builder.blob(images.gzip_stored(tar), images.OCI_LAYER_GZIP)
    manifest = json.loads(GRAPH.manifests[MANIFEST][1])
    manifest["layers"] = [manifest["layers"][0], evil_layer]
    child = builder.manifest(images.compact(manifest), images.OCI_MANIFEST)
    evil = builder.graph(builder.index([{**child, "platform": images.PLATFORMS[0]}]))
    before = root.references.read_bytes()
    refused = restore(images.write_layout(tmp_path / "evil", {HUB: evil}), root)
    assert refused.code == 5
    assert "its config says" in refused.stdout
    assert root.references.read_bytes() == before


@pytest.mark.parametrize("part", ["root", "manifest", "config", "layer"])
def test_a_flipped_bit_anywhere_below_the_name_is_refused(
    tmp_path: Path, root: DataRoot, part: str
) -> None:
    layout = images.write_layout(tmp_path / "L", {HUB: GRAPH})
    manifest = json.loads(GRAPH.manifests[MANIFEST][1])
    digest = {
        "root": ROOT,
        "manifest": MANIFEST,
        "config": manifest["config"]["digest"],
        "layer": manifest["layers"][1]["digest"],
    }[part]
    path = images.blob_path(layout, digest)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    before = root.references.read_bytes()
    refused = restore(layout, root)
    assert refused.code == 5, refused.stderr
    assert (root.references.read_bytes(), root.backups) == (before, [])


def test_an_image_that_is_refused_does_not_keep_the_others_back(
    tmp_path: Path, root: DataRoot
) -> None:
    layout = images.write_layout(tmp_path / "two", {f"{APP}:1": OTHER_GRAPH, HUB: GRAPH})
    images.blob_path(layout, OTHER_GRAPH.root).write_bytes(b"damaged")
    done = restore(layout, root)
    assert done.code == 5
    assert [image["status"] for image in done.document["images"]] == ["failed", "restored"]
    assert set(names_of(root)) == {"alpine:3", f"alpine@{ROOT}", f"alpine@{MANIFEST}"}
    assert names_of(root, APP) == {}


def test_a_name_that_docker_has_no_image_of_is_an_error_only_if_it_is_asked_for(
    tmp_path: Path, root: DataRoot
) -> None:
    other = f"{APP}:1"
    graph = images.docker_schema2()
    layout = images.write_layout(tmp_path / "two", {HUB: GRAPH, other: graph})
    everything = restore(layout, root, "--dry-run")
    assert everything.code == 0
    assert [i["status"] for i in everything.document["images"]] == ["planned", "absent"]
    asked = restore(layout, root, other, "--dry-run")
    assert asked.code == 4
    assert "load it first" in asked.stdout


def test_an_index_stands_for_the_platform_that_has_the_tag(layout: Path, root: DataRoot) -> None:
    other = root.add(GRAPH, 1)
    assert restore(layout, root).code == 0
    assert names_of(root) == {
        "alpine:3": ID,
        f"alpine@{ROOT}": ID,
        f"alpine@{MANIFEST}": ID,
        f"alpine@{manifest_of(GRAPH, 1)}": other,
    }


def test_an_index_of_several_images_without_the_tag_is_given_to_none(
    layout: Path, root: DataRoot
) -> None:
    root.make()
    other = root.add(GRAPH, 1)
    done = restore(layout, root)
    assert done.code == 0, done.stderr
    (restored,) = done.document["images"]
    assert f"{ROOT} is given to none" in restored["notes"][0]
    assert names_of(root) == {f"alpine@{MANIFEST}": ID, f"alpine@{manifest_of(GRAPH, 1)}": other}


# --- who uses it ------------------------------------------------------------------------------


@contextmanager
def process(*argv: str, script: str = "") -> Iterator[int]:
    """Run Python under another name, until the block ends."""
    ready = f"import time; {script}\nprint('ready', flush=True); time.sleep(600)"
    command = [argv[0], "-c", ready, *argv[1:]]
    with subprocess.Popen(command, executable=sys.executable, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        try:
            yield child.pid
        finally:
            child.kill()


def refused_for(layout: Path, root: DataRoot, *options: object) -> str:
    """Return why a data root is not written, empty where it is."""
    before = root.references.read_bytes()
    done = restore(layout, root, *options)
    if done.code == 0:
        assert root.references.read_bytes() != before
        return ""
    assert done.code == 4
    assert done.document["error"]["code"] == "engine_running"
    assert root.references.read_bytes() == before
    assert root.backups == []
    return str(done.document["error"]["message"])


def test_a_data_root_that_nobody_uses_is_unused(
    tmp_path: Path, layout: Path, root: DataRoot
) -> None:
    stale = tmp_path / "pid"
    stale.write_text("999999999")
    assert show(root, f"--pid-file={stale}").document["running"] is False
    assert refused_for(layout, root, f"--pid-file={stale}") == ""


def test_a_locked_database_of_volumes_is_evidence(layout: Path, root: DataRoot) -> None:
    with root.database.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert show(root).document["running"] is True
        assert "metadata.db is locked" in refused_for(layout, root)


@pytest.mark.parametrize("form", ["--data-root={}", "--data-root {}", "-g {}", "--graph={}"])
def test_a_dockerd_with_that_data_root_is_evidence(layout: Path, root: DataRoot, form: str) -> None:
    link = root.path.with_name("link")
    link.symlink_to(root.path)
    with process("/usr/bin/dockerd", *form.format(link).split(), "--debug") as pid:
        assert f"process {pid} is a dockerd" in refused_for(layout, root)


def test_a_remapped_data_root_belongs_to_the_dockerd_of_the_one_above(
    layout: Path, root: DataRoot
) -> None:
    remapped = DataRoot(root.path / "100000.100000").make(alpine={"alpine:3": ID})
    with process("dockerd", "--data-root", str(root.path)) as pid:
        assert f"process {pid}" in refused_for(layout, remapped)


def test_a_dockerd_with_another_data_root_is_none(
    tmp_path: Path, layout: Path, root: DataRoot
) -> None:
    with process("dockerd", "--data-root", str(tmp_path / "another")) as pid:
        pid_file = tmp_path / "pid"
        pid_file.write_text(f"{pid}\n")
        # (But where the user says that this is its pid file, it is this one.)
        assert f"names process {pid}" in refused_for(layout, root, f"--pid-file={pid_file}")
        assert refused_for(layout, root) == ""


def test_a_process_that_writes_below_it_is_evidence_and_one_that_reads_is_none(
    layout: Path, root: DataRoot
) -> None:
    log = root.path / "containers.log"
    log.write_bytes(b"")
    with process("writer", script=f"f = open({str(log)!r}, 'a')") as pid:
        assert f"process {pid} has {log} open for writing" in refused_for(layout, root)
    with process("collector", script=f"f = open({str(log)!r}, 'r')"):
        assert refused_for(layout, root) == ""


# --- writing ----------------------------------------------------------------------------------


def test_an_edit_leaves_a_backup_and_the_mode_and_owner_of_docker(
    layout: Path, root: DataRoot
) -> None:
    if os.geteuid() == 0:
        os.chown(root.references, 4321, 1234)
    owner = root.references.stat().st_uid, root.references.stat().st_gid
    old = root.references.read_bytes()
    began = datetime.now(UTC)
    # (A backup of another run has its name already, whichever second this one is in.)
    taken = [
        root.directory
        / f"repositories.json.ocimirror-{began + timedelta(seconds=s):%Y%m%dT%H%M%SZ}"
        for s in range(100)
    ]
    for path in taken:
        path.write_bytes(b"of another run")
    done = restore(layout, root)
    assert done.code == 0, done.stderr
    backup = Path(done.document["backup"])
    assert re.fullmatch(r"repositories\.json\.ocimirror-\d{8}T\d{6}Z-2", backup.name)
    assert backup.read_bytes() == old
    assert root.references.read_bytes() != old
    for path in (root.references, backup):
        status = path.stat()
        assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o600, *owner)
    assert {path.read_bytes() for path in taken} == {b"of another run"}


def test_an_edit_that_dies_at_any_step_or_loses_power_leaves_the_old_file_or_the_new_one(
    tmp_path: Path, layout: Path, root: DataRoot
) -> None:
    old, disk = root.references.read_bytes(), disk_of(root.path)
    command = FirstThread(restoring(layout, root), tmp_path / "trace")
    trace = command.traced(root.directory)
    assert trace.result.code == 0, trace.result
    new = root.references.read_bytes()
    path = str(root.references)

    found = set()
    for seed, step in enumerate([None, *trace.steps]):
        if step is not None:
            step.apply(disk)
        for files in disk.after_power_loss(seed):
            found.add(files[path])
            backups = [content for name, content in files.items() if ".ocimirror-" in name]
            assert files[path] == old or old in backups
    assert found == {old, new}

    died = 0
    for step in trace.steps:
        if step.operation in ("create", "begin"):
            continue
        if step.operation == "sync" and step.path != f"{root.directory}/":
            continue  # (before these there is nothing on the disk that the next step does not find)
        for backup in root.backups:
            backup.unlink()
        root.references.write_bytes(old)
        died += command.is_killed_before(step)
        now = root.references.read_bytes()
        assert now in (old, new)
        assert now == old or old in [backup.read_bytes() for backup in root.backups]
    assert died >= 6
    assert restore(layout, root).code == 0
    assert root.references.read_bytes() == new
    assert not list(root.directory.glob(".tmp-*"))


# --- what changes while docker stops and starts -----------------------------------------------


def script(path: Path, text: str) -> Path:
    """Write a program."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def restarted(
    tmp_path: Path, layout: Path, root: DataRoot, stop: str, start: str, info: str = ""
) -> Result:
    """Restore with a docker that uses the data root, and is stopped and started by shell lines.

    `info` goes ahead of what docker says of itself.
    """
    (tmp_path / "info").write_text(json.dumps({**INFO, "DockerRootDir": str(root.path)}))
    found = {"Id": ID, "RepoDigests": [f"alpine@{ROOT}", f"alpine@{MANIFEST}"]}
    answers: dict[str, Answer] = {
        "info --format {{json .}}": Runs(f"{info}\ncat {tmp_path}/info"),
        "version --format {{.Server.Version}}": b"20.10.24",
        f"image inspect {ID}": json.dumps([found]).encode(),
    }
    env = recorded(tmp_path / "bin", "docker", answers)
    with process("dockerd", "--data-root", str(root.path)) as pid:
        stop = script(tmp_path / "stop", f"kill {pid}\n{stop}")
        start = script(tmp_path / "start", start)
        service = [f"--stop-command={stop}", f"--start-command={start}", "--restart-docker"]
        return ocimirror("docker-refs", "restore", layout, *service, "--json", env=env)


def test_a_digest_that_docker_gets_while_it_stops_stays_for_the_same_image(
    tmp_path: Path, layout: Path, root: DataRoot
) -> None:
    names = {"alpine": {"alpine:3": ID, f"alpine@{ROOT}": ID}}
    (tmp_path / "last").write_bytes(document(**names))
    last = f"cat {tmp_path}/last > {root.references}"
    done = restarted(tmp_path, layout, root, last, "true")
    assert done.code == 0, done.stderr
    written = json.loads(root.references.read_bytes())["Repositories"]
    assert written == {"alpine": {**names["alpine"], f"alpine@{MANIFEST}": ID}}


def test_a_digest_that_docker_gives_another_image_while_it_stops_is_not_moved(
    tmp_path: Path, layout: Path, root: DataRoot
) -> None:
    last = document(alpine={"alpine:3": ID, f"alpine@{ROOT}": OTHER})
    (tmp_path / "last").write_bytes(last)
    refused = restarted(
        tmp_path, layout, root, f"cat {tmp_path}/last > {root.references}", f"touch {tmp_path}/up"
    )
    assert refused.code == 9
    assert refused.document["error"]["code"] == "digest_taken"
    assert root.references.read_bytes() == last
    assert (tmp_path / "up").exists()


def test_docker_is_started_again_if_the_write_is_refused(
    tmp_path: Path, layout: Path, root: DataRoot
) -> None:
    before = root.references.read_bytes()
    # (A directory in the way of the temporary file.)
    (root.directory / ".tmp-repositories.json.ocimirror").mkdir()
    failed = restarted(tmp_path, layout, root, "", f"touch {tmp_path}/up")
    assert failed.code == 8, failed.stderr
    assert root.references.read_bytes() == before
    assert (tmp_path / "up").exists()


def test_an_image_that_goes_while_docker_stops_gets_no_name(
    tmp_path: Path, layout: Path, root: DataRoot
) -> None:
    before = root.references.read_bytes()
    config = root.directory / "imagedb" / "content" / "sha256" / ID.partition(":")[2]
    failed = restarted(tmp_path, layout, root, f"rm {config}", f"touch {tmp_path}/up")
    assert failed.code == 4
    assert "was removed from Docker meanwhile" in failed.stderr
    assert root.references.read_bytes() == before
    assert (tmp_path / "up").exists()


def test_a_daemon_with_another_data_root_is_not_taken_for_the_restarted_one(
    tmp_path: Path, layout: Path, root: DataRoot
) -> None:
    elsewhere = json.dumps({**INFO, "DockerRootDir": str(tmp_path / "another")})
    info = f"if [ -e {tmp_path}/up ]; then echo '{elsewhere}'; exit; fi"
    done = restarted(tmp_path, layout, root, "", f"touch {tmp_path}/up", info)
    assert done.code == 4
    assert "nothing was checked" in done.stderr
    assert f"alpine@{ROOT}" in names_of(root)


@pytest.mark.parametrize("since", ["", '{"Repositories":{"since":{}}}'])
def test_a_backup_is_put_back_only_over_what_was_written(
    tmp_path: Path, layout: Path, root: DataRoot, since: str
) -> None:
    old = root.references.read_bytes()
    write = f"printf %s '{since}' > {root.references}; " if since else ""
    first = f"if [ ! -e {tmp_path}/tried ]; then touch {tmp_path}/tried; {write}exit 1; fi"
    failed = restarted(tmp_path, layout, root, "", first)
    assert failed.code == 4
    assert "it runs again" in failed.stderr
    assert root.references.read_bytes() == (since.encode() or old)
    assert [backup.read_bytes() for backup in root.backups] == [old]


def test_a_driver_is_found_or_has_to_be_named(root: DataRoot) -> None:
    assert show(root).document["driver"] == "vfs"
    other = DataRoot(root.path, "overlay2")
    other.directory.mkdir()
    assert show(root).document["driver"] == "vfs"
    other.make()
    refused = show(root)
    assert refused.code == 2
    assert "overlay2, vfs" in refused.stderr
    assert show(root, "--driver=overlay2").document["driver"] == "overlay2"
