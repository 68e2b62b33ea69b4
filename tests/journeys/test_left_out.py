"""An attachment that cannot come along is counted and named; odd answers of the API are read."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import images
from tests.support.command import ocimirror
from tests.support.faults import Respond, Rule, SetHeader
from tests.support.proxy import Proxy
from tests.support.registry import StrictRegistry, run_registry
from tests.support.signed import put_fallback

IMAGE = images.multi()
RIGHT = images.with_subject(IMAGE, 1)
NO_API = [400, 401, 403, 404, 405, 406, 501]
Start = Callable[..., Proxy]


@pytest.fixture
def here(tmp_path: Path) -> Iterator[StrictRegistry]:
    """Run a registry that holds an image with one referrer, and the list of it as a tag."""
    (tmp_path / "here").mkdir()
    with run_registry(tmp_path / "here") as registry:
        images.push(registry, "app", "1.0", IMAGE)
        images.push(registry, "app", None, RIGHT)
        yield registry


def pull(host: str, layout: Path, *options: str, code: int = 0) -> dict[str, object]:
    result = ocimirror("pull", f"{host}/app:1.0", layout, "--json", *options)
    assert result.code == code, result.stderr
    return dict(result.document["images"][0])


@pytest.mark.parametrize(
    "media_type",
    ["application/json", "text/plain; charset=utf-8", "Application/JSON", f"{images.OCI_INDEX}; x"],
)
def test_an_index_is_read_whatever_its_content_type_says(
    media_type: str, here: StrictRegistry, proxy: Start, tmp_path: Path
) -> None:
    front = proxy(here, Rule("GET", "/referrers/", SetHeader("Content-Type", media_type)))

    pulled = pull(front.host, tmp_path / "layout")

    assert (pulled["referrers"], pulled["left_out"], pulled["notes"]) == (1, [], [])
    assert images.blob_path(tmp_path / "layout", RIGHT.root).exists()


@pytest.mark.parametrize("status", NO_API)
def test_without_the_api_the_tag_is_asked_and_odd_answers_are_told(
    status: int, here: StrictRegistry, proxy: Start, tmp_path: Path
) -> None:
    put_fallback(here, "app", IMAGE.root, [RIGHT])
    front = proxy(here, Rule("GET", "/referrers/", Respond(status)))

    pulled = pull(front.host, tmp_path / "layout")

    assert pulled["referrers"] == 1
    assert any(f"answered {status}" in note for note in pulled["notes"]) is (
        status not in (404, 501)
    )


@pytest.mark.parametrize(
    ("media_type", "body"),
    [("text/html", b"<html>sign in</html>"), ("application/json", b"{}"), ("", b"")],
)
def test_a_page_for_people_is_no_empty_list(
    media_type: str, body: bytes, here: StrictRegistry, proxy: Start, tmp_path: Path
) -> None:
    put_fallback(here, "app", IMAGE.root, [RIGHT])
    page = Respond(200, {"Content-Type": media_type}, body)
    front = proxy(here, Rule("GET", "/referrers/", page))

    pulled = pull(front.host, tmp_path / "layout")

    assert pulled["referrers"] == 1
    assert "something else than an index" in str(pulled["notes"])


@pytest.mark.parametrize("status", [410, 418, 500])
def test_any_other_answer_is_an_error(
    status: int, here: StrictRegistry, proxy: Start, tmp_path: Path
) -> None:
    front = proxy(here, Rule("GET", "/referrers/", Respond(status)))

    result = ocimirror("pull", f"{front.host}/app:1.0", tmp_path / "l", "--json", "--retries", "0")

    assert result.code in (3, 4)


def test_what_is_listed_and_absent_false_or_too_deep_is_counted_and_named(
    here: StrictRegistry, proxy: Start, tmp_path: Path
) -> None:
    here.options.referrers = False
    absent, false = images.with_subject(IMAGE, 2), images.with_subject(images.single(), 3)
    images.push(here, "app", None, false)
    images.push(here, "app", None, absent)
    front = proxy(here, Rule("GET", f"/manifests/{absent.root}", Respond(404)))
    put_fallback(here, "app", IMAGE.root, [RIGHT, absent, false])
    last = RIGHT
    for number in range(4):
        deeper = images.with_subject(last, 10 + number)
        images.push(here, "app", None, deeper)
        put_fallback(here, "app", last.root, [deeper])
        last = deeper

    pulled = pull(front.host, tmp_path / "layout")
    said = ocimirror("pull", f"{front.host}/app:1.0", tmp_path / "again")

    left_out = {each["digest"]: each for each in pulled["left_out"]}  # type: ignore[attr-defined]
    assert set(left_out) == {absent.root, false.root, last.root}
    assert left_out[absent.root]["subject"] == IMAGE.root
    assert "subject is another" in left_out[false.root]["reason"]
    assert pulled["referrers"] == 4
    for digest in left_out:
        assert digest in str(pulled["notes"])
        assert f"note: attachment {digest}" in said.stdout
    assert ocimirror("verify", tmp_path / "layout").code == 0


def test_an_attachment_that_is_damaged_is_no_absent_one(
    here: StrictRegistry, tmp_path: Path
) -> None:
    path = here.content_file(RIGHT.root)
    path.write_bytes(path.read_bytes().replace(b"{", b" ", 1))

    assert pull(here.host, tmp_path / "layout", code=5)["status"] == "failed"


def test_an_entry_of_a_layout_that_cannot_be_read_is_told(
    here: StrictRegistry, tmp_path: Path
) -> None:
    layout = images.write_layout(tmp_path / "l", {"docker.io/library/app:1.0": IMAGE}, [RIGHT])
    images.blob_path(layout, RIGHT.root).unlink()

    pushed = ocimirror("push", layout, f"{here.host}/x", "--json")

    (image,) = pushed.document["images"]
    assert RIGHT.root in str(image["notes"])


def test_a_part_of_an_image_that_is_listed_as_its_referrer_stays_a_part(
    here: StrictRegistry, tmp_path: Path
) -> None:
    """The registry says of an index inside the image, and of its child, that they refer to it."""
    here.options.referrers = False
    nested = images.nested_index()
    images.push(here, "app", "1.0", nested)
    parts = [
        images.Graph({}, {digest: each}, digest, each[0])
        for digest, each in nested.manifests.items()
        if digest != nested.root
    ]
    put_fallback(here, "app", nested.root, parts)

    pulled = pull(here.host, tmp_path / "layout")

    assert pulled["status"] == "copied"
    for digest in nested.contents:
        assert images.blob_path(tmp_path / "layout", digest).exists()


def test_every_referrer_is_found_whatever_it_is_called_in_the_layout(
    here: StrictRegistry, tmp_path: Path
) -> None:
    """`oras tag --oci-layout` gives a referrer a name of its own."""
    layout = images.write_layout(tmp_path / "l", {"docker.io/library/app:1.0": IMAGE}, [RIGHT])
    document = json.loads((layout / "index.json").read_bytes())
    document["manifests"][1]["annotations"] = {images.REF_NAME_ANNOTATION: "signature"}
    (layout / "index.json").write_bytes(images.compact(document))
    name = f"oci:{layout}:docker.io/library/app:1.0"

    copied = ocimirror("copy", name, f"docker://{here.host}/copied:1.0", "--json")
    shown = ocimirror("inspect", name, "--json").document

    assert copied.document["images"][0]["referrers"] == 1
    assert here.get_manifest("copied", RIGHT.root) == RIGHT.raw
    assert [each["digest"] for each in shown["referrers"]] == [RIGHT.root]


@pytest.mark.parametrize("single", [True, False])
def test_what_cosign_saved_is_carried_under_cosign_s_tags(
    single: bool, here: StrictRegistry, tmp_path: Path
) -> None:
    image = images.single() if single else IMAGE
    signatures, attestations = images.artifact(), images.artifact_without_layers()
    layout = images.write_layout(tmp_path / "l", {}, [image, signatures, attestations])
    document = json.loads((layout / "index.json").read_bytes())
    kinds = ["image" if single else "imageIndex", "sigs", "atts"]
    for entry, kind in zip(document["manifests"], kinds, strict=True):
        entry["annotations"] = {"kind": f"dev.cosignproject.cosign/{kind}"}
    (layout / "index.json").write_bytes(images.compact(document))

    copied = ocimirror("copy", f"oci:{layout}", f"docker://{here.host}/saved:1.0", "--json")
    pushed = ocimirror("push", layout, here.host, "--json")
    collected = ocimirror("gc", layout, "--grace", "0s")

    assert copied.code == 0, copied.stderr
    assert copied.document["images"][0]["referrers"] == 2
    tag = image.root.replace(":", "-")
    assert here.get_manifest("saved", f"{tag}.sig") == signatures.raw
    assert here.get_manifest("saved", f"{tag}.att") == attestations.raw
    assert pushed.code == 2
    assert "copy oci:" in pushed.stderr + json.dumps(pushed.document)
    assert collected.code == 0
    assert ocimirror("verify", layout).code == 0


def blob_of(graph: images.Graph) -> str:
    """Return a blob that only this graph has."""
    return next(
        digest
        for digest in graph.blobs
        if digest not in IMAGE.blobs and len(graph.blobs[digest]) > 2
    )


@pytest.mark.parametrize("command", ["pull", "copy"])
def test_an_attachment_whose_blob_is_absent_is_left_out_and_the_image_copied(
    command: str, here: StrictRegistry, proxy: Start, tmp_path: Path
) -> None:
    broken = images.with_subject(IMAGE, 2)
    about_it = images.with_subject(broken, 3)
    for graph in (broken, about_it):
        images.push(here, "app", None, graph)
    front = proxy(here, Rule("GET", f"/blobs/{blob_of(broken)}", Respond(404)))
    layout = tmp_path / "layout"
    words = ["pull", f"{front.host}/app:1.0", layout]
    if command == "copy":
        words = ["copy", f"docker://{front.host}/app:1.0", f"docker://{here.host}/copied:1.0"]

    result = ocimirror(*words, "--json")

    assert result.code == 0, result.stderr
    (image,) = result.document["images"]
    assert (image["status"], image["referrers"]) == ("copied", 1)
    left_out = {each["digest"]: each for each in image["left_out"]}
    assert set(left_out) == {broken.root, about_it.root}
    assert left_out[broken.root]["subject"] == IMAGE.root
    assert blob_of(broken) in left_out[broken.root]["reason"]
    assert broken.root in left_out[about_it.root]["reason"]
    assert all(digest in str(image["notes"]) for digest in left_out)
    if command == "pull":
        assert ocimirror("verify", layout).code == 0
        assert not images.blob_path(layout, broken.root).exists()
    else:
        assert here.get_manifest("copied", "1.0") == IMAGE.raw
        assert here.get_manifest("copied", RIGHT.root) == RIGHT.raw


@pytest.mark.parametrize("status", [403, 429, 500])
def test_an_attachment_whose_blob_the_registry_does_not_give_now_is_an_error(
    status: int, here: StrictRegistry, proxy: Start, tmp_path: Path
) -> None:
    front = proxy(here, Rule("GET", f"/blobs/{blob_of(RIGHT)}", Respond(status)))

    result = ocimirror("pull", f"{front.host}/app:1.0", tmp_path / "l", "--json", "--retries", "0")

    assert result.code in (3, 4)
    assert result.document["images"][0]["left_out"] == []


def test_a_blob_that_the_image_needs_too_is_an_error(
    here: StrictRegistry, proxy: Start, tmp_path: Path
) -> None:
    front = proxy(here, Rule("GET", f"/blobs/{next(iter(IMAGE.blobs))}", Respond(404)))

    assert pull(front.host, tmp_path / "layout", code=4)["status"] == "failed"


@pytest.mark.parametrize("body", [b"404 page not found", b'{"errors":[{"code":"UNSUPPORTED"}]}'])
def test_a_registry_without_a_list_of_tags_is_asked_for_cosign_s_tags(
    body: bytes, here: StrictRegistry, proxy: Start, tmp_path: Path
) -> None:
    signature = images.artifact()
    images.push(here, "app", IMAGE.root.replace(":", "-") + ".sig", signature)
    front = proxy(here, Rule("GET", "/tags/list", Respond(404, {}, body)))

    pulled = pull(front.host, tmp_path / "layout")

    assert pulled["referrers"] == 2
    assert images.blob_path(tmp_path / "layout", signature.root).exists()


def test_more_referrers_than_are_read_are_an_error_with_a_way_out(
    here: StrictRegistry, proxy: Start, tmp_path: Path
) -> None:
    listed = [
        {"mediaType": images.OCI_MANIFEST, "size": 1000, "digest": f"sha256:{number:064x}"}
        for number in range(10_001)
    ]
    index = {"schemaVersion": 2, "mediaType": images.OCI_INDEX, "manifests": listed}
    page = Respond(200, {"Content-Type": images.OCI_INDEX}, images.compact(index))
    front = proxy(here, Rule("GET", "/referrers/", page))

    result = ocimirror("pull", f"{front.host}/app:1.0", tmp_path / "layout")

    assert result.code == 5
    assert "more than 10000 referrers" in result.stderr
    assert "--no-referrers" in result.stderr
    pull(front.host, tmp_path / "layout", "--no-referrers")


def test_the_report_of_a_sync_lists_what_was_left_out(
    here: StrictRegistry, proxy: Start, tmp_path: Path
) -> None:
    front = proxy(here, Rule("GET", f"/manifests/{RIGHT.root}", Respond(404)))
    (tmp_path / "sync.yaml").write_text(
        f"mirrors:\n  - from: {front.host}/app\n    to: oci:{tmp_path / 'layout'}\n"
    )

    result = ocimirror("sync", tmp_path / "sync.yaml", "--json")

    assert result.code == 0, result.stderr
    (image,) = result.document["images"]
    (left,) = image["left_out"]
    assert (left["digest"], left["subject"]) == (RIGHT.root, IMAGE.root)
