"""Reports: computed from what the run tells, and safe to show whatever images are called."""

from __future__ import annotations

import html.parser
import json
import re
import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ocimirror.copy.outcome import ByteCounts, ImageResult, LeftOut, Status
from ocimirror.errors import (
    DigestMismatch,
    NotFound,
    OciMirrorError,
    RateLimited,
    UsageError,
)
from ocimirror.model.codec import time_text
from ocimirror.model.digest import Digest
from ocimirror.model.failure import Failure
from ocimirror.stores.disk.atomic import replace_file
from ocimirror.sync.document import document, merge, parse, read
from ocimirror.sync.metrics import metrics
from ocimirror.sync.page import page
from ocimirror.sync.report import Pruning, Report
from ocimirror.sync.table import MAX_LINES, attrition_lines, lines, pruned_lines
from tests.support.programs import require_program

NIGHT = datetime(2026, 1, 31, 2, 0, tzinfo=UTC)
A, B = Digest.of(b"a"), Digest.of(b"b")
HOSTILE = "docker://evil/<script>alert(1)</script>\"'&\x1b[31m\u202e\n# TYPE x\\"


def image(
    number: int,
    status: Status = "copied",
    entry: str = "alpine",
    error: OciMirrorError | None = None,
) -> ImageResult:
    return ImageResult(
        entry,
        f"docker://docker.io/library/{entry}:3.{number}",
        f"docker://registry.example.com/library/{entry}:3.{number}",
        status,
        digest=A,
        previous=B if number == 1 and status == "copied" else None,
        bytes=ByteCounts(2048 * number, 1024 * number if status == "copied" else 0),
        seconds=0.5,
        error=None if error is None else Failure.of(error),
        referrers=2,
        media_type="application/vnd.oci.image.index.v1+json",
        manifests={"copied": 1, "present": 0},
        blobs={"copied": 3},
        notes=("a note",),
        left_out=(LeftOut(B, A, "why"),),
    )


def night() -> Report:
    """Return a night on which a bit of everything happened."""
    report = Report(NIGHT, "mirror.yaml")
    report.begin_entry(
        "alpine", "docker.io/library/alpine", ["registry.example.com/library/alpine"]
    )
    report.begin_entry("debian", "docker.io/library/debian", ["oci:debian"], NIGHT - timedelta(1))
    report.begin_entry("broken", "quay.io/broken", ["oci:broken"], NIGHT - timedelta(9))
    report.begin_entry("late", "quay.io/late", ["oci:late"])
    report.add(image(1))
    report.add(image(2))
    report.add(image(3, "unchanged"))
    report.drop("alpine", "docker://docker.io/library/alpine:edge", "exclude", "matches edge")
    report.add(image(1, "unchanged", "debian"))
    report.add(image(2, "failed", "debian", RateLimited("docker.io answered 429", side="source")))
    report.add(image(3, "failed", "debian", NotFound("no such tag", side="source")))
    report.fail_entry("broken", RateLimited("cannot list quay.io/broken"))
    report.add(image(1, "deferred", "late"))
    report.add(image(2, "pruned", "late"))
    report.finish(NIGHT + timedelta(seconds=200))
    return report


# --- what is computed --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("errors", "code"),
    [
        ([], 0),
        ([NotFound("x")], 4),
        ([NotFound("x"), RateLimited("x")], 3),
        ([RateLimited("x"), DigestMismatch("x")], 5),
    ],
)
def test_the_exit_code_is_the_first_in_the_order_of_the_contract(
    errors: list[OciMirrorError], code: int
) -> None:
    report = Report(NIGHT)
    report.begin_entry("alpine", "docker.io/library/alpine", ["oci:x"])
    report.add(image(1))
    for number, error in enumerate(errors):
        report.add(image(number, "failed", error=error))
    assert report.exit_code == code


def test_an_entry_that_fails_as_a_whole_counts() -> None:
    report = Report(NIGHT)
    report.begin_entry("alpine", "docker.io/library/alpine", ["oci:x"])
    report.fail_entry("alpine", DigestMismatch("x"))
    assert report.exit_code == 5


def test_what_is_deferred_is_reason_to_run_again() -> None:
    report = Report(NIGHT)
    report.begin_entry("late", "quay.io/late", ["oci:late"])
    report.add(image(1, "deferred", "late"))
    assert report.exit_code == 3


def test_only_an_entry_of_which_all_is_done_had_a_success() -> None:
    report = night()
    assert {entry.name: entry.last_success for entry in report.entries} == {
        "alpine": NIGHT + timedelta(seconds=200),
        "debian": NIGHT - timedelta(1),
        "broken": NIGHT - timedelta(9),
        "late": None,
    }


def test_a_dry_run_is_no_success() -> None:
    report = Report(NIGHT, dry_run=True)
    report.begin_entry("alpine", "docker.io/library/alpine", ["oci:x"])
    report.finish(NIGHT)
    assert report.entries[0].last_success is None
    assert metrics(report, NIGHT) == ""


def test_the_document_has_the_keys_of_a_copying_command_and_those_of_a_sync() -> None:
    told = json.loads(json.dumps(document(night())))
    assert told["schema"] == "ocimirror.sync/v1"
    assert told["exit_code"] == 3
    assert told["images"][0] == {
        "entry": "alpine",
        "source": "docker://docker.io/library/alpine:3.1",
        "destination": "docker://registry.example.com/library/alpine:3.1",
        "status": "copied",
        "digest": str(A),
        "previous": str(B),
        "media_type": "application/vnd.oci.image.index.v1+json",
        "manifests": {"copied": 1, "present": 0},
        "blobs": {"copied": 3},
        "bytes": {"total": 2048, "copied": 1024},
        "referrers": 2,
        "left_out": [{"digest": str(B), "subject": str(A), "reason": "why"}],
        "sparse": False,
        "notes": ["a note"],
        "seconds": 0.5,
        "error": None,
    }
    assert told["images"][4]["error"] == {
        "code": "rate_limited",
        "message": "docker.io answered 429",
        "exit_code": 3,
        "retryable": True,
        "side": "source",
        "diagnostics": RateLimited("docker.io answered 429", side="source").diagnostics(),
    }
    assert [entry["status"] for entry in told["entries"]] == [
        "changed",
        "failed",
        "failed",
        "deferred",
    ]
    assert told["moves"] == [
        {
            "source": "docker://docker.io/library/alpine:3.1",
            "destination": "docker://registry.example.com/library/alpine:3.1",
            "old": str(B),
            "new": str(A),
        }
    ]
    assert told["attrition"][0]["filter"] == "exclude"
    assert told["totals"] == {
        "images": 8,
        "copied": 2,
        "unchanged": 2,
        "planned": 0,
        "deferred": 1,
        "pruned": 1,
        "failed": 2,
        "dropped": 1,
        "moves": 1,
        "bytes_copied": 3072,
        "seconds": 200.0,
    }


def test_what_would_be_pruned_is_no_move_and_is_not_to_be_copied() -> None:
    report = Report(NIGHT, dry_run=True)
    report.begin_entry("alpine", "docker.io/library/alpine", ["oci:x"])
    report.add(ImageResult("alpine", "docker://quay.io/a:v1", "oci:x:v1", "planned", previous=A))
    report.add(ImageResult("alpine", "docker://quay.io/a:v2", "oci:x:v2", "planned", A, B))
    assert [move.destination for move in report.moves] == ["oci:x:v2"]
    due = NIGHT + timedelta(days=7)
    gone = Pruning("alpine", "docker://quay.io/a:v1", "oci:x:v1", A, NIGHT, due, "waits")
    report.pruning += [gone, replace(gone, action="delete", reason="because")]
    since = f"oci:x:v1  {str(A)[:19]}  gone since {time_text(NIGHT)}"
    assert pruned_lines(report) == [
        f"TO BE PRUNED FROM {time_text(due)}  {since}",
        f"TO BE PRUNED NOW  {since}; because",
    ]
    text = Tags(page(report)).text
    assert text.index("oci:x:v2") < text.index("To be pruned") < text.rindex("oci:x:v1")
    assert text.count("oci:x:v1") == 1


# --- shards ------------------------------------------------------------------------------------


def test_a_document_is_read_back_as_the_report_that_it_was(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text(json.dumps(document(night())))
    assert read(str(path)) == night()


TEXT = json.dumps(document(night()))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"{}",
        b'{"schema": "ocimirror.pull/v1"}',
        b'{"schema": "ocimirror.sync/v1"}',
        json.dumps({**document(night()), "images": [1]}).encode(),
        json.dumps({**document(night()), "started": 5}).encode(),
        TEXT.replace('"copied"', '"stolen"').encode(),
        TEXT.replace(str(A), "sha256:x").encode(),
        *(
            re.sub(rf'"{key}": [0-9.]+', f'"{key}": {number}', TEXT).encode()
            for key in ("seconds", "copied", "total", "referrers")
            for number in ("-1", "1e999", f"1{'0' * 400}")
        ),
        *(
            re.sub(r'"exit_code": [0-9]+, "diag', f'"exit_code": {code}, "diag', TEXT).encode()
            for code in (-1, 0, 256)
        ),
    ],
)
def test_what_is_no_report_is_refused(raw: bytes) -> None:
    with pytest.raises(UsageError, match=r"report\.json is no report of a sync"):
        parse(raw, "report.json")


def test_shards_are_merged_into_what_one_process_would_have_told() -> None:
    whole = night()
    shards = []
    for number in range(2):
        shard = Report(NIGHT + timedelta(number), "mirror.yaml")
        names = [entry.name for entry in whole.entries][number::2]
        shard.entries = [entry for entry in whole.entries if entry.name in names]
        shard.images = [found for found in whole.images if found.entry in names]
        shard.attrition = [found for found in whole.attrition if found.entry in names]
        shard.ended = whole.ended
        shards.append(shard)
    merged = merge(shards)
    assert merged.exit_code == whole.exit_code
    assert merged.totals() == whole.totals()
    assert merged.started == NIGHT
    assert {entry.name: entry for entry in merged.entries} == {e.name: e for e in whole.entries}
    assert merge([whole]) == whole


def test_an_entry_that_two_shards_share_was_done_when_both_had_done_it() -> None:
    shards = []
    for success in (NIGHT, NIGHT + timedelta(1)):
        shard = Report(NIGHT)
        shard.begin_entry("all", "quay.io/*", ["oci:all"], success)
        shards.append(shard)
    assert [entry.last_success for entry in merge(shards).entries] == [NIGHT]
    shards[0].entries[0].last_success = None
    assert [entry.last_success for entry in merge(shards).entries] == [None]


# --- for people --------------------------------------------------------------------------------


def test_the_table_fits_one_screen_and_begins_with_what_failed() -> None:
    assert lines(night()) == [
        "FAILED  broken  rate_limited (try again)",
        "        cannot list quay.io/broken",
        "        Wait, log in for a higher limit, or lower --jobs.",
        "FAILED  debian  rate_limited (try again)",
        "        docker://docker.io/library/debian:3.2 ->"
        " docker://registry.example.com/library/debian:3.2",
        "        docker.io answered 429",
        "        Wait, log in for a higher limit, or lower --jobs.",
        "FAILED  debian  not_found (exit 4)",
        "        docker://docker.io/library/debian:3.3 ->"
        " docker://registry.example.com/library/debian:3.3",
        "        no such tag",
        "ENTRY   STATUS    IMAGES  COPIED  UNCHANGED  FAILED  DEFERRED  PRUNED    BYTES",
        "debian  failed         3       0          1       2         0       0      0 B",
        "broken  failed         0       0          0       0         0       0      0 B",
        "late    deferred       2       0          0       0         1       1      0 B",
        "alpine  changed        3       2          1       0         0       0  3.0 KiB",
        f"MOVED  docker://registry.example.com/library/alpine:3.1  {str(B)[:19]} -> {str(A)[:19]}",
        f"PRUNED  docker://registry.example.com/library/late:3.2  {str(A)[:19]}",
        "tags not mirrored: 1 by exclude",
        "1 entry failed; 8 images: 2 copied, 2 unchanged, 2 failed, 1 deferred, 1 pruned,"
        " 3.0 KiB in 3 min 20 s",
    ]


def large(entries: int = 100, tags: int = 100) -> Report:
    report = Report(NIGHT)
    for number in range(entries):
        name = f"entry{number}"
        report.begin_entry(name, f"quay.io/{name}", ["oci:x"])
        for tag in range(tags):
            failed = number % 3 == 0
            error = NotFound("x" * 500) if failed else None
            report.add(image(tag, "failed" if failed else "copied", name, error))
            report.drop(name, f"docker://quay.io/{name}:old{tag}", "newest", "older")
    report.finish(NIGHT + timedelta(hours=1))
    return report


def test_the_table_of_a_large_mirror_fits_one_screen_too() -> None:
    shown = lines(large(), width=100)
    assert len(shown) <= MAX_LINES
    assert max(map(len, shown)) <= 100
    assert "and 30 kinds of failures more" in shown
    assert shown[0].startswith("FAILED  entry0  100 x not_found (exit 4)")


def test_entries_have_the_room_that_failures_leave() -> None:
    report = Report(NIGHT)
    for number in range(50):
        report.begin_entry(f"entry{number}", f"quay.io/{number}", ["oci:x"])
    shown = lines(report)
    assert len(shown) == MAX_LINES
    assert shown[-2:] == ["and 13 entries more: 13 unchanged", "0 images, 0 B in 0.0 s"]


def test_every_dropped_tag_is_told_with_its_filter_in_the_order_of_the_filters() -> None:
    report = Report(NIGHT)
    long = "sha256-" + "0" * 64 + ".sig"
    for tag, name in (("1", "newest"), (long, "attachment"), ("3", "include"), ("4", "newest")):
        report.drop("alpine", f"docker://quay.io/a:{tag}", name, "why")
    assert attrition_lines(report) == [
        f"include     {'quay.io/a:3':64}  why",
        f"attachment  quay.io/a:{long}  why",
        f"newest      {'quay.io/a:1':64}  why",
        f"newest      {'quay.io/a:4':64}  why",
    ]
    assert "tags not mirrored: 1 by include, 1 by attachment, 2 by newest" in lines(report)
    assert attrition_lines(night()) == ["exclude  docker.io/library/alpine:edge  matches edge"]
    assert attrition_lines(Report(NIGHT)) == []


def hostile() -> Report:
    report = Report(NIGHT, HOSTILE)
    report.begin_entry(HOSTILE, HOSTILE, [HOSTILE])
    for status in ("copied", "failed", "pruned", "deferred", "planned"):
        report.add(
            ImageResult(
                HOSTILE,
                HOSTILE,
                HOSTILE,
                status,
                A,
                B,
                error=Failure(HOSTILE, HOSTILE, False, None, 4, HOSTILE),
            )
        )
    report.fail_entry(HOSTILE, NotFound(HOSTILE))
    report.drop(HOSTILE, HOSTILE, HOSTILE, HOSTILE)
    report.finish(NIGHT)
    return report


def test_hostile_names_do_not_move_a_terminal() -> None:
    for line in [*lines(hostile()), *attrition_lines(hostile())]:
        assert line.isprintable()


class Tags(html.parser.HTMLParser):
    """Collects the elements and attributes of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.attributes: set[str] = set()
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_hostile_names_are_text_on_the_page() -> None:
    shown = page(hostile())
    tags = Tags(shown)
    assert tags.open == []
    assert "script" not in tags.names
    assert tags.names == Tags(page(night())).names
    assert tags.attributes <= Tags(page(night())).attributes
    assert "<script>alert(1)</script>" in tags.text
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert not re.search(r"https?://|@import|url\(|javascript:", shown)


def test_the_page_says_what_failed_what_moved_and_what_was_copied() -> None:
    text = Tags(page(night())).text
    for told in (
        "some images are not done; trying again may help (exit 3)",
        "docker.io answered 429",
        "Tags that moved",
        "3.0 KiB",
        "matches edge",
        "2026-01-22T02:00:00Z",
    ):
        assert told in text


def test_the_page_begins_with_the_worst_and_folds_what_is_many_times_the_same() -> None:
    report = Report(NIGHT)
    report.begin_entry("alpine", "docker.io/library/alpine", ["oci:x"])
    limited, damaged = Failure.of(RateLimited("429")), Failure.of(DigestMismatch("not the bytes"))
    for number in range(9):
        target = f"oci:x:v{number}"
        report.add(ImageResult("alpine", "docker://alpine:1", target, "failed", error=limited))
    report.add(ImageResult("alpine", "docker://alpine:2", "oci:x:w", "failed", error=damaged))
    text = Tags(page(report)).text
    assert text.index("not the bytes") < text.index("429")
    assert "6 more of alpine: rate_limited" in text
    assert all(text.count(f"oci:x:v{number}") == 1 for number in range(9))


def test_the_page_of_a_large_mirror_is_bounded() -> None:
    shown = page(large())
    assert len(shown) < 4_000_000
    assert "and 2400 more" in shown


def test_a_browser_shows_the_page(tmp_path: Path) -> None:
    replace_file(str(tmp_path / "report.html"), page(night()).encode(errors="strict"))
    shot = tmp_path / "shot.png"
    subprocess.run(
        [
            require_program("chromium", "chromium"),
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={tmp_path / 'profile'}",
            f"--screenshot={shot}",
            "--window-size=1200,900",
            f"file://{tmp_path / 'report.html'}",
        ],
        check=True,
        capture_output=True,
        timeout=60,
    )
    assert shot.stat().st_size > 20_000


# --- for machines ------------------------------------------------------------------------------

_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_LABEL = rf'{_NAME}="(?:[^"\\\n]|\\[\\"n])*"'
_SAMPLE = re.compile(rf"({_NAME})(\{{{_LABEL}(?:,{_LABEL})*\}})? (-?[0-9.]+)")


def samples(text: str) -> dict[str, float]:
    """Parse the text exposition format as its specification has it."""
    assert text.endswith("\n")
    found: dict[str, float] = {}
    declared = ""
    for line in text.removesuffix("\n").split("\n"):
        if line.startswith("# HELP "):
            continue
        if line.startswith("# TYPE "):
            declared = line.split(" ")[2]
            assert line.split(" ")[3] == "gauge"
            continue
        match = _SAMPLE.fullmatch(line)
        assert match is not None, line
        assert match[1] == declared
        assert match[1] + (match[2] or "") not in found
        found[match[1] + (match[2] or "")] = float(match[3])
    return found


def test_metrics_say_when_each_entry_was_last_done() -> None:
    found = samples(metrics(night(), NIGHT))
    name = "ocimirror_sync_last_success_timestamp_seconds"
    assert found[f'{name}{{entry="alpine"}}'] == (NIGHT + timedelta(seconds=200)).timestamp()
    assert found[f'{name}{{entry="broken"}}'] == (NIGHT - timedelta(9)).timestamp()
    assert f'{name}{{entry="late"}}' not in found
    assert found["ocimirror_sync_last_run_duration_seconds"] == 200
    assert found["ocimirror_sync_last_run_exit_code"] == 3
    assert found['ocimirror_sync_failures{entry="debian",code="rate_limited"}'] == 1
    assert found['ocimirror_sync_copied_bytes{entry="alpine"}'] == 3072
    assert found['ocimirror_sync_images{entry="debian",status="failed"}'] == 2


def test_hostile_labels_stay_inside_their_quotes() -> None:
    assert samples(metrics(hostile(), NIGHT))
