"""Docker's repositories.json: read strictly, added to, and otherwise kept."""

from __future__ import annotations

import json

import pytest

from ocimirror.engines.docker.references import DockerName, DockerReferences, familiar
from ocimirror.errors import DamagedEngineStore, DigestTaken
from ocimirror.model.digest import Digest
from ocimirror.model.reference import Reference

ID, OTHER = Digest.of(b"image"), Digest.of(b"other")
ONE, TWO = Digest.of(b"manifest"), Digest.of(b"index")
APP = "registry.example.com/app"


def document(**names: dict[str, str]) -> bytes:
    return json.dumps({"Repositories": names}, separators=(",", ":")).encode()


def name(text: str, image_id: Digest = ID) -> DockerName:
    return DockerName(Reference.parse(text), image_id)


@pytest.mark.parametrize(
    ("full", "short"),
    [
        ("docker.io/library/alpine:3", "alpine:3"),
        (f"docker.io/library/alpine@{ONE}", f"alpine@{ONE}"),
        ("docker.io/team/app:1", "team/app:1"),
        ("docker.io/library/a/b:1", "library/a/b:1"),
        ("localhost:5000/app:1", "localhost:5000/app:1"),
        ("quay.io/library/app:1", "quay.io/library/app:1"),
    ],
)
def test_a_name_is_written_as_docker_shows_it(full: str, short: str) -> None:
    assert familiar(Reference.parse(full)) == short


def test_digests_are_added_in_the_bytes_that_go_writes() -> None:
    raw = document(alpine={"alpine:3": str(ID)})
    new = DockerReferences.parse(raw, "f").with_digests(
        [name(f"alpine@{TWO}"), name(f"{APP}@{ONE}"), name(f"alpine@{ONE}")]
    )
    digests = dict.fromkeys([f"alpine@{d}" for d in sorted(map(str, (ONE, TWO)))], str(ID))
    expected = {"alpine": {"alpine:3": str(ID), **digests}, APP: {f"{APP}@{ONE}": str(ID)}}
    assert list(expected["alpine"]) == sorted(expected["alpine"])
    assert new == document(**expected)


def test_what_is_not_understood_stays() -> None:
    strange = {"a:1": "no digest", "b@sha256:zz": str(ID), "<&>": str(ID)}
    whole = {"Repositories": {"x": strange}, "Later": {"version": [1, None]}}
    references = DockerReferences.parse(json.dumps(whole).encode(), "f")
    assert references.names == ()
    assert sorted(references.unread) == sorted(strange)
    raw = references.with_digests([name(f"{APP}@{ONE}")])
    new = json.loads(raw)
    assert new["Later"] == whole["Later"]
    assert new["Repositories"]["x"] == strange
    assert rb"\u003c\u0026\u003e" in raw


def test_a_digest_is_never_moved_to_another_image() -> None:
    references = DockerReferences.parse(document(alpine={f"alpine@{ONE}": str(OTHER)}), "f")
    with pytest.raises(DigestTaken) as caught:
        references.with_digests([name(f"docker.io/library/alpine@{ONE}")])
    assert str(OTHER) in caught.value.message
    assert caught.value.exit_code == 9
    broken = DockerReferences.parse(document(alpine={f"alpine@{ONE}": "no digest"}), "f")
    with pytest.raises(DigestTaken):
        broken.with_digests([name(f"alpine@{ONE}")])


def test_a_digest_that_is_there_for_the_same_image_stays() -> None:
    raw = document(alpine={f"alpine@{ONE}": str(ID)})
    references = DockerReferences.parse(raw, "f")
    assert references.image_of(Reference.parse(f"alpine@{ONE}")) == ID
    assert references.with_digests([name(f"alpine@{ONE}")]) == raw


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{}",
        b"[]",
        b'{"Repositories":{}',
        b'{"Repositories":null}',
        b'{"Repositories":[]}',
        b'{"Repositories":{"a":[]}}',
        b'{"Repositories":{"a":{"a:1":1}}}',
        b'{"Repositories":{},"repositories":{}}',
        b'{"Repositories":{},"Repositories":{}}',
        b'{"Repositories":{}} trailing',
        b'\xff{"Repositories":{}}',
    ],
)
def test_another_shape_is_refused(raw: bytes) -> None:
    with pytest.raises(DamagedEngineStore) as caught:
        DockerReferences.parse(raw, "f")
    assert caught.value.exit_code == 5
