"""A signed, attested image of several platforms, and where its attachments are looked for."""

from __future__ import annotations

import json
from dataclasses import dataclass

from tests.support import images
from tests.support.witness import Registry


@dataclass(frozen=True)
class Subject:
    """What `images.with_subject` asks of a subject."""

    descriptor: dict[str, object]


@dataclass(frozen=True)
class Signed:
    """The image, what refers to it by subject (subject's digest → graphs), and cosign's tags."""

    image: images.Graph
    referrers: dict[str, list[images.Graph]]
    tags: dict[str, images.Graph]

    @property
    def attachments(self) -> list[images.Graph]:
        """Everything that has to come along."""
        return [g for graphs in self.referrers.values() for g in graphs] + list(self.tags.values())


def signed_image() -> Signed:
    """Make an index with a bundle, an SBOM on each child, a signature of the bundle, and a .sig."""
    image = images.multi()
    bundle = images.with_subject(image, 1)
    referrers = {
        image.root: [bundle, images.index_with_subject(image)],
        bundle.root: [images.with_subject(bundle, 2)],
    }
    children = json.loads(image.raw)["manifests"]
    for number, child in enumerate(children):
        descriptor = {key: child[key] for key in ("mediaType", "digest", "size")}
        referrers[child["digest"]] = [images.with_subject(Subject(descriptor), 10 + number)]  # type: ignore[arg-type]
    tag = image.root.replace(":", "-") + ".sig"
    return Signed(image, referrers, {tag: images.artifact()})


def push_signed(registry: Registry, repository: str, signed: Signed, *, api: bool) -> None:
    """Push all of it; without the API, keep the fallback tags as a client has to."""
    images.push(registry, repository, "1.0", signed.image)
    for subject, graphs in signed.referrers.items():
        for graph in graphs:
            images.push(registry, repository, None, graph)
        if not api:
            put_fallback(registry, repository, subject, graphs)
    for tag, graph in signed.tags.items():
        images.push(registry, repository, tag, graph)


def put_fallback(
    registry: Registry, repository: str, subject: str, graphs: list[images.Graph]
) -> None:
    """Write the index of a subject's referrers under its tag."""
    index = {
        "schemaVersion": 2,
        "mediaType": images.OCI_INDEX,
        "manifests": [graph.descriptor for graph in graphs],
    }
    registry.put_manifest(
        repository, subject.replace(":", "-"), json.dumps(index).encode(), images.OCI_INDEX
    )


def referrers_at(registry: Registry, repository: str, subject: str) -> set[str]:
    """Return what a registry lists for a subject: by its API, else by the fallback tag."""
    answer = registry.request("GET", f"/v2/{repository}/referrers/{subject}")
    if answer.status == 200:
        raw = answer.body
    else:
        tag = subject.replace(":", "-")
        if not registry.has_manifest(repository, tag):
            return set()
        raw = registry.get_manifest(repository, tag)
    return {entry["digest"] for entry in json.loads(raw)["manifests"]}
