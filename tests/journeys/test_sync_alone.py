"""Nights in which something is broken: what fails, fails alone, and the night is told of."""

from __future__ import annotations

import fcntl
import signal
import subprocess
import time
from collections.abc import Callable

import pytest

from tests.journeys.test_sync import (
    MULTI,
    SCHEMA2,
    SINGLE,
    configure,
    locked,
    offer,
    statuses,
    sync,
)
from tests.support.command import PROGRAM, environment, ocimirror
from tests.support.faults import Respond, Rule, Stall

pytestmark = pytest.mark.timeout(120)

__all__ = ["configure"]


def by_repository(result) -> dict[str, str]:
    """Return the status of each image by the last part of its source's repository."""
    return {
        image["source"].rpartition(":")[0].rpartition("/")[2]: image["status"]
        for image in result.document["images"]
    }


@pytest.mark.parametrize("status", [401, 403, 500])
def test_a_destination_whose_tags_are_not_listed_keeps_no_other_entry_back(
    status, registry, docker_registry, proxy, configure, repository
) -> None:
    offer(registry, f"{repository}/bad", "1.0", SINGLE)
    offer(registry, f"{repository}/good", "1.0", SCHEMA2)
    back = proxy(docker_registry, Rule("GET", "/tags/list", Respond(status)))
    file = configure(
        f"""prune: true
mirrors:
  - from: {registry.host}/{repository}/bad
    to: {back.host}/{repository}/bad
  - from: {registry.host}/{repository}/good
    to: oci:one
"""
    )
    result = sync(file, "--retries", "0")
    assert result.code == (3 if status == 500 else 4), result.stderr
    assert by_repository(result) == {"bad": "copied", "good": "copied"}


@pytest.mark.parametrize("how", ["file", "other", "future"])
def test_a_directory_that_is_no_layout_keeps_no_other_entry_back(
    how, registry, configure, repository, tmp_path
) -> None:
    offer(registry, f"{repository}/bad", "1.0", SINGLE)
    offer(registry, f"{repository}/good", "1.0", SCHEMA2)
    if how == "file":
        (tmp_path / "bad").write_bytes(b"")
    else:
        (tmp_path / "bad").mkdir()
        (tmp_path / "bad" / "oci-layout").write_text('{"imageLayoutVersion": "9.0.0"}')
    if how == "other":
        (tmp_path / "bad" / "oci-layout").write_text("x")
    file = configure(
        f"""mirrors:
  - from: {registry.host}/{repository}/bad
    to: oci:bad
  - from: {registry.host}/{repository}/good
    to: oci:good
"""
    )
    result = sync(file)
    assert result.code in (2, 5), result.stderr
    assert by_repository(result) == {"bad": "failed", "good": "copied"}
    planned = sync(file, "--dry-run")
    assert by_repository(planned) == {"bad": "failed", "good": "unchanged"}


def test_without_its_lock_file_a_night_asks_a_busy_destination_and_goes_on(
    registry, docker_registry, proxy, configure, repository
) -> None:
    offer(registry, f"{repository}/bad", "1.0", SINGLE)
    offer(registry, f"{repository}/good", "1.0", SCHEMA2)
    back = proxy(docker_registry)
    file = configure(
        f"""mirrors:
  - from: {registry.host}/{repository}/bad
    to: {back.host}/{repository}/bad
  - from: {registry.host}/{repository}/good
    to: oci:one
"""
    )
    assert sync(file).code == 0
    file.with_name("sync.lock").unlink()
    back.rules.append(Rule("GET", "/manifests/", Respond(503)))
    result = sync(file, "--retries", "0")
    assert by_repository(result) == {"bad": "unchanged", "good": "unchanged"}
    assert locked(file) == {"1.0": SCHEMA2.root}


def test_a_lock_file_that_cannot_be_written_hides_no_report(
    registry, configure, repository, tmp_path
) -> None:
    offer(registry, repository, "1.0", SINGLE)
    file = configure(f"mirrors:\n  - from: {registry.host}/{repository}\n    to: oci:one\n")
    page, numbers = tmp_path / "no" / "page.html", tmp_path / "numbers"
    result = sync(
        file, "--lock", tmp_path / "no" / "lock", "--report-html", page, "--metrics-file", numbers
    )
    assert result.code == 8
    assert result.document["images"][0]["status"] == "copied"
    assert "last_run_exit_code" in numbers.read_text()


def test_a_locked_sync_misses_what_the_source_has_no_more(registry, configure, repository) -> None:
    for tag in ("1.0", "1.1"):
        offer(registry, repository, tag, SINGLE)
    file = configure(
        f"""mirrors:
  - from: {registry.host}/{repository}
    to: oci:one
    prune: {{grace: 0s}}
"""
    )
    assert sync(file).code == 0
    registry.delete_manifest(repository, "1.1")
    result = sync(file, "--locked")
    assert result.code == 4
    assert [i["status"] for i in result.document["images"]] == ["failed", "unchanged"]


def test_a_wildcard_that_matches_nothing_is_told(docker_registry, configure, repository) -> None:
    offer(docker_registry, f"{repository}/a", "1.0", SINGLE)
    file = configure(
        f"mirrors:\n  - from: {docker_registry.host}/{repository}x/*\n    to: oci:one\n"
    )
    result = sync(file)
    assert result.code == 4


@pytest.mark.parametrize("tags", ["null", "[]"])
def test_a_repository_that_has_no_tags_any_more_is_told_and_stays_locked(
    tags, registry, proxy, configure, repository
) -> None:
    offer(registry, repository, "1.0", SINGLE)
    front = proxy(registry)
    file = configure(f"mirrors:\n  - from: {front.host}/{repository}\n    to: oci:one\n")
    assert sync(file).code == 0
    front.rules.append(
        Rule("GET", "/tags/list", Respond(200, body=b'{"tags": %b}' % tags.encode()))
    )
    result = sync(file)
    assert result.code == 4
    assert result.document["entries"][0]["error"]["code"] == "not_found"
    assert locked(file) == {"1.0": SINGLE.root}


def test_what_two_entries_bring_to_one_place_goes_once_and_with_the_same_platforms(
    registry, configure, repository
) -> None:
    offer(registry, repository, "1.0", MULTI)
    entry = f"  - from: {registry.host}/{repository}\n    to: oci:one\n"
    twice = sync(configure(f"mirrors:\n{entry}{entry}"))
    assert twice.code == 0
    assert [entry["copied"] for entry in twice.document["entries"]] == [1, 0]
    file = configure(f"mirrors:\n{entry}{entry}    platforms: [linux/arm64]\n")
    result = sync(file)
    assert result.code == 4
    assert sorted(i["status"] for i in result.document["images"]) == ["failed", "unchanged"]


def test_an_included_file_that_is_repaired_later_is_read_before_the_next_night(
    registry, configure, repository, tmp_path
) -> None:
    offer(registry, repository, "1.0", SINGLE)
    text = f"mirrors:\n  - from: {registry.host}/{repository}\n    to: oci:"
    file = configure(text + "one\n")
    process = subprocess.Popen(
        [PROGRAM, "sync", file, "--every", "1s", "--quiet", "--json"],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )

    def wait_for(found: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not found():
            assert time.monotonic() < deadline
            time.sleep(0.1)

    wait_for((tmp_path / "one" / "index.json").exists)
    file.write_text("include: more.yaml\n" + text + "one\n")
    assert process.stderr is not None
    assert process.stdout is not None
    assert any("stays in force" in line for line in process.stderr)
    (tmp_path / "more.yaml").write_text(text + "two\n")
    wait_for((tmp_path / "two" / "index.json").exists)
    with (tmp_path / "sync.state.lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # (as another sync does; between two nights it is free)
        assert any('"code": "locked"' in line for line in process.stdout)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143


@pytest.mark.parametrize("action", [Respond(404), Respond(500)], ids=["lost", "broken"])
def test_what_the_first_target_has_lost_comes_from_the_source(
    action, registry, docker_registry, proxy, configure, repository, tmp_path
) -> None:
    offer(registry, repository, "1.0", SINGLE)
    first = proxy(docker_registry)
    text = f"mirrors:\n  - from: {registry.host}/{repository}\n    to: [{first.host}/{repository}"
    assert sync(configure(text + "]\n")).code == 0
    first.rules.append(Rule("GET", "/blobs/", action))
    result = sync(configure(text + ", oci:two]\n"), "--retries", "0")
    assert result.code == 0, result.document
    assert [image["status"] for image in result.document["images"]] == ["unchanged", "copied"]
    assert ocimirror("verify", tmp_path / "two").code == 0


def test_what_is_another_shards_is_not_deferred_here(
    registry, proxy, configure, repository
) -> None:
    front = proxy(registry, Rule("GET", "/tags/list", Stall(3600)))
    file = configure(
        "to: oci:one\nmirrors:\n"
        + "".join(f"  - from: {front.host}/{repository}/{name}\n" for name in "abcdef")
    )
    told = [
        [entry["name"] for entry in sync(file, *more, "--deadline", "1s").document["entries"]]
        for more in (["--shard", "1/2"], ["--shard", "2/2"], ["--only", "*/a"])
    ]
    assert sorted(told[0] + told[1]) == [f"{front.host}/{repository}/{n}" for n in "abcdef"]
    assert told[2] == [f"{front.host}/{repository}/a"]


def test_repositories_of_a_pattern_fail_one_by_one(
    docker_registry, proxy, configure, repository, tmp_path
) -> None:
    for name in ("busy", "denied", "good"):
        offer(docker_registry, f"{repository}/{name}", "1.0", SINGLE)
    front = proxy(
        docker_registry,
        Rule("GET", "/busy/tags/list", Respond(503)),
        Rule("GET", "/denied/tags/list", Respond(403)),
    )
    file = configure(f"mirrors:\n  - from: {front.host}/{repository}/*\n    to: oci:one\n")
    result = sync(file, "--retries", "0")
    assert result.code == 3
    assert {
        image["source"].rpartition("/")[2]: (image["error"] or {}).get("code")
        for image in result.document["images"]
    } == {"busy": "registry_unavailable", "denied": "authentication_failed", "good:1.0": None}
    assert result.document["entries"][0]["last_success"] is None
    (tmp_path / "report.json").write_bytes(result.raw)
    merged = ocimirror(
        *("sync-merge", file.with_name("sync.lock"), "--output", tmp_path / "joined"),
        *("--report", tmp_path / "report.json", "--json"),
    )
    assert merged.code == 3
    assert merged.document["report"]["totals"]["failed"] == 2


def test_a_part_of_a_pattern_is_no_success_of_it(docker_registry, configure, repository) -> None:
    for name in "ab":
        offer(docker_registry, f"{repository}/{name}", "1.0", SINGLE)
    file = configure(
        f"mirrors:\n  - from: {docker_registry.host}/{repository}/*\n    to: oci:one\n"
    )

    def remembered() -> str | None:
        """Return the last success as the next run knows it."""
        (entry,) = sync(file, "--dry-run").document["entries"]
        return entry["last_success"]

    assert sync(file, "--only", "*/a").code == 0
    assert remembered() is None
    night = sync(file)
    assert night.code == 0
    assert remembered() == night.document["ended"]


def test_what_a_registry_lost_below_a_tag_comes_back_with_deep(
    registry, docker_registry, configure, repository
) -> None:
    offer(docker_registry, repository, "1.0", MULTI)
    source = f"{docker_registry.host}/{repository}"
    file = configure(f"mirrors:\n  - from: {source}\n    to: {registry.host}/x\n")
    assert sync(file).code == 0
    layer = next(iter(MULTI.blobs))
    registry.delete_blob("x", layer)
    assert list(statuses(sync(file)).values()) == ["unchanged"]
    assert not registry.has_blob("x", layer)
    assert sync(file, "--deep").code == 0
    assert registry.has_blob("x", layer)
