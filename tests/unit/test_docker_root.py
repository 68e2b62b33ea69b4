"""Docker's data root: who has it in use, and a file that a crash never tears."""

from __future__ import annotations

import fcntl
import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ocimirror.engines.docker.root import DockerRoot
from ocimirror.engines.docker.use import evidence_of_use, kept_from_dockerd
from ocimirror.errors import EngineRunning, NotFound, UsageError
from tests.support.oslayers import Died, Dies
from tests.support.powerloss import Recorder, disk_of

OLD, NEW = b'{"Repositories":{}}', b'{"Repositories":{"a":{"a:1":"sha256:0"}}}'
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
def data_root(tmp_path: Path) -> Path:
    """Write what of a data root is needed here."""
    root = tmp_path / "docker"
    (root / "image" / "vfs").mkdir(parents=True)
    (root / "image" / "vfs" / "repositories.json").write_bytes(OLD)
    (root / "volumes").mkdir()
    (root / "volumes" / "metadata.db").write_bytes(b"")
    return root


@contextmanager
def process(*argv: str, script: str = "import time; time.sleep(60)") -> Iterator[int]:
    """Run Python under another name, until the block ends."""
    ready = f"import sys; print('ready', flush=True); {script}"
    command = [argv[0], "-c", ready, *argv[1:]]
    with subprocess.Popen(command, executable=sys.executable, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        try:
            yield child.pid
        finally:
            child.kill()


# --- who uses it --------------------------------------------------------------------------------


def test_a_data_root_that_nobody_uses_is_unused(data_root: Path, tmp_path: Path) -> None:
    stale = tmp_path / "pid"
    stale.write_text("999999999")
    assert evidence_of_use(str(data_root), [str(stale)]) == ""
    with kept_from_dockerd(str(data_root), [str(stale)]):
        pass


def test_a_locked_database_of_volumes_is_evidence(data_root: Path) -> None:
    with (data_root / "volumes" / "metadata.db").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert "metadata.db is locked" in evidence_of_use(str(data_root))
        with pytest.raises(EngineRunning), kept_from_dockerd(str(data_root), []):
            pass


@pytest.mark.parametrize("form", ["--data-root={}", "--data-root {}", "-g {}", "--graph={}"])
def test_a_dockerd_with_that_data_root_is_evidence(data_root: Path, form: str) -> None:
    link = data_root.with_name("link")
    link.symlink_to(data_root)
    with process("/usr/bin/dockerd", *form.format(link).split(), "--debug") as pid:
        assert f"process {pid} is a dockerd" in evidence_of_use(str(data_root), [])


def test_a_remapped_data_root_belongs_to_the_dockerd_of_the_one_above(data_root: Path) -> None:
    remapped = data_root / "100000.100000"
    remapped.mkdir()
    with process("dockerd", "--data-root", str(data_root)) as pid:
        assert f"process {pid}" in evidence_of_use(str(remapped), [])


def test_a_dockerd_with_another_data_root_is_none(data_root: Path, tmp_path: Path) -> None:
    with process("dockerd", "--data-root", str(tmp_path / "another")) as pid:
        pid_file = tmp_path / "pid"
        assert evidence_of_use(str(data_root), []) == ""
        pid_file.write_text(f"{pid}\n")
        # (But where the user says that this is its pid file, it is this one.)
        assert f"names process {pid}" in evidence_of_use(str(data_root), [str(pid_file)])


def test_a_process_that_writes_below_it_is_evidence_and_one_that_reads_is_none(
    data_root: Path,
) -> None:
    log = data_root / "containers.log"
    log.write_bytes(b"")
    keep = f"f = open({str(log)!r}, 'MODE'); import time; time.sleep(60)"
    with process("collector", script=keep.replace("MODE", "r")):
        assert evidence_of_use(str(data_root), []) == ""
    # (It says that it is ready before it opens the file.)
    with process("writer", script=keep.replace("MODE", "a")) as pid:
        for _ in range(200):
            if evidence := evidence_of_use(str(data_root), []):
                break
            os.sched_yield()
        assert evidence == f"process {pid} has {log} open for writing"


# --- writing ------------------------------------------------------------------------------------


def edit(root: DockerRoot) -> str:
    return root.edit(lambda _: NEW, [], NOW)


def test_an_edit_leaves_a_backup_and_the_mode_and_owner_of_docker(data_root: Path) -> None:
    root = DockerRoot(str(data_root))
    if os.geteuid() == 0:
        os.chown(root.path, 4321, 1234)
    owner = os.stat(root.path).st_uid, os.stat(root.path).st_gid
    backup = edit(root)
    assert Path(backup).name == "repositories.json.ocimirror-20260102T030405Z"
    assert Path(backup).read_bytes() == OLD
    assert Path(root.path).read_bytes() == NEW
    for path in (root.path, backup):
        status = os.stat(path)
        assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o600, *owner)
    assert edit(root) != backup
    assert Path(backup).read_bytes() == OLD


def test_an_edit_that_dies_at_any_step_leaves_the_old_file_or_the_new_one(data_root: Path) -> None:
    path = data_root / "image" / "vfs" / "repositories.json"
    for steps in itertools.count():
        path.write_bytes(OLD)
        layer = Dies(steps)
        try:
            edit(DockerRoot(str(data_root), os_layer=layer))
        except Died:
            assert path.read_bytes() in (OLD, NEW)
            if path.read_bytes() == NEW:
                backups = path.parent.glob("repositories.json.ocimirror-*")
                assert OLD in [backup.read_bytes() for backup in backups]
            continue
        break
    assert steps > 8
    assert path.read_bytes() == NEW
    assert not list(path.parent.glob(".tmp-*"))


def test_an_edit_survives_power_loss_at_every_step(data_root: Path) -> None:
    recorder, disk = Recorder(), disk_of(data_root)
    edit(DockerRoot(str(data_root), os_layer=recorder))
    path = str(data_root / "image" / "vfs" / "repositories.json")
    found = set()
    for seed, step in enumerate([lambda _: None, *recorder.steps]):
        step(disk)
        for files in disk.after_power_loss(seed):
            found.add(files[path])
            backups = [content for name, content in files.items() if ".ocimirror-" in name]
            assert files[path] == OLD or OLD in backups
    assert found == {OLD, NEW}


def test_a_backup_is_put_back_only_over_what_was_written(data_root: Path) -> None:
    root = DockerRoot(str(data_root))
    backup = edit(root)
    Path(root.path).write_bytes(b"docker wrote it since")
    root.put_back(backup, NEW)
    assert Path(root.path).read_bytes() == b"docker wrote it since"
    Path(root.path).write_bytes(NEW)
    root.put_back(backup, NEW)
    assert Path(root.path).read_bytes() == OLD
    assert Path(backup).read_bytes() == OLD


def test_a_driver_is_found_or_has_to_be_named(data_root: Path, tmp_path: Path) -> None:
    assert DockerRoot(str(data_root)).driver == "vfs"
    (data_root / "image" / "overlay2").mkdir()
    assert DockerRoot(str(data_root)).driver == "vfs"
    (data_root / "image" / "overlay2" / "repositories.json").write_bytes(OLD)
    with pytest.raises(UsageError, match="overlay2, vfs"):
        DockerRoot(str(data_root))
    assert DockerRoot(str(data_root), "overlay2").driver == "overlay2"
    with pytest.raises(NotFound):
        DockerRoot(str(tmp_path))
