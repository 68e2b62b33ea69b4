"""Reports: computed from what a run tells, and safe to show whatever images are called.

A report of any content is read by `sync merge`, which computes it anew and prints the table;
pages and metrics are those of real nights.
"""

from __future__ import annotations

import html.parser
import json
import re
import sqlite3
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support import images
from tests.support.command import Result, ocimirror
from tests.support.faults import Flip, Respond, Rule
from tests.support.images import Graph
from tests.support.mirrorfiles import NIGHT, NIGHT_S, digest, write_lock
from tests.support.programs import require_program
from tests.support.proxy import Proxy, run_proxy
from tests.support.registry import StrictRegistry, run_registry

MAX_LINES, WIDTH = 40, 120
A, B = digest("a"), digest("b")
HOSTILE = "docker://evil/<script>alert(1)</script>\"'&\x1b[31m\u202e\n# TYPE x\\"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
Document = dict[str, Any]

# --- documents, as they are written to be read ---------------------------------------------------


def failure(code: str, exit_code: int, message: str, advice: str = "", **more: Any) -> Document:
    return {
        "code": code,
        "message": message,
        "exit_code": exit_code,
        "retryable": exit_code == 3,
        "side": "source",
        "diagnostics": f"{message}\n{advice}" if advice else message,
        **more,
    }


WAIT = "Wait, log in for a higher limit, or lower --jobs."
LIMITED = failure("rate_limited", 3, "docker.io answered 429", WAIT)
ABSENT = failure("not_found", 4, "no such tag")
DAMAGED = failure("digest_mismatch", 5, "not the bytes")


def entry(name: str, source: str, *targets: str, **more: Any) -> Document:
    destinations = list(targets or ("oci:x",))
    return {
        "name": name,
        "source": source,
        "destinations": destinations,
        "last_success": None,
        "error": None,
        **more,
    }


def image(number: int, status: str = "copied", entry: str = "alpine", **more: Any) -> Document:
    return {
        "entry": entry,
        "source": f"docker://docker.io/library/{entry}:3.{number}",
        "destination": f"docker://registry.example.com/library/{entry}:3.{number}",
        "status": status,
        "digest": A,
        "previous": B if number == 1 and status == "copied" else None,
        "media_type": OCI_INDEX,
        "manifests": {"copied": 1, "present": 0},
        "blobs": {"copied": 3},
        "bytes": {"total": 2048 * number, "copied": 1024 * number if status == "copied" else 0},
        "referrers": 2,
        "left_out": [{"digest": B, "subject": A, "reason": "why"}],
        "sparse": False,
        "notes": ["a note"],
        "seconds": 0.5,
        "error": None,
        **more,
    }


def dropped(tag: str, name: str, entry: str = "alpine") -> Document:
    source = f"docker://docker.io/library/{entry}:{tag}"
    return {"entry": entry, "source": source, "filter": name, "reason": f"matches {tag}"}


def report(entries: Sequence[Document], found: Sequence[Document] = (), **more: Any) -> Document:
    """Return what is read of a report; what is computed of it is not said."""
    return {
        "schema": "ocimirror.sync/v1",
        "config": "mirror.yaml",
        "dry_run": False,
        "started": NIGHT,
        "ended": "2026-01-31T02:03:20Z",
        "entries": list(entries),
        "images": list(found),
        "gone": [],
        "pruning": [],
        "attrition": [],
        **more,
    }


ALPINE = entry("alpine", "docker.io/library/alpine")


def eventful() -> Document:
    """Return a night on which a bit of everything happened."""
    listing = failure("rate_limited", 3, "cannot list quay.io/broken", WAIT, side=None)
    return report(
        [
            entry(
                "alpine",
                "docker.io/library/alpine",
                "registry.example.com/library/alpine",
                last_success="2026-01-31T02:03:20Z",
            ),
            entry(
                "debian",
                "docker.io/library/debian",
                "oci:debian",
                last_success="2026-01-30T02:00:00Z",
            ),
            entry(
                "broken",
                "quay.io/broken",
                "oci:broken",
                last_success="2026-01-22T02:00:00Z",
                error=listing,
            ),
            entry("late", "quay.io/late", "oci:late"),
        ],
        [
            image(1),
            image(2),
            image(3, "unchanged"),
            image(1, "unchanged", "debian"),
            image(2, "failed", "debian", error=LIMITED),
            image(3, "failed", "debian", error=ABSENT),
            image(1, "deferred", "late"),
            image(2, "pruned", "late"),
        ],
        attrition=[dropped("edge", "exclude")],
    )


@dataclass
class Reader:
    """Has `sync merge` read reports."""

    directory: Path

    def merge(self, *reports: Document | bytes, json_: bool = False) -> Result:
        lock = write_lock(self.directory / "shard.lock")
        arguments: list[str | Path] = []
        for number, told in enumerate(reports):
            path = self.directory / f"{number}-report.json"
            path.write_bytes(told if isinstance(told, bytes) else json.dumps(told).encode())
            arguments += ["--report", path]
        output = ["--output", self.directory / "whole.lock", *(["--json"] if json_ else [])]
        return ocimirror("sync", "merge", lock, *output, *arguments)

    def told(self, *reports: Document) -> Document:
        """Return the report that was made of some."""
        found: Document = self.merge(*reports, json_=True).document["report"]
        return found

    def lines(self, *reports: Document) -> list[str]:
        """Return the table, without the line about lock files."""
        head, *lines = self.merge(*reports).stdout.split("\n")
        assert "lock files" in head
        assert lines.pop() == ""
        return lines


@pytest.fixture
def reader(tmp_path: Path) -> Reader:
    return Reader(tmp_path)


# --- what is computed ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "code"),
    [
        (report([ALPINE], [image(1)]), 0),
        (report([ALPINE], [image(1), image(2, "failed", error=ABSENT)]), 4),
        (
            report([ALPINE], [image(n, "failed", error=e) for n, e in ((1, ABSENT), (2, LIMITED))]),
            3,
        ),
        (
            report(
                [ALPINE], [image(n, "failed", error=e) for n, e in ((1, LIMITED), (2, DAMAGED))]
            ),
            5,
        ),
        (report([{**ALPINE, "error": DAMAGED}]), 5),
        (report([ALPINE], [image(1, "deferred")]), 3),
    ],
    ids=["all is done", "failed", "worth a try", "the worst", "an entry as a whole", "deferred"],
)
def test_the_exit_code_is_the_first_in_the_order_of_the_contract(
    reader: Reader, found: Document, code: int
) -> None:
    merged = reader.merge(found, json_=True)
    assert (merged.code, merged.document["report"]["exit_code"]) == (code, code)


def test_the_document_has_the_keys_of_a_copying_command_and_those_of_a_sync(
    reader: Reader,
) -> None:
    told = reader.told(eventful())
    assert told["schema"] == "ocimirror.sync/v1"
    assert told["exit_code"] == 3
    assert told["images"] == eventful()["images"]
    assert set(told["images"][0]) == {
        *("entry", "source", "destination", "status", "digest", "previous", "media_type"),
        *("manifests", "blobs", "bytes", "referrers", "left_out", "sparse", "notes", "seconds"),
        "error",
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
            "old": B,
            "new": A,
        }
    ]
    assert told["attrition"] == eventful()["attrition"]
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


def test_what_would_be_pruned_is_no_move(reader: Reader) -> None:
    goes = image(1, "planned", digest=None, previous=A)
    moves = image(2, "planned", digest=A, previous=B)
    told = reader.told(report([ALPINE], [goes, moves], dry_run=True))
    assert [move["source"] for move in told["moves"]] == [moves["source"]]


# --- shards -------------------------------------------------------------------------------------


def test_a_document_is_read_back_as_the_report_that_it_was(reader: Reader) -> None:
    told = reader.told(eventful())
    assert reader.told(told) == told
    assert {key: told[key] for key in eventful()} | {"entries": eventful()["entries"]} == eventful()


TEXT = json.dumps(eventful())
NO_REPORTS = [
    b"",
    b"[]",
    b"{}",
    b'{"schema": "ocimirror.pull/v1"}',
    b'{"schema": "ocimirror.sync/v1"}',
    json.dumps({**eventful(), "images": [1]}).encode(),
    json.dumps({**eventful(), "started": 5}).encode(),
    TEXT.replace('"copied"', '"stolen"').encode(),
    TEXT.replace(A, "sha256:x").encode(),
    *(
        re.sub(rf'"{key}": [0-9.]+', f'"{key}": {number}', TEXT).encode()
        for key in ("seconds", "copied", "total", "referrers")
        for number in ("-1", "1e999", f"1{'0' * 400}")
    ),
    *(
        re.sub(r'"exit_code": [0-9]+, "retr', f'"exit_code": {code}, "retr', TEXT).encode()
        for code in (-1, 0, 256)
    ),
]


@pytest.mark.parametrize("number", range(len(NO_REPORTS)))
def test_what_is_no_report_is_refused(reader: Reader, number: int) -> None:
    refused = reader.merge(NO_REPORTS[number], json_=True)
    message = refused.document["error"]["message"]
    assert (refused.code, "report.json is no report of a sync" in message) == (2, True), message
    assert not (reader.directory / "whole.lock").exists()


def without(key: str, found: Document) -> Document:
    return {name: value for name, value in found.items() if name != key}


@pytest.mark.parametrize(
    ("key", "item", "message"),
    [
        ("images", {**image(1), "status": "stolen"}, "images[1].status is 'stolen', not one of"),
        ("images", {**image(1), "digest": "x"}, "images[1].digest: not a digest: 'x'"),
        ("images", {**image(1), "bytes": {"total": 1}}, "images[1].bytes.copied is absent"),
        ("images", {**image(1), "blobs": {"copied": -1}}, "images[1].blobs.copied is out of range"),
        ("images", {**image(1), "notes": ["a", 5]}, "images[1].notes[1] is not text"),
        ("images", {**image(1), "sparse": 1}, "images[1].sparse is not true or false"),
        ("entries", {**ALPINE, "last_success": "now"}, "entries[1].last_success: not a time as"),
        ("entries", without("destinations", ALPINE), "entries[1].destinations is absent"),
    ],
)
def test_a_refusal_names_the_member_that_is_wrong(
    reader: Reader, key: str, item: Document, message: str
) -> None:
    wrong = {**eventful(), key: [eventful()[key][0], item]}
    told = reader.merge(wrong, json_=True).document["error"]["message"]
    assert f"report.json is no report of a sync: {message}" in told


def test_shards_are_merged_into_what_one_process_would_have_told(reader: Reader) -> None:
    whole = eventful()
    shards = []
    for number in range(2):
        entries = whole["entries"][number::2]
        names = [found["name"] for found in entries]
        own = {
            key: [found for found in whole[key] if found["entry"] in names]
            for key in ("images", "attrition")
        }
        started = ("2026-01-31T02:00:00Z", "2026-01-31T02:00:07Z")[number]
        shards.append({**whole, "entries": entries, "started": started, **own})
    told = reader.told(whole)
    merged = reader.told(*shards)
    for key in ("exit_code", "totals", "started", "ended"):
        assert merged[key] == told[key]
    for key in ("entries", "images", "attrition"):
        assert sorted(merged[key], key=str) == sorted(told[key], key=str)


def test_an_entry_that_two_shards_share_was_done_when_both_had_done_it(reader: Reader) -> None:
    times = ("2026-01-31T02:00:00Z", "2026-02-01T02:00:00Z")
    one, two = (report([entry("all", "quay.io/*", last_success=time)]) for time in times)
    assert reader.told(one, two)["entries"][0]["last_success"] == times[0]
    one["entries"][0]["last_success"] = None
    assert reader.told(one, two)["entries"][0]["last_success"] is None


# --- for people ---------------------------------------------------------------------------------


def test_the_table_fits_one_screen_and_begins_with_what_failed(reader: Reader) -> None:
    assert reader.lines(eventful()) == [
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
        f"MOVED  docker://registry.example.com/library/alpine:3.1  {B[:19]} -> {A[:19]}",
        f"PRUNED  docker://registry.example.com/library/late:3.2  {A[:19]}",
        "tags not mirrored: 1 by exclude",
        "1 entry failed; 8 images: 2 copied, 2 unchanged, 2 failed, 1 deferred, 1 pruned,"
        " 3.0 KiB in 3 min 20 s",
    ]


def test_the_table_of_a_large_mirror_fits_one_screen_too(reader: Reader) -> None:
    names = [f"entry{number}" for number in range(100)]
    absent = failure("not_found", 4, "x" * 500)
    found = [
        image(tag, "failed", name, error=absent) if number % 3 == 0 else image(tag, entry=name)
        for number, name in enumerate(names)
        for tag in range(100)
    ]
    attrition = [dropped(f"old{tag}", "newest", name) for name in names for tag in range(100)]
    entries = [entry(name, f"quay.io/{name}") for name in names]
    shown = reader.lines(report(entries, found, attrition=attrition))
    assert len(shown) <= MAX_LINES
    assert max(map(len, shown)) <= WIDTH
    assert "and 30 kinds of failures more" in shown
    assert shown[0].startswith("FAILED  entry0  100 x not_found (exit 4)")
    assert "tags not mirrored: 10000 by newest" in shown


def test_entries_have_the_room_that_failures_leave(reader: Reader) -> None:
    entries = [entry(f"entry{number}", f"quay.io/{number}") for number in range(50)]
    shown = reader.lines(report(entries, ended=NIGHT))
    assert len(shown) == MAX_LINES
    assert shown[-2:] == ["and 13 entries more: 13 unchanged", "0 images, 0 B in 0.0 s"]


def test_dropped_tags_are_counted_in_the_order_of_the_filters(reader: Reader) -> None:
    filters = ("newest", "attachment", "include", "newest")
    attrition = [dropped(str(number), name) for number, name in enumerate(filters)]
    shown = reader.lines(report([ALPINE], attrition=attrition))
    assert "tags not mirrored: 1 by include, 1 by attachment, 2 by newest" in shown


def test_hostile_names_do_not_move_a_terminal(reader: Reader) -> None:
    wrong = failure(HOSTILE, 4, HOSTILE, HOSTILE)
    named = {"source": HOSTILE, "destination": HOSTILE, "previous": B, "error": wrong}
    statuses = ("copied", "failed", "pruned", "deferred", "planned")
    found = [image(1, status, HOSTILE, **named) for status in statuses]
    drop = {"entry": HOSTILE, "source": HOSTILE, "filter": HOSTILE, "reason": HOSTILE}
    hostile = report(
        [entry(HOSTILE, HOSTILE, HOSTILE, error=wrong)], found, config=HOSTILE, attrition=[drop]
    )
    hostile["gone"] = [{"entry": HOSTILE, "source": HOSTILE, "digest": A}]
    shown = reader.lines(hostile)
    assert any("script" in line for line in shown)
    for line in shown:
        assert line.isprintable()


# --- real nights --------------------------------------------------------------------------------


@dataclass
class Mirror:
    """A registry, and a directory with a configuration, of which more than one may be written."""

    registry: StrictRegistry
    directory: Path
    config: str = "sync.yaml"

    def offer(self, repository: str, **tags: Graph) -> None:
        for tag, graph in tags.items():
            images.push(self.registry, repository, tag.replace("_", "."), graph)

    def night(self, text: str, *options: str) -> Result:
        """Write the configuration, and run; the page and the metrics are asked for."""
        (self.directory / self.config).write_text(f"mirrors:\n{text}")
        for name in ("page", "metrics"):
            (self.directory / name).unlink(missing_ok=True)
        return ocimirror(
            *("sync", self.config, "--retries", "0", *options),
            *("--report-html", "page", "--metrics-file", "metrics"),
            cwd=self.directory,
        )

    def were_done_at(self, time_s: int) -> None:
        """Let the state remember another time of the last successes."""
        with closing(sqlite3.connect(self.directory / "sync.state")) as state, state:
            state.execute("UPDATE success SET time = ?", (time_s,))

    def read(self, name: str) -> str:
        path = self.directory / name
        return path.read_text() if path.exists() else ""


@dataclass
class Night:
    """What a night left: its document, its page, its metrics and the name of its source."""

    document: Document
    page: str
    metrics: str
    host: str
    fronts: Sequence[str]


@pytest.fixture
def mirror(registry: StrictRegistry, tmp_path: Path) -> Mirror:
    return Mirror(registry, tmp_path)


SINGLE, OTHER, MULTI = images.single(), images.docker_schema2(), images.multi()


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Night]:
    """The second night of a mirror: something moved, something is new, and much fails."""
    directory = tmp_path_factory.mktemp("night")
    with (
        run_registry(tmp_path_factory.mktemp("registry")) as registry,
        run_proxy(registry) as debian,
        run_proxy(registry) as broken,
    ):
        mirror = Mirror(registry, directory)
        mirror.offer("alpine", v3_1=SINGLE, v3_3=SINGLE, edge=SINGLE)
        mirror.offer("debian", v3_1=SINGLE)
        mirror.offer("broken", v3_1=SINGLE)
        text = (
            f"  - from: {registry.host}/alpine\n    to: {registry.host}/mirror\n"
            "    tags: {exclude: [edge]}\n"
            f"  - from: {debian.host}/debian\n    to: oci:debian\n"
            f"  - from: {broken.host}/broken\n    to: oci:broken\n"
        )
        first = mirror.night(text)
        assert first.code == 0, first.stderr
        mirror.were_done_at(NIGHT_S)
        mirror.offer("alpine", v3_1=OTHER, v3_2=MULTI)
        mirror.offer("debian", v3_2=SINGLE, v3_3=SINGLE)
        debian.rules += [
            Rule("GET|HEAD", "manifests/v3.2", Respond(429)),
            Rule("GET|HEAD", "manifests/v3.3", Respond(404)),
        ]
        broken.rules.append(Rule("GET", "tags/list", Respond(429)))
        second = mirror.night(text, "--json")
        assert second.code == 3, second.stderr
        hosts = (debian.host, broken.host)
        yield Night(
            second.document, mirror.read("page"), mirror.read("metrics"), registry.host, hosts
        )


def test_only_an_entry_of_which_all_is_done_had_a_success(night: Night) -> None:
    found = {e["name"].rpartition("/")[2]: e["last_success"] for e in night.document["entries"]}
    assert found == {"alpine": night.document["ended"], "debian": NIGHT, "broken": NIGHT}
    assert [entry["status"] for entry in night.document["entries"]] == [
        "changed",
        "failed",
        "failed",
    ]


def test_what_a_night_told_is_merged_into_itself(night: Night, reader: Reader) -> None:
    def comparable(found: Document) -> Document:
        """Return a document without the order of images, and what is rounded of its times."""
        return {
            **found,
            "images": sorted(found["images"], key=str),
            "entries": [{**entry, "seconds": None} for entry in found["entries"]],
            "totals": {**found["totals"], "seconds": None},
        }

    assert comparable(reader.told(night.document)) == comparable(night.document)


def test_a_dry_run_is_no_success(mirror: Mirror) -> None:
    mirror.offer("app", v1=SINGLE)
    text = f"  - from: {mirror.registry.host}/app\n    to: oci:layout\n"
    planned = mirror.night(text, "--dry-run", "--json")
    assert planned.code == 0
    assert planned.document["entries"][0]["last_success"] is None
    assert not (mirror.directory / "metrics").exists()
    assert "Dry run" in Tags(mirror.read("page")).text
    assert mirror.night(text).code == 0
    mirror.were_done_at(NIGHT_S)
    (entry,) = mirror.night(text, "--dry-run", "--json").document["entries"]
    assert (entry["status"], entry["last_success"]) == ("unchanged", NIGHT)


def test_what_would_be_pruned_and_what_is_left_out_is_told_line_by_line(mirror: Mirror) -> None:
    host, signature = mirror.registry.host, "sha256-" + "0" * 64 + ".sig"
    mirror.offer("now", v1=SINGLE, v2=SINGLE)
    mirror.offer("later", v1=OTHER, v2=OTHER)
    mirror.offer("app", **dict.fromkeys(("v1_0", "v1_1", "w", signature), SINGLE))
    text = (
        f"  - from: {host}/now\n    to: {host}/mirror/now\n    prune: {{grace: 0s}}\n"
        f"  - from: {host}/later\n    to: {host}/mirror/later\n    prune: {{grace: 7d}}\n"
        f"  - from: {host}/app\n    to: oci:app\n"
        "    tags: {include: ['v*', '*.sig'], newest: 1}\n"
    )
    assert mirror.night(text).code == 0
    mirror.registry.delete_manifest("now", "v1")
    mirror.registry.delete_manifest("later", "v1")
    planned = mirror.night(text, "--dry-run")
    assert planned.code == 0, planned.stderr
    lines = planned.stdout.splitlines()

    attrition = [line.split()[:2] for line in lines[:3]]
    assert attrition == [
        ["include", f"{host}/app:w"],
        ["attachment", f"{host}/app:{signature}"],
        ["newest", f"{host}/app:v1.0"],
    ]
    reasons = [line.index(line.split(maxsplit=2)[2]) for line in lines[:3]]
    assert reasons[0] == reasons[2] < reasons[1]  # (what is long moves no other line)
    assert "tags not mirrored: 1 by include, 1 by attachment, 1 by newest" in lines

    later, now = sorted(lines[3:5])
    target = f"docker://{host}/mirror"
    assert re.fullmatch(
        rf"TO BE PRUNED NOW  {target}/now:v1  {SINGLE.root[:19]}  gone since [0-9TZ:-]{{20}};"
        " kept if the registry deletes by digest only: v2 needs it",
        now,
    )
    assert re.fullmatch(
        rf"TO BE PRUNED FROM [0-9TZ:-]{{20}}  {target}/later:v1  {OTHER.root[:19]}"
        r"  gone since [0-9TZ:-]{20}",
        later,
    )
    text = Tags(mirror.read("page")).text
    assert text.index("To be pruned") < text.index(f"{target}/now:v1")
    assert text.count(f"{target}/now:v1") == 1


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


def test_hostile_names_are_text_on_the_page_and_on_a_terminal(
    mirror: Mirror, night: Night, proxy: Callable[..., Proxy]
) -> None:
    script = "<script>alert(1)</script>\"'&"
    mirror.config = f"{script.replace('/', '')}.yaml"
    mirror.offer("app", v1=SINGLE)
    mirror.offer("denied", v1=SINGLE)
    errors = {"errors": [{"code": script, "message": HOSTILE, "detail": HOSTILE}]}
    denied = Respond(403, {"Content-Type": "application/json"}, json.dumps(errors).encode())
    front = proxy(mirror.registry, Rule("GET|HEAD", "manifests/v1", denied))
    target = json.dumps(f"oci:{script}\u202e/layout")
    text = "".join(
        f"  - from: {host}\n    to: {target}\n"
        for host in (f"{mirror.registry.host}/app", f"{front.host}/denied")
    )
    done = mirror.night(text, "--json")
    assert {image["status"] for image in done.document["images"]} == {"copied", "failed"}
    shown, table = mirror.read("page"), mirror.night(text).stdout
    tags = Tags(shown)
    assert tags.open == []
    assert "script" not in tags.names
    assert tags.names <= Tags(night.page).names
    assert tags.attributes <= Tags(night.page).attributes
    assert "<script>alert(1)</script>" in tags.text
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert tags.attributes.isdisjoint({"href", "src", "action", "onerror"})
    assert not re.search(r"@import|url\(|javascript:", shown)
    assert samples(mirror.read("metrics"))
    assert all(line.isprintable() for line in table.splitlines())


def test_the_page_says_what_failed_what_moved_and_what_was_copied(night: Night) -> None:
    text = Tags(night.page).text
    debian, broken = night.fronts
    for told in (
        "some images are not done; trying again may help (exit 3)",
        f"docker://{debian}/debian:v3.2",
        f"{broken}/broken",
        "429",
        "Tags that moved",
        f"docker://{night.host}/alpine:v3.1",
        "matches edge",
        NIGHT,
    ):
        assert told in text, told
    moved = text[text.index("Tags that moved") :]
    assert moved.index(SINGLE.root) < moved.index(OTHER.root)


def test_the_page_begins_with_the_worst_and_folds_what_is_many_times_the_same(
    mirror: Mirror, proxy: Callable[..., Proxy]
) -> None:
    mirror.offer("app", **{f"v{number}": SINGLE for number in range(9)}, w=MULTI)
    front = proxy(
        mirror.registry,
        Rule("GET|HEAD", "manifests/v", Respond(404)),
        Rule("GET", f"manifests/{MULTI.root}", Flip(5)),
    )
    done = mirror.night(f"  - from: {front.host}/app\n    to: oci:layout\n")
    assert done.code == 5, done.stderr
    text = Tags(mirror.read("page")).text
    place = f"oci:layout:{front.host}/app"
    failed = text[text.index("Failed") :]
    assert failed.index(f"{place}:w") < failed.index(f"{place}:v0")
    assert f"6 more of {front.host}/app: not_found" in text
    assert all(text.count(f"{place}:v{number}") == 1 for number in range(9))


def test_the_page_of_a_large_mirror_is_bounded(mirror: Mirror, proxy: Callable[..., Proxy]) -> None:
    """Of entries, of failures and of tags that are left out."""
    old = json.dumps({"name": "app", "tags": [f"old{number}" for number in range(3400)]})
    front = proxy(mirror.registry, Rule("GET", "tags/list", Respond(200, body=old.encode())))
    text = f"  - from: {front.host}/app\n    to: oci:layout\n    tags: {{exclude: ['old*']}}\n"
    text += "".join(f"  - {{from: '127.0.0.1:1/a{n}', to: 'oci:x'}}\n" for n in range(1100))
    assert mirror.night(text, "--quiet").code == 3
    shown = mirror.read("page")
    assert len(shown) < 4_000_000
    assert "and 2400 more" in shown
    assert "and 100 more" in shown
    assert "and 101 more" in shown


def test_a_browser_shows_the_page(night: Night, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text(night.page)
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
        timeout=120,
    )
    assert shot.stat().st_size > 20_000


# --- for machines -------------------------------------------------------------------------------

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


def test_metrics_say_when_each_entry_was_last_done(night: Night) -> None:
    found = samples(night.metrics)
    debian, broken = f"{night.fronts[0]}/debian", f"{night.fronts[1]}/broken"
    alpine = f"{night.host}/alpine"
    ended = datetime.fromisoformat(night.document["ended"]).timestamp()
    name = "ocimirror_sync_last_success_timestamp_seconds"
    assert found[f'{name}{{entry="{alpine}"}}'] == ended
    assert found[f'{name}{{entry="{broken}"}}'] == NIGHT_S
    assert found["ocimirror_sync_last_run_timestamp_seconds"] == ended
    seconds = found["ocimirror_sync_last_run_duration_seconds"]
    assert seconds == pytest.approx(night.document["totals"]["seconds"], abs=0.01)
    assert found["ocimirror_sync_last_run_exit_code"] == 3
    assert found[f'ocimirror_sync_failures{{entry="{debian}",code="rate_limited"}}'] == 1
    copied = night.document["entries"][0]["bytes_copied"]
    assert found[f'ocimirror_sync_copied_bytes{{entry="{alpine}"}}'] == copied > 1000
    assert found[f'ocimirror_sync_images{{entry="{debian}",status="failed"}}'] == 2
    assert found[f'ocimirror_sync_moved_tags{{entry="{alpine}"}}'] == 1
    assert found[f'ocimirror_sync_dropped_tags{{entry="{alpine}"}}'] == 1


def test_an_entry_that_was_never_done_has_no_last_success(mirror: Mirror) -> None:
    host = mirror.registry.host
    assert mirror.night(f"  - from: {host}/absent\n    to: oci:layout\n").code == 4
    found = samples(mirror.read("metrics"))
    assert not [name for name in found if "last_success" in name]
    assert found[f'ocimirror_sync_failures{{entry="{host}/absent",code="not_found"}}'] == 1
