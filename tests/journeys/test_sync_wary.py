"""A sync that is lied to: what it cannot know is no absence, and what it did is looked at again."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.journeys.test_sync import MULTI, SCHEMA2, SINGLE, configure, locked, offer, sync
from tests.journeys.test_sync_prune import later
from tests.journeys.test_sync_shards import shard_of
from tests.support.command import PROGRAM, Result, environment, ocimirror
from tests.support.faults import Flip, Respond, Rule, Stall

pytestmark = pytest.mark.timeout(180)
__all__ = ["configure"]
JSON = {"Content-Type": "application/json"}
DAY = 86400


def listing(repository: str, *tags: str) -> Rule:
    """Answer a listing with these tags, whatever there is."""
    body = json.dumps({"name": repository, "tags": tags}).encode()
    return Rule("GET", "tags/list", Respond(200, JSON, body))


def remember(state: Path, statement: str, *values: object) -> None:
    """Change what the state knows, as other times would have made it."""
    with closing(sqlite3.connect(state)) as connection, connection:
        connection.execute(statement, values)


def pruning(result: Result) -> dict[str, str]:
    """Return what prune did, by tag."""
    return {p["source"].rpartition(":")[2]: p["action"] for p in result.document["pruning"]}


def failures(result: Result) -> dict[str, str]:
    """Return the errors of images, by tag."""
    return {
        image["source"].rpartition(":")[2]: image["error"]["code"]
        for image in result.document["images"]
        if image["error"]
    }


def mirrored(source: str, target: str, tags: str = "", grace: str = "7d") -> str:
    rules = f"    tags: {tags}\n" if tags else ""
    return f"mirrors:\n  - from: {source}\n    to: {target}\n{rules}    prune: {{grace: {grace}}}\n"


# --- what is whose ------------------------------------------------------------------------------


def test_a_tag_that_a_list_left_out_was_there_before_and_is_not_ours(
    registry, proxy, configure, repository
) -> None:
    mirror = f"{repository}/mirror"
    for tag, image in (("1.0", SINGLE), ("1.1", MULTI)):
        offer(registry, repository, tag, image)
    offer(registry, mirror, "1.0", SINGLE)
    offer(registry, mirror, "1.1", SCHEMA2)
    stale = proxy(registry, listing(mirror, "other"))
    file = configure(
        mirrored(f"{registry.host}/{repository}", f"{stale.host}/{mirror}", grace="0s")
    )
    assert sync(file).code == 0
    registry.delete_manifest(repository, "1.0")
    night = sync(file)
    assert (night.code, pruning(night)) == (0, {})
    assert registry.tags(mirror) == ["1.0", "1.1"]


def test_a_tag_of_this_run_that_no_list_has_yet_keeps_the_manifest_that_it_needs(
    registry, docker_registry, proxy, configure, repository
) -> None:
    # (2.0-rc becomes 2.0: one digest, at a registry that deletes by digest only.)
    offer(registry, repository, "2.0-rc", SINGLE)
    offer(registry, repository, "1.0", MULTI)
    stale = proxy(docker_registry)
    file = configure(mirrored(f"{registry.host}/{repository}", f"{stale.host}/{repository}"))
    assert sync(file).code == 0
    registry.delete_manifest(repository, "2.0-rc")
    assert pruning(sync(file)) == {"2.0-rc": "waits"}
    later(file, 8)
    offer(registry, repository, "2.0", SINGLE)
    stale.rules.append(listing(repository, "2.0-rc", "1.0"))
    night = sync(file)
    assert (night.code, pruning(night)) == (0, {"2.0-rc": "keep"})
    assert docker_registry.has_manifest(repository, "2.0")


@pytest.mark.parametrize("status", [202, 404])
def test_a_deletion_that_did_not_happen_is_no_deletion(
    registry, proxy, configure, repository, status
) -> None:
    for tag, image in (("1.0", SINGLE), ("1.1", MULTI)):
        offer(registry, repository, tag, image)
    mirror = f"{repository}/mirror"
    lying = proxy(registry, Rule("DELETE", "manifests/", Respond(status)))
    file = configure(
        mirrored(f"{registry.host}/{repository}", f"{lying.host}/{mirror}", grace="0s")
    )
    assert sync(file).code == 0
    registry.delete_manifest(repository, "1.0")
    night = sync(file)
    assert (night.code, pruning(night)) == (3, {"1.0": "failed"})
    assert failures(night) == {"1.0": "registry_unavailable"}
    lying.rules.clear()
    again = sync(file)
    assert (again.code, pruning(again)) == (0, {"1.0": "deleted"})
    assert registry.tags(mirror) == ["1.1"]


# --- what cannot be read ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "damage", "code"),
    [
        ("{max_age: 90000d}", Flip(3), 5),
        ("{newest: {count: 1, by: created}}", Respond(404, JSON, b"{}"), 4),
        ("{min_age: {age: 0s, by: first_seen}}", None, 4),
    ],
)
def test_an_image_whose_age_cannot_be_read_fails_alone_and_is_not_pruned(
    registry, proxy, configure, repository, rule, damage, code
) -> None:
    for tag, image in (("1.0", MULTI), ("1.1", SINGLE)):
        offer(registry, repository, tag, image)
    mirror = f"{repository}/mirror"
    source = proxy(registry)
    file = configure(
        mirrored(f"{source.host}/{repository}", f"{registry.host}/{mirror}", rule, "0s")
    )
    every = configure(mirrored(f"{source.host}/{repository}", f"{registry.host}/{mirror}"))
    assert sync(every).code == 0
    before = locked(file)
    configure(mirrored(f"{source.host}/{repository}", f"{registry.host}/{mirror}", rule, "0s"))
    config = json.loads(SINGLE.raw)["config"]["digest"]
    if damage is None:  # (a tag that is listed, and is not there)
        missing = Respond(404, JSON, b'{"errors": [{"code": "MANIFEST_UNKNOWN"}]}')
        source.rules.append(Rule("GET|HEAD", "manifests/1.1", missing))
    else:
        source.rules.append(Rule("GET", f"blobs/{config}", damage))
    night = sync(file)
    assert (night.code, list(failures(night)), pruning(night)) == (code, ["1.1"], {})
    assert "does not say" not in night.stdout
    assert [i["status"] for i in night.document["images"] if "1.0" in i["source"]] == ["unchanged"]
    assert registry.tags(mirror) == ["1.0", "1.1"]
    assert locked(file) == before


def test_what_has_no_place_keeps_its_record(registry, configure, repository, tmp_path) -> None:
    for name, image in (("one", SINGLE), ("two", MULTI)):
        offer(registry, f"{repository}/{name}", "1.0", image)
    host = f"{registry.host}/{repository}"
    file = configure(f"to: {host}/mirror\nmirrors:\n  - from: {host}/one\n")
    assert sync(file).code == 0
    configure(f"to: {host}/mirror\nmirrors:\n  - from: {host}/two\n  - from: {host}/one\n")
    assert sync(file).code == 4
    images = json.loads((tmp_path / "sync.lock").read_text())["images"]
    assert [image["digest"] for image in images] == [SINGLE.root, MULTI.root]


def test_a_list_of_tags_that_do_not_exist_is_no_order_to_delete(
    registry, configure, repository
) -> None:
    for tag, image in (("1.0", SINGLE), ("1.1", MULTI)):
        offer(registry, repository, tag, image)
    source, mirror = f"{registry.host}/{repository}", f"{repository}/mirror"
    file = configure(mirrored(source, f"{registry.host}/{mirror}", grace="0s"))
    assert sync(file).code == 0
    configure(mirrored(source, f"{registry.host}/{mirror}", '["l.0"]', "0s"))
    night = sync(file)
    assert (night.code, pruning(night)) == (4, {})
    assert registry.tags(mirror) == ["1.0", "1.1"]


def test_a_repository_that_a_catalogue_names_no_more_is_told_and_missed(
    docker_registry, registry, proxy, configure, repository, tmp_path
) -> None:
    for name, image in (("one", SINGLE), ("two", MULTI)):
        offer(docker_registry, f"{repository}/{name}", "1.0", image)
    source, target = proxy(docker_registry), f"{registry.host}/mirror/{{repository}}"
    file = configure(mirrored(f"{source.host}/{repository}/*", target, grace="0s"))
    assert sync(file).code == 0
    names = json.dumps({"repositories": [f"{repository}/one"]}).encode()
    source.rules.append(Rule("GET", "_catalog", Respond(200, JSON, names)))
    refused = sync(file, "--locked")
    assert refused.code == 4
    told = [i["source"] for i in refused.document["images"] if i["status"] == "failed"]
    assert told == [f"docker://{source.host}/{repository}/two:1.0"]
    for gone in (told, []):
        night = sync(file)
        assert (night.code, [g["source"] for g in night.document["gone"]]) == (0, gone)
    assert list(locked(file).values()) == [SINGLE.root]
    assert registry.tags(f"mirror/{repository}/two") == ["1.0"]


# --- time ---------------------------------------------------------------------------------------


def test_a_deadline_that_comes_while_something_is_pruned_is_no_success(
    registry, proxy, configure, repository
) -> None:
    for tag, image in (("1.0", SINGLE), ("1.1", MULTI)):
        offer(registry, repository, tag, image)
    slow = proxy(registry, Rule("DELETE", "manifests/", Stall(30, when="request")))
    target = f"{slow.host}/{repository}/mirror"
    file = configure(mirrored(f"{registry.host}/{repository}", target, grace="0s"))
    assert sync(file).code == 0
    registry.delete_manifest(repository, "1.0")
    night = sync(file, "--deadline", "6s")
    assert night.code == 3
    [entry] = night.document["entries"]
    assert entry["status"] in ("failed", "deferred")  # (the latter if all is very slow)


def test_a_clock_that_is_behind_what_was_seen_begins_no_grace_of_long_ago(
    registry, configure, repository
) -> None:
    for tag, image in (("1.0", SINGLE), ("1.1", MULTI)):
        offer(registry, repository, tag, image)
    file = configure(
        mirrored(f"{registry.host}/{repository}", f"{registry.host}/{repository}/mirror")
    )
    state = file.with_suffix(".state")
    assert sync(file).code == 0
    registry.delete_manifest(repository, "1.0")
    # (All that was seen before is of thirty days after "now": the clock went back by as much.)
    remember(state, "UPDATE history SET until = until + ?", 30 * DAY)
    [waits] = sync(file).document["pruning"]
    assert waits["action"] == "waits"
    later(file, 31)  # (And it is right again on the next night, thirty days and one later.)
    night = sync(file)
    assert (night.code, pruning(night)) == (0, {"1.0": "waits"})
    assert night.document["pruning"][0]["gone_since"] < waits["gone_since"]


def test_a_shard_that_gets_a_repository_back_begins_its_grace_anew(
    registry, configure, repository, tmp_path
) -> None:
    names = (f"{registry.host}/{repository}/app{number}" for number in range(200))
    # (Of two shards the first one's, of three the third one's.)
    name = next(n for n in names if (shard_of(n, 2), shard_of(n, 3)) == (1, 3))
    app = name.partition("/")[2]
    for tag, image in (("1.0", SINGLE), ("1.1", MULTI)):
        offer(registry, app, tag, image)
    file = configure(mirrored(name, f"{registry.host}/{repository}/mirror"))

    def night(number: int, count: int) -> Result:
        state = tmp_path / f"{number}.state"
        lock = tmp_path / f"{number}.lock"
        return sync(file, "--shard", f"{number}/{count}", "--state", state, "--lock", lock)

    assert night(1, 2).code == 0
    registry.delete_manifest(app, "1.0")
    assert pruning(night(1, 2)) == {"1.0": "waits"}
    later(tmp_path / "1.yaml", 30)
    # (It comes back, which the third of three shards sees, and is gone when there are two again.)
    assert [night(number, 3).code for number in (1, 3)] == [0, 0]
    again = night(1, 2)
    assert (again.code, pruning(again)) == (0, {"1.0": "waits"})
    later(tmp_path / "1.yaml", 8)
    assert pruning(night(1, 2)) == {"1.0": "deleted"}


@pytest.mark.parametrize("regex", ["(a+)+b", ".*a.*a.*b"])
def test_matching_that_takes_long_ends_with_the_run(
    registry, proxy, configure, repository, regex
) -> None:
    offer(registry, repository, "1.0", SINGLE)
    tags = [f"{'a' * 100}{number}" for number in range(20_000)]
    source = proxy(registry, listing(repository, *tags))
    file = configure(
        mirrored(f"{source.host}/{repository}", "oci:layout", f"{{regex: '{regex}'}}", "0s")
    )
    process = subprocess.Popen(
        [PROGRAM, "sync", str(file), "--verbose"], env=environment(), stderr=subprocess.PIPE
    )
    with process:
        while not source.count("GET", "tags/list"):
            assert process.poll() is None
            time.sleep(0.01)
        time.sleep(1)  # (it reads the answer; if it has not yet, it ends all the sooner)
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        _, told = process.communicate(timeout=60)
    assert process.returncode == 143, told
    assert b"takes more than" not in told
    assert time.monotonic() - began < 30


# --- merging ------------------------------------------------------------------------------------


def test_lock_files_that_do_not_say_of_which_run_they_are_are_not_merged(
    registry, configure, repository, tmp_path
) -> None:
    host = f"{registry.host}/{repository}"
    offer(registry, repository, "1.0", SINGLE)
    file = configure(f"mirrors:\n  - from: {host}\n    to: oci:layout\n")
    locks = [tmp_path / f"{number}.lock" for number in (1, 2)]
    for number, lock in enumerate(locks, 1):
        state = tmp_path / f"{number}.state"
        assert sync(file, "--shard", f"{number}/2", "--lock", lock, "--state", state).code == 0
    written = [lock.read_text() for lock in locks]
    whole = tmp_path / "whole.lock"
    whole.write_text("last night's")

    def merged(*runs: str) -> Result:
        for lock, text, run in zip(locks, written, runs, strict=True):
            lock.write_text(text.replace('"run": ""', f'"run": "{run}"'))
        return ocimirror("sync", "merge", *locks, "--of", "2", "--output", whole)

    for runs in (("", ""), ("1", ""), ("1", "2")):
        refused = merged(*runs)
        assert refused.code == 3
        assert whole.read_text() == "last night's"
    assert "--run" in merged("", "").stderr
    assert merged("1", "1").code == 0
    assert len(json.loads(whole.read_text())["images"]) == 1
