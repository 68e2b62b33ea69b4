"""The servers that the other tests stand on are what they say they are."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest
import requests

from tests.support.programs import require_program
from tests.support.registry import StrictRegistry
from tests.support.servers import run_docker_registry
from tests.support.tokenserver import TokenServer, run_token_server
from tests.support.witness import Answer, Registry, WitnessError

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
BODY = bytes(range(256)) * 40
ABSENT = "sha256:" + "0" * 64


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def image(config: str, layer: bytes, **more: object) -> bytes:
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "digest": config, "size": 2},
        "layers": [{"mediaType": LAYER, "digest": sha256(layer), "size": len(layer)}],
        **more,
    }
    return json.dumps(document).encode()


def push_image(registry: Registry, repository: str, tag: str, **more: object) -> bytes:
    config = registry.put_blob(repository, b"{}")
    registry.put_blob(repository, BODY)
    manifest = image(config, BODY, **more)
    registry.put_manifest(repository, tag, manifest, MANIFEST)
    return manifest


# The strict registry, docker-registry, and the witness


def story(registry: Registry, repository: str) -> list[object]:
    """Push, pull and ask about an image; return what came of it."""
    manifest = push_image(registry, repository, "one")
    digest = sha256(manifest)
    registry.put_manifest(repository, "two", manifest, MANIFEST)
    lost = image(ABSENT, BODY)
    path = f"/v2/{repository}"

    def code(answer: Answer) -> str:
        return str(json.loads(answer.body)["errors"][0]["code"])

    part = registry.request("GET", f"{path}/blobs/{sha256(BODY)}", headers={"Range": "bytes=3-9"})
    past = {"Range": f"bytes={len(BODY)}-"}
    typed = {"Content-Type": MANIFEST}
    accept = {"Accept": MANIFEST}
    head = registry.request("HEAD", f"{path}/manifests/two", headers=accept)
    other = registry.request("PUT", f"{path}/manifests/{ABSENT}", body=manifest, headers=typed)
    started = registry.request("POST", f"{path}/blobs/uploads/?mount={digest}&from={repository}2")
    mounted = registry.request(
        "POST", f"/v2/{repository}/x/blobs/uploads/?mount={sha256(BODY)}&from={repository}"
    )
    return [
        registry.get_manifest(repository, "one"),
        registry.get_manifest(repository, digest),
        registry.manifest_answer(repository, "one").headers["Content-Type"],
        registry.get_blob(repository, sha256(BODY)),
        registry.tags(repository),
        registry.tags(f"{repository}/none"),
        registry.has_blob(repository, ABSENT),
        registry.has_blob(f"{repository}/x", sha256(BODY)),
        registry.has_manifest(repository, "three"),
        (head.status, head.headers["Content-Length"], head.headers["Docker-Content-Digest"]),
        (part.status, part.headers["Content-Range"], part.body),
        registry.request("GET", f"{path}/blobs/{sha256(BODY)}", headers=past).status,
        (code(registry.request("GET", f"{path}/manifests/three", headers=accept))),
        (code(registry.request("GET", f"{path}/blobs/{ABSENT}"))),
        (code(registry.request("PUT", f"{path}/manifests/x", body=lost, headers=typed))),
        (other.status, code(other)),
        (started.status, mounted.status),
    ]


def test_the_strict_registry_and_docker_registry_tell_the_same_story(
    registry: StrictRegistry, docker_registry: Registry, repository: str
) -> None:
    assert story(registry, repository) == story(docker_registry, repository)


def test_docker_registry_works_over_tls_with_basic_authentication(tmp_path: Path) -> None:
    with run_docker_registry(tmp_path, tls=True, htpasswd=("u", "p:w"), access_log=True) as secure:
        push_image(secure, "a/b", "v1")
        response = requests.get(f"{secure.url}/v2/a/b/tags/list?n=1", verify=str(secure.ca_file))
        assert response.status_code == 401
        assert secure.accesses() == [("GET", "/v2/a/b/tags/list?n=1", 401)]
        assert secure.tags("a/b") == ["v1"]
        pid = secure.pid
    assert not Path(f"/proc/{pid}").exists()


def test_docker_registry_started_again_on_its_directory_and_port_is_the_same(
    tmp_path: Path,
) -> None:
    with run_docker_registry(tmp_path) as first:
        digest = first.put_blob("a/b", BODY)
    port = int(first.host.rpartition(":")[2])
    with run_docker_registry(tmp_path, port=port) as second:
        assert second.url == first.url
        assert second.get_blob("a/b", digest) == BODY


def test_docker_registry_ends_with_an_interpreter_that_is_killed(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from tests.support.servers import run_docker_registry\n"
        "with run_docker_registry(Path(sys.argv[1])) as registry:\n"
        "    print(registry.host, flush=True); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    require_program("docker-registry", "docker-registry")
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", code, str(tmp_path)]
    run = subprocess.run(command, cwd=root, capture_output=True, check=False, text=True)
    host, port = run.stdout.strip().split(":")
    deadline = time.monotonic() + 5
    with pytest.raises(ConnectionRefusedError):
        while time.monotonic() < deadline:
            with contextlib.suppress(ConnectionResetError):  # (it dies at this moment)
                socket.create_connection((host, int(port))).close()


def test_a_missing_program_skips_with_its_package_and_fails_in_ci(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="Debian package: some-package"):
        require_program("no-such-program", "some-package")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="Debian package: some-package"):
        require_program("no-such-program", "some-package")


# What only the strict registry has


def upload(registry: Registry, repository: str) -> str:
    return registry.request("POST", f"/v2/{repository}/blobs/uploads/").headers["Location"]


def test_chunks_come_in_order_to_the_newest_location(registry: StrictRegistry) -> None:
    first = upload(registry, "a/b")
    patched = registry.request("PATCH", first, body=b"abc", headers={"Content-Range": "0-2"})
    assert (patched.status, patched.headers["Range"]) == (202, "0-2")
    again = registry.request("PATCH", first, body=b"abc", headers={"Content-Range": "0-2"})
    assert again.status == 416
    assert registry.request("PATCH", first, body=b"def").status == 404
    assert registry.request("PATCH", first.partition("?")[0], body=b"def").status == 400
    status = registry.request("GET", first)
    assert (status.status, status.headers["Range"]) == (204, "0-2")
    newest = status.headers["Location"]
    patched = registry.request("PATCH", newest, body=b"def", headers={"Content-Range": "3-5"})
    location = f"{patched.headers['Location']}&digest={sha256(b'abcdefg')}"
    done = registry.request("PUT", location, body=b"g", headers={"Content-Range": "6-6"})
    assert (done.status, done.headers["Docker-Content-Digest"]) == (201, sha256(b"abcdefg"))
    assert registry.get_blob("a/b", sha256(b"abcdefg")) == b"abcdefg"
    assert registry.request("GET", newest).status == 404


def test_an_upload_with_another_digest_is_refused_and_forgotten(registry: StrictRegistry) -> None:
    location = upload(registry, "a/b")
    wrong = registry.request("PUT", f"{location}&digest={sha256(b'x')}", body=b"y")
    assert (wrong.status, json.loads(wrong.body)["errors"][0]["code"]) == (400, "DIGEST_INVALID")
    assert registry.request("GET", location).status == 404
    assert list((registry.directory / "uploads").iterdir()) == []


def test_what_came_of_a_patch_before_its_connection_was_cut_stays(
    registry: StrictRegistry,
) -> None:
    location = upload(registry, "a/b")
    host, port = registry.host.split(":")
    with socket.create_connection((host, int(port))) as connection:
        head = f"PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n"
        connection.sendall(head.encode() + b"abcd")
    deadline = time.monotonic() + 5
    while registry.request("GET", location).headers["Range"] != "0-3":
        assert time.monotonic() < deadline
    done = registry.request("PUT", f"{location}&digest={sha256(b'abcdef')}", body=b"ef")
    assert done.status == 201


def test_a_chunked_body_and_a_sha512_digest_are_accepted(registry: StrictRegistry) -> None:
    digest = registry.put_blob("a/b", BODY, "sha512")
    assert registry.get_blob("a/b", digest) == BODY
    pieces = iter([b"ab", b"c" * 100_000])
    sent = requests.patch(f"{registry.url}{upload(registry, 'a/b')}", data=pieces)
    assert sent.headers["Range"] == "0-100001"
    manifest = image(digest, BODY)
    registry.put_blob("a/b", BODY)
    reference = f"sha512:{hashlib.sha512(manifest).hexdigest()}"
    registry.put_manifest("a/b", reference, manifest, MANIFEST)
    assert registry.get_manifest("a/b", reference) == manifest


def test_options_make_the_registry_refuse(registry: StrictRegistry) -> None:
    manifest = push_image(registry, "a/b", "v1")
    options, path = registry.options, "/v2/a/b"
    digest = sha256(BODY)
    options.mount = options.digest_header = options.delete = options.ranges = False
    options.immutable_tags, options.patch_limit_bytes = True, 4
    mount = registry.request("POST", f"{path}/x/blobs/uploads/?mount={digest}&from=a/b")
    assert mount.status == 202
    assert "Docker-Content-Digest" not in registry.request("HEAD", f"{path}/manifests/v1").headers
    assert registry.request("DELETE", f"{path}/blobs/{digest}").status == 405
    part = registry.request("GET", f"{path}/blobs/{digest}", headers={"Range": "bytes=5-"})
    assert (part.status, part.body) == (200, BODY)
    assert registry.request("PATCH", upload(registry, "a/b"), body=b"12345").status == 416
    with pytest.raises(WitnessError, match="TAG_INVALID"):
        registry.put_manifest("a/b", "v1", manifest, MANIFEST)
    options.basic = ("u", "p")
    answer = registry.request("GET", "/v2/")
    assert (answer.status, answer.headers["WWW-Authenticate"][:5]) == (401, "Basic")
    registry.username, registry.password = "u", "p"
    assert registry.get_manifest("a/b", "v1") == manifest


def test_an_index_needs_its_manifests_unless_sparse_ones_are_accepted(
    registry: StrictRegistry,
) -> None:
    entry = {"mediaType": MANIFEST, "digest": ABSENT, "size": 2}
    index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}).encode()
    with pytest.raises(WitnessError, match=r"404.*MANIFEST_BLOB_UNKNOWN"):
        registry.put_manifest("a/b", "v1", index, INDEX)
    registry.options.sparse = True
    registry.put_manifest("a/b", "v1", index, INDEX)


def test_tags_come_in_pages_that_link_on(registry: StrictRegistry) -> None:
    for name in "edcba":
        registry.put_manifest("a/b", name, b"anything", "application/x-anything")
    page = registry.request("GET", "/v2/a/b/tags/list?n=2&last=b")
    assert json.loads(page.body) == {"name": "a/b", "tags": ["c", "d"]}
    assert page.headers["Link"] == '</v2/a/b/tags/list?n=2&last=d>; rel="next"'
    registry.options.page_size = 2
    assert registry.tags("a/b") == list("abcde")
    registry.delete_manifest("a/b", "c")
    assert registry.tags("a/b") == list("abde")
    registry.delete_manifest("a/b", sha256(b"anything"))
    assert registry.tags("a/b") == []


def test_referrers_are_listed_filtered_and_can_be_switched_off(registry: StrictRegistry) -> None:
    subject = sha256(push_image(registry, "a/b", "v1"))
    config = sha256(b"{}")
    more = {"subject": {"mediaType": MANIFEST, "digest": subject, "size": 1}}
    one = image(config, BODY, artifactType="x/one", annotations={"k": "v"}, **more)
    two = image(config, BODY, **more)
    typed = {"Content-Type": MANIFEST}
    path = f"/v2/a/b/manifests/{sha256(one)}"
    pushed = registry.request("PUT", path, body=one, headers=typed)
    assert pushed.headers["OCI-Subject"] == subject
    registry.put_manifest("a/b", sha256(two), two, MANIFEST)
    answer = registry.request("GET", f"/v2/a/b/referrers/{subject}?artifactType=x/one")
    assert answer.headers["OCI-Filters-Applied"] == "artifactType"
    assert answer.headers["Content-Type"] == INDEX
    described = {"mediaType": MANIFEST, "digest": sha256(one), "size": len(one)}
    described |= {"artifactType": "x/one", "annotations": {"k": "v"}}
    assert json.loads(answer.body)["manifests"] == [described]
    everything = json.loads(registry.request("GET", f"/v2/a/b/referrers/{subject}").body)
    assert sorted(e["artifactType"] for e in everything["manifests"]) == [CONFIG, "x/one"]
    registry.delete_manifest("a/b", sha256(one))
    left = json.loads(registry.request("GET", f"/v2/a/b/referrers/{subject}").body)
    assert [entry["digest"] for entry in left["manifests"]] == [sha256(two)]
    registry.options.referrers = False
    assert registry.request("GET", f"/v2/a/b/referrers/{subject}").status == 404
    off = registry.request("PUT", path, body=one, headers=typed)
    assert (off.status, "OCI-Subject" in off.headers) == (201, False)


def test_requests_are_recorded_but_not_those_of_the_witness(registry: StrictRegistry) -> None:
    registry.tags("a/b")
    requests.get(f"{registry.url}/v2/a/b/tags/list?n=1")
    assert registry.requests == [("GET", "/v2/a/b/tags/list?n=1", 404)]


def test_names_that_could_leave_the_directory_are_refused(registry: StrictRegistry) -> None:
    for path in ("a/%2e%2e/b/tags/list", "a/b/blobs/sha256:..%2f..%2fx", "_x/tags/list"):
        assert registry.request("GET", f"/v2/{path}").status in (400, 404)


def test_the_registry_runs_standalone_and_stops_when_told(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "tests.support.registry", "--directory", str(tmp_path)]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        assert requests.get(f"{url}/v2/").json() == {}
        process.terminate()
        assert process.wait(5) == 0


# Tokens


def test_docker_registry_accepts_the_tokens_until_they_expire(tmp_path: Path) -> None:
    with (
        run_token_server(users={"ada": "p"}, lifetime_s=1) as tokens,
        run_docker_registry(tmp_path, token=tokens, token_user=("ada", "p")) as registry,
    ):
        push_image(registry, "a/b", "v1")
        scopes = {scope for request in tokens.requests for scope in request.scopes}
        # It names the actions in any order.
        assert scopes <= {"repository:a/b:pull,push", "repository:a/b:push,pull"}
        bearer = {"Authorization": f"Bearer {tokens.token('ada', ['repository:a/b:pull'])}"}
        url = f"{registry.url}/v2/a/b/tags/list"
        assert requests.get(url, headers=bearer).json()["tags"] == ["v1"]
        other = {"Authorization": f"Bearer {tokens.token('ada', ['repository:a/c:pull'])}"}
        assert requests.get(url, headers=other).status_code == 401
        time.sleep(2)
        expired = requests.get(url, headers=bearer)
        assert expired.status_code == 401
        assert 'error="invalid_token"' in expired.headers["WWW-Authenticate"]


def test_the_token_registry_asks_for_tokens(
    token_registry: Registry, token_server: TokenServer, repository: str
) -> None:
    push_image(token_registry, repository, "v1")
    assert token_server.requests
    assert all(request.user == "ada" and request.authorized for request in token_server.requests)


@pytest.fixture
def tokens() -> Iterator[TokenServer]:
    with run_token_server(users={"ada": "p"}) as server:
        yield server


def claims(token: str) -> list[dict[str, object]]:
    payload = token.split(".")[1]
    decoded = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return list(decoded["access"])


def test_both_forms_give_tokens_to_those_who_may_have_them(tokens: TokenServer) -> None:
    scope = "repository:a/b:pull,push"
    query = urlencode([("service", "s"), ("scope", scope), ("scope", "repository:c:pull")])
    url = f"{tokens.realm}?{query}"
    assert requests.get(url).status_code == 401
    assert requests.get(url, auth=("ada", "wrong")).status_code == 401
    given = requests.get(url + "&offline_token=true", auth=("ada", "p")).json()
    assert given["expires_in"] == 300
    assert [entry["name"] for entry in claims(given["token"])] == ["a/b", "c"]
    form = {"service": "s", "client_id": "c", "scope": scope}
    password = {**form, "grant_type": "password", "username": "ada", "password": "p"}
    assert claims(requests.post(tokens.realm, password).json()["access_token"])
    for refresh_token in (given["refresh_token"], tokens.identity_token("ada")):
        refresh = {**form, "grant_type": "refresh_token", "refresh_token": refresh_token}
        assert requests.post(tokens.realm, refresh).json()["refresh_token"] == refresh_token
    tokens.users.clear()
    assert requests.post(tokens.realm, refresh).status_code == 401
    tokens.anonymous = True
    (entry,) = claims(requests.get(f"{tokens.realm}?scope={scope}").json()["token"])
    assert entry["actions"] == ["pull"]
    assert tokens.requests[2].parameters["scope"] == [scope, "repository:c:pull"]
    assert [request.status for request in tokens.requests[:4]] == [401, 401, 200, 200]


def test_the_token_server_misbehaves_as_told(tokens: TokenServer) -> None:
    tokens.anonymous, tokens.announce_lifetime = True, False
    assert "expires_in" not in requests.get(tokens.realm).json()
    tokens.refuse_post, tokens.refuse_get = 404, 405
    assert requests.post(tokens.realm, {"grant_type": "password"}).status_code == 404
    assert requests.get(tokens.realm).status_code == 405
    tokens.broken = "html"
    page = requests.get(tokens.realm)
    assert (page.status_code, page.headers["Content-Type"]) == (200, "text/html")
    tokens.broken = "500"
    assert requests.get(tokens.realm).status_code == 500
