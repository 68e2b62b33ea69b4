"""The lock file: the same records are the same bytes, and nothing odd is read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocimirror.errors import DamagedLockFile, LocalStorageError, LockConflict, UsageError
from ocimirror.model.digest import Digest
from ocimirror.sync.lock import LockFile, merge
from ocimirror.sync.record import ImageRecord, parse_time, time_text

ROOT = Path(__file__).parents[2]
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
NIGHT = datetime(2026, 1, 31, 2, 0, tzinfo=UTC)
A, B = Digest.of(b"a"), Digest.of(b"b")


def record(
    source: str = "docker://docker.io/library/alpine:3.19", digest: Digest = A, **more: Any
) -> ImageRecord:
    fields: dict[str, Any] = {
        "media_type": OCI_INDEX,
        "size": 10_485_760,
        "platforms": (),
        "attachments": (),
        "time": NIGHT,
    }
    return ImageRecord(source, digest, **{**fields, **more})


def many(count: int) -> LockFile:
    return LockFile.of(
        record(
            f"docker://registry.example.com/app{number % 100}:v{number}", Digest.of(b"%d" % number)
        )
        for number in range(count)
    )


records = st.builds(
    record,
    st.from_regex(r"docker://registry\.example\.com/[a-z]{1,5}:[a-z0-9]{1,5}", fullmatch=True),
    st.sampled_from([A, B]),
    size=st.integers(0, 2**63 - 1),
    platforms=st.lists(st.sampled_from(["linux/amd64", "linux/arm/v7", "windows/amd64"])).map(
        tuple
    ),
    attachments=st.lists(st.sampled_from([A, B])).map(tuple),
    time=st.datetimes(timezones=st.just(UTC)),
)


@given(st.lists(records, unique_by=lambda found: found.source))
def test_what_is_written_is_read_again(written: list[ImageRecord]) -> None:
    lock = LockFile.of(written)
    assert LockFile.parse(lock.to_bytes()) == lock
    assert list(lock) == sorted(written, key=lambda found: found.source)


def test_the_file_is_made_for_version_control(tmp_path: Path) -> None:
    path = tmp_path / "ocimirror.lock"
    LockFile.of(
        [
            record("docker://quay.io/app:v1", B, platforms=("linux/arm64", "linux/amd64")),
            record(attachments=(B, A, B)),
        ]
    ).write(str(path))
    assert (
        path.read_text()
        == f"""\
{{"schema": "ocimirror.lock/v2", "shard": 1, "of": 1, "run": "",
 "own": [],
 "images": [
  {{"source": "docker://docker.io/library/alpine:3.19",
   "digest": "{A}", "size": 10485760,
   "media_type": "{OCI_INDEX}", "time": "2026-01-31T02:00:00Z",
   "platforms": [], "attachments": ["{B}", "{A}"]}},
  {{"source": "docker://quay.io/app:v1",
   "digest": "{B}", "size": 10485760,
   "media_type": "{OCI_INDEX}", "time": "2026-01-31T02:00:00Z",
   "platforms": ["linux/amd64", "linux/arm64"], "attachments": []}}
 ]}}
""".replace(f'["{B}", "{A}"]', json.dumps(sorted([str(A), str(B)])))
    )
    assert json.loads(path.read_text())["images"][0]["digest"] == str(A)


def test_an_empty_lock_is_one_too() -> None:
    assert list(LockFile.parse(LockFile.of().to_bytes())) == []


def test_a_night_on_which_nothing_moved_leaves_the_file_as_it_was() -> None:
    old = LockFile.of([record()])
    later = record(time=NIGHT + timedelta(days=1))
    assert old.renewed([later]).to_bytes() == old.to_bytes()
    moved = old.renewed([replace(later, digest=B)])
    assert moved.find(later.source) == replace(later, digest=B)


def test_a_record_does_not_depend_on_order_time_zone_or_fractions() -> None:
    east = NIGHT.astimezone(timedelta_zone(2)) + timedelta(milliseconds=5)
    assert record(platforms=("b/c", "a/b", "a/b"), time=east) == record(platforms=("a/b", "b/c"))


def timedelta_zone(hours: int) -> Any:
    from datetime import timezone

    return timezone(timedelta(hours=hours))


# --- hostile input -----------------------------------------------------------------------------


def edited(**changes: object) -> bytes:
    document = json.loads(LockFile.of([record()]).to_bytes())
    document["images"][0].update(changes)
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\0" * 100,
        b"null",
        b"[]",
        b"<<<<<<< HEAD\n" + LockFile.of([record()]).to_bytes(),
        LockFile.of([record()]).to_bytes()[:-20],
        LockFile.of([record()]).to_bytes().replace(b'"size"', b'"size": 1, "size"'),
        b"\xef\xbb\xbf" + LockFile.of().to_bytes(),
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
    ],
)
def test_what_we_would_not_write_is_refused_as_a_whole(raw: bytes) -> None:
    with pytest.raises(DamagedLockFile) as refused:
        LockFile.parse(raw, "ocimirror.lock")
    assert refused.value.exit_code == 2
    assert refused.value.message.isprintable()
    assert len(refused.value.message) < 2000


def test_a_source_that_is_there_twice_is_refused() -> None:
    document = json.loads(LockFile.of([record()]).to_bytes())
    document["images"] *= 2
    with pytest.raises(DamagedLockFile, match="twice"):
        LockFile.parse(json.dumps(document).encode())


def test_a_file_that_is_none_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        LockFile.read(str(tmp_path / "absent"))
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(UsageError, match="not a regular file"):
        LockFile.read(str(tmp_path / "fifo"))
    with pytest.raises(UsageError, match="not a regular file"):
        LockFile.read(str(tmp_path))


def test_a_file_without_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(256 * 1024 * 1024 + 1)
    with pytest.raises(UsageError, match="larger"):
        LockFile.read(str(path))


def test_a_link_is_followed_when_it_is_read_and_when_it_is_written(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    link.symlink_to(real)
    LockFile.of([record()]).write(str(link))
    assert link.is_symlink()
    assert LockFile.read(str(link)) == LockFile.read(str(real)) == LockFile.of([record()])


def test_a_directory_that_is_not_there_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(LocalStorageError):
        LockFile.of().write(str(tmp_path / "absent" / "ocimirror.lock"))


@pytest.mark.parametrize("text", ["2026-01-31T02:00:00Z", "0005-01-01T00:00:00Z"])
def test_a_time_is_written_as_it_was_read(text: str) -> None:
    assert time_text(parse_time(text)) == text


# --- merge and diff ----------------------------------------------------------------------------


def test_shards_are_merged_into_what_one_process_would_have_written() -> None:
    whole = many(100)
    shards = [LockFile.of(list(whole)[number::3]) for number in range(3)]
    assert merge(shards).to_bytes() == whole.to_bytes()


def test_a_merge_of_one_source_with_two_digests_names_both() -> None:
    with pytest.raises(LockConflict) as conflict:
        merge([LockFile.of([record()]), LockFile.of([record(digest=B)])])
    for told in (record().source, str(A), str(B)):
        assert told in conflict.value.message


def test_a_merge_of_one_source_with_one_digest_joins_what_was_asked_for() -> None:
    one = record(platforms=("linux/amd64",), attachments=(A,), time=NIGHT)
    other = record(platforms=("linux/arm64",), attachments=(B,), time=NIGHT - timedelta(days=1))
    (joined,) = merge([LockFile.of([one]), LockFile.of([other])])
    assert joined == record(
        platforms=("linux/amd64", "linux/arm64"),
        attachments=(A, B),
        time=NIGHT - timedelta(days=1),
    )
    (whole,) = merge([LockFile.of([one]), LockFile.of([record()])])
    assert whole.platforms == ()


# --- crashes and size --------------------------------------------------------------------------


def test_ten_thousand_images_are_read_and_written_in_a_moment(tmp_path: Path) -> None:
    lock, path = many(10_000), str(tmp_path / "ocimirror.lock")
    began = time.process_time()
    lock.write(path)
    assert LockFile.read(path) == lock
    assert time.process_time() - began < 30


def test_a_writer_that_is_killed_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "ocimirror.lock"
    script = (
        "import sys; from tests.sync.test_lock import many; locks = many(300), many(301)\n"
        "print('ready', flush=True)\n"
        "while True:\n for lock in locks: lock.write(sys.argv[1])"
    )
    sizes = set()
    for number in range(6):
        writer = subprocess.Popen(
            [sys.executable, "-c", script, path], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        deadline = time.monotonic() + 60
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.003 * number)
        writer.kill()
        writer.communicate(timeout=60)
        sizes.add(len(LockFile.read(str(path))))
    assert sizes <= {300, 301}
    for left in tmp_path.iterdir():
        os.utime(left, (0, 0))
    swap = tmp_path / ".ocimirror.lock.swp"
    swap.touch()
    os.utime(swap, (0, 0))
    many(3).write(str(path))
    assert sorted(os.listdir(tmp_path)) == [".ocimirror.lock.swp", "ocimirror.lock"]


def test_two_writers_leave_one_of_their_files_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "ocimirror.lock"
    script = (
        "import sys; from tests.sync.test_lock import many; lock = many(int(sys.argv[2]))\n"
        "for _ in range(30): lock.write(sys.argv[1], durable=False)"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", script, path, str(count)], cwd=ROOT)
        for count in (100, 200)
    ]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    assert len(LockFile.read(str(path))) in (100, 200)
    assert os.listdir(tmp_path) == ["ocimirror.lock"]
