"""A registry that lists what it is told, and what a dry run makes of it.

Every tag of a repository stands for an image of its own, built when `built` says; what is listed
need not be a name. It can be read, and nothing else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import yaml

from tests.support import images
from tests.support.command import ocimirror
from tests.support.faults import Respond
from tests.support.proxy import Visit, run_canary

_ROUTE = re.compile(r"/v2/(.+)/(tags/list|manifests/.+|blobs/.+|referrers/.+)", re.DOTALL)
_TAR = images.tar_of({"etc/tag": b"a tag"})
_LAYER = images.gzip_stored(_TAR)
_JSON = {"Content-Type": "application/json"}
Built = Callable[[str], datetime | None]


def image_of(tag: str, built: datetime | None) -> tuple[bytes, bytes]:
    """Return manifest and config of the image of a tag."""
    created = {} if built is None else {"created": built.isoformat()}
    config = images.compact(
        {**images.config_of([_TAR], images.PLATFORMS[0]), "created": "", **created, "tag": tag}
    )
    document = {
        "schemaVersion": 2,
        "mediaType": images.OCI_MANIFEST,
        "config": images.describe(config, images.OCI_CONFIG),
        "layers": [images.describe(_LAYER, images.OCI_LAYER_GZIP)],
    }
    return images.compact(document), config


class TagServer:
    """What is listed; it may be changed while the server runs.

    Attributes:
        host: where it is.
        repositories: tags by repository, in the order in which they are listed.
        built: when the image of a tag was built; None: its config does not say.
        visits: every request that came.
    """

    def __init__(self, repositories: Mapping[str, Sequence[str]], built: Built) -> None:
        self.host = ""
        self.repositories = repositories
        self.built = built
        self.visits: list[Visit] = []
        self._content: dict[str, bytes] = {}

    def asked(self, kind: str) -> list[str]:
        """Return what was asked for of a kind, as `manifests`, in the order of the requests."""
        routes = [_ROUTE.fullmatch(urlsplit(visit.path).path) for visit in self.visits]
        named = [route[2].partition("/") for route in routes if route]
        return [name for found, _, name in named if found == kind]

    def digest(self, tag: str) -> str:
        """Return the digest of the image of a tag."""
        return str(images.digest_of(self._image(tag)[0]))

    def config_digest(self, tag: str) -> str:
        """Return the digest of the config of the image of a tag."""
        return str(images.digest_of(self._image(tag)[1]))

    def answer(self, visit: Visit) -> Respond:
        """Answer a request."""
        path = unquote(urlsplit(visit.path).path)
        if path == "/v2/":
            return Respond(200, _JSON, b"{}")
        if path == "/v2/_catalog":
            listed = {"repositories": list(self.repositories)}
            return Respond(200, _JSON, json.dumps(listed).encode())
        route = _ROUTE.fullmatch(path)
        tags = self.repositories.get(route[1]) if route else None
        if route is None or tags is None:
            return Respond(404, _JSON, b'{"errors": [{"code": "NAME_UNKNOWN"}]}')
        kind, _, name = route[2].partition("/")
        if kind == "tags":
            return Respond(200, _JSON, json.dumps({"tags": list(tags)}).encode())
        if kind == "referrers":
            empty = {"schemaVersion": 2, "mediaType": images.OCI_INDEX, "manifests": []}
            return Respond(200, {"Content-Type": images.OCI_INDEX}, images.compact(empty))
        raw = self._image(name)[0] if name in tags else self._content.get(name)
        if raw is None:
            return Respond(404, _JSON, b'{"errors": [{"code": "MANIFEST_UNKNOWN"}]}')
        media_type = images.OCI_MANIFEST if kind == "manifests" else "application/octet-stream"
        digest = str(images.digest_of(raw))
        return Respond(200, {"Content-Type": media_type, "Docker-Content-Digest": digest}, raw)

    def _image(self, tag: str) -> tuple[bytes, bytes]:
        manifest, config = image_of(tag, self.built(tag))
        for raw in (manifest, config, _LAYER):
            self._content[str(images.digest_of(raw))] = raw
        return manifest, config


@contextmanager
def run_tag_server(
    repositories: Mapping[str, Sequence[str]] | None = None, built: Built = lambda _: None
) -> Iterator[TagServer]:
    """Run a tag server on loopback until the block ends."""
    server = TagServer(repositories or {}, built)
    with run_canary(server.answer) as canary:
        server.host, server.visits = canary.host, canary.visits
        yield server


class Selected(NamedTuple):
    """What became of the tags of a repository in a dry run.

    Attributes:
        kept: what would be copied, sorted.
        dropped: the filter and the reason, by tag.
        error: why nothing is known of them.
    """

    kept: list[str]
    dropped: dict[str, tuple[str, str]]
    error: str | None = None

    @property
    def filters(self) -> dict[str, str]:
        """The filter that dropped a tag, by tag."""
        return {tag: name for tag, (name, _) in self.dropped.items()}

    @property
    def reasons(self) -> list[str]:
        """Why tags were dropped, sorted by tag."""
        return [reason for _, (_, reason) in sorted(self.dropped.items())]


Case = tuple[Sequence[str], Mapping[str, object]]


def select_all(
    server: TagServer, directory: Path, cases: Sequence[Case], *, code: int | None = None
) -> list[Selected]:
    """Return which tags a dry run chooses in each case: tags as they are listed, and rules.

    All cases are one run: each has a repository, and an entry in the configuration.
    """
    names = [f"case-{number:03}" for number in range(len(cases))]
    server.repositories = {name: tags for name, (tags, _) in zip(names, cases, strict=True)}
    mirrors = [
        {"from": f"{server.host}/{name}", "to": f"oci:{name}", **({"tags": rules} if rules else {})}
        for name, (_, rules) in zip(names, cases, strict=True)
    ]
    config = directory / "sync.yaml"
    # (Written entry by entry: what two of them share would become an alias.)
    written = [yaml.safe_dump([mirror]) for mirror in mirrors]
    config.write_text("".join(["referrers: false\nmirrors:\n", *written]))
    night = ocimirror(*("sync", config, "--dry-run", "--json", "--retries", "0", "--jobs", "8"))
    assert "images" in night.stdout, night.stderr + night.stdout
    assert code is None or night.code == code
    found = {name: Selected([], {}) for name in names}
    for image in night.document["images"]:
        assert image["status"] == "planned", image
        repository, tag = _named(image["source"])
        found[repository].kept.append(tag)
    for drop in night.document["attrition"]:
        repository, tag = _named(drop["source"])
        found[repository].dropped[tag] = drop["filter"], drop["reason"]
    errors = {entry["source"]: entry["error"] for entry in night.document["entries"]}
    told = [(found[name], errors[f"{server.host}/{name}"]) for name in names]
    return [
        Selected(sorted(one.kept), one.dropped, error and error["message"]) for one, error in told
    ]


def _named(source: str) -> tuple[str, str]:
    repository, _, tag = source.rpartition("/")[2].partition(":")
    return repository, tag
