"""Blobs behind signed URLs that end, as cloud registries keep them; nginx is the storage."""

from __future__ import annotations

import base64
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import images
from tests.support.command import environment, ocimirror
from tests.support.faults import Cut, Redirect, Request, Rule, Stall
from tests.support.nginx import Nginx, run_nginx, signed
from tests.support.proxy import Proxy
from tests.support.registry import StrictRegistry

Front = Callable[..., Proxy]
LIFETIME_S = 2

GRAPH = images.shared_layers(1, 1, 6_000_000, 0.0)[0]
LAYER = max(GRAPH.blobs, key=lambda digest: len(GRAPH.blobs[digest]))


@pytest.fixture
def nginx(registry: StrictRegistry, tmp_path: Path) -> Iterator[Nginx]:
    with run_nginx(tmp_path / "nginx", registry.directory / "blobs") as running:
        yield running


def status_of(url: str) -> int:
    try:
        with urllib.request.urlopen(url) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.parametrize("at", [1_500_000, len(GRAPH.blobs[LAYER]) - 2])
@pytest.mark.bar("R36", "signed-url-ends")
def test_where_the_link_is_cut_and_the_url_has_ended_the_registry_gives_a_new_one(
    at: int, registry: StrictRegistry, nginx: Nginx, proxy: Front, tmp_path: Path
) -> None:
    images.push(registry, "team/app", "1.0", GRAPH)
    registry.options.basic = ("ada", "secret-of-ada")
    encoded = LAYER.partition(":")[2]
    # The link is silent until the URL has ended, and is cut then.
    link = proxy(
        nginx.url,
        Rule("GET", encoded, Stall(LIFETIME_S + 1.1, when=at), nth=1),
        Rule("GET", encoded, Cut(at + 1), nth=1),
    )
    given: list[str] = []

    def sign(request: Request) -> str:
        digest = request.path.rpartition("/")[2]
        given.append(link.url + signed("/" + digest.replace(":", "/"), LIFETIME_S))
        return given[-1]

    front = proxy(registry, Rule("GET", r"/blobs/", Redirect(sign)))
    auth = base64.b64encode(b"ada:secret-of-ada").decode()
    (tmp_path / "config.json").write_text(json.dumps({"auths": {front.host: {"auth": auth}}}))

    pulled = ocimirror(
        *("pull", f"{front.host}/team/app:1.0", tmp_path / "layout", "--json"),
        *("--plain-http", front.host, "--plain-http", link.host),
        env=environment(DOCKER_CONFIG=str(tmp_path)),
    )

    assert pulled.code == 0, pulled.stderr
    assert pulled.document["images"][0]["digest"] == GRAPH.root
    assert ocimirror("verify", tmp_path / "layout").code == 0
    urls = [url for url in given if encoded in url]
    assert len(urls) == 2
    assert status_of(urls[0]) == 410  # (what whoever asks the storage again would have got)
    seen = [line for line in nginx.requests() if encoded in line]
    assert [line.split()[0] for line in seen] == ["200", "206", "410"]
    position = int(seen[1].partition("bytes=")[2].partition("-")[0])
    assert at - 1 <= position <= at + 1
    assert "secret" not in "".join(nginx.requests())
    assert all('auth="-"' in line for line in nginx.requests())


@pytest.mark.bar("R36", "signed-url-ends")
def test_the_next_run_goes_on_from_a_new_url(
    registry: StrictRegistry, nginx: Nginx, proxy: Front, tmp_path: Path
) -> None:
    images.push(registry, "team/app", "1.0", GRAPH)
    encoded = LAYER.partition(":")[2]
    link = proxy(nginx.url, Rule("GET", encoded, Cut(4_000_000), nth=1))

    def sign(request: Request) -> str:
        digest = request.path.rpartition("/")[2]
        return link.url + signed("/" + digest.replace(":", "/"), LIFETIME_S)

    front = proxy(registry, Rule("GET", r"/blobs/", Redirect(sign)))
    hosts = ("--plain-http", front.host, "--plain-http", link.host)
    name, layout = f"{front.host}/team/app:1.0", tmp_path / "layout"

    first = ocimirror("pull", name, layout, *hosts, "--retries", "0")
    time.sleep(LIFETIME_S + 1.1)
    second = ocimirror("pull", name, layout, *hosts)

    assert (first.code, second.code) == (3, 0), first.stderr + second.stderr
    assert ocimirror("verify", layout).code == 0
    ranges = [line.partition('range="')[2].partition('"')[0] for line in nginx.requests()]
    assert "bytes=4000000-" in ranges
