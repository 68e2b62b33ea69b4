"""The pages for people, as a browser gets and shows them."""

from __future__ import annotations

import html
import json
import re
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.serve.conftest import Command, Serve, cpu_s
from tests.support.images import (
    OCI_MANIFEST,
    Builder,
    Graph,
    add_image,
    blob_path,
    compact,
    digest_of,
    multi,
    single,
    with_subject,
    write_layout,
)
from tests.support.programs import require_program
from tests.support.witness import Registry

GRAPH = multi()
HUB = "docker.io/library/alpine"
PRIVATE = "reg.example.com:5000/team/app"


@pytest.fixture(scope="module")
def client(
    tmp_path_factory: pytest.TempPathFactory, serve_module: Callable[..., Command]
) -> Registry:
    images = {f"{HUB}:3.9": single(), f"{HUB}:3.19": GRAPH, f"{PRIVATE}:v1": single()}
    layout = tmp_path_factory.mktemp("served") / "layout"
    return serve_module(write_layout(layout, images, [with_subject(GRAPH)])).client


def page(client: Registry, path: str, status: int = 200) -> str:
    """Return the text of a page, without its markup and style."""
    answer = client.request("GET", path)
    assert answer.status == status
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    text = answer.body.decode().partition("<main>")[2]
    return html.unescape(re.sub(r"<[^>]*>", " ", text))


def test_the_first_page_lists_the_repositories(client: Registry) -> None:
    text = page(client, "/")
    assert "2 repositories with 3 tags in 1 layout" in text
    assert re.search(r"docker\.io/\s*library/alpine\s*2\s", text)
    assert f"{client.host}/REPOSITORY:TAG" in text


def test_a_repository_lists_its_tags_the_highest_first(client: Registry) -> None:
    text = page(client, f"/{HUB}")
    assert text.index("3.19") < text.index("3.9 ")
    assert GRAPH.root in text


def test_an_image_shows_what_it_consists_of_and_how_it_is_pulled(client: Registry) -> None:
    text = page(client, f"/{HUB}:3.19")
    name = f"{client.host}/library/alpine"
    for shown in (
        GRAPH.root,
        "linux/amd64",
        "linux/arm/v7",
        *(child["digest"] for child in json.loads(GRAPH.raw)["manifests"]),
        with_subject(GRAPH).root,
        "application/vnd.example.signature",
        f"docker pull {name}:3.19",
        f"podman pull --tls-verify=false {name}:3.19",
        f"ctr images pull --plain-http {name}@{GRAPH.root}",
        "crictl pull docker.io/library/alpine:3.19",
        time.strftime("%Y-%m-%d", time.gmtime()),
    ):
        assert shown in text


def test_one_platform_shows_its_layers(client: Registry) -> None:
    text = page(client, f"/{HUB}@{json.loads(GRAPH.raw)['manifests'][1]['digest']}")
    manifest = json.loads(list(GRAPH.manifests.values())[1][1])
    for layer in [manifest["config"], *manifest["layers"]]:
        assert layer["digest"] in text
    assert "linux/arm64" in text
    assert "2024-01-02T03:04:05Z" in text


def test_an_absent_platform_is_said_to_be_absent(tmp_path: Path, serve: Serve) -> None:
    layout = write_layout(tmp_path / "layout", {f"{HUB}:3.19": GRAPH})
    blob_path(layout, json.loads(GRAPH.raw)["manifests"][1]["digest"]).unlink()
    path = blob_path(layout, json.loads(GRAPH.raw)["manifests"][2]["digest"])
    path.write_bytes(path.read_bytes()[:-1] + b" ")
    text = page(serve(layout), f"/{HUB}:3.19")
    assert re.search(r"linux/arm64\s+not here", text)
    assert re.search(r"linux/arm/v7\s+damaged", text)


@pytest.mark.parametrize(
    ("asked", "found"),
    [("alpine:3", 2), ("ALPINE", 2), ("team", 1), ("v1", 1), (GRAPH.root[7:20], 1), ("nope", 0)],
)
def test_a_search_finds_names_tags_and_digests(client: Registry, asked: str, found: int) -> None:
    text = page(client, f"/?q={asked}")
    assert re.match(rf"\s*{found} images?\s", text)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/nope", 404),
        ("/docker.io/library/nope", 404),
        (f"/{HUB}:nope", 404),
        (f"/{HUB}@sha256:{'0' * 64}", 404),
        (f"/{HUB}@sha256:zz", 400),
        ("/../../etc/passwd", 404),
        ("/%00", 404),
        ("/" + "a" * 5000, 404),
        ("/favicon.ico", 404),
    ],
)
def test_what_is_not_there_is_a_page_too(client: Registry, path: str, status: int) -> None:
    assert "All repositories" in page(client, path, status)


def test_a_tag_without_a_repository_has_a_page(tmp_path: Path, serve: Serve) -> None:
    layout = write_layout(tmp_path / "tool", {f"{HUB}:x": GRAPH})
    index = json.loads((layout / "index.json").read_bytes())
    index["manifests"][0]["annotations"] = {"org.opencontainers.image.ref.name": "v9"}
    (layout / "index.json").write_bytes(compact(index))
    client = serve(layout)
    assert "v9" in page(client, "/-/tool")
    assert f"docker pull {client.host}/tool:v9" in page(client, "/-/tool:v9")


def test_ten_thousand_tags_are_fast(tmp_path: Path, serve: Serve) -> None:
    graph = single()
    images = {f"{HUB}:v{number}": graph for number in range(10_000)}
    layout = write_layout(tmp_path / "layout", {f"{HUB}:v0": graph})
    entries = [
        {**graph.descriptor, "annotations": {"io.containerd.image.name": name}} for name in images
    ]
    index = {"schemaVersion": 2, "manifests": entries}
    (layout / "index.json").write_bytes(compact(index))
    client = serve(layout)
    for path in ("/", f"/{HUB}", f"/{HUB}?page=100", "/?q=v99", f"/{HUB}:v77"):
        page(client, path)
        began_s = cpu_s(client.pid)
        text = page(client, path)
        assert cpu_s(client.pid) - began_s < 2, path
        assert len(text) < 50_000
    assert "Page 100 of 100" in page(client, f"/{HUB}?page=100")
    assert "v9999" in page(client, f"/{HUB}?page=0")
    assert "Page 100 of 100" in page(client, f"/{HUB}?page=99999")


HOSTILE = "</style><script>document.title='pwned'</script><img src=x onerror=alert(1)>\u202e\"'&"


def hostile() -> Graph:
    """An image whose every free text wants out of its place."""
    builder = Builder()
    image = add_image(builder, "hostile", {"os": HOSTILE, "architecture": "amd64"})
    document = json.loads(builder.manifests[image["digest"]][1])
    document["annotations"] = {HOSTILE: HOSTILE}
    document["artifactType"] = "application/x"
    return builder.graph(builder.manifest(compact(document), OCI_MANIFEST))


def test_hostile_texts_stay_texts(tmp_path: Path, serve: Serve) -> None:
    graph = hostile()
    client = serve(write_layout(tmp_path / "layout", {f"{HUB}:1": graph}))
    for path in (f"/{HUB}:1", f"/{HUB}@{graph.root}", "/?q=" + "%3Cscript%3E%22", "/%3Cscript%3E"):
        body = client.request("GET", path, headers={"Host": HOSTILE[:8]}).body.decode()
        assert "<script" not in body
        assert "<img" not in body
        assert "\u202e" not in body


def test_a_page_needs_no_script_and_nothing_from_elsewhere(client: Registry) -> None:
    for path in ("/", f"/{HUB}", f"/{HUB}:3.19"):
        body = client.request("GET", path).body.decode()
        assert not re.search(r"<script|<link|\ssrc=|url\(|@import|https?://|\son[a-z]+=", body)


def test_the_browser_is_told_to_run_nothing(client: Registry) -> None:
    for path in ("/", f"/{HUB}:3.19", "/nope"):
        policy = client.request("GET", path).headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; style-src 'sha256-")
        assert "unsafe" not in policy


# --- in a browser -------------------------------------------------------------------------------


def chromium(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = require_program("chromium", "chromium")
    command: Sequence[str] = (
        *(program, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
        *(f"--user-data-dir={directory / 'profile'}", "--enable-logging=stderr", *arguments),
    )
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)


@pytest.mark.parametrize("size", ["1280,900", "500,900"])
def test_a_browser_draws_the_page(client: Registry, tmp_path: Path, size: str) -> None:
    picture = tmp_path / "page.png"
    done = chromium(tmp_path, f"--window-size={size}", f"--screenshot={picture}", client.url)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size > 15_000
    assert "Content Security Policy" not in done.stderr


def test_nothing_hostile_runs_in_a_browser(tmp_path: Path, serve: Serve) -> None:
    client = serve(write_layout(tmp_path / "layout", {f"{HUB}:1": hostile()}))
    done = chromium(tmp_path, "--dump-dom", f"{client.url}/{HUB}:1")
    assert "<title>library/alpine:1</title>" in done.stdout
    assert "<script" not in done.stdout
    assert digest_of(b"")[:7] in done.stdout
    assert "onerror" in done.stdout
    assert "Content Security Policy" not in done.stderr
