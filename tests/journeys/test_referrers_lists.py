"""The list of an image's referrers, a tag at registries without the API, is merged, never lost."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import images
from tests.support.command import Result, ocimirror
from tests.support.faults import Respond, Rule
from tests.support.proxy import Proxy
from tests.support.registry import StrictRegistry, run_registry
from tests.support.signed import put_fallback, referrers_at

IMAGE = images.multi()
OURS, THEIRS = images.with_subject(IMAGE, 1), images.with_subject(IMAGE, 2)
TAG = IMAGE.root.replace(":", "-")


@pytest.fixture
def here(tmp_path: Path) -> Iterator[StrictRegistry]:
    """Run a registry without the API that holds an image, its referrer and the list of it."""
    (tmp_path / "here").mkdir()
    with run_registry(tmp_path / "here") as registry:
        registry.options.referrers = False
        images.push(registry, "app", "1.0", IMAGE)
        images.push(registry, "app", None, OURS)
        put_fallback(registry, "app", IMAGE.root, [OURS])
        yield registry


@pytest.fixture
def there(tmp_path: Path) -> Iterator[StrictRegistry]:
    """Run a registry without the API that holds a signature of its own for the same image."""
    (tmp_path / "there").mkdir()
    with run_registry(tmp_path / "there") as registry:
        registry.options.referrers = False
        images.push(registry, "app", "1.0", IMAGE)
        images.push(registry, "app", None, THEIRS)
        put_fallback(registry, "app", IMAGE.root, [THEIRS])
        yield registry


def assert_merged(result: Result, there: StrictRegistry) -> None:
    assert result.code == 0, result.stderr
    assert referrers_at(there, "app", IMAGE.root) == {OURS.root, THEIRS.root}
    assert there.get_manifest("app", OURS.root) == OURS.raw


def listed_layout(directory: Path, named: str) -> Path:
    """Write a layout as regctl does: the referrer is only in an index that the tag names."""
    layout = images.write_layout(directory, {"docker.io/library/app:1.0": IMAGE}, [OURS])
    raw = images.compact(
        {"schemaVersion": 2, "mediaType": images.OCI_INDEX, "manifests": [OURS.descriptor]}
    )
    images.blob_path(layout, images.digest_of(raw)).write_bytes(raw)
    document = json.loads((layout / "index.json").read_bytes())
    annotations = {images.REF_NAME_ANNOTATION: TAG}
    if named:
        annotations[images.IMAGE_NAME_ANNOTATION] = named
    entry = {**images.describe(raw, images.OCI_INDEX), "annotations": annotations}
    document["manifests"] = [document["manifests"][0], entry]
    (layout / "index.json").write_bytes(images.compact(document))
    return layout


@pytest.mark.parametrize("how", ["push", "push --image", "copy", "copy the list"])
@pytest.mark.parametrize("named", ["", f"docker.io/library/app:{TAG}"])
def test_a_layout_that_holds_the_list_as_a_tag_does_not_replace_it(
    named: str, how: str, there: StrictRegistry, tmp_path: Path
) -> None:
    layout = listed_layout(tmp_path / "layout", named)
    name = "docker.io/library/app:1.0"
    target = f"docker://{there.host}/app"

    if how == "copy":
        result = ocimirror("copy", f"oci:{layout}:{name}", f"{target}:1.0", "--json")
    elif how == "copy the list":
        result = ocimirror("copy", f"oci:{layout}:{named or TAG}", f"{target}:{TAG}", "--json")
    else:
        option = ["--image", name] if how == "push --image" else []
        if option and named:
            option += ["--image", named]
        # (a layout names `library/app`)
        pushed = ocimirror("push", layout, f"{there.host}/x", "--json", *option)
        assert pushed.code == 0, pushed.stderr
        assert referrers_at(there, "x/library/app", IMAGE.root) == {OURS.root}
        images.push(there, "x/library/app", None, THEIRS)
        put_fallback(there, "x/library/app", IMAGE.root, [THEIRS])
        result = ocimirror("push", layout, f"{there.host}/x", "--json", "--deep", *option)
        assert result.code == 0, result.stderr
        found = referrers_at(there, "x/library/app", IMAGE.root)
        assert found == {OURS.root, THEIRS.root}
        return

    assert_merged(result, there)
    (image,) = result.document["images"]
    if how == "copy":
        assert image["referrers"] == 1


def test_every_tag_that_a_registry_lists_can_be_copied(
    here: StrictRegistry, there: StrictRegistry
) -> None:
    for tag in json.loads(here.request("GET", "/v2/app/tags/list").body)["tags"]:
        source, target = f"docker://{here.host}/app:{tag}", f"docker://{there.host}/app:{tag}"
        result = ocimirror("copy", source, target, "--json", "--no-referrers")
        assert result.code == 0, result.stderr

    assert_merged(result, there)


def test_every_tag_that_a_registry_lists_can_be_pulled_and_pushed(
    here: StrictRegistry, there: StrictRegistry, tmp_path: Path
) -> None:
    tags = json.loads(here.request("GET", "/v2/app/tags/list").body)["tags"]
    names = [f"{here.host}/app:{tag}" for tag in tags]
    pulled = ocimirror("pull", *names, tmp_path / "layout", "--json", "--no-referrers")
    assert pulled.code == 0, pulled.stderr

    assert_merged(ocimirror("push", tmp_path / "layout", there.host, "--json"), there)


def test_a_list_whose_image_is_not_there_is_still_pushed(
    here: StrictRegistry, there: StrictRegistry, tmp_path: Path
) -> None:
    raw = images.write_layout(tmp_path / "layout", {f"{here.host}/app:{TAG}": OURS}) / "index.json"
    document = json.loads(raw.read_bytes())
    listed = images.compact(
        {"schemaVersion": 2, "mediaType": images.OCI_INDEX, "manifests": [OURS.descriptor]}
    )
    images.blob_path(tmp_path / "layout", images.digest_of(listed)).write_bytes(listed)
    document["manifests"][0].update(images.describe(listed, images.OCI_INDEX))
    raw.write_bytes(images.compact(document))

    assert_merged(ocimirror("push", tmp_path / "layout", there.host, "--json"), there)


@pytest.mark.parametrize("image", [images.single(), images.multi()], ids=["manifest", "index"])
def test_an_image_that_is_called_like_a_list_is_an_image(
    image: images.Graph, there: StrictRegistry, tmp_path: Path
) -> None:
    tag = "sha256-" + "a" * 64
    images.write_layout(tmp_path / "layout", {f"docker.io/library/app:{tag}": image})

    pushed = ocimirror("push", tmp_path / "layout", there.host, "--json")

    assert pushed.code == 0, pushed.stderr
    assert there.get_manifest("library/app", tag) == image.raw


@pytest.mark.parametrize("option", [[], ["--replace-signatures"]])
@pytest.mark.parametrize("image", [images.single(), IMAGE], ids=["manifest", "index"])
def test_an_image_does_not_replace_the_list_of_another(
    image: images.Graph, option: list[str], there: StrictRegistry, tmp_path: Path
) -> None:
    images.write_layout(tmp_path / "layout", {f"docker.io/library/app:{TAG}": image})

    copied = ocimirror(
        "copy", f"oci:{tmp_path}/layout", f"docker://{there.host}/app:{TAG}", "--json", *option
    )

    assert copied.code == 4
    assert referrers_at(there, "app", IMAGE.root) == {THEIRS.root}
    assert copied.document["images"][0]["error"]["code"] == "push_rejected"


@pytest.mark.parametrize("suffix", [".sig", ".att", ".sbom"])
def test_a_cosign_tag_asked_for_by_name_does_not_replace_that_of_the_destination(
    suffix: str, here: StrictRegistry, there: StrictRegistry, tmp_path: Path
) -> None:
    images.push(here, "app", TAG + suffix, images.artifact())
    images.push(there, "app", TAG + suffix, THEIRS)
    source, target = (f"docker://{r.host}/app:{TAG}{suffix}" for r in (here, there))
    assert ocimirror("pull", source.removeprefix("docker://"), tmp_path / "layout").code == 0

    copied = ocimirror("copy", source, target, "--json")
    pushed = ocimirror("push", tmp_path / "layout", there.host, "--json")
    kept = there.get_manifest("app", TAG + suffix)
    replaced = ocimirror("copy", source, target, "--replace-signatures")

    assert (copied.code, pushed.code, replaced.code) == (4, 4, 0)
    assert kept == THEIRS.raw
    assert there.get_manifest("app", TAG + suffix) == images.artifact().raw


@pytest.mark.parametrize("graph", [IMAGE, images.single()], ids=["index", "image"])
def test_a_registry_that_reads_the_tag_as_the_digest_keeps_no_list(
    graph: images.Graph, there: StrictRegistry, proxy: Callable[..., Proxy], tmp_path: Path
) -> None:
    """GitLab does (oras #2148): nothing is written over what it answers, and it is no success."""
    name, tag = "registry.example.com/new:1.0", graph.root.replace(":", "-")
    layout = images.write_layout(tmp_path / "layout", {name: graph}, [images.with_subject(graph)])
    headers = {"Content-Type": graph.root_media_type, "Docker-Content-Digest": graph.root}
    front = proxy(there, Rule("GET|HEAD", f"/manifests/{tag}$", Respond(200, headers, graph.raw)))

    pushed = ocimirror("push", layout, front.host, "--json")
    alone = ocimirror("push", layout, front.host, "--no-referrers")

    error = pushed.document["images"][0]["error"]
    assert (pushed.code, error["code"], alone.code) == (4, "push_rejected", 0)
    assert "--no-referrers" in error["diagnostics"]
    assert there.tags("new") == ["1.0"]


def test_the_list_of_a_sha512_subject_has_half_of_its_digest_in_its_tag(
    there: StrictRegistry, tmp_path: Path
) -> None:
    """Encoded is cut to 64 characters (distribution-spec, referrers tag schema).

    It is asked for by that digest: a tag alone is what the registry calls it, sha256.
    """
    subject = images.sha512_root()
    referrer = images.with_subject(subject)
    name = "registry.example.com/app512:1.0"
    layout = images.write_layout(tmp_path / "layout", {name: subject}, [referrer])
    tag = f"sha512-{subject.root.removeprefix('sha512:')[:64]}"

    assert ocimirror("push", layout, there.host).code == 0
    listed = json.loads(there.get_manifest("app512", tag))["manifests"]
    asked = f"{there.host}/app512:1.0@{subject.root}"
    pulled = ocimirror("pull", asked, tmp_path / "pulled", "--json")
    (again,) = ocimirror("push", layout, there.host, "--json").document["images"]

    assert [each["digest"] for each in listed] == [referrer.root]
    assert pulled.document["images"][0]["referrers"] == 1
    assert images.blob_path(tmp_path / "pulled", referrer.root).exists()
    assert again["status"] == "unchanged"
    index = json.loads((tmp_path / "pulled" / "index.json").read_bytes())["manifests"]
    tags = [entry.get("annotations", {}).get(images.REF_NAME_ANNOTATION) for entry in index]
    assert tags.count(tag) == 1
