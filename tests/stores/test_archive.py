"""Layouts in tars: the hostile ones refused, the good ones read, and ours always the same."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from ocimirror import (
    Archive,
    ArchiveWriter,
    DamagedLayout,
    Digest,
    IntegrityError,
    Layout,
    LocalStorageError,
    MemoryStore,
    NotFound,
    OciMirrorError,
    Source,
)
from tests.support import images
from tests.support.command import PROGRAM, environment
from tests.support.evil import CANARY, EVIL_ARCHIVES, EXPECTED_WORDS, MAY_PASS
from tests.support.images import Graph
from tests.support.judge import contents_of, faults_of, names_of
from tests.support.programs import require_program
from tests.support.stores import copy_all, failures, fill, memory

NAME = "registry.example.com/app:v1"
FIXTURES = Path(__file__).parents[2] / "fixtures" / "images"
SINGLE, MULTI = images.single(), images.multi()


def archive_of(path: Path, named: dict[str, Graph]) -> Path:
    with ArchiveWriter(str(path)) as writer:
        fill(writer, named)
        writer.commit()
    return path


def copied_out(source: Source) -> MemoryStore:
    """Copy everything that has a name, or the only image."""
    destination = MemoryStore()
    outcomes = copy_all(source, destination, source.names() or [""], allow_foreign=True)
    for outcome in outcomes:
        if outcome.error is not None:
            raise outcome.error
    return destination


# --- hostile ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(set(EVIL_ARCHIVES) - MAY_PASS))
@pytest.mark.bar("R44")
def test_a_hostile_archive_is_refused_and_nothing_is_written(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "a" / "b" / "c"
    here.mkdir(parents=True)
    monkeypatch.chdir(here)
    with pytest.raises(IntegrityError) as caught:
        with Archive(str(EVIL_ARCHIVES[name])) as archive:
            copied_out(archive)
    assert caught.value.exit_code == 5
    shown = caught.value.diagnostics()
    assert all(character.isprintable() or character == "\n" for character in shown)
    if name in EXPECTED_WORDS:
        assert any(word in shown.lower() for word in EXPECTED_WORDS[name])
    assert [path for path in tmp_path.rglob("*") if not path.is_dir()] == []
    assert not (Path("/tmp") / CANARY).exists()


@pytest.mark.parametrize("name", sorted(MAY_PASS))
def test_an_archive_that_tricks_some_readers_is_read_right_or_refused(
    tmp_path: Path, name: str
) -> None:
    try:
        with Archive(str(EVIL_ARCHIVES[name])) as archive:
            copied_out(archive)
    except IntegrityError:
        pass
    assert not (Path("/tmp") / CANARY).exists()


def test_an_archive_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DamagedLayout):
        Archive(str(FIXTURES / "podman-docker-archive.tar"))


def test_an_archive_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        Archive(str(tmp_path / "nothing.tar"))


def test_a_directory_is_no_archive(tmp_path: Path) -> None:
    with pytest.raises(OciMirrorError):
        Archive(str(tmp_path))


@pytest.mark.parametrize("position", [0, 300, 512 * 3, -700])
def test_a_flipped_byte_in_an_archive_is_caught(tmp_path: Path, position: int) -> None:
    path = archive_of(tmp_path / "a.tar", {NAME: SINGLE})
    content = bytearray(path.read_bytes())
    if position < 0:  # in the last blob
        position = content.rindex(b"\x1f\x8b") + 50
    content[position] ^= 1
    path.write_bytes(content)
    with pytest.raises(IntegrityError):
        with Archive(str(path)) as archive:
            copied_out(archive)


@pytest.mark.parametrize("keep", [0, 100, 512, 1300, 5000, -1024 - 512])
def test_an_archive_that_was_cut_short_is_refused(tmp_path: Path, keep: int) -> None:
    path = archive_of(tmp_path / "a.tar", {NAME: SINGLE})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(IntegrityError):
        with Archive(str(path)) as archive:
            copied_out(archive)


# --- read ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "root"),
    [
        ("skopeo-oci-archive.tar", MULTI.root),
        ("ctr-export.tar", MULTI.root),
        ("umoci-layout.tar", None),
        ("podman-oci-archive.tar", None),
        ("buildx-oci.tar", None),
    ],
)
def test_what_other_tools_write_is_read(tmp_path: Path, name: str, root: str | None) -> None:
    with Archive(str(FIXTURES / name)) as archive:
        (image,) = archive.names()
        found = archive.resolve(image)
        with Layout(str(tmp_path), write=True, durable=False) as layout:
            assert failures(copy_all(archive, layout, [image])) == []
    assert root is None or str(found.digest) == root
    assert names_of(tmp_path) == {image: str(found.digest)}
    assert faults_of(tmp_path) == []


@pytest.mark.parametrize("form", ["gnu", "pax", "ustar", "oldgnu", "posix"])
@pytest.mark.parametrize("members", [["."], ["oci-layout", "index.json", "blobs"]])
def test_an_archive_made_by_tar_is_read(tmp_path: Path, form: str, members: list[str]) -> None:
    tar = require_program("tar", "tar")
    graph = images.sha512_layer() if form != "ustar" else MULTI
    images.write_layout(tmp_path / "layout", {NAME: graph})
    subprocess.run(
        [tar, f"--format={form}", "-C", tmp_path / "layout", "-cf", tmp_path / "a.tar", *members],
        check=True,
    )
    with Archive(str(tmp_path / "a.tar")) as archive:
        destination = copied_out(archive)
    assert str(destination.resolve(NAME).digest) == graph.root


def test_other_files_in_an_archive_do_no_harm(tmp_path: Path) -> None:
    images.write_layout(tmp_path / "layout", {NAME: SINGLE})
    (tmp_path / "layout" / "manifest.json").write_text("[]")
    (tmp_path / "layout" / "SHA256SUMS").write_text("…")
    images.write_archive(tmp_path / "a.tar", tmp_path / "layout")
    with Archive(str(tmp_path / "a.tar")) as archive:
        assert copied_out(archive).names() == [NAME]


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT], ids=["gnu", "pax"])
def test_members_larger_than_eight_gigabytes_are_read_past(tmp_path: Path, form: int) -> None:
    """The file is sparse: nine gigabytes of zeros that take no space."""
    layout = images.write_layout(tmp_path / "layout", {NAME: SINGLE})
    images.write_archive(tmp_path / "small.tar", layout)
    huge, size = Digest.of(b"not really"), 9 * 2**30
    member = tarfile.TarInfo(f"blobs/sha256/{huge.encoded}")
    member.size = size
    with (tmp_path / "big.tar").open("wb") as file:
        file.write(member.tobuf(form))
        file.seek(size, os.SEEK_CUR)
        file.write((tmp_path / "small.tar").read_bytes())
    with Archive(str(tmp_path / "big.tar")) as archive:
        assert archive.size_of(huge) == size
        assert copied_out(archive).names() == [NAME]


def test_an_archive_on_standard_input_is_read(tmp_path: Path) -> None:
    path = archive_of(tmp_path / "a.tar", {NAME: SINGLE})
    read = subprocess.run(
        [PROGRAM, "copy", "oci-archive:-", f"oci:{tmp_path / 'out'}"],
        input=path.read_bytes(),
        env=environment(),
        check=True,
    )
    assert read.returncode == 0
    assert names_of(tmp_path / "out") == {NAME: SINGLE.root}


def test_an_archive_is_read_by_many_threads_at_once(tmp_path: Path) -> None:
    graphs = {f"registry.example.com/app{n}:v1": g for n, g in enumerate(_many())}
    path = archive_of(tmp_path / "a.tar", graphs)
    with Archive(str(path)) as archive:
        destination = MemoryStore()
        outcomes = copy_all(archive, destination, list(graphs), jobs=8)
    assert failures(outcomes) == []
    assert {n: str(destination.resolve(n).digest) for n in graphs} == {
        name: graph.root for name, graph in graphs.items()
    }


def _many() -> list[Graph]:
    return images.shared_layers(6, 4, 20_000, shared_fraction=0.25)


def test_members_are_listed_with_what_they_claim_to_be(tmp_path: Path) -> None:
    images.write_layout(tmp_path / "layout", {NAME: SINGLE})
    (tmp_path / "layout" / "blobs" / "sha256" / "stray").write_text("hello")
    images.write_archive(tmp_path / "a.tar", tmp_path / "layout")
    with Archive(str(tmp_path / "a.tar")) as archive:
        listed = dict(archive.blob_files())
    assert listed.pop("blobs/sha256/stray") == "sha256:stray"
    assert sorted(listed.values()) == sorted(SINGLE.contents)


# --- written ------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [name for name in images.ALL if name != "foreign_layer"])
def test_an_archive_gives_back_what_was_put_in(tmp_path: Path, case: str) -> None:
    graph = images.ALL[case]()
    path = archive_of(tmp_path / "a.tar", {NAME: graph})
    with Archive(str(path)) as archive, Layout(str(tmp_path / "out"), write=True) as layout:
        assert failures(copy_all(archive, layout, [NAME])) == []
    assert contents_of(tmp_path / "out", lists=False) == graph.contents


def test_the_same_images_give_the_same_archive(tmp_path: Path) -> None:
    graphs = {f"registry.example.com/app{n}:v1": g for n, g in enumerate(_many())}
    archives = []
    for number in range(3):
        path = tmp_path / f"{number}.tar"
        with ArchiveWriter(str(path)) as writer:
            assert failures(copy_all(memory(graphs), writer, list(graphs), jobs=4)) == []
            writer.commit()
        archives.append(path.read_bytes())
    assert archives[0] == archives[1] == archives[2]


def test_an_archive_holds_the_layout_and_nothing_of_ours(tmp_path: Path) -> None:
    path = archive_of(tmp_path / "a.tar", {NAME: SINGLE})
    with tarfile.open(path) as tar:
        members = tar.getmembers()
    assert [m.name for m in members] == [
        "oci-layout",
        "index.json",
        "blobs",
        "blobs/sha256",
        *sorted(f"blobs/{digest.replace(':', '/')}" for digest in SINGLE.contents),
    ]
    assert {(m.isdir(), m.mode, m.uid, m.gid, m.uname, m.gname, m.mtime) for m in members} == {
        (False, 0o644, 0, 0, "", "", 0),
        (True, 0o755, 0, 0, "", "", 0),
    }


def test_tar_reads_an_archive_with_the_longest_names(tmp_path: Path) -> None:
    tar = require_program("tar", "tar")
    graph = images.sha512_root()
    path = archive_of(tmp_path / "a.tar", {NAME: graph})
    (tmp_path / "out").mkdir()
    subprocess.run([tar, "-C", tmp_path / "out", "-xf", path], check=True)
    assert contents_of(tmp_path / "out") == graph.contents
    assert faults_of(tmp_path / "out") == []


def test_skopeo_reads_an_archive(tmp_path: Path) -> None:
    skopeo = require_program("skopeo", "skopeo")
    path = archive_of(tmp_path / "a.tar", {"v1": MULTI})
    result = subprocess.run(
        [skopeo, "inspect", "--raw", f"oci-archive:{path}:v1"], capture_output=True, check=True
    )
    assert result.stdout == MULTI.raw


def test_umoci_reads_an_archive_that_was_unpacked(tmp_path: Path) -> None:
    umoci = require_program("umoci", "umoci")
    path = archive_of(tmp_path / "a.tar", {"v1": SINGLE})
    (tmp_path / "out").mkdir()
    subprocess.run(["tar", "-C", tmp_path / "out", "-xf", path], check=True)
    result = subprocess.run(
        [umoci, "stat", "--image", f"{tmp_path / 'out'}:v1", "--json"],
        capture_output=True,
        check=True,
    )
    assert b"COPY layer 1" in result.stdout


@pytest.mark.filterwarnings("ignore:.*without commit")
def test_an_archive_appears_only_when_it_is_committed(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(b"the old one")
    with ArchiveWriter(str(path)) as writer:
        fill(writer, {NAME: SINGLE})
        assert path.read_bytes() == b"the old one"
    assert path.read_bytes() == b"the old one"
    assert [p.name for p in tmp_path.iterdir()] == ["a.tar"]


def test_content_that_spoils_while_it_is_staged_spoils_no_archive(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with ArchiveWriter(str(path)) as writer:
        fill(writer, {NAME: SINGLE})
        (staged,) = tmp_path.glob(".ocimirror-*")
        blob = images.blob_path(staged, list(SINGLE.blobs)[-1])
        blob.write_bytes(blob.read_bytes()[::-1])
        with pytest.raises(IntegrityError):
            writer.commit()
    assert list(tmp_path.iterdir()) == []


def test_an_archive_into_a_directory_that_is_not_there_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(LocalStorageError):
        ArchiveWriter(str(tmp_path / "nothing" / "a.tar"))


def to_standard_output(path: Path, stdout: int | io.IOBase) -> subprocess.CompletedProcess[bytes]:
    command = [PROGRAM, "copy", f"oci-archive:{path}", "oci-archive:-"]
    return subprocess.run(
        command, env=environment(), stdout=stdout, stderr=subprocess.PIPE, timeout=60
    )


def test_an_archive_to_standard_output_is_the_same(tmp_path: Path) -> None:
    path = archive_of(tmp_path / "a.tar", {NAME: SINGLE})
    assert to_standard_output(path, subprocess.PIPE).stdout == path.read_bytes()


def test_a_full_disk_behind_standard_output_is_a_storage_error(tmp_path: Path) -> None:
    path = archive_of(tmp_path / "a.tar", {NAME: SINGLE})
    with Path("/dev/full").open("wb") as full:
        assert to_standard_output(path, full).returncode == 8


def test_reading_an_archive_never_needs_more_than_its_parts(tmp_path: Path) -> None:
    """A member is read where it lies, in pieces: also by two readers in turn."""
    path = archive_of(tmp_path / "a.tar", {NAME: SINGLE})
    digest, content = list(SINGLE.blobs.items())[-1]
    with Archive(str(path)) as archive:
        (layer,) = [
            b for b in archive.read_manifest(archive.resolve(NAME)).blobs if str(b.digest) == digest
        ]
        with archive.fetch(layer) as one, archive.fetch(layer) as two:
            received = [io.BytesIO(), io.BytesIO()]
            while (first := one.read(7)) and (second := two.read(7)):
                received[0].write(first)
                received[1].write(second)
    assert [r.getvalue() for r in received] == [content, content]
