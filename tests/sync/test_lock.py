"""The lock file: the same records are the same bytes, and nothing odd is read."""

from __future__ import annotations

import itertools
import json
import os
import resource
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support import images
from tests.support.command import PROGRAM, Result, environment, ocimirror
from tests.support.mirrorfiles import Record, digest, lock_document, lock_text, write_lock
from tests.support.programs import require_strace
from tests.support.registry import StrictRegistry

A, B = digest("a"), digest("b")


def merge(output: Path, *locks: Path, fresh: bool = False) -> Result:
    return ocimirror("sync", "merge", *locks, "--output", output, "--json", fresh=fresh)


def merged(tmp_path: Path, records: Iterable[Record]) -> str:
    """Return the text of a lock file that was read and written again."""
    output = tmp_path / "written.lock"
    done = merge(output, write_lock(tmp_path / "read.lock", *records))
    assert done.code == 0, done.stderr
    return output.read_text()


def many(count: int) -> list[Record]:
    return [
        Record(f"docker://registry.example.com/app{number % 100}:v{number}", digest(f"{number}"))
        for number in range(count)
    ]


# --- what is written ----------------------------------------------------------------------------


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    values = itertools.product(
        (0, 1, 2**63 - 1),
        ([], ["linux/amd64"], ["windows/amd64", "linux/arm/v7", "linux/amd64", "linux/amd64"]),
        ([], [A], [B, A, B]),
        ("0001-01-01T00:00:00Z", "0005-01-01T00:00:00Z", "9999-12-31T23:59:59Z"),
    )
    records = [
        Record(
            f"docker://registry.example.com/{chr(97 + number % 7)}/app:v{number}",
            digest(f"{number}"),
            size,
            time=time,
            platforms=platforms,
            attachments=attachments,
        )
        for number, (size, platforms, attachments, time) in enumerate(values)
    ]
    assert len(records) == 81
    assert merged(tmp_path, reversed(records)) == lock_text(records)
    again = merge(tmp_path / "again.lock", tmp_path / "written.lock")
    assert (again.code, again.document["lock"]) == (0, 81)
    assert (tmp_path / "again.lock").read_text() == lock_text(records)


def test_the_file_is_made_for_version_control(tmp_path: Path) -> None:
    written = merged(
        tmp_path,
        [
            Record("docker://quay.io/app:v1", B, platforms=["linux/arm64", "linux/amd64"]),
            Record(attachments=[B, A, B]),
        ],
    )
    attachments = json.dumps(sorted([A, B]))
    assert (
        written
        == f"""\
{{"schema": "ocimirror.lock/v2", "shard": 1, "of": 1, "run": "",
 "own": [],
 "images": [
  {{"source": "docker://docker.io/library/alpine:3.19",
   "digest": "{A}", "size": 10485760,
   "media_type": "application/vnd.oci.image.index.v1+json", "time": "2026-01-31T02:00:00Z",
   "platforms": [], "attachments": {attachments}}},
  {{"source": "docker://quay.io/app:v1",
   "digest": "{B}", "size": 10485760,
   "media_type": "application/vnd.oci.image.index.v1+json", "time": "2026-01-31T02:00:00Z",
   "platforms": ["linux/amd64", "linux/arm64"], "attachments": []}}
 ]}}
"""
    )


def test_an_empty_lock_is_one_too(tmp_path: Path) -> None:
    assert merged(tmp_path, []) == lock_text([])


def test_a_night_on_which_nothing_moved_leaves_the_file_as_it_was(
    registry: StrictRegistry, tmp_path: Path
) -> None:
    images.push(registry, "app", "v1", images.single())
    config, lock = tmp_path / "sync.yaml", tmp_path / "sync.lock"
    config.write_text(f"mirrors: [{{from: {registry.host}/app, to: 'oci:layout'}}]\n")
    assert ocimirror("sync", config).code == 0
    (image,) = json.loads(lock.read_text())["images"]
    lock.write_text(lock.read_text().replace(image["time"], "2026-01-31T02:00:00Z"))
    before = lock.read_bytes()

    assert ocimirror("sync", config).code == 0
    assert lock.read_bytes() == before

    shutil.rmtree(tmp_path / "layout")  # (the image is copied again, and is the same)
    (tmp_path / "sync.state").unlink()
    again = ocimirror("sync", config, "--json")
    assert [image["status"] for image in again.document["images"]] == ["copied"]
    assert lock.read_bytes() == before

    images.push(registry, "app", "v1", images.docker_schema2())
    assert ocimirror("sync", config).code == 0
    (moved,) = json.loads(lock.read_text())["images"]
    assert moved["digest"] == images.docker_schema2().root
    assert moved["time"] >= image["time"]  # (whole seconds of UTC, which are texts in order)
    assert len(moved["time"]) == len("2026-01-31T02:00:00Z")


# --- hostile input ------------------------------------------------------------------------------


def edited(**changes: object) -> bytes:
    document = lock_document(Record())
    document["images"][0].update(changes)
    return json.dumps(document).encode()


def owning(**changes: object) -> bytes:
    document = lock_document(Record())
    made = {
        "target": "docker://registry.example.com/library/alpine:3.19",
        "source": "docker://docker.io/library/alpine:3.19",
        "digest": digest("a"),
        "gone_since": None,
    }
    document["own"] = [made | changes]
    return json.dumps(document).encode()


GOOD = lock_text([Record()]).encode()
HOSTILE = [
    b"",
    b"\0" * 100,
    b"null",
    b"[]",
    b"<<<<<<< HEAD\n" + GOOD,
    GOOD[:-20],
    GOOD.replace(b'"size"', b'"size": 1, "size"'),
    b"\xef\xbb\xbf" + lock_text([]).encode(),
    b'{"schema": "ocimirror.lock/v3", "images": []}',
    b'{"schema": "ocimirror.lock/v1"}',
    b'{"schema": "ocimirror.lock/v1", "images": {}}',
    b'{"schema": "ocimirror.lock/v1", "images": [], "more": 1}',
    b'{"schema": "ocimirror.lock/v1", "images": [null]}',
    b'{"schema": "ocimirror.lock/v1", "images": [{}]}',
    b"[" * 100_000,
    edited(digest="sha256:../../etc/passwd"),
    edited(digest=f"sha256:{'A' * 64}"),
    edited(digest=None),
    edited(size=-1),
    edited(size=2**63),
    edited(size=True),
    edited(size=1.5),
    edited(source="alpine"),
    edited(source="oci:/etc"),
    edited(source="docker://alpine:3.19"),
    edited(source="docker://docker.io/library/alpine"),
    edited(source="docker://docker.io/library/alpine:3.19\u202e"),
    edited(media_type="text\nhtml"),
    edited(media_type=""),
    edited(time="yesterday"),
    edited(time="2026-02-30T00:00:00Z"),
    edited(time="2026-01-31T02:00:00+02:00"),
    edited(platforms="linux/amd64"),
    edited(platforms=[1]),
    edited(platforms=["linux"]),
    edited(attachments=["x"]),
    edited(attachments=[[]]),
    edited(extra=1),
    owning(target="alpine:3.19"),
    owning(target="docker://alpine:3.19"),
    owning(target="docker://registry.example.com/library/alpine:3.19\u202e"),
    owning(target=None),
    owning(source="docker://alpine:3.19"),
    owning(source="oci:layout:app"),
    owning(digest="sha256:x"),
    owning(gone_since="yesterday"),
    owning(extra=1),
]


def refused(lock: Path, kind: str = "damaged_lock_file", code: int = 2) -> str:
    """Return why a lock file is refused; nothing is written then."""
    output = lock.with_name("output.lock")
    done = merge(output, lock)
    error = done.document["error"]
    assert (done.code, error["code"], output.exists()) == (code, kind, False)
    return str(error["message"])


def test_what_a_mirror_made_is_kept_in_its_lock(tmp_path: Path) -> None:
    lock = tmp_path / "its.lock"
    lock.write_bytes(owning())
    assert merge(tmp_path / "output.lock", lock).code == 0
    kept = json.loads((tmp_path / "output.lock").read_bytes())["own"]
    assert kept == json.loads(owning())["own"]


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_what_we_would_not_write_is_refused_as_a_whole(tmp_path: Path, number: int) -> None:
    lock = tmp_path / "ocimirror.lock"
    lock.write_bytes(HOSTILE[number])
    message = refused(lock)
    assert message.isprintable()
    assert len(message) < 2000


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (edited(extra=1), "images[0] has an unknown key 'extra'"),
        (edited(size=1.5), "images[0].size is not a whole number"),
        (edited(attachments=["x"]), "images[0].attachments[0]: not a digest: 'x'"),
        (edited(source="oci:/etc"), "images[0].source: not a source as docker://"),
    ],
)
def test_a_refusal_names_the_member_that_is_wrong(tmp_path: Path, raw: bytes, message: str) -> None:
    lock = tmp_path / "ocimirror.lock"
    lock.write_bytes(raw)
    assert message in refused(lock)


def test_a_lock_that_is_hostile_only_where_it_was_changed_is_read(tmp_path: Path) -> None:
    lock = tmp_path / "ocimirror.lock"
    lock.write_bytes(edited())
    assert merge(tmp_path / "output.lock", lock).code == 0
    lock.write_bytes(b'{"schema": "ocimirror.lock/v1", "images": []}')
    assert merge(tmp_path / "output.lock", lock).code == 0
    assert (tmp_path / "output.lock").read_text() == lock_text([])


def test_a_source_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    assert "twice" in refused(write_lock(tmp_path / "ocimirror.lock", Record(), Record()))


def test_a_file_that_is_none_is_refused_at_once(tmp_path: Path) -> None:
    assert "does not exist" in refused(tmp_path / "absent", "usage_error")
    os.mkfifo(tmp_path / "fifo")
    assert "not a regular file" in refused(tmp_path / "fifo", "usage_error")
    (tmp_path / "directory").mkdir()
    assert "not a regular file" in refused(tmp_path / "directory", "usage_error")


def test_a_file_without_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(256 * 1024 * 1024 + 1)
    assert "larger" in refused(path, "usage_error")


def test_a_link_is_followed_when_it_is_read_and_when_it_is_written(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    link.symlink_to(real)
    assert merge(link, write_lock(tmp_path / "ocimirror.lock", Record())).code == 0
    assert link.is_symlink()
    assert real.read_text() == lock_text([Record()])
    assert merge(tmp_path / "copy", link).code == 0
    assert (tmp_path / "copy").read_text() == lock_text([Record()])


def test_a_directory_that_is_not_there_is_a_storage_error(tmp_path: Path) -> None:
    lock = write_lock(tmp_path / "ocimirror.lock")
    assert merge(tmp_path / "absent" / "ocimirror.lock", lock).code == 8


# --- merging ------------------------------------------------------------------------------------


def shards(tmp_path: Path, *parts: Iterable[Record]) -> list[Path]:
    """Write the lock files of the shards of one run."""
    return [
        write_lock(tmp_path / f"{number}.lock", *records, shard=number, of=len(parts), run="night")
        for number, records in enumerate(parts, 1)
    ]


def test_shards_are_merged_into_what_one_process_would_have_written(tmp_path: Path) -> None:
    whole, output = many(100), tmp_path / "ocimirror.lock"
    assert merge(output, *shards(tmp_path, whole[0::3], whole[1::3], whole[2::3])).code == 0
    assert output.read_text() == lock_text(whole)


def test_a_merge_of_one_source_with_two_digests_names_both(tmp_path: Path) -> None:
    output = tmp_path / "ocimirror.lock"
    done = merge(output, *shards(tmp_path, [Record()], [Record(digest=B)]))
    error = done.document["error"]
    assert (done.code, error["code"], output.exists()) == (2, "lock_conflict", False)
    for told in (Record().source, A, B):
        assert told in error["message"]


def test_a_merge_of_one_source_with_one_digest_joins_what_was_asked_for(tmp_path: Path) -> None:
    output, other = tmp_path / "ocimirror.lock", "docker://quay.io/other:v1"
    earlier = "2026-01-30T02:00:00Z"
    first = Record(platforms=["linux/amd64"], attachments=[A], size=7)
    second = replace(first, platforms=["linux/arm64"], attachments=[B], size=8, time=earlier)
    locks = shards(
        tmp_path,
        [first, replace(first, source=other)],
        [second, Record(other)],
    )
    assert merge(output, *locks).code == 0
    joined = replace(
        second, platforms=["linux/amd64", "linux/arm64"], attachments=[A, B], time=earlier
    )
    everything = replace(first, source=other, platforms=[], size=Record().size)
    assert output.read_text() == lock_text([joined, everything])


# --- crashes and size ---------------------------------------------------------------------------


def test_ten_thousand_images_are_read_and_written_in_a_moment(tmp_path: Path) -> None:
    records = many(10_000)
    read, output = write_lock(tmp_path / "read.lock", *records), tmp_path / "written.lock"
    began = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    assert merge(output, read, fresh=True).code == 0
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - began < 30
    assert output.read_text() == lock_text(records)


@pytest.mark.parametrize("call", ["fsync", "rename,renameat,renameat2,link,linkat"])
def test_a_writer_that_is_killed_leaves_the_old_file_or_the_new_one(
    tmp_path: Path, call: str
) -> None:
    output = tmp_path / "mirror.lock"
    old = write_lock(tmp_path / "old", *many(300))
    new = write_lock(tmp_path / "new", *many(301))
    assert merge(output, old).code == 0
    killed = subprocess.run(
        [
            *(require_strace(), "-f", "-o", tmp_path / "trace"),
            *("-e", f"inject={call}:signal=KILL:when=1"),
            *(PROGRAM, "sync", "merge", new, "--output", output),
        ],
        env=environment(),
        capture_output=True,
        check=False,
        timeout=120,
    )
    assert killed.returncode != 0, killed
    assert output.read_text() in (lock_text(many(300)), lock_text(many(301)))

    left = [path for path in tmp_path.iterdir() if path.name.startswith(".mirror.lock.")]
    assert left
    swap = tmp_path / ".mirror.lock.swp"
    swap.touch()
    for path in (*left, swap):
        os.utime(path, (0, 0))
    assert merge(output, old).code == 0
    names = ["mirror.lock", "new", "old", "trace"]
    assert sorted(os.listdir(tmp_path)) == [".mirror.lock.swp", *names]


def test_two_writers_leave_one_of_their_files_and_nothing_else(tmp_path: Path) -> None:
    output = tmp_path / "output" / "mirror.lock"
    output.parent.mkdir()
    locks = [write_lock(tmp_path / f"{count}", *many(count)) for count in (100, 200)]
    command = [PROGRAM, "sync", "merge", "--quiet", "--output", output]
    for _ in range(3):
        writers = [
            subprocess.Popen([*command, lock], env=environment()) for lock in (*locks, *locks)
        ]
        assert [writer.wait(60) for writer in writers] == [0, 0, 0, 0]
        assert output.read_text() in (lock_text(many(100)), lock_text(many(200)))
        assert os.listdir(output.parent) == ["mirror.lock"]
