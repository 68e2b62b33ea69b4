"""Shards: another number of them, and a merge that takes all of one run or nothing."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from tests.journeys.test_sync import SCHEMA2, SINGLE, offer
from tests.support.command import Result, ocimirror

pytestmark = pytest.mark.timeout(180)


def shard_of(name: str, count: int) -> int:
    """Return the shard, from 1, of a repository: that of the highest sha256 of `NUMBER/NAME`.

    As in every version: the state of a shard is of no use to another one.
    """
    return max(range(1, count + 1), key=lambda n: hashlib.sha256(f"{n}/{name}".encode()).digest())


def shard(file: Path, number: int, count: int, run: str = "night") -> Result:
    place = file.parent
    return ocimirror(
        *("sync", file, "--shard", f"{number}/{count}", "--run", run, "--json"),
        *("--lock", place / f"{number}.lock", "--state", place / f"{number}.state"),
        *("--merged", place / "sync.lock"),
    )


def merge(place: Path, *numbers: int, of: int | None = None) -> Result:
    locks = [place / f"{number}.lock" for number in numbers]
    count = ["--of", str(of)] if of else []
    return ocimirror("sync", "merge", *count, *locks, "--output", place / "sync.lock", "--json")


def sources(path: Path) -> list[str]:
    return [image["source"] for image in json.loads(path.read_text())["images"]]


@pytest.fixture
def apps(registry, repository, tmp_path) -> list[str]:
    """Offer eight repositories of two tags, in a configuration that prunes at once.

    Of three shards each has two or more (the registry's port is part of a name, and chance).
    """
    host = f"{registry.host}/{repository}"
    drawn = [f"{host}/app{number}" for number in range(60)]
    held = [[name for name in drawn if shard_of(name, 3) == number] for number in (1, 2, 3)]
    names = sorted(held[0][:3] + held[1][:3] + held[2][:2])
    assert len(names) == 8
    for name in names:
        offer(registry, name.partition("/")[2], "1.0", SINGLE)
        offer(registry, name.partition("/")[2], "1.1", SCHEMA2)
    entries = "".join(f"  - from: {name}\n" for name in names)
    (tmp_path / "sync.yaml").write_text(
        f"to: oci:one/{{repository}}\nprune: {{grace: 0s}}\nmirrors:\n{entries}"
    )
    return names


def test_what_moves_to_another_shard_leaves_the_first_and_is_pruned_by_the_second(
    apps, registry, tmp_path
) -> None:
    file = tmp_path / "sync.yaml"
    for number in (1, 2):
        assert shard(file, number, 2).code == 0
    assert merge(tmp_path, 1, 2, of=2).code == 0
    assert len(sources(tmp_path / "sync.lock")) == 16
    moved = [name for name in apps if shard_of(name, 3) == 3]
    assert len(moved) == 2
    for name in moved:
        registry.delete_manifest(name.partition("/")[2], "1.1")
    pruned = []
    for number in (1, 2, 3):
        night = shard(file, number, 3)
        assert night.code == 0
        pruned += [item["source"] for item in night.document["pruning"]]
        held = sources(tmp_path / f"{number}.lock")
        assert {shard_of(s[9:].rpartition(":")[0], 3) for s in held} <= {number}
    assert sorted(pruned) == sorted(f"docker://{name}:1.1" for name in moved)
    assert merge(tmp_path, 1, 2, 3, of=3).code == 0
    assert len(sources(tmp_path / "sync.lock")) == 16 - len(moved)


def test_a_merge_takes_all_shards_of_one_run_or_replaces_nothing(apps, tmp_path) -> None:
    file = tmp_path / "sync.yaml"
    for number in (1, 2, 3):
        assert shard(file, number, 3).code == 0
    assert merge(tmp_path, 1, 2, 3).code == 0
    before = (tmp_path / "sync.lock").read_bytes()
    for numbers, of, word in (
        ((1, 2), None, "3 is missing"),
        ((1, 2), 3, "3 is missing"),
        ((1, 2, 2, 3), 3, "2 is there twice"),
        ((1, 2, 4), 3, "3 is missing"),  # (there is no 4.lock)
        ((1, 2, 3), 4, "not the shards of 4"),
    ):
        refused = merge(tmp_path, *numbers, of=of)
        assert (refused.code, refused.document["error"]["code"]) == (3, "shards_missing")
        assert word in refused.document["error"]["message"]
    assert shard(file, 2, 3, "next").code == 0
    assert merge(tmp_path, 1, 2, 3, of=3).code == 3
    assert shard(file, 3, 4).code == 0
    assert merge(tmp_path, 1, 2, 3).code == 3
    old = {"schema": "ocimirror.lock/v1", "images": []}
    (tmp_path / "1.lock").write_text(json.dumps(old))
    assert merge(tmp_path, 1, of=2).code == 3
    assert (tmp_path / "sync.lock").read_bytes() == before
    assert merge(tmp_path, 1, of=1).code == 0
