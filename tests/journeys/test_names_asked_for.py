"""What a name or digest stands for: one image, or an error that says what there is."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import images
from tests.support.command import ocimirror
from tests.support.faults import Respond, Rule
from tests.support.proxy import Proxy
from tests.support.registry import StrictRegistry, run_registry

IMAGE = images.single()
IMAGE_ID = json.loads(IMAGE.raw)["config"]["digest"]


# (The registry would look for a config's child in its key `config`.)
CONFIG = images.compact({"os": "linux", "rootfs": {"type": "layers", "diff_ids": []}})


@pytest.fixture
def here(tmp_path: Path) -> Iterator[StrictRegistry]:
    """Run a registry with one image, which gives a config as a manifest too."""
    (tmp_path / "here").mkdir()
    with run_registry(tmp_path / "here") as registry:
        images.push(registry, "app", "1.0", IMAGE)
        registry.put_manifest("app", images.digest_of(CONFIG), CONFIG, "application/octet-stream")
        registry.put_manifest("app", "config", CONFIG, images.OCI_CONFIG)
        yield registry


@pytest.mark.parametrize("command", ["copy", "inspect", "verify"])
def test_an_image_id_is_not_an_image(command: str, here: StrictRegistry, tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    assert ocimirror("pull", f"{here.host}/app:1.0", layout).code == 0
    with tarfile.open(tmp_path / "image.tar", "w") as tar:
        for name in ("oci-layout", "index.json", "blobs"):
            tar.add(layout / name, name)
    target = [f"oci:{tmp_path}/other:team/app:1"] if command == "copy" else []

    for place in (
        f"oci:{layout}:@{IMAGE_ID}",
        f"oci-archive:{tmp_path}/image.tar:@{IMAGE_ID}",
        f"docker://{here.host}/app@{images.digest_of(CONFIG)}",
        f"docker://{here.host}/app:config",
    ):
        done = ocimirror(command, place, *target)
        assert done.code == 4, (place, done.stdout, done.stderr)
        assert "is an image ID" in done.stderr


def test_two_images_of_one_name_are_listed_by_digest(tmp_path: Path) -> None:
    name, other = "reg.example.com/app:1", images.multi()
    layout = images.write_layout(tmp_path / "layout", {name: IMAGE, "x.example.com/y:1": other})
    index = json.loads((layout / "index.json").read_bytes())
    index["manifests"][1]["annotations"] = index["manifests"][0]["annotations"]
    (layout / "index.json").write_text(json.dumps(index))

    asked = ocimirror("copy", f"oci:{layout}:{name}", f"oci:{tmp_path}/other")

    assert asked.code == 2
    for root in (IMAGE.root, other.root):
        assert f"@{root}" in asked.stderr
        # The advice helps: the digest's one name is kept.
        target = tmp_path / root[-8:]
        assert ocimirror("copy", f"oci:{layout}:@{root}", f"oci:{target}").code == 0
        assert name in ocimirror("list", target).stdout


def test_a_name_with_a_digest_is_found_and_compared(tmp_path: Path) -> None:
    name = "reg.example.com:5000/app:1"
    layout = images.write_layout(
        tmp_path / "layout", {name: IMAGE, "reg.example.com:5000/app:2": images.multi()}
    )

    right = ocimirror("copy", f"oci:{layout}:{name}@{IMAGE.root}", f"oci:{tmp_path}/out")
    wrong = ocimirror("copy", f"oci:{layout}:{name}@{images.multi().root}", f"oci:{tmp_path}/no")

    assert right.code == 0, right.stderr
    assert name in ocimirror("list", tmp_path / "out").stdout
    assert wrong.code == 4
    assert IMAGE.root in wrong.stderr


def test_a_tag_beside_a_digest_is_compared_and_the_digest_is_read(
    here: StrictRegistry, proxy: Callable[..., Proxy], tmp_path: Path
) -> None:
    """As docker, podman and crane read it; but the tag is what is written, so there is a note."""
    images.push(here, "app", "2.0", images.multi())
    refused = [Rule(method, "/manifests/secret", Respond(403)) for method in ("HEAD", "GET")]
    front = proxy(here, *refused)
    layout = tmp_path / "layout"
    for tag, note in {
        "1.0": "",
        "2.0": f"tag 2.0 is {images.multi().root} at the source now; {IMAGE.root} was read",
        "gone": f"tag gone does not exist at the source; {IMAGE.root} was read",
        "secret": "tag secret at the source was not compared: ",
    }.items():
        name = f"{front.host}/app:{tag}"
        done = ocimirror("pull", f"{name}@{IMAGE.root}", layout, "--json")
        assert done.code == 0, done.stderr
        (image,) = done.document["images"]
        assert image["digest"] == IMAGE.root
        notes = image.get("notes", [])
        assert [text.startswith(note) for text in notes] == [True] * bool(note), (tag, notes)
        assert f"{name} " in ocimirror("list", layout).stdout


def test_one_pull_gives_one_name_one_digest(here: StrictRegistry, tmp_path: Path) -> None:
    images.push(here, "app", "2.0", images.multi())
    layout, name, other = tmp_path / "layout", f"{here.host}/app:1.0", images.multi().root

    two = ocimirror("pull", f"{name}@{IMAGE.root}", f"{name}@{other}", layout)
    moved = ocimirror("pull", name, f"{name}@{other}", layout, "--json")
    same = ocimirror("pull", name, f"{name}@{IMAGE.root}", tmp_path / "same")

    assert two.code == 2
    assert IMAGE.root in two.stderr
    assert other in two.stderr
    assert moved.code == 4
    assert [image["status"] for image in moved.document["images"]] == ["failed", "copied"]
    assert other in ocimirror("list", layout).stdout
    assert same.code == 0, same.stderr


@pytest.mark.parametrize("archive", [False, True], ids=["layout", "archive"])
def test_an_image_without_a_name_is_an_image_too(archive: bool, tmp_path: Path) -> None:
    """One image is wanted, and there are two: that the one has no name chooses none."""
    name, other = "reg.example.com/app:1", images.multi()
    layout = images.write_layout(tmp_path / "layout", {name: IMAGE}, [other])
    place: Path = layout
    if archive:
        place = images.write_archive(tmp_path / "image.tar", layout)
    scheme = "oci-archive" if archive else "oci"

    for command in (
        ("copy", f"{scheme}:{place}", f"oci:{tmp_path}/out"),
        ("copy", f"{scheme}:{place}", f"docker-archive:{tmp_path}/out.tar"),
        ("inspect", f"{scheme}:{place}"),
    ):
        done = ocimirror(*command)
        assert done.code == 2, (command, done.stdout, done.stderr)
        assert name in done.stderr
        assert f"@{other.root}" in done.stderr
    assert not list(tmp_path.glob("out*"))

    # Of a command that takes every image with a name, the other is left out with a word.
    pushed = ocimirror("push", layout, "127.0.0.1:1", "--dry-run", "--retries=0")
    assert f"{other.root} has no name and is left out" in pushed.stderr


def test_what_belongs_to_an_image_is_no_other_image(tmp_path: Path) -> None:
    """Tools that write an entry for each child of an index (oras), and for each referrer."""
    index = images.multi()
    layout = images.write_layout(
        tmp_path / "layout", {"reg.example.com/app:1": index}, [images.with_subject(index)]
    )
    document = json.loads((layout / "index.json").read_bytes())
    children = json.loads(index.raw)["manifests"]
    keys = ("mediaType", "digest", "size")
    document["manifests"] += [{key: child[key] for key in keys} for child in children]
    (layout / "index.json").write_text(json.dumps(document))

    done = ocimirror("copy", f"oci:{layout}", f"oci:{tmp_path}/out", "--json")
    pushed = ocimirror("push", layout, "127.0.0.1:1", "--dry-run", "--retries=0")

    assert done.code == 0, done.stderr
    assert done.document["images"][0]["digest"] == index.root
    assert "has no name" not in pushed.stderr


def test_a_list_of_referrers_with_a_full_name_is_no_image(tmp_path: Path) -> None:
    """As skopeo writes names: all of it in `ref.name`."""
    name, signature = "reg.example.com/app:1", images.with_subject(IMAGE)
    layout = images.write_layout(tmp_path / "layout", {name: IMAGE}, [signature])
    builder = images.Builder()
    entry = builder.index([signature.descriptor])
    blobs = layout / "blobs" / "sha256"
    encoded = entry["digest"].removeprefix("sha256:")
    (blobs / encoded).write_bytes(builder.manifests[entry["digest"]][1])
    key = "org.opencontainers.image.ref.name"
    listed = f"reg.example.com/app:{IMAGE.root.replace(':', '-')}"
    document = json.loads((layout / "index.json").read_bytes())
    document["manifests"] = [
        {**IMAGE.descriptor, "annotations": {key: name}},
        {**entry, "annotations": {key: listed}},
    ]
    (layout / "index.json").write_text(json.dumps(document))

    assert [line.split()[0] for line in ocimirror("list", layout).stdout.splitlines()] == [name]
    copied = ocimirror("copy", f"oci:{layout}", f"oci:{tmp_path}/out", "--json")
    assert copied.code == 0, copied.stderr
    assert copied.document["images"][0]["referrers"]
    shown = ocimirror("inspect", f"oci:{layout}:{name}", "--json")
    types = [item["artifact_type"] for item in shown.document["referrers"]]
    assert types == [json.loads(signature.raw).get("artifactType") or images.OCI_CONFIG]
    assert ocimirror("remove", layout, name).code == 0
    assert ocimirror("gc", layout, "--grace", "0s").code == 0
    assert list(blobs.iterdir()) == []


def test_an_image_that_gets_its_first_name_has_no_other_entry(tmp_path: Path) -> None:
    layout = images.write_layout(tmp_path / "layout", {}, [IMAGE])
    assert ocimirror("tag", layout, IMAGE.root, "reg.example.com/app:1").code == 0
    lines = ocimirror("list", layout).stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["reg.example.com/app:1"]
    assert ocimirror("remove", layout, "reg.example.com/app:1").code == 0
    assert ocimirror("list", layout).stdout == ""


def test_a_repository_with_a_digest_finds_the_image_by_any_tag(tmp_path: Path) -> None:
    layout = images.write_layout(
        tmp_path / "layout", {"docker.io/library/app:1": IMAGE, "reg.example.com/b:1": IMAGE}
    )

    assert ocimirror("inspect", f"oci:{layout}:app@{IMAGE.root}").code == 0
    assert ocimirror("inspect", f"oci:{layout}:reg.example.com/b@{IMAGE.root}").code == 0
    assert ocimirror("inspect", f"oci:{layout}:reg.example.com/c@{IMAGE.root}").code == 4
    assert ocimirror("inspect", f"oci:{layout}:app@{images.multi().root}").code == 4


@pytest.mark.parametrize("indexes", [7, 8])
def test_indexes_nested_too_deep_are_refused_by_every_command(
    indexes: int, here: StrictRegistry, tmp_path: Path
) -> None:
    graph, name = images.deep_index(indexes), "reg.example.com/app:1"
    layout = images.write_layout(tmp_path / "layout", {name: graph})
    damaged = images.write_layout(tmp_path / "damaged", {name: graph})
    images.blob_path(damaged, next(iter(graph.blobs))).unlink()
    images.push(here, "deep", "1", graph)
    (tmp_path / "sync.yaml").write_text(
        f"mirrors:\n  - from: {here.host}/deep\n    to: oci:{tmp_path}/synced\n"
    )
    wanted = 0 if indexes == 7 else 5
    source = f"oci:{layout}:{name}"

    for command in (
        ("verify", layout),
        ("verify", f"docker://{here.host}/deep:1"),
        ("inspect", source),
        ("gc", layout, "--dry-run"),
        ("repair", damaged, "--from", layout),
        ("sync", tmp_path / "sync.yaml"),
        ("push", layout, f"{here.host}/pushed"),
        ("copy", source, f"oci:{tmp_path}/out"),
        ("copy", source, f"oci-archive:{tmp_path}/out.tar", "--profile", "docker"),
        ("copy", source, f"docker-archive:{tmp_path}/docker.tar"),
    ):
        done = ocimirror(*command)
        assert done.code == wanted, (command, done.stderr)
        assert ("nested deeper" in done.stderr + done.stdout) is bool(wanted), command
    listed = ocimirror("list", layout, "--json").document["images"][0]
    assert ("nested deeper" in str(listed["fault"])) is bool(wanted)


@pytest.mark.parametrize("attached", ["tag", "subject"])
def test_the_root_is_named_after_what_refers_to_it(
    attached: str, here: StrictRegistry, proxy: Callable[..., Proxy], tmp_path: Path
) -> None:
    """Whoever finds the tag finds the signatures: a run that ends between leaves no tag."""
    if attached == "tag":
        signature, name = images.multi(), f"{IMAGE.root.replace(':', '-')}.sig"
        images.push(here, "app", name, signature)
    else:
        signature = images.with_subject(IMAGE)
        name = signature.root
        images.push(here, "app", None, signature)
    with run_registry(tmp_path) as there:
        put = f"/manifests/{name}"
        front = proxy(there, Rule("PUT", put, Respond(403)))

        done = ocimirror(
            "copy", f"docker://{here.host}/app:1.0", f"docker://{front.host}/mirror:1.0"
        )
        assert done.code == 4, done.stderr
        assert there.tags("mirror") == []
