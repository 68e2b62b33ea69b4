"""oci-archive: as a destination: standard output carries the archive and nothing else."""

from __future__ import annotations

import gzip
import json
import lzma
import os
import signal
import subprocess
import tarfile
import time
from pathlib import Path

import pytest
import zstandard

from tests.support import images
from tests.support.command import PROGRAM, environment, ocimirror
from tests.support.engines import require_root

NAME = "reg.example.com/team/app:1.0"


def test_an_archive_on_standard_output_is_the_archive_and_nothing_else(tmp_path: Path) -> None:
    graph = images.multi()
    images.write_layout(tmp_path / "layout", {NAME: graph})

    piped = ocimirror("copy", tmp_path / "layout", "oci-archive:-")
    written = ocimirror("copy", tmp_path / "layout", f"oci-archive:{tmp_path}/b.tar")
    (tmp_path / "a.tar").write_bytes(piped.raw)

    assert (piped.code, written.code) == (0, 0)
    assert piped.raw == (tmp_path / "b.tar").read_bytes()
    assert "copied" in piped.stderr
    assert "copied" in written.stdout
    assert ocimirror("verify", tmp_path / "a.tar").code == 0


def test_json_and_an_archive_do_not_share_standard_output(tmp_path: Path) -> None:
    images.write_layout(tmp_path / "layout", {NAME: images.single()})

    assert ocimirror("copy", tmp_path / "layout", "oci-archive:-", "--json").code == 2


def test_what_is_no_regular_file_is_not_replaced_by_an_archive(tmp_path: Path) -> None:
    images.write_layout(tmp_path / "layout", {NAME: images.single()})
    (tmp_path / "taken.tar").mkdir()

    result = ocimirror("copy", tmp_path / "layout", f"oci-archive:{tmp_path}/taken.tar", "--json")

    assert result.code == 2
    assert "no regular file" in result.document["error"]["message"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["layout", "taken.tar"]


def test_what_a_killed_run_staged_is_removed_by_the_next(tmp_path: Path) -> None:
    images.write_layout(tmp_path / "layout", {NAME: images.single()})
    (large,) = images.shared_layers(1, 4, 20_000_000, 0.0)
    images.write_layout(tmp_path / "large", {NAME: large})
    command = [PROGRAM, "copy", str(tmp_path / "large"), f"oci-archive:{tmp_path}/a.tar"]
    process = subprocess.Popen(command, env=environment())
    while not list(tmp_path.glob(".ocimirror-archive-*")):
        time.sleep(0.005)
    time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (staged,) = tmp_path.glob(".ocimirror-archive-*")
    long_ago = time.time() - 3600
    os.utime(staged, (long_ago, long_ago))

    again = ocimirror("copy", tmp_path / "layout", f"oci-archive:{tmp_path}/b.tar")

    assert again.code == 0, again.stderr
    assert list(tmp_path.glob(".ocimirror-archive-*")) == []


@pytest.mark.parametrize("kind", ["checksum", "cut short", "negative size"])
def test_a_header_that_cannot_be_read_is_no_end_of_the_archive(tmp_path: Path, kind: str) -> None:
    images.write_layout(tmp_path / "layout", {NAME: images.single()})
    assert ocimirror("copy", tmp_path / "layout", f"oci-archive:{tmp_path}/a.tar").code == 0
    content = bytearray((tmp_path / "a.tar").read_bytes()).rstrip(b"\0")
    content += bytes(-len(content) % tarfile.BLOCKSIZE)
    # The image is whole without this member; but what cannot be read might have been anything.
    member = tarfile.TarInfo("more")
    if kind == "negative size":
        member.pax_headers = {"size": "-512"}
    header = bytearray(member.tobuf())
    if kind == "checksum":
        header[0:1] = b"M"
    tail = header[:200] if kind == "cut short" else header + bytes(2 * tarfile.BLOCKSIZE)
    (tmp_path / "a.tar").write_bytes(content + tail)

    result = ocimirror("verify", tmp_path / "a.tar")

    assert result.code == 5, result.stdout
    assert f"{tmp_path}/a.tar" in result.stderr


# --- as people have them: compressed, in a pipe, with a directory around them -------------------


def an_archive(directory: Path) -> bytes:
    images.write_layout(directory / "layout", {NAME: images.multi()})
    assert ocimirror("copy", directory / "layout", f"oci-archive:{directory}/a.tar").code == 0
    return (directory / "a.tar").read_bytes()


@pytest.mark.parametrize("kind", ["gzip", "zstd", "gzip in two members"])
def test_a_compressed_archive_is_read_like_any_other(tmp_path: Path, kind: str) -> None:
    content = an_archive(tmp_path)
    packed = tmp_path / "packed"
    if kind == "zstd":
        packed.write_bytes(zstandard.compress(content))
    elif kind == "gzip":
        packed.write_bytes(gzip.compress(content))
    else:
        packed.write_bytes(gzip.compress(content[:700]) + gzip.compress(content[700:]))

    listed = ocimirror("list", packed, "--json")
    copied = ocimirror("copy", packed, f"oci-archive:{tmp_path}/b.tar")

    assert [image["name"] for image in listed.document["images"]] == [NAME]
    assert ocimirror("verify", packed).code == 0
    assert copied.code == 0, copied.stderr
    assert (tmp_path / "b.tar").read_bytes() == content


def test_a_compressed_docker_archive_is_read(tmp_path: Path) -> None:
    images.write_layout(tmp_path / "layout", {NAME: images.single()})
    assert ocimirror("copy", tmp_path / "layout", f"docker-archive:{tmp_path}/a.tar").code == 0
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress((tmp_path / "a.tar").read_bytes()))

    plain = ocimirror("list", tmp_path / "a.tar", "--json")
    packed = ocimirror("list", tmp_path / "a.tar.gz", "--json")

    assert packed.document["images"] == plain.document["images"] != []


def test_an_archive_comes_through_a_pipe(tmp_path: Path) -> None:
    content = an_archive(tmp_path)
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(content))
    os.mkfifo(tmp_path / "fifo")

    script = f"{PROGRAM} list <(zcat a.tar.gz) && {PROGRAM} list oci-archive:- < a.tar.gz"
    late = f" && (sleep 0.5; cat a.tar > fifo) & {PROGRAM} verify ./fifo"
    shell = subprocess.run(
        ["bash", "-c", f"{script}; true {late}"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert shell.stdout.count(NAME) == 2, shell.stderr
    assert "ok" in shell.stdout
    assert shell.stderr == ""


@pytest.mark.parametrize("directory", ["layout", "./layout", "a/b/layout"])
def test_an_archive_that_was_packed_with_its_directory_is_read(
    tmp_path: Path, directory: str
) -> None:
    images.write_layout(tmp_path / directory, {NAME: images.multi()})
    packing = ["tar", "-C", str(tmp_path), "-cf", str(tmp_path / "a.tar"), directory]
    subprocess.run(packing, check=True)

    listed = ocimirror("list", tmp_path / "a.tar", "--json")

    assert [image["name"] for image in listed.document["images"]] == [NAME]
    assert ocimirror("verify", tmp_path / "a.tar").code == 0


def test_what_cannot_be_decompressed_is_refused_by_name(tmp_path: Path) -> None:
    content = an_archive(tmp_path)
    (tmp_path / "cut.tar.gz").write_bytes(gzip.compress(content)[:-20])
    (tmp_path / "a.tar.xz").write_bytes(lzma.compress(content))

    cut, xz = ocimirror("list", tmp_path / "cut.tar.gz"), ocimirror("list", tmp_path / "a.tar.xz")

    assert (cut.code, xz.code) == (5, 5)
    assert "cut.tar.gz cannot be decompressed" in cut.stderr
    assert "xz" in xz.stderr
    assert "Decompress it first" in xz.stderr


def test_without_the_library_for_zstd_the_extra_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.tar.zst").write_bytes(zstandard.compress(an_archive(tmp_path)))
    (tmp_path / "zstandard.py").write_text("raise ImportError('not here')")

    result = ocimirror("list", tmp_path / "a.tar.zst", env=environment(PYTHONPATH=str(tmp_path)))

    assert result.code == 2
    assert "zstd is not installed" in result.stderr
    assert "ocimirror[docker-archive]" in result.stderr


def test_a_disk_too_small_for_what_is_decompressed_stays_usable(tmp_path: Path) -> None:
    require_root()
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(bytes(150_000_000)))
    (tmp_path / "small").mkdir()
    script = (
        f"mount -t tmpfs -o size=100M tmpfs {tmp_path}/small"
        f" && TMPDIR={tmp_path}/small {PROGRAM} list {tmp_path}/a.tar.gz"
    )

    result = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", script],
        env=environment(),
        capture_output=True,
        text=True,
    )

    assert result.returncode == 8, result.stderr
    assert f"{tmp_path}/small" in result.stderr
    assert "TMPDIR" in result.stderr


def test_a_signal_ends_the_reading_of_a_pipe_that_nobody_writes_to(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    command = [PROGRAM, "copy", f"oci-archive:{tmp_path}/fifo", f"oci:{tmp_path}/out:a"]
    process = subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE)
    time.sleep(2)

    process.send_signal(signal.SIGTERM)

    assert process.wait(2) == 143
    assert not (tmp_path / "out").exists()


def test_an_archive_with_very_many_members_needs_little_memory(tmp_path: Path) -> None:
    content = an_archive(tmp_path)
    with (tmp_path / "many.tar").open("wb") as file:
        file.write(content.rstrip(b"\0") + bytes(-len(content.rstrip(b"\0")) % 512))
        for number in range(120_000):
            file.write(tarfile.TarInfo(f"blobs/sha256/{number:064x}").tobuf())
        file.write(bytes(1024))

    peaks = {}
    for name in ("a.tar", "many.tar"):
        command = ["/usr/bin/env", "python3", "-c", _PEAK, PROGRAM, "list", str(tmp_path / name)]
        peaks[name] = int(subprocess.run(command, capture_output=True, check=True).stdout)

    assert peaks["many.tar"] < peaks["a.tar"] + 40 * 1024


_PEAK = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def test_archives_have_members_for_their_directories_as_other_tools_write_them(
    tmp_path: Path,
) -> None:
    images.write_layout(tmp_path / "layout", {NAME: images.single()})

    result = ocimirror("copy", tmp_path / "layout", f"oci-archive:{tmp_path}/a.tar")

    assert result.code == 0, result.stderr
    with tarfile.open(tmp_path / "a.tar") as tar:
        directories = [member.name for member in tar if member.isdir()]
    assert directories == ["blobs", "blobs/sha256"]
    assert ocimirror("verify", tmp_path / "a.tar").code == 0


@pytest.mark.parametrize("kind", ["oci-archive", "docker-archive"])
def test_an_archive_of_one_platform_is_sparse_and_says_so(tmp_path: Path, kind: str) -> None:
    graph = images.multi()
    layout = images.write_layout(tmp_path / "layout", {NAME: graph})
    index = json.loads(graph.raw)["manifests"]
    for child in index[1:]:
        (layout / "blobs/sha256" / child["digest"][7:]).unlink()
    first = json.loads((layout / "blobs/sha256" / index[0]["digest"][7:]).read_bytes())
    members = [f"blobs/sha256/{d['digest'][7:]}" for d in (first["config"], *first["layers"])]
    document = [{"Config": members[0], "RepoTags": [NAME], "Layers": members[1:]}]
    (layout / "manifest.json").write_text(json.dumps(document))
    archive = f"{kind}:{images.write_archive(tmp_path / 'a.tar', layout)}"

    verified = ocimirror("verify", archive)
    copied = ocimirror("copy", archive, f"oci:{tmp_path}/out", "--json")
    again = ocimirror("copy", archive, f"oci:{tmp_path}/out", "--json")
    listed = ocimirror("list", archive)

    assert (verified.code, copied.code, again.code) == (0, 0, 0), verified.stdout + copied.stderr
    assert "sparse" in verified.stdout
    assert "linux/arm64 is not in" in copied.stdout
    assert copied.document["images"][0]["sparse"] is True
    assert copied.document["images"][0]["digest"] == graph.root
    assert again.document["images"][0]["status"] == "unchanged"
    assert "linux/amd64" in listed.stdout
    assert "missing" not in listed.stdout
    assert ocimirror("verify", tmp_path / "out").code == 0

    layer = layout / "blobs/sha256" / first["layers"][0]["digest"][7:]
    layer.unlink()
    damaged = images.write_archive(tmp_path / "damaged.tar", layout)
    assert ocimirror("verify", f"oci-archive:{damaged}").code == 5
