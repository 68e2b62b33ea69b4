"""A mirror carries its own record: the lock file and the report, as an artifact."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.journeys.test_sync import offer
from tests.support import images
from tests.support.command import Result, environment, ocimirror
from tests.support.faults import Flip, Respond, Rule, Stall
from tests.support.programs import require_program

pytestmark = pytest.mark.timeout(120)

SINGLE = images.single()
ARTIFACT_TYPE = "application/vnd.ocimirror.lock.v1+json"


@pytest.fixture
def configure(tmp_path: Path, registry, repository: str) -> Path:
    """Write a configuration that mirrors one image into a layout."""
    offer(registry, repository, "1.0", SINGLE)
    file = tmp_path / "sync.yaml"
    file.write_text(
        f"mirrors:\n  - from: {registry.host}/{repository}\n    to: oci:{tmp_path}/layout\n"
    )
    return file


def sync(file: Path, where: object, *options: object, **more: str) -> Result:
    """Run a night that publishes its record."""
    arguments = ("--publish-lock", str(where), *map(str, options), "--json")
    return ocimirror("sync", file, *arguments, env=environment(**more))


def record_of(witness, repository: str, tag: str) -> tuple[dict, dict[str, bytes]]:
    """Return the manifest of a record and its files, as another client reads them."""
    manifest = json.loads(witness.get_manifest(repository, tag))
    files = {}
    for layer in manifest["layers"]:
        content = witness.get_blob(repository, layer["digest"])
        assert f"sha256:{hashlib.sha256(content).hexdigest()}" == layer["digest"]
        files[layer["annotations"]["org.opencontainers.image.title"]] = content
    return manifest, files


def test_the_record_is_an_artifact_with_the_very_bytes(
    docker_registry, configure, repository, tmp_path
) -> None:
    result = sync(configure, f"{docker_registry.host}/{repository}/record:night")
    assert result.code == 0, result.stderr
    manifest, files = record_of(docker_registry, f"{repository}/record", "night")
    assert manifest["artifactType"] == ARTIFACT_TYPE
    assert manifest["config"]["mediaType"] == "application/vnd.oci.empty.v1+json"
    assert files["ocimirror.lock"] == (tmp_path / "sync.lock").read_bytes()
    report = json.loads(files["report.json"])
    assert report == {k: v for k, v in result.document.items() if k != "published"}
    raw = docker_registry.get_manifest(f"{repository}/record", "night")
    assert result.document["published"] == {
        "reference": f"docker://{docker_registry.host}/{repository}/record:night",
        "digest": f"sha256:{hashlib.sha256(raw).hexdigest()}",
        "error": None,
    }


def test_the_next_night_moves_the_tag_and_uploads_the_same_lock_no_second_time(
    registry, configure, repository
) -> None:
    where = f"{registry.host}/{repository}/record"
    assert sync(configure, where).code == 0
    first, files = record_of(registry, f"{repository}/record", "latest")
    result = sync(configure, f"docker://{where}")
    second, again = record_of(registry, f"{repository}/record", "latest")
    assert result.code == 0
    assert again["ocimirror.lock"] == files["ocimirror.lock"]
    assert json.loads(again["report.json"])["images"][0]["status"] == "unchanged"
    assert first["layers"][0] == second["layers"][0]


def test_pull_and_skopeo_read_the_record(docker_registry, configure, repository, tmp_path) -> None:
    where = f"{docker_registry.host}/{repository}:night"
    assert sync(configure, where).code == 0
    pulled = ocimirror("pull", where, tmp_path / "pulled", "--json")
    assert pulled.code == 0, pulled.stderr
    lock = (tmp_path / "sync.lock").read_bytes()
    assert (
        tmp_path / "pulled/blobs/sha256" / hashlib.sha256(lock).hexdigest()
    ).read_bytes() == lock
    skopeo = require_program("skopeo", "skopeo")
    copy = ("copy", "--quiet", "--preserve-digests", "--src-tls-verify=false")
    subprocess.run([skopeo, *copy, f"docker://{where}", f"oci:{tmp_path}/other:night"], check=True)
    index = json.loads((tmp_path / "other/index.json").read_text())
    assert index["manifests"][0]["digest"] == pulled.document["images"][0]["digest"]


@pytest.mark.parametrize("kind", ["tls", "htpasswd", "token"])
def test_the_record_is_published_under_the_rules_of_all_requests(
    kind, request, configure, repository, tmp_path
) -> None:
    """The CA, the password, and a token with the right to push."""
    if kind == "token":
        request.getfixturevalue("token_server")
    there = request.getfixturevalue(f"{kind}_registry")
    options = ["--ca-file", there.ca_file] if there.ca_file else []
    if there.username:
        auth = base64.b64encode(f"{there.username}:{there.password}".encode()).decode()
        (tmp_path / "config.json").write_text(json.dumps({"auths": {there.host: {"auth": auth}}}))
    where = f"{there.host}/{repository}:night"
    result = sync(configure, where, *options, DOCKER_CONFIG=str(tmp_path))
    assert result.code == 0, result.stderr
    (tmp_path / "config.json").unlink(missing_ok=True)
    refused = sync(configure, where, DOCKER_CONFIG=str(tmp_path))
    assert refused.code in (3, 4)
    assert refused.document["published"]["error"]["side"] == "destination"
    assert refused.document["images"][0]["status"] == "unchanged"


def test_a_secret_does_not_follow_an_upload_elsewhere(
    htpasswd_registry, proxy, canary, configure, repository, tmp_path
) -> None:
    elsewhere = canary()
    front = proxy(
        htpasswd_registry,
        Rule("POST", "/blobs/uploads/", Respond(202, {"Location": f"{elsewhere.url}/x?signed=+"})),
    )
    there = htpasswd_registry
    auth = base64.b64encode(f"{there.username}:{there.password}".encode()).decode()
    (tmp_path / "config.json").write_text(json.dumps({"auths": {front.host: {"auth": auth}}}))
    result = sync(configure, f"{front.host}/{repository}:night", DOCKER_CONFIG=str(tmp_path))
    assert result.document["published"]["error"]["code"] == "url_refused"
    assert elsewhere.visits == []


def test_an_upload_location_is_used_as_it_was_given(proxy, registry, configure, repository) -> None:
    """To parse its query and write it again breaks signatures."""
    query = "sig=a+b%2Fc&empty=&sig=d"
    front = proxy(
        registry,
        Rule(
            "POST", "/blobs/uploads/", Respond(202, {"Location": f"/v2/x/blobs/uploads/1?{query}"})
        ),
        Rule("PUT", rf"/uploads/1\?{re.escape(query)}&digest=sha256:", Respond(201)),
    )
    result = sync(configure, f"{front.host}/{repository}/record:night")
    # (Our rule keeps nothing: that is found out, after the PUT to that very location.)
    assert "the upload was accepted" in result.document["published"]["error"]["message"]


ANOTHERS = {
    "Content-Type": images.OCI_MANIFEST,
    "Content-Length": "300",
    "Docker-Content-Digest": f"sha256:{'0' * 64}",
}


@pytest.mark.parametrize(
    ("rule", "code", "error"),
    [
        (Rule("PUT", "/manifests/", Respond(403, {})), 4, "push_rejected"),
        (Rule("PUT", "/manifests/", Respond(503, {})), 3, "registry_unavailable"),
        (Rule("GET", "/blobs/", Flip(5)), 9, "digest_not_preserved"),
        # Somebody else's record has the tag when ours is looked at again.
        (Rule("HEAD", "/manifests/night", Respond(200, ANOTHERS)), 9, "digest_not_preserved"),
    ],
)
def test_a_record_that_was_not_published_undoes_nothing(
    docker_registry, proxy, configure, repository, tmp_path, rule, code, error
) -> None:
    front = proxy(docker_registry, rule)
    where = f"{front.host}/{repository}:night"
    result = sync(configure, where, "--retries", 0)
    assert result.code == code, result.stderr
    assert result.document["published"]["error"]["code"] == error
    assert result.document["images"][0]["status"] == "copied"
    assert "was not published" in result.stderr
    assert SINGLE.root in (tmp_path / "sync.lock").read_text()
    front.rules.clear()
    again = sync(configure, where)
    assert again.code == 0
    assert again.document["images"][0]["status"] == "unchanged"


@pytest.mark.parametrize(
    "where",
    [
        "oci:/tmp/x",
        "oci:mirror",
        "record:night",
        "example.com/{repository}",
        f"example.com/record@{SINGLE.root}",
        "no such",
    ],
)
def test_a_record_is_named_by_a_tag_in_a_registry(configure, where, tmp_path) -> None:
    result = sync(configure, where)
    assert result.code == 2
    assert not (tmp_path / "layout").exists()


def test_a_record_is_not_published_into_what_is_mirrored_from(
    registry, configure, repository, tmp_path
) -> None:
    result = sync(configure, f"{registry.host}/{repository}:1.0")
    assert result.code == 2
    assert registry.get_manifest(repository, "1.0") == SINGLE.raw
    assert not (tmp_path / "layout").exists()


def test_a_dry_run_publishes_nothing(registry, configure, repository) -> None:
    result = sync(configure, f"{registry.host}/{repository}/record:night", "--dry-run")
    assert result.code == 0
    assert "published" not in result.document
    assert registry.tags(repository) == ["1.0"]


def test_after_a_deadline_the_record_is_published_still(
    registry, proxy, configure, repository
) -> None:
    front = proxy(registry, Rule("GET", "/blobs/", Stall(60)))
    configure.write_text(configure.read_text().replace(registry.host, front.host))
    result = sync(configure, f"{registry.host}/{repository}:night", "--deadline", "1s")
    assert result.code == 3
    assert result.document["published"]["error"] is None
    assert registry.has_manifest(repository, "night")


def test_a_record_is_tried_again_as_often_as_the_run_allows(
    docker_registry, proxy, configure, repository
) -> None:
    front = proxy(docker_registry, Rule("PUT", "/blobs/uploads/", Respond(503, {})))
    result = sync(configure, f"{front.host}/{repository}:night", "--retries", 0)
    assert result.document["published"]["error"]["code"] == "registry_unavailable"
    # (An empty config, a lock file and a report.)
    assert front.count("PUT", "/blobs/uploads/") <= 3
