"""State and lock file belong to one configuration, and the report says what a target had."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from tests.journeys.test_sync import MULTI, SCHEMA2, SINGLE, offer, sync

pytestmark = pytest.mark.timeout(120)


def write(file: Path, source: str, target: str, more: str = "") -> Path:
    file.write_text(f"{more}mirrors:\n  - from: {source}\n    to: {target}\n    prune: true\n")
    return file


def test_two_configurations_beside_each_other_have_a_state_and_a_lock_each(
    registry, repository, tmp_path
) -> None:
    offer(registry, f"{repository}/a", "1.0", SINGLE)
    offer(registry, f"{repository}/b", "1.0", SCHEMA2)
    for name in "ab":
        file = write(
            tmp_path / f"{name}.yaml", f"{registry.host}/{repository}/{name}", f"oci:{name}"
        )
        assert sync(file).code == 0
    for name in "ab":
        (image,) = json.loads((tmp_path / f"{name}.lock").read_text())["images"]
        assert image["source"].endswith(f"/{name}:1.0")
        assert (tmp_path / f"{name}.state").exists()


def test_the_state_of_another_configuration_is_2(registry, repository, tmp_path) -> None:
    offer(registry, repository, "1.0", SINGLE)
    state = ["--state", tmp_path / "one.state"]
    one = write(tmp_path / "one.yaml", f"{registry.host}/{repository}", "oci:x")
    assert sync(one, *state).code == 0
    two = write(tmp_path / "two.yaml", f"{registry.host}/{repository}", "oci:x")
    for option in ([], ["--dry-run"]):
        refused = sync(two, *state, *option)
        assert refused.code == 2
        assert "'one', not of 'two'" in refused.document["error"]["message"]
    write(two, f"{registry.host}/{repository}", "oci:x", "name: one\n")
    assert sync(two, *state).code == 0


def test_an_old_state_gives_over_only_the_sources_of_this_file(
    registry, repository, tmp_path
) -> None:
    for name in "ab":
        offer(registry, f"{repository}/{name}", "1.0", SINGLE)
        offer(registry, f"{repository}/{name}", "1.1", SCHEMA2)
    old = [
        *("--state", tmp_path / "ocimirror.state"),
        *("--lock", tmp_path / "ocimirror.lock"),
    ]
    entries = [
        f"  - from: {registry.host}/{repository}/{name}\n    to: oci:{name}\n"
        "    prune: {grace: 0s}\n"
        for name in "ab"
    ]
    both = tmp_path / "both.yaml"
    both.write_text("mirrors:\n" + "".join(entries))
    assert sync(both, *old).code == 0
    with sqlite3.connect(tmp_path / "ocimirror.state") as database:  # (as it was before)
        database.execute("DROP TABLE about")
        database.execute("ALTER TABLE created DROP COLUMN gone_since")
        database.execute("PRAGMA user_version = 1")
    database.close()
    a = tmp_path / "a.yaml"
    a.write_text("mirrors:\n" + entries[0])
    for name in "ab":
        registry.delete_manifest(f"{repository}/{name}", "1.1")
    planned = sync(a, "--dry-run").document["pruning"]
    night = sync(a)
    assert night.code == 0
    for pruning in (planned, night.document["pruning"]):
        assert [item["source"].rpartition("/")[2] for item in pruning] == ["a:1.1"]
    with sqlite3.connect(tmp_path / "a.state") as database:
        for table in ("complete", "history", "created"):
            rows = database.execute(f"SELECT source FROM {table}").fetchall()
            assert {source.rpartition("/")[2][:1] for (source,) in rows} == {"a"}
    database.close()
    assert [
        image["source"][-5:] for image in json.loads((tmp_path / "a.lock").read_text())["images"]
    ] == ["a:1.0"]


def test_previous_is_what_the_target_had(registry, docker_registry, repository, tmp_path) -> None:
    offer(registry, repository, "1.0", SINGLE)
    offer(docker_registry, repository, "1.0", SCHEMA2)
    target = f"{docker_registry.host}/{repository}"
    file = write(tmp_path / "sync.yaml", f"{registry.host}/{repository}", target)

    def moved(*options: str) -> tuple[str, str, str, str]:
        document = sync(file, *options).document
        (image,), (move,) = document["images"], document["moves"]
        return image["previous"], move["old"], move["new"], " ".join(image["notes"])

    old, told, new, note = moved("--dry-run")
    assert (old, told, new) == (SCHEMA2.root, SCHEMA2.root, SINGLE.root)
    assert "would replace" in note
    old, told, new, note = moved()
    assert (old, told, new) == (SCHEMA2.root, SCHEMA2.root, SINGLE.root)
    assert f"replaced {SCHEMA2.root}, which was not put there by this mirror" in note
    unchanged = sync(file).document
    assert (unchanged["images"][0]["previous"], unchanged["moves"]) == (SINGLE.root, [])
    offer(docker_registry, repository, "1.0", MULTI)
    old, told, new, note = moved("--deep")
    assert (old, told, new) == (MULTI.root, MULTI.root, SINGLE.root)
    assert f"this mirror had put {SINGLE.root} there" in note
    offer(registry, repository, "1.0", SCHEMA2)
    old, told, new, note = moved()
    assert (old, told, new, note) == (SINGLE.root, SINGLE.root, SCHEMA2.root, "")
