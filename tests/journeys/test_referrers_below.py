"""What refers to an image is found wherever a layout has it: also as a child of an index."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.journeys.test_referrers_in_layouts import digests, lists_in
from tests.support import images
from tests.support.command import ocimirror
from tests.support.registry import run_registry
from tests.support.servers import run_docker_registry

NAME = "registry.example.com/app:1.0"
OTHER = "registry.example.com/other:1.0"


def reference(subject: str, layout: Path) -> str:
    return f"oci:{layout}:@{subject}"


def referrers(document: dict[str, Any]) -> dict[str, set[str]]:
    """Return what `inspect` says refers to each manifest."""
    found = {document["digest"]: {each["digest"] for each in document["referrers"]}}
    for child in document["manifests"]:
        found |= referrers(child) if child["present"] else {}
    return found


@pytest.mark.parametrize("depth", [0, 2])
def test_a_child_of_an_index_is_found_by_its_subject(depth: int, tmp_path: Path) -> None:
    """Also if the image itself is reached through other indexes only."""
    graph = images.attested(depth=depth)
    layout = images.write_layout(tmp_path / "layout", {NAME: graph, OTHER: images.multi()})
    subject, attestation = next(iter(images.subjects_in(graph).items()))

    shown = ocimirror("inspect", f"oci:{layout}:{NAME}", "--json").document
    alone = ocimirror("inspect", reference(subject, layout), "--json").document

    found = {digest: those for digest, those in referrers(shown).items() if those}
    assert found == {key: {value} for key, value in images.subjects_in(graph).items()}
    assert referrers(alone) == {subject: {attestation}}


def test_a_part_of_an_image_is_copied_with_what_refers_to_it(tmp_path: Path) -> None:
    """The attestation of one platform lies beside it in the index, which is not copied."""
    graph = images.attested()
    layout = images.write_layout(tmp_path / "layout", {NAME: graph})
    archive = images.write_archive(tmp_path / "layout.tar", layout)
    (tmp_path / "r").mkdir()
    with run_docker_registry(tmp_path / "r") as registry:
        for number, source in enumerate((f"oci:{layout}", f"oci-archive:{archive}")):
            subject, attestation = list(images.subjects_in(graph).items())[number]
            target = f"docker://{registry.host}/part{number}:1.0"

            (row,) = ocimirror("copy", f"{source}:@{subject}", target, "--json").document["images"]

            assert (row["status"], row["referrers"]) == ("copied", 1)
            raw = registry.get_manifest(f"part{number}", subject.replace(":", "-"))
            assert [each["digest"] for each in json.loads(raw)["manifests"]] == [attestation]


def test_the_list_of_a_layout_has_the_children_of_an_index(tmp_path: Path) -> None:
    """Whether the registry lists them or not, and until the image is removed."""
    graph = images.attested()
    for kind, run in (("api", run_registry), ("tags", run_docker_registry)):
        (tmp_path / kind).mkdir()
        layout = tmp_path / f"layout-{kind}"
        with run(tmp_path / kind) as registry:
            images.push(registry, "app", "1.0", graph)
            name = f"{registry.host}/app:1.0"
            assert ocimirror("pull", name, layout).code == 0
            again = ocimirror("pull", name, layout, "--json").document["images"][0]["status"]

        found = {subject: digests(listed) for subject, listed in lists_in(layout).items()}
        assert found == {key: {value} for key, value in images.subjects_in(graph).items()}, kind
        assert again == "unchanged"
        assert ocimirror("verify", layout).code == 0
        assert ocimirror("remove", layout, name).code == 0
        assert json.loads((layout / "index.json").read_bytes())["manifests"] == []


def test_a_damaged_child_is_said_to_be_perhaps_an_attachment(tmp_path: Path) -> None:
    graph, other = images.attested(), images.attested("other")
    layout = images.write_layout(tmp_path / "layout", {NAME: graph, OTHER: other})
    damaged = images.subjects_in(other).popitem()[1]
    path = images.blob_path(layout, damaged)
    path.write_bytes(path.read_bytes().replace(b"other", b"ether"))

    source, target = f"oci:{layout}:{NAME}", f"oci:{tmp_path}/copied"
    (row,) = ocimirror("copy", source, target, "--json").document["images"]

    assert row["status"] == "copied"
    assert any(damaged in note and "attachment" in note for note in row["notes"])
