"""oci-archive: as a destination: standard output carries the archive and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import tarfile
import time
from pathlib import Path

import pytest

from tests.support import images
from tests.support.command import PROGRAM, environment, ocimirror

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
