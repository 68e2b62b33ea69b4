"""State and lock file belong to one configuration, and the report says what a target had."""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path

import pytest

from tests.journeys.test_sync import MULTI, SCHEMA2, SINGLE, offer, sync
from tests.support.command import environment, ocimirror

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


def test_the_lock_file_of_another_configuration_is_2(registry, repository, tmp_path) -> None:
    offer(registry, repository, "1.0", SINGLE)
    lock = ["--lock", tmp_path / "one.lock"]
    one = write(tmp_path / "one.yaml", f"{registry.host}/{repository}", "oci:x")
    assert sync(one, *lock).code == 0
    assert json.loads((tmp_path / "one.lock").read_text())["configuration"] == "one"
    kept = (tmp_path / "one.lock").read_bytes()
    two = write(tmp_path / "two.yaml", f"{registry.host}/{repository}", "oci:x")
    for option in ([], ["--dry-run"], ["--locked"]):
        refused = sync(two, *lock, *option)
        assert refused.code == 2
        assert "configuration 'one', not of 'two'" in refused.document["error"]["message"]
    merged = sync(two, "--merged", tmp_path / "one.lock")
    assert merged.code == 2
    assert (tmp_path / "one.lock").read_bytes() == kept
    write(two, f"{registry.host}/{repository}", "oci:x", "name: one\n")
    assert sync(two, *lock).code == 0
    assert sync(one).code == 0
    write(tmp_path / "three.yaml", f"{registry.host}/{repository}", "oci:y")
    assert sync(tmp_path / "three.yaml").code == 0
    both = [tmp_path / "one.lock", tmp_path / "three.lock"]
    refused = ocimirror("sync", "merge", *both, "--output", tmp_path / "all.lock")
    assert refused.code == 3
    assert "lock files of different configurations: 'one', 'three'" in refused.stderr
    assert not (tmp_path / "all.lock").exists()


def test_the_name_of_a_configuration_may_be_no_text(registry, repository, tmp_path) -> None:
    offer(registry, repository, "1.0", SINGLE)
    file = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.yaml"))
    write(file, f"{registry.host}/{repository}", "oci:x")
    for _ in range(2):
        done = ocimirror("sync", file)
        assert done.code == 0, done.stderr


def test_verify_lock_reaches_registries_as_the_sync_file_says(
    htpasswd_registry, tls_registry, repository, tmp_path
) -> None:
    offer(htpasswd_registry, f"{repository}/a", "1.0", SINGLE)
    offer(tls_registry, f"{repository}/b", "1.0", SCHEMA2)
    (tmp_path / "night.yaml").write_text(
        f"""registries:
  "{htpasswd_registry.host}": {{auth: {{username: ada, password: "${{SECRET}}"}}}}
  "{tls_registry.host}": {{ca_file: "{tls_registry.ca_file}"}}
to: oci:one
mirrors:
  - from: {htpasswd_registry.host}/{repository}/a
  - from: {tls_registry.host}/{repository}/b
"""
    )
    password = environment(SECRET="pa:ss word")
    done = ocimirror("sync", tmp_path / "night.yaml", env=password)
    assert done.code == 0, done.stderr
    lock = tmp_path / "night.lock"
    beside = ocimirror("verify", "--lock", lock, env=password)
    assert beside.code == 0, beside.stderr
    unset = ocimirror("verify", "--lock", lock)
    assert unset.code != 0
    assert "night.yaml is not used" in unset.stderr
    (tmp_path / "night.yaml").rename(tmp_path / "elsewhere.yml")
    assert ocimirror("verify", "--lock", lock, env=password).code != 0
    named = ["--config", tmp_path / "elsewhere.yml"]
    other = ocimirror("verify", "--lock", lock, *named, env=password)
    assert other.code == 2
    assert "configuration 'night', not of 'elsewhere'" in other.stderr
    (tmp_path / "elsewhere.yml").write_text(
        "name: night\n" + (tmp_path / "elsewhere.yml").read_text()
    )
    assert ocimirror("verify", "--lock", lock, *named, env=password).code == 0
    assert ocimirror("verify", tmp_path / "one", *named).code == 2


def test_a_clash_of_two_registries_is_a_line_of_the_report(
    registry, docker_registry, repository, tmp_path
) -> None:
    offer(registry, repository, "1.0", SINGLE)
    offer(docker_registry, repository, "2.0", SCHEMA2)
    names = [f"{one.host}/{repository}" for one in (registry, docker_registry)]
    file = tmp_path / "sync.yaml"
    targets = (
        ("oci:one", f"oci:{tmp_path}/one"),
        ("oci:all/{registry}/{repository}", f"oci:{tmp_path}/all"),
        (f"{registry.host}/m/{{repository}}", f"{registry.host}/m/{repository}"),
    )
    for to, tree in targets:
        text = "".join(f"  - {{from: '{name}', to: '{to}'}}\n" for name in names)
        file.write_text(f"mirrors:\n{text}")
        for path in tmp_path.glob("sync.[ls]*"):
            path.unlink()
        night = sync(file)
        (clash,) = night.document["clashes"]
        assert clash["destination"] == tree
        assert clash["registries"] == sorted([registry.host, docker_registry.host])
        assert repository in clash["repository"]
        shown = ocimirror("sync", file, "--report-html", tmp_path / "r.html")
        (line,) = [line for line in shown.stdout.splitlines() if line.startswith("CLASH")]
        assert tree in line
        assert tree in (tmp_path / "r.html").read_text()
    text = "".join(f"  - {{from: '{n}', to: 'oci:{i}'}}\n" for i, n in enumerate(names))
    file.write_text(f"mirrors:\n{text}")
    for path in tmp_path.glob("sync.[ls]*"):
        path.unlink()
    assert sync(file).document["clashes"] == []


def test_a_state_with_what_is_no_location_does_not_spoil_the_lock_file(
    registry, repository, tmp_path
) -> None:
    offer(registry, repository, "1.0", SINGLE)
    file = write(tmp_path / "one.yaml", f"{registry.host}/{repository}", "oci:x")
    assert sync(file).code == 0
    with sqlite3.connect(tmp_path / "one.state") as database:
        for place in ("bad", "\x1b[31m", "oci:x:\u202e"):
            row = (place, place, SINGLE.root)
            database.execute("INSERT INTO created VALUES (?, ?, ?, 5, NULL)", row)
    database.close()
    for _ in range(2):
        done = sync(file)
        assert done.code == 0, done.stderr
    (made,) = json.loads((tmp_path / "one.lock").read_text())["own"]
    assert made["source"].endswith(f"{repository}:1.0")
