"""The words of the model: what is printed parses back, and nothing else gets in."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
import unicodedata
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ocimirror import (
    DamagedLayout,
    Descriptor,
    Digest,
    InvalidReference,
    Layout,
    Location,
    MalformedManifest,
    Manifest,
    OciMirrorError,
    Platform,
    Reference,
    Unsupported,
)
from tests.support import images
from tests.support.stores import manifests_of

ENCODED = st.text("0123456789abcdef", min_size=64, max_size=64)
VERIFIABLE = st.one_of(
    ENCODED.map(lambda hexadecimal: Digest("sha256", hexadecimal)),
    ENCODED.map(lambda hexadecimal: Digest("sha512", hexadecimal * 2)),
)
DIGESTS = st.one_of(
    VERIFIABLE,
    st.builds(
        Digest,
        st.from_regex(r"x[a-z0-9]{1,5}([+._-][a-z0-9]{1,5}){0,2}", fullmatch=True),
        st.from_regex(r"[a-zA-Z0-9=_-]{1,60}", fullmatch=True),
    ),
)
COMPONENT = st.from_regex(r"[a-z0-9]{1,6}((\.|_|__|-{1,3})[a-z0-9]{1,6}){0,2}", fullmatch=True)
HOSTS = st.one_of(
    st.sampled_from(["localhost", "[::1]", "127.0.0.1", "docker.io", "ghcr.io", "a-b.c"]),
    st.from_regex(r"[a-z0-9]{1,5}(-[a-z0-9]{1,5})?\.[a-z]{2,5}", fullmatch=True),
)
REGISTRIES = st.builds(
    lambda host, port: host if port is None else f"{host}:{port}",
    HOSTS,
    st.none() | st.integers(1, 65535),
) | st.just("MYHOST")
TAGS = st.just("") | st.from_regex(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}", fullmatch=True)
REPOSITORIES = st.lists(COMPONENT, min_size=2, max_size=4).map("/".join)
REFERENCES = st.builds(Reference, REGISTRIES, REPOSITORIES, TAGS, st.none() | VERIFIABLE)
PATHS = st.text(min_size=1, max_size=30).filter(lambda path: ":" not in path and "\0" not in path)
LOCATIONS = st.one_of(
    st.builds(lambda reference: Location("docker", reference=reference), REFERENCES),
    st.builds(
        Location,
        st.sampled_from(["oci", "oci-archive"]),
        PATHS,
        st.just("") | REFERENCES.map(str) | TAGS,
    ),
    st.builds(
        lambda scheme, path, digest: Location(scheme, path, digest=digest),
        st.sampled_from(["oci", "oci-archive"]),
        PATHS,
        DIGESTS,
    ),
)
GRAMMAR = re.compile(r"[a-z0-9]+([+._-][a-z0-9]+)*:[a-zA-Z0-9=_-]+", re.ASCII)


@given(DIGESTS)
def test_a_digest_that_is_printed_parses_back(digest: Digest) -> None:
    assert Digest.parse(str(digest)) == digest


@given(REFERENCES)
def test_a_reference_that_is_printed_parses_back(reference: Reference) -> None:
    assert Reference.parse(str(reference)) == reference


@given(LOCATIONS)
@example(Location("oci", "a\nb", digest=Digest("sha256", "0" * 64)))
def test_a_location_that_is_printed_parses_back(location: Location) -> None:
    assert Location.parse(str(location)) == location


@given(st.text(max_size=300))
@example("sha256:" + "a" * 64 + "\n")
@example("sha256:" + "A" * 64)
@example("sha256:" + "٠" * 64)
def test_text_is_a_digest_only_where_the_grammar_says_so(text: str) -> None:
    try:
        digest = Digest.parse(text)
    except InvalidReference:
        return
    assert GRAMMAR.fullmatch(text)
    assert str(digest) == text


@given(DIGESTS)
def test_a_digest_is_one_harmless_path_component_and_needs_no_quoting(digest: Digest) -> None:
    path = PurePosixPath("/layout/blobs") / digest.algorithm / digest.encoded
    assert os.path.normpath(path) == str(path)
    assert len(path.parts) == 5
    assert not set(str(digest)) & set("/\\%?#&\0 \n\r")


@given(st.binary(max_size=200), st.sampled_from(["sha256", "sha512"]))
def test_a_digest_is_that_of_hashlib(content: bytes, algorithm: str) -> None:
    assert str(Digest.of(content, algorithm)) == (
        f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"
    )


@pytest.mark.parametrize("parse", [Reference.parse, Location.parse, Platform.parse])
@given(text=st.text(max_size=80) | st.text("aA0.:/@_-[]", max_size=20))
def test_any_text_is_parsed_or_refused_as_invalid(parse: object, text: str) -> None:
    try:
        parsed = parse(text)  # type: ignore[operator]
    except InvalidReference:
        return
    assert parse(str(parsed)) == parsed  # type: ignore[operator]


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=20,
)


@given(st.dictionaries(st.text(max_size=6), JSON), st.booleans())
def test_json_objects_are_read_as_the_standard_library_reads_them(
    document: dict[str, object], ascii_only: bool
) -> None:
    """What another tool wrote into index.json is there again when a name was added."""
    document |= {"schemaVersion": 2, "manifests": []}
    raw = json.dumps(document, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    (manifest,) = manifests_of(images.artifact_without_layers())
    with tempfile.TemporaryDirectory() as directory:
        index = images.write_layout(Path(directory), {}) / "index.json"
        index.write_bytes(raw)
        try:
            with Layout(directory, write=True, durable=False) as layout:
                layout.tag([("v1", manifest)])
        except (DamagedLayout, MalformedManifest):
            assert index.read_bytes() == raw
            assert re.search(r"[\ud800-\udfff]", json.dumps(document, ensure_ascii=False))
            return
        written = json.loads(index.read_bytes())
    assert len(written.pop("manifests")) == 1
    del document["manifests"]
    assert {key: value for key, value in written.items() if key in document} == document


@given(st.binary(max_size=300) | st.text('{}[]":,\\tf0e+-. ', max_size=60).map(str.encode))
@example(b"")
@example(b"[]")
@example(rb'"\ud800"')
@example(rb'{"\ud800":1}')
@example(b'1,"a":2')
def test_any_bytes_are_json_or_a_malformed_manifest(inner: bytes) -> None:
    for raw in (inner, b'{"schemaVersion":2,"manifests":[],"x":' + inner + b"}"):
        descriptor = Descriptor(images.OCI_INDEX, Digest.of(raw), len(raw), "manifest")
        try:
            Manifest.parse(raw, descriptor)
        except MalformedManifest:
            continue
        assert isinstance(json.loads(raw), dict)


KEYS = st.sampled_from(
    ["schemaVersion", "mediaType", "config", "layers", "manifests", "subject", "annotations"]
)
DESCRIPTORS = st.fixed_dictionaries(
    {
        "mediaType": st.sampled_from(["text/plain", "application/vnd.oci.image.index.v1+json"])
        | JSON,
        "digest": DIGESTS.map(str) | JSON,
        "size": st.integers(-1, 2**63) | JSON,
    },
    optional={"data": JSON, "urls": JSON, "annotations": JSON, "platform": JSON},
)


@given(
    st.dictionaries(KEYS, st.just(2) | DESCRIPTORS | st.lists(DESCRIPTORS, max_size=3) | JSON),
    st.sampled_from(
        [
            "application/vnd.oci.image.index.v1+json",
            "application/vnd.oci.image.manifest.v1+json",
            "application/vnd.docker.distribution.manifest.list.v2+json",
            "application/vnd.docker.distribution.manifest.v2+json",
            "application/vnd.example.unknown",
        ]
    ),
)
def test_any_document_is_a_manifest_or_refused_and_never_a_crash(
    document: dict[str, object], media_type: str
) -> None:
    raw = json.dumps(document).encode()
    descriptor = Descriptor(media_type, Digest.of(raw), len(raw), "manifest")
    try:
        manifest = Manifest.parse(raw, descriptor)
    except (MalformedManifest, Unsupported):
        return
    assert manifest.raw == raw
    for child in (*manifest.manifests, *manifest.blobs):
        assert Digest.parse(str(child.digest)) == child.digest
        assert 0 <= child.size < 2**63


@given(st.text(max_size=60))
@example("\x1b]52;c;ZXZpbA==\x07")
@example("a\u202eb\u2066c\u200d\ufeff\U000e0041")
def test_what_is_printable_cannot_command_a_terminal(text: str) -> None:
    shown = OciMirrorError(text).message
    assert all(_harmless(character) for character in shown)
    assert "\n" not in shown
    assert shown == text or not (text.isascii() and text.isprintable())


@given(st.text(max_size=60), st.text(max_size=60))
def test_an_error_is_one_line_and_its_advice_another(message: str, advice: str) -> None:
    shown = OciMirrorError(message, advice=advice).diagnostics()
    assert shown.count("\n") == (1 if advice else 0)
    assert all(_harmless(character) for character in shown)


def _harmless(character: str) -> bool:
    category = unicodedata.category(character)
    return character == "\n" or not (category[0] == "C" or category in ("Zl", "Zp"))
