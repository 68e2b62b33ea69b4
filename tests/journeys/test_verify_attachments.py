"""verify of one image covers what a pull of it brings: its attachments too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support import images
from tests.support.command import ocimirror
from tests.support.faults import Respond, Rule
from tests.support.proxy import Proxy
from tests.support.registry import StrictRegistry

IMAGE = images.multi()
SIGNATURE = images.with_subject(IMAGE, 1)
ABOUT_IT = images.with_subject(SIGNATURE, 2)
OTHER = images.with_subject(images.single(), 3)
COSIGN = images.artifact()
TAG = IMAGE.root.replace(":", "-")


def blob_of(graph: images.Graph) -> str:
    return max(graph.blobs, key=lambda digest: len(graph.blobs[digest]))


def verified(location: str) -> tuple[int, list[tuple[str, str]], dict[str, Any]]:
    result = ocimirror("verify", location, "--json", "--retries", "0")
    document = result.document
    return result.code, [(f["kind"], f["digest"]) for f in document["faults"]], document


@pytest.mark.parametrize("kind", ["layout", "archive"])
def test_attachments_in_a_layout_are_checked_with_their_image(kind: str, tmp_path: Path) -> None:
    names = {
        "registry.example.com/app:1.0": IMAGE,
        f"registry.example.com/app:{TAG}.sig": COSIGN,
        "registry.example.com/single:1.0": images.single(),
    }
    layout = images.write_layout(tmp_path / "layout", names, [SIGNATURE, ABOUT_IT, OTHER])

    def of(image: str) -> tuple[int, list[tuple[str, str]], dict[str, Any]]:
        if kind == "layout":
            return verified(f"oci:{layout}:registry.example.com/{image}:1.0")
        archive = images.write_archive(tmp_path / "layout.tar", layout)
        return verified(f"oci-archive:{archive}:registry.example.com/{image}:1.0")

    code, faults, document = of("app")
    assert (code, faults) == (0, [])
    assert document["checked"]["attachments"] == 3
    expected = {*IMAGE.manifests, SIGNATURE.root, ABOUT_IT.root, COSIGN.root}
    assert document["checked"]["manifests"] == len(expected)

    for graph, digest in ((ABOUT_IT, blob_of(ABOUT_IT)), (COSIGN, blob_of(COSIGN))):
        path = images.blob_path(layout, digest)
        path.write_bytes(path.read_bytes()[::-1])
        assert of("app")[:2] == (5, [("corrupt", digest)])
        assert of("single")[:2] == (0, [])
        path.write_bytes(graph.blobs[digest])
    path = images.blob_path(layout, OTHER.root)
    path.write_bytes(path.read_bytes()[::-1])
    code, faults, document = of("app")
    assert (code, faults) == (0, [])
    assert f"{OTHER.root} cannot be read; it may be an attachment" in str(document["notes"])


def test_attachments_at_a_registry_are_checked_with_their_image(
    registry: StrictRegistry, proxy: Callable[..., Proxy]
) -> None:
    images.push(registry, "app", "1.0", IMAGE)
    for graph in (SIGNATURE, ABOUT_IT):
        images.push(registry, "app", None, graph)
    front = proxy(registry)
    location = f"docker://{front.host}/app:1.0"
    code, faults, document = verified(location)
    assert (code, faults, document["checked"]["attachments"]) == (0, [], 2)

    front.rules[:] = [Rule("HEAD|GET", f"/blobs/{blob_of(ABOUT_IT)}", Respond(404))]
    assert verified(location)[:2] == (5, [("missing", blob_of(ABOUT_IT))])
    front.rules[:] = [Rule("HEAD|GET", f"/manifests/{SIGNATURE.root}", Respond(404))]
    assert verified(location)[:2] == (5, [("missing", SIGNATURE.root)])
    front.rules[:] = [Rule("GET", "/referrers/", Respond(500))]
    code, faults, document = verified(location)
    assert (code, {kind for kind, _ in faults}) == (3, {"unreadable"})
    assert "what refers to" in document["faults"][0]["message"]


def test_a_false_claim_of_a_registry_is_a_note(
    registry: StrictRegistry, proxy: Callable[..., Proxy]
) -> None:
    images.push(registry, "app", "1.0", IMAGE)
    images.push(registry, "app", None, OTHER)
    index = {"schemaVersion": 2, "mediaType": images.OCI_INDEX, "manifests": [OTHER.descriptor]}
    answer = Respond(200, {"Content-Type": images.OCI_INDEX}, images.compact(index))
    front = proxy(registry, Rule("GET", f"/referrers/{IMAGE.root}", answer))

    code, faults, document = verified(f"docker://{front.host}/app:1.0")

    assert (code, faults, document["checked"]["attachments"]) == (0, [], 0)
    assert any(OTHER.root in note for note in document["notes"])
