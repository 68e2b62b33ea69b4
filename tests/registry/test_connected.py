"""What a registry may lead to is judged by the address that a name has, not by the name."""

from __future__ import annotations

import base64
import json
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.support import images
from tests.support.command import Result
from tests.support.network import Network, private_network
from tests.support.rawpeer import Script, answer, raw_peer

PUBLIC, STORAGE, HOME, NEXT_DOOR = "8.8.8.8", "9.9.9.9", "10.0.0.1", "10.0.0.2"
INSIDE = {
    "loopback.test": "127.0.0.2",
    "loopback6.test": "::1",
    "metadata.test": "169.254.169.254",
    "mapped.test": "::ffff:10.0.0.1",
}
NAMES = {
    "registry.test": [[PUBLIC]],
    "storage.test": [[STORAGE]],
    "both.test": [[HOME, STORAGE]],
    "turning.test": [[STORAGE], [HOME]],
    "home.test": [[HOME]],
    "private.test": [[HOME]],
    "next-door.test": [[NEXT_DOOR]],
    "other-loopback.test": [["127.0.0.3"]],
    **{name: [[address]] for name, address in INSIDE.items()},
}
PORT = 5000
QUICK = ("--timeout", "5", "--retries", "0", "--no-progress", "--json")
OCI = "application/vnd.oci.image.manifest.v1+json"
IMAGE = images.single()
_builder = images.Builder()
OTHER = _builder.graph(images.add_image(_builder, "other"))


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    addresses = [PUBLIC, STORAGE, HOME, NEXT_DOOR, "169.254.169.254"]
    directory = tmp_path_factory.mktemp("network")
    with private_network(directory, addresses, NAMES) as network:
        yield network


@contextmanager
def listening(network: Network, address: str) -> Iterator[socket.socket]:
    with network.entered():
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        listener = socket.create_server((address, PORT), family=family)
    with closing(listener):
        yield listener


def leading_to(target: str, use: str = "redirect", image: images.Graph = IMAGE) -> Script:
    """Serve an image, but for what a use leads to."""

    def redirect(path: str) -> Iterator[bytes]:
        return answer(b"", f"Location: http://{target}/{path}\r\n", "307 Temporary Redirect")

    def script(line: str, fields: dict[str, str]) -> Iterator[bytes]:
        method, path = line.split()
        digest = path.rpartition("/")[2]
        if use == "realm" and "authorization" not in fields:
            realm = f'WWW-Authenticate: Bearer realm="http://{target}/token",service="s"\r\n'
            return answer(b"", realm, "401 Unauthorized")
        if method == "POST":
            return answer(b"", f"Location: http://{target}/upload\r\n", "202 Accepted")
        if "/tags/" in path:
            return redirect("x") if use == "pages" else answer(b'{"name":"a","tags":["v1"]}')
        if use == "upload" or "/referrers/" in path or "/manifests/sha256-" in path:
            return answer(b"", status="404 Not Found")
        if "/blobs/" in path:
            return redirect(digest)
        return answer(image.raw if "/manifests/" in path else b"{}", f"Content-Type: {OCI}\r\n")

    return script


def storing(seen: list[str]) -> Script:
    """Serve the blobs; keep what was asked for."""

    def script(line: str, _: dict[str, str]) -> Iterator[bytes]:
        seen.append(line)
        blobs = {**IMAGE.blobs, **OTHER.blobs}
        return answer(blobs.get(line.rpartition("/")[2], b""))

    return script


def pull(network: Network, registry: str, layout: Path, *options: str) -> Result:
    plain = ("--plain-http", f"{registry}:{PORT}")
    return network.ocimirror("pull", f"{registry}:{PORT}/a:v1", layout, *plain, *QUICK, *options)


@contextmanager
def untouched(network: Network, address: str) -> Iterator[None]:
    """Listen at an address, and see that nobody connects to it."""
    with listening(network, address) as trap:
        yield
        trap.setblocking(False)
        with pytest.raises(BlockingIOError):
            trap.accept()


def refusal(done: Result) -> str:
    assert done.code == 4, done
    error = done.document.get("error") or done.document["images"][0]["error"]
    assert error["code"] == "url_refused"
    return str(error["message"])


@pytest.mark.parametrize("name", INSIDE)
@pytest.mark.bar("R38")
def test_a_name_of_an_inner_address_is_not_connected_to(name, network, tmp_path) -> None:
    address = INSIDE[name].removeprefix("::ffff:")
    with (
        listening(network, PUBLIC) as public,
        raw_peer(leading_to(f"{name}:{PORT}"), listener=public),
        untouched(network, address),
    ):
        message = refusal(pull(network, "registry.test", tmp_path / "l"))
    assert name in message
    assert address in message


@pytest.mark.parametrize(
    ("use", "command"),
    [
        ("realm", ("list", "docker://registry.test:5000/a")),
        ("pages", ("list", "docker://registry.test:5000/a")),
        ("upload", ("copy", "{}", "docker://registry.test:5000/a:v1")),
    ],
)
@pytest.mark.bar("R38")
def test_nothing_that_a_registry_names_leads_inside(use, command, network, tmp_path) -> None:
    layout = images.write_layout(tmp_path / "l", {"registry.test/a:v1": IMAGE})
    login = base64.b64encode(b"ada:secret").decode()
    (tmp_path / "auth").write_text(json.dumps({"auths": {"registry.test:5000": {"auth": login}}}))
    options = ("--plain-http", "registry.test:5000", "--auth-file", tmp_path / "auth", *QUICK)
    with (
        listening(network, PUBLIC) as public,
        raw_peer(leading_to(f"private.test:{PORT}", use), listener=public),
        untouched(network, HOME),
    ):
        refusal(network.ocimirror(*(word.format(layout) for word in command), *options))


@pytest.mark.parametrize(
    ("registry", "at", "target", "stored_at"),
    [
        ("registry.test", PUBLIC, "storage.test", STORAGE),
        ("registry.test", PUBLIC, "both.test", STORAGE),
        ("home.test", HOME, "next-door.test", NEXT_DOOR),
        ("home.test", HOME, "storage.test", STORAGE),
        ("loopback.test", "127.0.0.2", "other-loopback.test", "127.0.0.3"),
    ],
)
def test_what_is_outside_or_beside_the_registry_is_followed(
    registry, at, target, stored_at, network, tmp_path
) -> None:
    seen: list[str] = []
    with (
        listening(network, at) as front,
        raw_peer(leading_to(f"{target}:{PORT}"), listener=front),
        listening(network, stored_at) as store,
        raw_peer(storing(seen), listener=store),
    ):
        done = pull(network, registry, tmp_path / "l")
    assert done.code == 0, done
    assert len(seen) == len(IMAGE.blobs)


def test_what_was_judged_is_what_is_connected_to(network, tmp_path) -> None:
    """A name whose second answer is another address: it is looked up once for a connection."""
    seen: list[str] = []
    with (
        listening(network, PUBLIC) as front,
        raw_peer(leading_to(f"turning.test:{PORT}"), listener=front),
        listening(network, STORAGE) as store,
        raw_peer(storing(seen), listener=store),
        untouched(network, HOME),
    ):
        done = pull(network, "registry.test", tmp_path / "l", "--jobs", "1")
    assert done.code == 0, done
    assert len(seen) == len(IMAGE.blobs)
    assert network.asked.count("turning.test") == 2  # (for IPv4 and for IPv6)


@pytest.mark.bar("R38")
def test_a_connection_that_one_registry_may_use_is_not_another_ones(network, tmp_path) -> None:
    seen: list[str] = []
    registries = [f"{name}:{PORT}" for name in ("home.test", "registry.test")]
    plain = [word for each in registries for word in ("--plain-http", each)]
    with (
        listening(network, HOME) as home,
        raw_peer(leading_to(f"next-door.test:{PORT}"), listener=home),
        listening(network, PUBLIC) as public,
        raw_peer(leading_to(f"next-door.test:{PORT}", image=OTHER), listener=public),
        listening(network, NEXT_DOOR) as store,
        raw_peer(storing(seen), listener=store),
    ):
        names = [f"{each}/a:v1" for each in registries]
        options = (*plain, *QUICK, "--jobs", "1")
        done = network.ocimirror("pull", *names, tmp_path / "l", *options)
    assert done.code == 4, done
    ours, theirs = done.document["images"]
    assert ours["status"] == "copied"
    assert theirs["error"]["code"] == "url_refused"
    assert len(seen) == len(IMAGE.blobs)


def test_a_proxy_judges_for_itself_where_names_lead(network, tmp_path) -> None:
    serve, seen = leading_to(f"private.test:{PORT}"), []

    def script(line: str, fields: dict[str, str]) -> Iterator[bytes]:
        seen.append(line)
        return (storing([]) if "private.test" in line else serve)(line, fields)

    with listening(network, PUBLIC) as public, raw_peer(script, listener=public):
        proxy = ("--proxy", f"http://{PUBLIC}:{PORT}")
        done = pull(network, "unknown.test", tmp_path / "l", *proxy)
    assert done.code == 0, done
    assert any("http://private.test:5000/" in line for line in seen)
