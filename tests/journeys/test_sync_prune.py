"""What prune must not take, and how it goes on after a night that was cut off."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.journeys.test_sync import MULTI, SCHEMA2, SINGLE, offer, statuses, sync
from tests.support import images
from tests.support.command import Result, ocimirror
from tests.support.faults import Respond, Rule

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def pruned(tmp_path: Path) -> Callable[..., Path]:
    """Write a configuration whose first entry is pruned at once; the others are not."""

    def write(source: str, target: str, *others: str) -> Path:
        file = tmp_path / "sync.yaml"
        first = f"  - from: {source}\n    to: {target}\n    prune: {{grace: 0s}}\n"
        more = "".join(f"  - from: {other}\n    to: {target}\n" for other in others)
        file.write_text(f"mirrors:\n{first}{more}")
        return file

    return write


def test_the_image_of_one_platform_stays_while_an_index_has_it(
    registry, docker_registry, pruned, repository
) -> None:
    child, (media_type, raw) = next(iter(MULTI.manifests.items()))
    offer(registry, repository, "1.0", MULTI)
    registry.put_manifest(repository, "1.0-amd64", raw, media_type)
    target = f"{docker_registry.host}/{repository}"
    file = pruned(f"{registry.host}/{repository}", target)
    assert sync(file).code == 0
    registry.delete_manifest(repository, "1.0-amd64")
    result = sync(file)
    assert docker_registry.get_manifest(repository, child) == raw
    assert ocimirror("verify", f"docker://{target}:1.0").code == 0
    assert result.code == 0
    kept = result.document["images"][1]
    assert kept["status"] == "unchanged"
    assert "1.0 needs it" in kept["notes"][0]


def test_every_tag_is_looked_at_once_a_night_and_each_index_read_once(
    registry, docker_registry, proxy, pruned, repository
) -> None:
    for number in range(12):
        offer(registry, repository, f"1.{number}", MULTI if number < 6 else SINGLE)
    for number in range(8):
        offer(registry, repository, f"2.{number}", images.shared_layers(8, 1, 9, 0.0)[number])
    back = proxy(docker_registry)
    file = pruned(f"{registry.host}/{repository}", f"{back.host}/{repository}")
    assert sync(file, "--no-progress").code == 0
    for number in range(8):
        registry.delete_manifest(repository, f"2.{number}")
    back.requests.clear()
    result = sync(file)
    assert list(statuses(result).values()).count("pruned") == 8
    assert back.count("HEAD", "/manifests/") <= 12 + 20 + 8 * 4
    asked = [r.path for r in back.requests if r.method == "GET" and "/manifests/" in r.path]
    assert len([path for path in asked if MULTI.root in path]) == 1


def test_an_image_with_another_tag_stays_where_only_digests_are_deleted(
    registry, docker_registry, pruned, repository
) -> None:
    for tag in ("1.2", "1.2.3"):
        offer(registry, repository, tag, SINGLE)
    file = pruned(f"{registry.host}/{repository}", f"{docker_registry.host}/{repository}")
    assert sync(file).code == 0
    registry.delete_manifest(repository, "1.2.3")
    for _ in range(2):
        assert sync(file).code == 0
    assert docker_registry.get_manifest(repository, "1.2") == SINGLE.raw
    offer(registry, repository, "1.2", SCHEMA2)
    assert set(statuses(sync(file)).values()) == {"copied", "pruned"}


def test_a_target_that_another_entry_fills_now_stays(
    registry, docker_registry, pruned, repository
) -> None:
    for name in ("old", "new"):
        offer(registry, f"{repository}/{name}", "1.0", SINGLE)
    offer(registry, f"{repository}/old", "0.9", SCHEMA2)
    target = f"{docker_registry.host}/{repository}"
    old, new = (f"{registry.host}/{repository}/{name}" for name in ("old", "new"))
    assert sync(pruned(old, target)).code == 0
    registry.delete_manifest(f"{repository}/old", "1.0")
    assert sync(pruned(old, target, new)).code == 0
    assert docker_registry.get_manifest(repository, "1.0") == SINGLE.raw


def test_what_is_gone_from_a_layout_already_is_pruned(
    registry, pruned, repository, tmp_path
) -> None:
    for tag in ("1.0", "1.1"):
        offer(registry, repository, tag, SINGLE)
    file = pruned(f"{registry.host}/{repository}", "oci:one")
    assert sync(file).code == 0
    registry.delete_manifest(repository, "1.1")
    assert ocimirror("remove", tmp_path / "one", f"{registry.host}/{repository}:1.1").code == 0
    assert sync(file).code == 0
    assert sync(file).code == 0


@pytest.mark.parametrize("where", ["layout", "registry"])
def test_what_somebody_moved_is_told_once_and_is_theirs(
    where, registry, docker_registry, pruned, repository, tmp_path
) -> None:
    for tag, graph in {"1.0": SINGLE, "1.1": SCHEMA2}.items():
        offer(registry, repository, tag, graph)
    target = "oci:one" if where == "layout" else f"{docker_registry.host}/{repository}"
    file = pruned(f"{registry.host}/{repository}", target)
    assert sync(file).code == 0
    registry.delete_manifest(repository, "1.1")
    if where == "layout":
        full = f"{registry.host}/{repository}"
        assert ocimirror("tag", tmp_path / "one", f"{full}:1.0", f"{full}:1.1").code == 0
    else:
        offer(docker_registry, repository, "1.1", SINGLE)
    first = sync(file)
    assert first.code == 4
    assert first.document["images"][1]["error"]["code"] == "prune_refused"
    assert sync(file).code == 0


def later(file: Path, days: int) -> None:
    """Let so many days pass: in the state of a configuration, all was so much longer ago."""
    times = {
        "history": ("since", "until"),
        "complete": ("time",),
        "created": ("time", "gone_since"),
        "run": ("started", "ended"),
    }
    with closing(sqlite3.connect(file.with_suffix(".state"))) as connection, connection:
        for table, columns in times.items():
            ago = ", ".join(f"{column} = {column} - {days * 86400}" for column in columns)
            connection.execute(f"UPDATE {table} SET {ago}")


def actions(result: Result) -> dict[str, str]:
    """Return what prune does about each tag that is not wanted any more."""
    return {
        item["destination"].rpartition(":")[2]: item["action"]
        for item in result.document["pruning"]
    }


def test_the_grace_begins_with_the_first_complete_run_that_found_it_gone(
    registry, docker_registry, proxy, pruned, repository
) -> None:
    for tag, graph in {"1.0": SINGLE, "1.1": SCHEMA2}.items():
        offer(registry, repository, tag, graph)
    front = proxy(registry)
    file = pruned(f"{front.host}/{repository}", f"{docker_registry.host}/{repository}")
    file.write_text(file.read_text().replace("grace: 0s", "grace: 7d"))
    assert sync(file).code == 0
    later(file, 30)  # (nobody ran: that is no time in which the tag was seen to be gone)
    registry.delete_manifest(repository, "1.1")
    front.rules.append(Rule("GET", "/tags/list", Respond(503)))
    assert sync(file, "--retries", "0").code == 3
    front.rules.clear()
    dry = sync(file, "--dry-run")
    assert actions(dry) == {"1.1": "waits"}
    first = sync(file)
    assert actions(first) == {"1.1": "waits"}
    assert docker_registry.get_manifest(repository, "1.1") == SCHEMA2.raw
    (item,) = first.document["pruning"]
    shown = ocimirror("sync", file, "--dry-run").stdout
    assert f"TO BE PRUNED FROM {item['due']}" in shown
    assert item["gone_since"] in shown
    later(file, 6)
    assert actions(sync(file, "--dry-run")) == {"1.1": "waits"}
    later(file, 1)
    assert actions(sync(file, "--dry-run")) == {"1.1": "delete"}
    assert actions(sync(file)) == {"1.1": "deleted"}


def test_what_came_back_has_its_whole_grace_again(
    registry, docker_registry, pruned, repository
) -> None:
    for tag, graph in {"1.0": SINGLE, "1.1": SCHEMA2}.items():
        offer(registry, repository, tag, graph)
    file = pruned(f"{registry.host}/{repository}", f"{docker_registry.host}/{repository}")
    file.write_text(file.read_text().replace("grace: 0s", "grace: 7d"))
    assert sync(file).code == 0
    registry.delete_manifest(repository, "1.1")
    assert actions(sync(file)) == {"1.1": "waits"}
    offer(registry, repository, "1.1", SCHEMA2)
    assert actions(sync(file)) == {}
    later(file, 30)
    registry.delete_manifest(repository, "1.1")
    assert actions(sync(file)) == {"1.1": "waits"}


@pytest.mark.parametrize("same", [True, False])
def test_a_tag_that_was_there_before_is_never_this_mirrors_own(
    same, registry, docker_registry, pruned, repository
) -> None:
    for tag, graph in {"1.0": SINGLE, "1.1": SCHEMA2}.items():
        offer(registry, repository, tag, graph)
    offer(docker_registry, repository, "1.1", SCHEMA2 if same else MULTI)
    file = pruned(f"{registry.host}/{repository}", f"{docker_registry.host}/{repository}")
    assert sync(file).code == 0
    registry.delete_manifest(repository, "1.1")
    for _ in range(2):
        night = sync(file)
        assert (night.code, actions(night)) == (0, {})
    assert docker_registry.get_manifest(repository, "1.1") == SCHEMA2.raw


def test_nothing_goes_while_another_entry_that_may_fill_the_target_was_not_listed(
    registry, docker_registry, proxy, pruned, repository
) -> None:
    for name, tag in (("old", "0.9"), ("old", "1.0"), ("new", "0.8")):
        offer(registry, f"{repository}/{name}", tag, SINGLE)
    front = proxy(registry)
    target = f"{docker_registry.host}/{repository}"
    old, new = f"{registry.host}/{repository}/old", f"{front.host}/{repository}/new"
    file = pruned(old, target, new)
    assert sync(file).code == 0
    registry.delete_manifest(f"{repository}/old", "1.0")
    offer(registry, f"{repository}/new", "1.0", SINGLE)
    front.rules.append(Rule("GET", "/tags/list", Respond(503)))
    failed = sync(file, "--retries", "0")
    assert (failed.code, actions(failed)) == (3, {"1.0": "keep"})
    assert "was not listed" in failed.document["pruning"][0]["reason"]
    part = sync(file, "--only", old)
    assert (part.code, actions(part)) == (0, {"1.0": "keep"})
    assert docker_registry.get_manifest(repository, "1.0") == SINGLE.raw


def test_nothing_goes_when_one_of_two_listings_of_a_repository_fails_or_chooses_nothing(
    registry, proxy, repository, tmp_path
) -> None:
    for tag in ("1.0", "1.1", "2.0"):
        offer(registry, repository, tag, SINGLE)
    front = proxy(registry)
    file = tmp_path / "sync.yaml"
    entries = "".join(
        f"  - from: {front.host}/{repository}\n    tags: {{include: ['{glob}']}}\n"
        for glob in ("1.*", "2.*")
    )
    file.write_text(f"to: oci:one\nprune: {{grace: 0s}}\nmirrors:\n{entries}")
    assert sync(file).code == 0
    registry.delete_manifest(repository, "1.1")
    front.rules.append(Rule("GET", "/tags/list", Respond(503), 1))
    assert actions(sync(file, "--retries", "0")) == {}
    front.rules.clear()
    good = file.read_text()
    file.write_text(good.replace("2.*", "v2.*"))
    assert actions(sync(file)) == {}
    assert len(ocimirror("list", tmp_path / "one").stdout.splitlines()) == 3
    file.write_text(good)
    assert actions(sync(file)) == {"1.1": "deleted"}


def test_a_dry_run_says_what_keeps_an_image_where_only_digests_are_deleted(
    registry, docker_registry, pruned, repository
) -> None:
    for tag in ("1.2", "1.2.3"):
        offer(registry, repository, tag, SINGLE)
    file = pruned(f"{registry.host}/{repository}", f"{docker_registry.host}/{repository}")
    assert sync(file).code == 0
    registry.delete_manifest(repository, "1.2.3")
    (item,) = sync(file, "--dry-run").document["pruning"]
    assert item["reason"] == "kept if the registry deletes by digest only: 1.2 needs it"
    offer(docker_registry, repository, "1.2.3", SCHEMA2)
    (item,) = sync(file, "--dry-run").document["pruning"]
    assert item["action"] == "refused"


def test_two_gone_tags_of_one_manifest_do_not_keep_each_other(
    registry, docker_registry, pruned, repository
) -> None:
    """distribution deletes by digest only; a tag that stays keeps its image still."""
    for tag, graph in {"1": SINGLE, "1.0": SINGLE, "2": SCHEMA2, "2.0": SCHEMA2}.items():
        offer(registry, repository, tag, graph)
    offer(registry, repository, "3", MULTI)
    file = pruned(f"{registry.host}/{repository}", f"{docker_registry.host}/{repository}")
    assert sync(file).code == 0
    for tag in ("1", "1.0", "2.0"):
        registry.delete_manifest(repository, tag)
    planned = actions(sync(file, "--dry-run"))
    night = sync(file)
    assert night.code == 0
    told = {tag.rpartition(":")[2]: action for tag, action in actions(night).items()}
    assert told == {"1": "deleted", "1.0": "deleted", "2.0": "keep"}
    assert set(planned.values()) == {"delete"}
    left = ocimirror("list", f"docker://{docker_registry.host}/{repository}", "--json")
    assert sorted(left.document["tags"]) == ["2", "2.0", "3"]


@pytest.mark.parametrize("body", [b"404 page not found", b'{"errors":[{"code":"UNSUPPORTED"}]}'])
def test_what_somebody_else_put_there_is_not_ours_for_want_of_a_list(
    body: bytes, registry, docker_registry, proxy, pruned, repository
) -> None:
    offer(registry, repository, "1.0", SINGLE)
    offer(registry, repository, "1.1", SCHEMA2)
    offer(docker_registry, repository, "1.0", SINGLE)
    back = proxy(docker_registry, Rule("GET", "/tags/list", Respond(404, {}, body)))
    file = pruned(f"{registry.host}/{repository}", f"{back.host}/{repository}")
    first = sync(file)
    back.rules.clear()
    offer(registry, repository, "2.0", MULTI)
    registry.delete_manifest(repository, "1.0")
    second = sync(file)

    assert docker_registry.get_manifest(repository, "1.0") == SINGLE.raw
    assert first.code == 4, first.document
    assert second.code == 0, second.document
