"""What may happen between the two ends of a copy, and what the command makes of it."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.support import images
from tests.support.command import PROGRAM, environment, ocimirror, weighed
from tests.support.faults import Call, Cut, Flip, OtherRange, Request, Respond, Rule, Stall
from tests.support.judge import names_of
from tests.support.proxy import Canary, Proxy, Visit
from tests.support.registry import StrictRegistry
from tests.support.signed import put_fallback, referrers_at
from tests.support.witness import Registry

Front = Callable[..., Proxy]


def error(status: int, code: str) -> Respond:
    """Return an answer with the specification's error document."""
    body = json.dumps({"errors": [{"code": code, "message": "because I say so"}]}).encode()
    return Respond(status, {"Content-Type": "application/json"}, body)


def largest(graph: images.Graph) -> str:
    return max(graph.blobs, key=lambda digest: len(graph.blobs[digest]))


@pytest.fixture
def graph(docker_registry: Registry, repository: str) -> images.Graph:
    made = images.multi()
    images.push(docker_registry, repository, "1.0", made)
    return made


# --- a pull --------------------------------------------------------------------------------------


@pytest.mark.bar("R16")
@pytest.mark.parametrize("times", [1, 2])
def test_content_that_is_corrupted_is_fetched_once_more_and_then_named(
    times: int,
    graph: images.Graph,
    docker_registry: Registry,
    repository: str,
    proxy: Front,
    tmp_path: Path,
) -> None:
    digest = largest(graph)
    front = proxy(docker_registry, Rule("GET", digest, Flip(at=10), nth=range(1, times + 1)))

    pulled = ocimirror("pull", f"{front.host}/{repository}:1.0", tmp_path / "layout", "--json")

    assert front.count("GET", digest) == 2
    assert pulled.code == (0 if times == 1 else 5)
    if times == 2:
        told = pulled.document["images"][0]["error"]
        assert (told["code"], told["side"]) == ("digest_mismatch", "source")
        assert digest in told["message"]
        assert told["message"].count("sha256:") >= 2  # (got and wanted)
        assert names_of(tmp_path / "layout") == {}


@pytest.mark.bar("R20", "distribution-416")
def test_a_416_of_docker_registry_is_not_waited_for(
    graph: images.Graph, docker_registry: Registry, repository: str, proxy: Front, tmp_path: Path
) -> None:
    """Its Content-Length is that of the whole blob, and its body is a short text."""
    digest = largest(graph)
    front = proxy(
        docker_registry,
        Rule("GET", digest, Cut(100), nth=1),
        Rule("GET", digest, OtherRange(10**9)),
    )

    pulled = ocimirror("pull", f"{front.host}/{repository}:1.0", tmp_path / "layout", timeout_s=30)

    assert pulled.code == 0, pulled.stderr
    assert [seen.status for seen in front.requests if digest in seen.path] == [200, 416, 200]


@pytest.mark.bar("R22")
@pytest.mark.parametrize("when", ["request", "reply", 0])
def test_an_image_of_a_silent_host_fails_and_the_run_goes_on(
    when: object,
    graph: images.Graph,
    docker_registry: Registry,
    repository: str,
    proxy: Front,
    tmp_path: Path,
) -> None:
    other = f"{repository}/other"
    images.push(docker_registry, other, "1.0", images.shared_layers(1, 2, 2000, 0.0)[0])
    silent = proxy(docker_registry, Rule("GET", "/blobs/", Stall(when=when)))  # type: ignore[arg-type]
    names = [f"{silent.host}/{repository}:1.0", f"{docker_registry.host}/{other}:1.0"]

    pulled = ocimirror(
        *("pull", *names, tmp_path / "layout", "--json", "--timeout", "0.5", "--retries", "0"),
        timeout_s=30,
    )

    assert pulled.code == 3
    assert [image["status"] for image in pulled.document["images"]] == ["failed", "copied"]


@pytest.mark.bar("R29")
@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_a_tag_that_moves_meanwhile_is_the_old_or_the_new_image(
    method: str,
    graph: images.Graph,
    docker_registry: Registry,
    repository: str,
    proxy: Front,
    tmp_path: Path,
) -> None:
    new = images.shared_layers(1, 2, 2000, 0.0)[0]
    move = Call(lambda _: images.push(docker_registry, repository, "1.0", new), answered=True)
    front = proxy(docker_registry, Rule(method, "/manifests/", move, nth=1))
    name, layout = f"{front.host}/{repository}:1.0", tmp_path / "layout"

    first = ocimirror("pull", name, layout, "--json")
    checked = ocimirror("verify", layout)
    second = ocimirror("pull", name, layout, "--json")

    assert (first.code, checked.code) == (0, 0), first.stderr
    assert first.document["images"][0]["digest"] == graph.root
    assert second.document["images"][0]["digest"] == new.root
    assert ocimirror("verify", layout).code == 0


@pytest.mark.bar("R30")
@pytest.mark.parametrize("what", ["blob", "child"])
def test_what_vanishes_from_the_source_meanwhile_leaves_the_old_image(
    what: str, registry: StrictRegistry, proxy: Front, tmp_path: Path
) -> None:
    old, new = images.artifact(), images.multi()
    images.push(registry, "app", "1.0", old)
    front = proxy(registry)
    name, layout = f"{front.host}/app:1.0", tmp_path / "layout"
    assert ocimirror("pull", name, layout).code == 0
    images.push(registry, "app", "1.0", new)
    digest = largest(new) if what == "blob" else next(iter(new.manifests))

    def vanish(_: Request) -> None:
        registry.content_file(digest).unlink(missing_ok=True)
        kind = "blobs" if what == "blob" else "manifests"
        registry.request("DELETE", f"/v2/app/{kind}/{digest}")

    front.rules.append(Rule("GET", f"/manifests/{new.root}", Call(vanish), nth=1))

    pulled = ocimirror("pull", name, layout, "--json")

    assert pulled.code == 4
    told = pulled.document["images"][0]["error"]
    assert (told["code"], told["side"]) == ("not_found", "source")
    assert digest in told["message"]
    assert names_of(layout) == {name: old.root}
    assert ocimirror("verify", layout).code == 0


# --- lists of tags -------------------------------------------------------------------------------


@pytest.mark.bar("R39")
@pytest.mark.parametrize("count", [100_000, 1_000_000])
def test_the_tags_of_a_huge_repository_need_little_memory(
    count: int, canary: Callable[..., Canary], tmp_path: Path
) -> None:
    def pages(visit: Visit) -> Respond:
        query = parse_qs(urlsplit(visit.path).query)
        size, last = int(query["n"][0]), int(query.get("last", ["0"])[0])
        tags = [f"v1.{number:07d}" for number in range(last, min(count, last + size))]
        more = f'</v2/a/b/tags/list?n={size}&last={last + size}>; rel="next"'
        headers = {"Link": more} if last + size < count else {}
        return Respond(200, headers, json.dumps({"name": "a/b", "tags": tags}).encode())

    server = canary(pages)
    output = tmp_path / "tags.json"

    code, peak_bytes = weighed("list", f"docker://{server.host}/a/b", "--json", output=output)

    assert code == 0
    assert peak_bytes < 300 * 1024 * 1024
    tags = json.loads(output.read_bytes())["tags"]
    assert len(tags) == len(set(tags)) == count


# --- a push --------------------------------------------------------------------------------------


@pytest.mark.bar("R31")
def test_what_the_destination_refuses_does_not_stop_the_others(
    registry: StrictRegistry, proxy: Front, tmp_path: Path
) -> None:
    graphs = images.shared_layers(3, 2, 2000, 0.0)
    names = [f"reg.example.com/app{number}:1" for number in range(3)]
    images.write_layout(tmp_path / "layout", dict(zip(names, graphs, strict=True)))
    front = proxy(
        registry,
        Rule("PUT", "/app0/manifests/1", error(412, "PRECONDITION")),
        Rule("POST", "/app1/blobs/uploads", error(403, "DENIED")),
    )

    pushed = ocimirror("push", tmp_path / "layout", front.host, "--json")

    assert pushed.code == 4
    found = pushed.document["images"]
    assert [image["status"] for image in found] == ["failed", "failed", "copied"]
    assert all("because I say so" in image["error"]["message"] for image in found[:2])
    assert registry.get_manifest("app2", "1") == graphs[2].raw


@pytest.mark.bar("R33")
def test_a_registry_that_says_it_has_a_blob_and_misses_it_is_sent_it_once_more(
    docker_registry: Registry, repository: str, proxy: Front, tmp_path: Path
) -> None:
    graph = images.multi()
    images.write_layout(tmp_path / "layout", {"reg.example.com/app:1": graph})
    digest = largest(graph)
    lie = Respond(200, {"Content-Length": str(len(graph.blobs[digest]))})
    front = proxy(docker_registry, Rule("HEAD", f"/blobs/{digest}", lie))

    copied = ocimirror("copy", tmp_path / "layout", f"docker://{front.host}/{repository}:1")

    assert copied.code == 0, copied.stderr
    assert docker_registry.get_blob(repository, digest) == graph.blobs[digest]
    assert docker_registry.get_manifest(repository, "1") == graph.raw
    refused = [s.path for s in front.requests if s.method == "PUT" and s.status == 400]
    assert refused
    assert len(refused) == len(set(refused))


@pytest.mark.bar("R34", "distribution-stale-session", "distribution-replicas")
@pytest.mark.parametrize(("times", "code"), [(2, 0), (1000, 3)])
def test_an_upload_session_that_is_lost_begins_again_from_post(
    times: int, code: int, registry: StrictRegistry, proxy: Front, tmp_path: Path
) -> None:
    graph = images.single()
    images.write_layout(tmp_path / "layout", {"reg.example.com/app:1": graph})
    lost = Rule("PUT", "/uploads/", error(404, "BLOB_UPLOAD_UNKNOWN"), nth=range(1, times + 1))
    front = proxy(registry, lost)

    pushed = ocimirror("push", tmp_path / "layout", front.host, "--jobs", "1", "--retries", "2")

    assert pushed.code == code, pushed.stderr
    assert front.count("POST") <= (len(graph.blobs) + 2 if code == 0 else 3 * len(graph.blobs))
    assert registry.has_manifest("app", "1") is (code == 0)


@pytest.mark.bar("R52")
@pytest.mark.parametrize("stored", [1, 4, 8])
def test_a_push_that_was_killed_sends_again_only_what_is_not_there(
    stored: int, registry: StrictRegistry, proxy: Front, tmp_path: Path
) -> None:
    (graph,) = images.shared_layers(1, 8, 20_000, 0.0)
    images.write_layout(tmp_path / "layout", {"reg.example.com/app:1": graph})
    sending = proxy(registry, Rule("PUT", "/uploads/|/manifests/", Stall(0.05, when="request")))
    command = [PROGRAM, "push", tmp_path / "layout", sending.host, "-j1"]
    process = subprocess.Popen(command, env=environment(), stderr=subprocess.DEVNULL)
    while sum(registry.has_blob("app", digest) for digest in graph.blobs) < stored:
        assert process.poll() is None
    process.kill()
    process.wait()
    time.sleep(0.2)  # (what was on its way arrives)
    missing = {digest for digest in graph.blobs if not registry.has_blob("app", digest)}
    front = proxy(registry)

    pushed, again = (ocimirror("push", tmp_path / "layout", front.host, "--json") for _ in "12")

    sent = [seen.path.rpartition("=")[2] for seen in front.requests if "/uploads/" in seen.path]
    assert pushed.code == 0, pushed.stderr
    assert {digest for digest in sent if digest.startswith("sha256:")} == missing
    assert again.document["images"][0]["status"] == "unchanged"
    assert registry.get_manifest("app", "1") == graph.raw


@pytest.mark.bar("R50")
@pytest.mark.parametrize(("wins", "code"), [(1, 0), (4, 0), (1000, 3)])
def test_another_writer_of_the_fallback_tag_is_merged_with_in_at_most_five_rounds(
    wins: int,
    code: int,
    graph: images.Graph,
    docker_registry: Registry,
    registry: StrictRegistry,
    repository: str,
    proxy: Front,
) -> None:
    """Not fully safe: who writes between our last look and the end still overwrites us."""
    mine, theirs = images.with_subject(graph, 1), images.with_subject(graph, 2)
    images.push(registry, "app", "1.0", graph)
    images.push(registry, "app", None, mine)
    images.push(docker_registry, repository, None, theirs)
    tag = graph.root.replace(":", "-")

    def overwrite(_: Request) -> None:
        put_fallback(docker_registry, repository, graph.root, [theirs])

    rule = Rule("PUT", f"/manifests/{tag}", Call(overwrite, answered=True), nth=range(1, wins + 1))
    front = proxy(docker_registry, rule)

    copied = ocimirror(
        "copy", f"docker://{registry.host}/app:1.0", f"docker://{front.host}/{repository}", "--json"
    )

    assert copied.code == code, copied.stderr
    assert front.count("PUT", f"/manifests/{tag}") == min(wins + 1, 5)
    if code == 0:
        assert referrers_at(docker_registry, repository, graph.root) == {mine.root, theirs.root}


@pytest.mark.bar("R50")
def test_an_attachment_that_another_writer_dropped_is_listed_again_with_the_next_one(
    graph: images.Graph,
    docker_registry: Registry,
    registry: StrictRegistry,
    repository: str,
    proxy: Front,
) -> None:
    mine = [images.with_subject(graph, number) for number in (1, 2)]
    theirs = images.with_subject(graph, 3)
    images.push(registry, "app", "1.0", graph)
    images.push(docker_registry, repository, None, theirs)
    for each in mine:
        images.push(registry, "app", None, each)
    tag = graph.root.replace(":", "-")

    def overwrite(_: Request) -> None:
        put_fallback(docker_registry, repository, graph.root, [theirs])

    # (The looks at the tag: before and after the first is added, then before the second.)
    rule = Rule("GET", f"/manifests/{tag}", Call(overwrite), nth=range(3, 4))
    front = proxy(docker_registry, rule)

    source, target = f"docker://{registry.host}/app:1.0", f"docker://{front.host}/{repository}"
    copied = ocimirror("copy", source, target, "-j", "1")

    assert copied.code == 0, copied.stderr
    found = referrers_at(docker_registry, repository, graph.root)
    assert found == {theirs.root, *(each.root for each in mine)}


@pytest.mark.bar("R50")
def test_two_processes_that_attach_to_one_image_keep_both_attachments(
    graph: images.Graph, docker_registry: Registry, registry: StrictRegistry, repository: str
) -> None:
    attached = [images.with_subject(graph, number) for number in (1, 2)]
    for number, each in enumerate(attached):
        images.push(registry, f"app{number}", "1.0", graph)
        images.push(registry, f"app{number}", None, each)
    target = f"docker://{docker_registry.host}/{repository}:1.0"

    def start(number: int) -> subprocess.Popen[bytes]:
        source = f"docker://{registry.host}/app{number}:1.0"
        return subprocess.Popen([PROGRAM, "copy", source, target, "-q"], env=environment())

    codes = [process.wait(60) for process in [start(0), start(1)]]
    # (One may have been overwritten after its last look; the next run finds that out.)
    again = [start(number).wait(60) for number in (0, 1)]

    assert set(codes) <= {0, 3}
    assert again == [0, 0]
    found = referrers_at(docker_registry, repository, graph.root)
    assert found == {each.root for each in attached}


@pytest.mark.bar("ecr-referrers-405")
def test_an_attachment_that_the_registry_refuses_is_never_lost_silently(
    graph: images.Graph, registry: StrictRegistry, repository: str, proxy: Front
) -> None:
    attached = images.with_subject(graph, 1)
    images.push(registry, "app", "1.0", graph)
    images.push(registry, "app", None, attached)
    front = proxy(registry, Rule("PUT", f"/manifests/{attached.root}", error(405, "UNSUPPORTED")))
    ends = f"docker://{registry.host}/app:1.0", f"docker://{front.host}/{repository}:1.0"

    refused = ocimirror("copy", *ends, "--json")
    without = ocimirror("copy", *ends, "--json", "--no-referrers")

    assert (refused.code, without.code) == (4, 0)
    assert "405" in refused.document["images"][0]["error"]["message"]
    assert registry.get_manifest(repository, "1.0") == graph.raw


@pytest.mark.bar("zot-docker-types")
def test_a_registry_that_refuses_dockers_types_is_sent_no_others(
    registry: StrictRegistry, proxy: Front, tmp_path: Path
) -> None:
    graph = images.docker_list()
    images.write_layout(tmp_path / "layout", {"reg.example.com/app:1": graph})
    front = proxy(registry, Rule("PUT", "/manifests/", error(415, "MANIFEST_INVALID")))

    pushed = ocimirror("push", tmp_path / "layout", front.host, "--json")

    assert pushed.code == 4
    assert "415" in pushed.document["images"][0]["error"]["message"]
    puts = [s for s in front.requests if s.method == "PUT" and "/manifests/" in s.path]
    assert puts
    assert all(".docker." in put.headers["content-type"] for put in puts)
