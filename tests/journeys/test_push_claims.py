"""What a push says is at the destination is there, under this name and this digest."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import images
from tests.support.command import Result, ocimirror
from tests.support.faults import Respond, Rule, SetHeader
from tests.support.proxy import Proxy
from tests.support.registry import StrictRegistry
from tests.support.witness import Registry

Front = Callable[..., Proxy]
SILENT = Rule(".*", r".*", SetHeader("Docker-Content-Digest", None))


@pytest.fixture
def single() -> images.Graph:
    return images.single()


@pytest.fixture
def layout(tmp_path: Path, single: images.Graph) -> Path:
    images.write_layout(tmp_path / "layout", {"reg.example.com/app:1": single})
    return tmp_path / "layout"


def pushed(layout: Path, host: str, *, command: str = "push") -> tuple[Result, str, str]:
    """Push and return the result, the status of the image, and the code of its error."""
    places = (layout, host) if command == "push" else (layout, f"docker://{host}/app:1")
    result = ocimirror(command, *places, "--json", "--retries", "1")
    image = result.document["images"][0]
    return result, image["status"], (image["error"] or {}).get("code", "")


def altered(raw: bytes) -> bytes:
    return json.dumps(json.loads(raw), indent=1).encode()


@pytest.mark.parametrize("command", ["push", "copy"])
def test_a_registry_that_states_no_digest_is_asked_what_it_has(
    command: str, layout: Path, single: images.Graph, registry: StrictRegistry, proxy: Front
) -> None:
    front = proxy(registry, SILENT)
    _, status, _ = pushed(layout, front.host, command=command)
    assert status == "copied"
    assert front.count("GET", "/manifests/1") >= 1
    assert registry.get_manifest("app", "1") == single.raw
    assert pushed(layout, front.host, command=command)[1] == "unchanged"


@pytest.mark.parametrize("command", ["push", "copy"])
@pytest.mark.parametrize("head", [200, 404, 405, 412, 500])
def test_a_registry_that_alters_manifests_is_exit_9(
    head: int, command: str, layout: Path, single: images.Graph, registry: StrictRegistry, proxy
) -> None:
    front = proxy(
        registry,
        SILENT,
        Rule("HEAD", "/manifests/", Respond(head)),
        Rule("GET", "/manifests/1", Respond(404), nth=1),
        Rule(
            "GET",
            "/manifests/1",
            Respond(200, {"Content-Type": single.root_media_type}, altered(single.raw)),
        ),
    )
    result, status, code = pushed(layout, front.host, command=command)
    assert (result.code, status, code) == (9, "failed", "digest_not_preserved")


def test_a_registry_that_keeps_nothing_is_exit_9(
    layout: Path, registry: StrictRegistry, proxy: Front
) -> None:
    front = proxy(registry, SILENT, Rule("PUT", "/manifests/", Respond(201)))
    result, _, code = pushed(layout, front.host)
    assert (result.code, code) == (9, "digest_not_preserved")


@pytest.mark.parametrize("digest", ["sha256:" + "0" * 64, "sha512:" + "0" * 128])
@pytest.mark.parametrize("what", ["/manifests/1", "/blobs/uploads/"])
def test_an_answer_that_states_another_digest_is_exit_9(
    what: str, digest: str, layout: Path, registry: StrictRegistry, proxy: Front
) -> None:
    front = proxy(registry, Rule("PUT", what, SetHeader("Docker-Content-Digest", digest)))
    if what == "/blobs/uploads/" and digest.startswith("sha512"):
        front.rules.append(Rule("HEAD|GET", "/blobs/sha256", Respond(404)))
    result, _, code = pushed(layout, front.host)
    assert (result.code, code) == (9, "digest_not_preserved")


@pytest.mark.parametrize("digest", ["", "md5:d41d8cd98f00b204e9800998ecf8427e", "nonsense"])
def test_a_digest_that_says_nothing_is_no_digest(
    digest: str, layout: Path, single: images.Graph, registry: StrictRegistry, proxy: Front
) -> None:
    front = proxy(registry, Rule("PUT", "", SetHeader("Docker-Content-Digest", digest)))
    assert pushed(layout, front.host)[1] == "copied"
    asked = [seen for seen in front.requests if seen.path.endswith("/manifests/1")]
    assert [seen.method for seen in asked][-2:] == ["PUT", "HEAD"]
    front.rules.append(Rule("PUT", "/blobs/uploads/", Respond(201)))
    images.write_layout(layout.parent / "other", {"reg.example.com/other:1": images.multi()})
    result, _, code = pushed(layout.parent / "other", front.host)
    assert (result.code, code) == (9, "digest_not_preserved")


def test_a_sync_into_a_registry_that_alters_manifests_is_exit_9(
    registry: StrictRegistry, proxy: Front, tmp_path: Path, single: images.Graph
) -> None:
    images.push(registry, "app", "1", single)
    wrong = Respond(200, {"Content-Type": single.root_media_type}, altered(single.raw))
    front = proxy(
        registry,
        SILENT,
        Rule("GET", "/copy/manifests/1", Respond(404), nth=1),
        Rule("GET", "/copy/manifests/1", wrong),
    )
    (tmp_path / "sync.yaml").write_text(
        f"mirrors:\n  - {{from: {registry.host}/app, to: {front.host}/copy}}\n"
    )
    assert ocimirror("sync", tmp_path / "sync.yaml").code == 9


# --- sha512 --------------------------------------------------------------------------------------


@pytest.fixture
def sha512(tmp_path: Path) -> images.Graph:
    graph = images.sha512_root()
    images.write_layout(tmp_path / "sha512", {"reg.example.com/app:1": graph})
    return graph


@pytest.mark.parametrize("command", ["push", "copy"])
def test_a_sha512_root_is_found_by_its_digest_after_a_push(
    command: str, sha512: images.Graph, registry: StrictRegistry, tmp_path: Path
) -> None:
    _, status, _ = pushed(tmp_path / "sha512", registry.host, command=command)
    assert status == "copied"
    assert registry.get_manifest("app", sha512.root) == sha512.raw
    assert registry.get_manifest("app", "1") == sha512.raw
    puts = [s.path.rpartition("/")[2] for s in registry.requests if s.method == "PUT"]
    assert puts[-2:] == [sha512.root, "1"]
    assert pushed(tmp_path / "sha512", registry.host, command=command)[1] == "unchanged"
    seen = ocimirror("verify", f"docker://{registry.host}/app@{sha512.root}", "--deep")
    assert seen.code == 0, seen.stdout


@pytest.mark.parametrize("command", ["push", "copy"])
def test_a_registry_without_sha512_is_exit_9_and_its_tag_stays(
    command: str,
    sha512: images.Graph,
    docker_registry: Registry,
    repository: str,
    tmp_path: Path,
) -> None:
    host = f"{docker_registry.host}/{repository}"
    result, status, code = pushed(tmp_path / "sha512", host, command=command)
    assert (result.code, status, code) == (9, "failed", "digest_not_preserved")
    assert sha512.root in result.document["images"][0]["error"]["message"]
    # The same bytes under the tag, known by sha256 only, do not make it "unchanged".
    docker_registry.put_manifest(f"{repository}/app", "1", sha512.raw, sha512.root_media_type)
    result, status, _ = pushed(tmp_path / "sha512", host, command=command)
    assert (result.code, status) == (9, "failed")


@pytest.mark.parametrize("stated", [{}, {"Docker-Content-Digest": "sha256:" + "0" * 64}])
def test_a_mount_that_brings_nothing_is_no_mount(
    stated: dict[str, str], single: images.Graph, registry: StrictRegistry, proxy: Front
) -> None:
    images.push(registry, "app", "1", single)
    front = proxy(registry, Rule("POST", "mount=", Respond(201, {"Location": "/v2/x", **stated})))

    copied = ocimirror(
        "copy", f"docker://{front.host}/app:1", f"docker://{front.host}/other:1", "--json"
    )

    assert copied.code == 0, copied.stderr
    assert copied.document["images"][0]["blobs"]["mounted"] == 0
    for digest in single.blobs:
        assert registry.has_blob("other", digest)
