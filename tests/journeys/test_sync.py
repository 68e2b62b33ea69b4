"""Nights of a mirror, on real registries: what is copied, remembered, pruned and left alone."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import images
from tests.support.command import PROGRAM, Result, at_terminal, environment, ocimirror
from tests.support.faults import Call, Respond, Rule, Stall
from tests.support.images import Graph

pytestmark = pytest.mark.timeout(120)


def offer(registry, repository: str, tag: str, graph: Graph) -> None:
    """Put an image into a registry."""
    for digest, content in graph.blobs.items():
        registry.put_blob(repository, content, digest.partition(":")[0])
    for digest, (media_type, raw) in graph.manifests.items():
        registry.put_manifest(repository, digest, raw, media_type)
    registry.put_manifest(repository, tag, graph.raw, graph.root_media_type)


@pytest.fixture
def configure(tmp_path: Path) -> Callable[[str], Path]:
    """Write a configuration."""

    def write(text: str) -> Path:
        file = tmp_path / "sync.yaml"
        file.write_text(text)
        return file

    return write


def sync(file: Path, *options: object) -> Result:
    """Run a night, with a JSON document."""
    return ocimirror("sync", file, *map(str, options), "--json")


def statuses(result: Result) -> dict[str, str]:
    """Return the status of each target, by the end of its name."""
    return {
        image["destination"].rpartition("/")[2]: image["status"]
        for image in result.document["images"]
    }


def locked(file: Path) -> dict[str, str]:
    """Return the digests of the lock file, by tag."""
    document = json.loads(file.with_name("sync.lock").read_text())
    return {image["source"].rpartition(":")[2]: image["digest"] for image in document["images"]}


SINGLE, MULTI, SCHEMA2 = images.single(), images.multi(), images.docker_schema2()


def test_three_nights(docker_registry, registry, proxy, configure, repository) -> None:
    """Full, nothing, then a moved, a new and a gone tag, a broken repository and a kill."""
    for tag, graph in {"1.0": SINGLE, "1.1": MULTI, "1.2": SCHEMA2}.items():
        offer(registry, repository, tag, graph)
    front = proxy(registry)
    file = configure(
        f"""mirrors:
  - from: {front.host}/{repository}
    to: {docker_registry.host}/mirror/{repository}
  - from: {front.host}/broken/app
    to: {docker_registry.host}/broken
"""
    )
    first = sync(file)
    assert first.code == 4
    assert statuses(first) == dict.fromkeys(
        (f"{repository[5:]}:{t}" for t in ("1.0", "1.1", "1.2")), "copied"
    )
    assert first.document["entries"][1]["error"]["code"] == "not_found"
    assert locked(file) == {"1.0": SINGLE.root, "1.1": MULTI.root, "1.2": SCHEMA2.root}
    lock = file.with_name("sync.lock").read_bytes()

    second = sync(file)
    assert set(statuses(second).values()) == {"unchanged"}
    assert file.with_name("sync.lock").read_bytes() == lock

    registry.put_manifest(repository, "1.0", SCHEMA2.raw, SCHEMA2.root_media_type)
    offer(registry, repository, "2.0", images.docker_list())
    registry.delete_manifest(repository, "1.2")
    front.rules.append(Rule("GET", "/blobs/", Stall(3600, when=100)))
    process = subprocess.Popen(
        [PROGRAM, "sync", file, "--quiet"], env=environment(), stderr=subprocess.DEVNULL
    )
    fetched = front.count("GET", "/blobs/")
    while front.count("GET", "/blobs/") == fetched and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert file.with_name("sync.lock").read_bytes() == lock

    front.rules.clear()
    front.rules.append(Rule("HEAD", "/manifests/", Respond(429, {"Retry-After": "0"}), range(1, 4)))
    third = sync(file)
    assert third.document["images"] != []
    assert locked(file) == {
        "1.0": SCHEMA2.root,
        "1.1": MULTI.root,
        "2.0": images.docker_list().root,
    }
    assert docker_registry.get_manifest(f"mirror/{repository}", "1.0") == SCHEMA2.raw
    assert docker_registry.get_manifest(f"mirror/{repository}", "1.2") == SCHEMA2.raw
    state = ["--state", str(file.with_name("sync.state")), "--json"]
    history = ocimirror("history", f"{front.host}/{repository}:1.0", *state)
    assert history.code == 0, history.stderr
    assert SINGLE.root in history.stdout
    assert SCHEMA2.root in history.stdout


def test_three_targets_cost_one_download(
    docker_registry, registry, configure, repository, tmp_path
) -> None:
    offer(registry, repository, "1.0", MULTI)
    file = configure(
        f"""mirrors:
  - from: {registry.host}/{repository}
    to: [oci:one, {docker_registry.host}/three/{repository}, "oci:two/{{repository}}"]
"""
    )
    registry.requests.clear()
    assert sync(file).code == 0
    fetched = [r.path for r in registry.requests if r.method == "GET" and "/blobs/" in r.path]
    assert len(fetched) == len(set(fetched)) == len(MULTI.blobs)
    for layout in (tmp_path / "one", tmp_path / "two" / repository):
        assert ocimirror("verify", layout).code == 0
    assert docker_registry.get_manifest(f"three/{repository}", "1.0") == MULTI.raw


def test_nothing_changed_is_one_head_a_tag_at_each_end(
    docker_registry, registry, proxy, configure, repository
) -> None:
    for number in range(5):
        offer(registry, repository, f"1.{number}", SINGLE)
    front, back = proxy(registry), proxy(docker_registry)
    file = configure(
        f"""referrers: false
mirrors:
  - from: {front.host}/{repository}
    to: {back.host}/{repository}
"""
    )
    assert sync(file).code == 0
    front.requests.clear()
    back.requests.clear()
    assert set(statuses(sync(file)).values()) == {"unchanged"}
    assert sorted(r.method for r in front.requests if "/manifests/" in r.path) == ["HEAD"] * 5
    assert sorted(r.method for r in back.requests) == ["HEAD"] * 5


def test_a_locked_sync_refuses_a_tag_that_moved(registry, configure, repository, tmp_path) -> None:
    offer(registry, repository, "1.0", SINGLE)
    file = configure(f"mirrors:\n  - from: {registry.host}/{repository}\n    to: oci:one\n")
    assert sync(file, "--locked").code == 2
    assert sync(file).code == 0
    assert sync(file, "--locked").code == 0
    offer(registry, repository, "1.0", SCHEMA2)
    refused = sync(file, "--locked")
    assert refused.code == 4
    assert refused.document["images"][0]["error"]["code"] == "source_moved"
    assert locked(file) == {"1.0": SINGLE.root}


def test_a_dry_run_says_which_filter_dropped_which_tag(registry, configure, repository) -> None:
    for tag in ("1.0", "1.1", "2.0", "latest"):
        offer(registry, repository, tag, SINGLE)
    file = configure(
        f"""mirrors:
  - from: {registry.host}/{repository}
    to: oci:one
    tags: {{exclude: [latest], semver: "<2", newest: 1}}
"""
    )
    told = sync(file, "--dry-run")
    assert told.code == 0
    dropped = {a["source"].rpartition(":")[2]: a["filter"] for a in told.document["attrition"]}
    assert dropped == {"latest": "exclude", "2.0": "semver", "1.0": "newest"}
    assert statuses(told) == {f"{repository[5:]}:1.1": "planned"}
    assert {path.name for path in file.parent.iterdir()} == {"sync.yaml", "registry"}


def test_a_second_run_at_the_same_time_exits_7(registry, proxy, configure, repository) -> None:
    offer(registry, repository, "1.0", SINGLE)
    front = proxy(registry, Rule("GET", "", Stall(3600)))
    file = configure(f"mirrors:\n  - from: {front.host}/{repository}\n    to: oci:one\n")
    process = subprocess.Popen([PROGRAM, "sync", file, "--quiet"], env=environment())
    while not front.requests:
        time.sleep(0.01)
    assert sync(file).code == 7
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143


def test_what_a_deadline_leaves_is_deferred_lowest_priority_last(
    registry, proxy, configure, repository
) -> None:
    offer(registry, f"{repository}/low", "1.0", images.odd_bytes())  # (no layer in common)
    offer(registry, f"{repository}/high", "1.0", SCHEMA2)
    front = proxy(registry, Rule("GET", "/low/blobs/", Stall(3600)))
    file = configure(
        f"""to: oci:one
mirrors:
  - from: {front.host}/{repository}/low
  - from: {front.host}/{repository}/high
    priority: 5
"""
    )
    result = sync(file, "--deadline", "8s")
    assert result.code == 3
    assert statuses(result) == {"high:1.0": "copied", "low:1.0": "deferred"}
    assert list(locked(file).values()) == [SCHEMA2.root]


@pytest.mark.parametrize("where", ["layout", "registry"])
def test_prune_takes_what_this_mirror_made_and_the_source_has_no_more(
    where, docker_registry, registry, configure, repository, tmp_path
) -> None:
    for tag, graph in {"1.0": SINGLE, "1.1": MULTI}.items():
        offer(registry, repository, tag, graph)
    target = "oci:one" if where == "layout" else f"{docker_registry.host}/{repository}"
    text = f"mirrors:\n  - from: {registry.host}/{repository}\n    to: {target}\n"
    file = configure(text + "    prune: {grace: 0s, max_delete: 1}\n")
    if where == "registry":
        offer(docker_registry, repository, "foreign", SCHEMA2)
    assert sync(file).code == 0
    registry.delete_manifest(repository, "1.0")
    planned = sync(file, "--dry-run")
    assert statuses(planned)[f"{repository[5:]}:1.0"] == "planned"
    pruned = sync(file)
    assert pruned.code == 0, pruned.document
    assert statuses(pruned)[f"{repository[5:]}:1.0"] == "pruned"
    place = tmp_path / "one" if where == "layout" else f"docker://{target}"
    left = ocimirror("list", place).stdout
    assert "1.1" in left
    assert "1.0" not in left.replace("127.0.0.1", "")
    assert where == "layout" or "foreign" in left
    assert set(locked(file)) == {"1.1"}


def test_prune_deletes_nothing_after_an_empty_listing_or_when_it_is_too_much(
    registry, configure, repository, tmp_path
) -> None:
    for number in range(4):
        offer(registry, repository, f"1.{number}", SINGLE)
    file = configure(
        f"""mirrors:
  - from: {registry.host}/{repository}
    to: oci:one
    prune: {{grace: 0s, max_delete: 2}}
"""
    )
    assert sync(file).code == 0
    for number in range(3):
        registry.delete_manifest(repository, f"1.{number}")
    refused = sync(file)
    assert refused.code == 4
    assert refused.document["entries"][0]["error"]["code"] == "prune_refused"
    registry.delete_manifest(repository, "1.3")
    sync(file)
    assert len(ocimirror("list", tmp_path / "one").stdout.splitlines()) == 4


def test_shards_together_do_what_one_run_would(registry, configure, repository, tmp_path) -> None:
    for number in range(6):
        offer(registry, f"{repository}/app{number}", "1.0", SINGLE)
    entries = "".join(
        f"  - from: {registry.host}/{repository}/app{number}\n" for number in range(6)
    )
    file = configure(f"to: oci:one\nmirrors:\n{entries}")
    locks, reports, done = [], [], 0
    for number in (1, 2, 3):
        lock, state = tmp_path / f"{number}.lock", tmp_path / f"{number}.state"
        shard = ("--shard", f"{number}/3", "--run", "1")
        result = sync(file, *shard, "--lock", lock, "--state", state)
        assert result.code == 0
        assert len(result.document["images"]) == len(result.document["entries"])
        done += len(result.document["images"])
        report = tmp_path / f"{number}.json"
        report.write_bytes(result.raw)
        locks.append(lock)
        reports += ["--report", report]
    assert (
        done == 6
    )  # (which of them is which shard's: the registry's port, and so chance, decides)
    joined = tmp_path / "joined.lock"
    merged = ocimirror("sync", "merge", *locks, "--output", joined, *reports, "--json")
    assert merged.code == 0
    assert merged.document["report"]["totals"]["copied"] == 6
    assert sync(file).code == 0
    one = json.loads(file.with_name("sync.lock").read_text())["images"]
    assert [i["digest"] for i in json.loads(joined.read_text())["images"]] == [
        i["digest"] for i in one
    ]
    assert len(one) == 6


def test_a_running_sync_loads_a_new_configuration_and_keeps_the_old_one_for_a_bad_one(
    registry, configure, repository, tmp_path
) -> None:
    offer(registry, repository, "1.0", SINGLE)
    offer(registry, repository, "1.1", SCHEMA2)
    text = f"mirrors:\n  - from: {registry.host}/{repository}\n    to: oci:one\n    tags: ["
    file = configure(text + '"1.0"]\n')
    process = subprocess.Popen(
        [PROGRAM, "sync", file, "--every", "2s", "--quiet"],
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    )

    def wait_for(tag: str) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if tag in ocimirror("list", tmp_path / "one").stdout:
                return
            time.sleep(0.1)
        raise AssertionError(tag)

    wait_for(":1.0")
    file.write_text("mirrors: 5\n")
    process.send_signal(signal.SIGHUP)
    assert process.stderr is not None
    assert any("stays in force" in line for line in process.stderr)
    file.write_text(text + '"1.0", "1.1"]\n')
    process.send_signal(signal.SIGHUP)
    wait_for(":1.1")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143


def test_a_deadline_before_the_listing_is_no_success(
    registry, proxy, configure, repository
) -> None:
    offer(registry, repository, "1.0", SINGLE)
    front = proxy(registry, Rule("GET", "/tags/list", Stall(3600)))
    file = configure(f"mirrors:\n  - from: {front.host}/{repository}\n    to: oci:one\n")
    result = sync(file, "--deadline", "1s")
    assert result.code == 3
    (entry,) = result.document["entries"]
    assert entry["status"] == "failed"
    assert entry["last_success"] is None


def test_two_images_on_one_place_are_refused_and_the_others_go(
    registry, docker_registry, configure, repository
) -> None:
    offer(registry, f"{repository}/a", "1.0", SINGLE)
    offer(registry, f"{repository}/b", "1.0", SCHEMA2)
    offer(registry, f"{repository}/b", "2.0", SCHEMA2)
    target = f"{docker_registry.host}/{repository}/one"
    file = configure(
        f"""to: {target}
mirrors:
  - from: {registry.host}/{repository}/a
  - from: {registry.host}/{repository}/b
"""
    )
    result = sync(file)
    assert result.code == 4
    assert [image["status"] for image in result.document["images"]].count("copied") == 2
    (failed,) = [image for image in result.document["images"] if image["status"] == "failed"]
    assert "where" in failed["error"]["message"]
    assert docker_registry.get_manifest(f"{repository}/one", "1.0") == SINGLE.raw


def test_a_tag_that_moves_after_its_age_was_judged_carries_nothing_past_the_filter(
    registry, proxy, configure, repository
) -> None:
    offer(registry, repository, "1.0", SINGLE)

    def move(_: object) -> None:
        registry.put_manifest(repository, "1.0", SCHEMA2.raw, SCHEMA2.root_media_type)

    for digest, content in SCHEMA2.blobs.items():
        registry.put_blob(repository, content, digest.partition(":")[0])
    front = proxy(registry, Rule("GET", f"/manifests/{SINGLE.root}", Call(move), 1))
    file = configure(
        f"""mirrors:
  - from: {front.host}/{repository}
    to: oci:one
    tags: {{max_age: 36500d}}
"""
    )
    assert sync(file).code == 0
    assert registry.get_manifest(repository, "1.0") == SCHEMA2.raw
    assert locked(file) == {"1.0": SINGLE.root}


def test_a_locked_sync_asks_once_a_tag_and_leaves_the_lock_file(
    registry, proxy, configure, repository
) -> None:
    for number in range(3):
        offer(registry, repository, f"1.{number}", SINGLE)
    front = proxy(registry)
    file = configure(
        f"referrers: false\nmirrors:\n  - from: {front.host}/{repository}\n    to: oci:one\n"
    )
    assert sync(file).code == 0
    lock = file.with_name("sync.lock")
    before = lock.read_bytes(), lock.stat().st_ino
    offer(registry, repository, "2.0", SINGLE)
    front.requests.clear()
    assert sync(file, "--locked").code == 4
    asked = [r.method for r in front.requests if "/manifests/" in r.path]
    assert asked == ["HEAD"] * 3
    assert (lock.read_bytes(), lock.stat().st_ino) == before


def test_under_cron_a_failure_is_told_once(
    registry, docker_registry, configure, repository
) -> None:
    offer(registry, repository, "1.0", MULTI)
    file = configure(
        f"""platforms: [linux/amd64]
mirrors:
  - from: {registry.host}/{repository}
    to: {docker_registry.host}/{repository}
"""
    )
    told = ocimirror("sync", file, "--quiet")
    assert told.code == 4
    assert "error:" not in told.stderr
    assert told.stdout.count("sparse_refused") == 1


def test_a_mirror_gives_content_and_its_registry_says_what_there_is(
    registry, docker_registry, proxy, configure, repository, tmp_path
) -> None:
    for tag, graph in {"1.0": SINGLE, "1.1": SCHEMA2}.items():
        offer(registry, repository, tag, graph)
    offer(docker_registry, f"cache/{repository}", "1.0", SINGLE)
    front, mirror = proxy(registry), proxy(docker_registry)
    file = configure(
        f"""referrers: false
mirrors:
  - from: {front.host}/{repository}
    to: oci:one
registries:
  "{front.host}": {{mirrors: ["{mirror.host}/cache"]}}
"""
    )
    result = sync(file)
    assert result.code == 0, result.document
    assert locked(file) == {"1.0": SINGLE.root, "1.1": SCHEMA2.root}
    taken = {r.path.rpartition("/")[2] for r in mirror.requests if r.status == 200}
    assert taken >= set(SINGLE.blobs)
    asked = {r.path.rpartition("/")[2] for r in front.requests if r.method == "GET"}
    assert not asked & set(SINGLE.blobs)
    assert asked >= set(SCHEMA2.blobs) - set(SINGLE.blobs)


def test_a_registry_is_reached_as_its_settings_say(
    htpasswd_registry, configure, repository
) -> None:
    offer(htpasswd_registry, repository, "1.0", SINGLE)
    text = f"mirrors:\n  - from: {htpasswd_registry.host}/{repository}\n    to: oci:one\n"
    assert sync(configure(text)).code == 4
    settings = f"""registries:
  "{htpasswd_registry.host}":
    auth: {{username: ada, password: "${{SECRET}}"}}
    max_concurrency: 1
"""
    file = configure(text + settings)
    done = ocimirror("sync", file, "--json", env=environment(SECRET="pa:ss word"))
    assert done.code == 0, done.stderr
    assert "pa:ss word" not in done.stdout + done.stderr


def test_a_deadline_before_the_copying_defers_what_was_listed(
    registry, docker_registry, proxy, configure, repository
) -> None:
    offer(registry, repository, "1.0", SINGLE)
    back = proxy(docker_registry, Rule("GET", "/tags/list", Stall(3600)))
    file = configure(
        f"""mirrors:
  - from: {registry.host}/{repository}
    to: {back.host}/{repository}
    prune: true
"""
    )
    result = sync(file, "--deadline", "8s")
    assert result.code == 3
    assert list(statuses(result).values()) == ["deferred"]
    assert result.document["entries"][0]["last_success"] is None


@pytest.mark.parametrize("name", ["--lock", "--report-html", "--metrics-file"])
def test_a_device_or_a_directory_is_not_replaced_by_a_file(configure, name, tmp_path) -> None:
    file = configure("mirrors:\n  - from: localhost:1/a\n    to: oci:one\n")
    for place in ("/dev/null", tmp_path):
        assert ocimirror("sync", file, name, place).code == 2
    assert Path("/dev/null").is_char_device()
    assert [path.name for path in tmp_path.iterdir()] == ["sync.yaml"]


def test_only_that_names_no_source_is_a_mistake(registry, configure, repository) -> None:
    offer(registry, repository, "1.0", SINGLE)
    file = configure(f"mirrors:\n  - from: {registry.host}/{repository}\n    to: oci:one\n")
    for mistake in (repository, "docker.io/*"):
        told = ocimirror("sync", file, "--only", mistake)
        assert (told.code, told.stdout) == (2, "")
        assert f"--only {mistake} is no source of" in told.stderr
    assert sync(file, "--only", f"{registry.host}/*").code == 0


def test_a_tag_that_is_gone_from_its_source_is_told_once(registry, configure, repository) -> None:
    for tag in ("1.0", "2.0", "2.0-beta"):
        offer(registry, repository, tag, SINGLE)
    file = configure(
        f"""mirrors:
  - from: {registry.host}/{repository}
    to: oci:one
    tags: {{include: ["?.0*"]}}
"""
    )
    assert sync(file).document["gone"] == []
    registry.delete_manifest(repository, "2.0")
    file.write_text(file.read_text().replace("?.0*", "?.0"))  # 2.0-beta is there, but not wanted
    page = file.with_name("page.html")
    night = ["--report-html", page]
    dry = ocimirror("sync", file, "--dry-run")
    assert f"GONE  docker://{registry.host}/{repository}:2.0  {SINGLE.root[:19]}" in dry.stdout
    told = sync(file, *night)
    assert told.code == 0
    name = f"{registry.host}/{repository}"
    assert told.document["gone"] == [
        {"entry": name, "source": f"docker://{name}:2.0", "digest": SINGLE.root}
    ]
    assert "Gone from the source" in page.read_text()
    assert sync(file).document["gone"] == []


def test_a_tag_that_moved_is_told_without_a_state_too(registry, configure, repository) -> None:
    offer(registry, repository, "1.0", SINGLE)
    file = configure(f"mirrors:\n  - from: {registry.host}/{repository}\n    to: oci:one\n")
    sync(file)
    file.with_name("sync.state").unlink()
    offer(registry, repository, "1.0", SCHEMA2)
    for option in (["--dry-run"], []):
        (move,) = sync(file, *option).document["moves"]
        assert (move["old"], move["new"]) == (SINGLE.root, SCHEMA2.root)


def test_attachments_cost_no_second_listing(registry, proxy, configure, repository) -> None:
    offer(registry, repository, "1.0", SINGLE)
    front = proxy(registry)
    file = configure(f"mirrors:\n  - from: {front.host}/{repository}\n    to: oci:one\n")
    for _ in range(2):
        front.requests.clear()
        assert sync(file).code == 0
        assert sum("/tags/list" in seen.path for seen in front.requests) == 1


def test_a_refusal_of_the_destination_says_which_side_it_was(
    registry, docker_registry, proxy, configure, repository
) -> None:
    offer(registry, repository, "1.0", SINGLE)
    back = proxy(docker_registry, Rule("HEAD", "/manifests/1.0", Respond(503)))
    file = configure(f"mirrors:\n  - from: {registry.host}/{repository}\n    to: {back.host}/x\n")
    failed = sync(file, "--retries", "0")
    assert failed.code == 3
    assert failed.document["images"][0]["error"]["side"] == "destination"


def test_a_dry_run_says_how_much_would_move(registry, configure, repository) -> None:
    for tag in ("1.0", "1.1", "1.2"):
        offer(registry, repository, tag, SINGLE)
    file = configure(f"mirrors:\n  - from: {registry.host}/{repository}\n    to: oci:one\n")
    blobs = sum(map(len, SINGLE.blobs.values()))
    planned = sync(file, "--dry-run").document
    assert planned["totals"]["bytes_copied"] == blobs
    assert sync(file).code == 0
    assert sync(file, "--dry-run").document["totals"]["bytes_copied"] == 0


def test_at_a_terminal_bytes_are_shown_as_they_move(registry, configure, repository) -> None:
    for tag in ("1.0", "1.1"):
        offer(registry, repository, tag, MULTI)
    file = configure(f"mirrors:\n  - from: {registry.host}/{repository}\n    to: oci:one\n")
    code, said = at_terminal("sync", file)
    assert code == 0
    assert "total (2)" in said
    assert said.count(f"copied  oci:{file.parent}/one") == 2
    code, said = at_terminal("sync", file)
    assert (code, "/one" in said) == (0, False)
    assert "2 unchanged" in said
