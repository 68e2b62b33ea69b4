"""Content of a type that is generic, unknown or forgotten comes along whole, or says that not."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ocimirror import Layout, NotFound
from tests.support import images
from tests.support.command import Result, ocimirror
from tests.support.faults import Rule, SetHeader
from tests.support.proxy import Proxy
from tests.support.registry import StrictRegistry, run_registry

IMAGE = images.single()
UNKNOWN = "application/vnd.example.thing.v1+json"
OCI_ARTIFACT = "application/vnd.oci.artifact.manifest.v1+json"
ORAS_ARTIFACT = "application/vnd.cncf.oras.artifact.manifest.v1+json"
Start = Callable[..., Proxy]


@pytest.fixture
def here(tmp_path: Path) -> Iterator[StrictRegistry]:
    """Run a registry."""
    (tmp_path / "here").mkdir()
    with run_registry(tmp_path / "here") as registry:
        yield registry


def pull(host: str, layout: Path, *options: str) -> dict[str, object]:
    result = ocimirror("pull", f"{host}/app:1.0", layout, "--json", *options)
    assert result.code == 0, result.stderr
    return dict(result.document["images"][0])


def collect(layout: Path) -> Result:
    """Remove whatever nothing needs, at once."""
    ocimirror("gc", layout, "--grace", "0s", "--json")
    return ocimirror("gc", layout, "--grace", "0s", "--json")


def thing(*members: dict[str, object], **more: object) -> bytes:
    return images.compact({"deep": {"list": [{"x": member} for member in members]}, **more})


@pytest.mark.parametrize(
    "media_type",
    [
        "binary/octet-stream",
        "application/octet-stream",
        "text/json",
        UNKNOWN,
        "Application/Vnd.OCI.Image.Manifest.v1+JSON",
        f"{images.OCI_MANIFEST}; charset=utf-8",
    ],
)
def test_a_root_is_what_its_bytes_say(
    media_type: str, here: StrictRegistry, proxy: Start, tmp_path: Path
) -> None:
    images.push(here, "app", "1.0", IMAGE)
    front = proxy(here, Rule("GET", "/manifests/", SetHeader("Content-Type", media_type)))

    pulled = pull(front.host, tmp_path / "layout")

    assert (pulled["media_type"], pulled["carried"]) == (images.OCI_MANIFEST, "closure")
    for digest in IMAGE.contents:
        assert images.blob_path(tmp_path / "layout", digest).exists()


def test_what_an_unknown_type_names_comes_along_and_stays(
    here: StrictRegistry, tmp_path: Path
) -> None:
    images.push(here, "app", None, IMAGE)
    data = here_blob(here, b"data of a thing")
    inner = thing(data)
    here.put_manifest("app", images.digest_of(inner), inner, UNKNOWN)
    gone = images.describe(b"never there", "text/plain")
    subject = images.describe(b"not carried", images.OCI_MANIFEST)
    raw = thing(IMAGE.descriptor, images.describe(inner, UNKNOWN), gone, subject=subject)
    here.put_manifest("app", "1.0", raw, UNKNOWN)
    layout, wanted = tmp_path / "layout", {**IMAGE.contents}
    wanted |= {images.digest_of(c): c for c in (b"data of a thing", inner, raw)}

    pulled = pull(here.host, layout)
    assert ocimirror("verify", layout).code == 0
    collected = collect(layout)
    pushed = ocimirror("push", layout, f"{here.host}/mirror", "--json")

    assert (pulled["carried"], pulled["digest"]) == ("closure", images.digest_of(raw))
    assert gone["digest"] in str(pulled["notes"])
    assert subject["digest"] not in str(pulled["notes"])
    assert collected.code == 0
    for digest, content in wanted.items():
        assert images.blob_path(layout, digest).read_bytes() == content
    assert pushed.code == 0, pushed.stderr
    again = tmp_path / "again"
    name = pushed.document["images"][0]["destination"]
    assert ocimirror("copy", name, f"oci:{again}").code == 0
    for digest, content in wanted.items():
        assert images.blob_path(again, digest).read_bytes() == content


def here_blob(registry: StrictRegistry, data: bytes) -> dict[str, object]:
    registry.put_blob("app", data)
    return images.describe(data, "application/x-data")


def test_verify_finds_what_an_unknown_type_names_damaged(
    here: StrictRegistry, tmp_path: Path
) -> None:
    raw = thing(here_blob(here, b"data of a thing"))
    here.put_manifest("app", "1.0", raw, UNKNOWN)
    pull(here.host, tmp_path / "layout")
    path = images.blob_path(tmp_path / "layout", images.digest_of(b"data of a thing"))

    for damage in (b"data of a thinG", b"data"):
        path.chmod(0o644)
        path.write_bytes(damage)
        assert ocimirror("verify", tmp_path / "layout").code == 5


def test_every_command_follows_an_unknown_type(here: StrictRegistry, tmp_path: Path) -> None:
    """What it names is shown, fetched again if it is damaged, mirrored, and noted if absent."""
    images.push(here, "app", None, IMAGE)
    leaf = here_blob(here, b"data of a thing")
    inner = thing(leaf)
    here.put_manifest("app", images.digest_of(inner), inner, UNKNOWN)
    raw = thing(IMAGE.descriptor, images.describe(inner, UNKNOWN))
    here.put_manifest("app", "1.0", raw, UNKNOWN)
    (tmp_path / "sync.yaml").write_text(
        f"mirrors:\n  - from: {here.host}/app\n    to: oci:{tmp_path}/layout\n"
    )
    layout, lost = tmp_path / "layout", images.blob_path(tmp_path / "layout", leaf["digest"])

    assert ocimirror("sync", tmp_path / "sync.yaml").code == 0
    shown = [
        ocimirror("inspect", where, "--json").document
        for where in (f"docker://{here.host}/app:1.0", f"oci:{layout}")
    ]
    lost.write_bytes(b"data of a thinG")
    repaired = ocimirror("repair", layout)
    mended = lost.read_bytes()
    lost.unlink()
    verified = ocimirror("verify", layout, "--json")

    for document in shown:
        first, second = document["manifests"]
        assert (first["digest"], second["digest"]) == (IMAGE.root, images.digest_of(inner))
        assert [blob["digest"] for blob in second["blobs"]] == [leaf["digest"]]
    assert (repaired.code, mended) == (0, b"data of a thing")
    assert (verified.code, verified.document["faults"]) == (0, [])
    assert leaf["digest"] in str(verified.document["notes"])


def test_beside_an_unknown_child_there_is_one_image(tmp_path: Path) -> None:
    """It says no platform, and is nothing that an engine could run."""
    name = "reg.example.com/app:1"
    layout = images.write_layout(tmp_path / "layout", {name: images.unknown_child()})

    done = ocimirror("copy", f"oci:{layout}:{name}", f"docker-archive:{tmp_path}/app.tar")

    assert done.code == 0, done.stderr


@pytest.mark.parametrize("raw", [b"no json", b'{"a": 1}', b"[]"])
def test_what_names_nothing_is_carried_alone_and_says_so(
    raw: bytes, here: StrictRegistry, tmp_path: Path
) -> None:
    here.put_manifest("app", "1.0", raw, UNKNOWN)

    pulled = pull(here.host, tmp_path / "layout")

    assert pulled["carried"] == "alone"
    assert "is carried alone" in str(pulled["notes"])


def test_what_an_older_version_carried_alone_is_completed(
    here: StrictRegistry, tmp_path: Path
) -> None:
    raw = thing(here_blob(here, b"data of a thing"))
    here.put_manifest("app", "1.0", raw, UNKNOWN)
    pull(here.host, tmp_path / "layout")
    path = images.blob_path(tmp_path / "layout", images.digest_of(b"data of a thing"))
    path.unlink()

    pull(here.host, tmp_path / "layout")

    assert path.exists()


@pytest.mark.parametrize("media_type", [OCI_ARTIFACT, ORAS_ARTIFACT])
def test_an_artifact_manifest_is_read(
    media_type: str, here: StrictRegistry, tmp_path: Path
) -> None:
    images.push(here, "app", "1.0", IMAGE)
    document = {
        "mediaType": media_type,
        "artifactType": "application/x-sbom",
        "blobs": [here_blob(here, b"an sbom")],
        "subject": IMAGE.descriptor,
    }
    raw = images.compact(document)
    here.put_manifest("app", images.digest_of(raw), raw, media_type)
    here.put_manifest("app", "alone", raw, media_type)

    pulled = pull(here.host, tmp_path / "layout")
    copied = ocimirror("copy", f"docker://{here.host}/app:alone", f"oci:{tmp_path}/alone", "--json")

    assert (pulled["referrers"], pulled["left_out"]) == (1, [])
    for layout in (tmp_path / "layout", tmp_path / "alone"):
        for content in (raw, b"an sbom"):
            assert images.blob_path(layout, images.digest_of(content)).read_bytes() == content
    assert copied.document["images"][0]["carried"] == "closure"
    assert ocimirror("verify", tmp_path / "layout").code == 0


@pytest.mark.parametrize("media_type", ["", "odd", "application/x; q=1", "application/ x"])
def test_layers_have_any_media_type(media_type: str, here: StrictRegistry, tmp_path: Path) -> None:
    document = json.loads(IMAGE.raw)
    document["layers"][0]["mediaType"] = media_type
    raw = images.compact(document)
    for content in IMAGE.blobs.values():
        here.put_blob("app", content)
    here.put_manifest("app", "1.0", raw, images.OCI_MANIFEST)

    pulled = pull(here.host, tmp_path / "layout")

    assert pulled["digest"] == images.digest_of(raw)
    assert ocimirror("verify", tmp_path / "layout").code == 0


def test_one_child_may_be_named_in_two_ways(here: StrictRegistry, tmp_path: Path) -> None:
    images.push(here, "app", None, IMAGE)
    child = IMAGE.descriptor
    children = [
        {**child, "platform": {"os": "linux", "architecture": "amd64"}},
        {**child, "platform": {"os": "linux", "architecture": "arm64"}, "annotations": {"a": "b"}},
        {**child, "mediaType": UNKNOWN},
    ]
    document = {"schemaVersion": 2, "mediaType": images.OCI_INDEX, "manifests": children}
    here.put_manifest("app", "1.0", images.compact(document), images.OCI_INDEX)

    pull(here.host, tmp_path / "layout")

    assert ocimirror("verify", tmp_path / "layout").code == 0


@pytest.mark.parametrize("media_type", ["application/json", "binary/octet-stream", "text/plain"])
def test_schema_1_is_refused_whatever_it_is_announced_as(
    media_type: str, here: StrictRegistry, proxy: Start, tmp_path: Path
) -> None:
    graph = images.schema1()
    here.put_manifest("app", "1.0", graph.raw, graph.root_media_type)
    front = proxy(here, Rule(".*", "/manifests/", SetHeader("Content-Type", media_type)))

    pulled = ocimirror("pull", f"{front.host}/app:1.0", tmp_path / "layout", "--json")

    error = pulled.document["images"][0]["error"]
    assert (pulled.code, error["code"]) == (4, "unsupported")


def test_a_referrer_of_unknown_type_comes_along_by_its_subject(
    here: StrictRegistry, tmp_path: Path
) -> None:
    images.push(here, "app", "1.0", IMAGE)
    blob = here.put_blob("app", b"of the referrer")
    member = {"mediaType": "application/x", "digest": blob, "size": 15}
    raw = thing(member, subject=images.describe(IMAGE.raw, images.OCI_MANIFEST))
    digest = here.put_manifest("app", images.digest_of(raw), raw, UNKNOWN)

    pulled = pull(here.host, tmp_path / "layout")
    assert (pulled["referrers"], pulled["left_out"]) == (1, [])
    for each in (digest, blob):
        assert images.blob_path(tmp_path / "layout", each).exists()

    pushed = ocimirror("push", tmp_path / "layout", f"{here.host}/there", "--json")
    assert pushed.document["images"][0]["referrers"] == 1
    assert here.get_manifest("there/app", digest) == raw


CHILD = images.describe(b"child", images.OCI_MANIFEST)


@pytest.mark.parametrize(
    ("document", "media_type"),
    [
        ({"mediaType": UNKNOWN, "manifests": [CHILD]}, UNKNOWN),
        ({"schemaVersion": 2, "manifests": [CHILD]}, images.OCI_INDEX),
        ({"schemaVersion": 2, "config": CHILD, "layers": []}, images.OCI_MANIFEST),
    ],
)
def test_the_type_of_what_nobody_announced_is_told_by_its_shape(
    tmp_path: Path, document: dict[str, object], media_type: str
) -> None:
    raw = images.compact(document)
    with Layout(images.write_layout(tmp_path, {})) as layout:
        images.blob_path(tmp_path, images.digest_of(raw)).write_bytes(raw)
        assert layout.resolve(images.digest_of(raw)).media_type == media_type


def test_a_document_of_no_shape_is_no_manifest(tmp_path: Path) -> None:
    raw = images.compact({"architecture": "amd64"})
    with Layout(images.write_layout(tmp_path, {})) as layout:
        images.blob_path(tmp_path, images.digest_of(raw)).write_bytes(raw)
        with pytest.raises(NotFound):
            layout.resolve(images.digest_of(raw))
