"""Lists of tags, repositories and referrers: all of them, or an error; never a part."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.support import images
from tests.support.command import ocimirror
from tests.support.faults import Redirect, Respond, Rule
from tests.support.judge import contents_of
from tests.support.proxy import Canary, Proxy, Visit
from tests.support.registry import StrictRegistry
from tests.support.signed import put_fallback
from tests.support.witness import Registry

Answer = Callable[..., Canary]
Front = Callable[..., Proxy]
TAGS = [f"v{number}" for number in range(9)]
NEXT = "/v2/app/tags/list?page={}"


def page_of(tags: list[str], link: str = "") -> Respond:
    return Respond(200, {"Link": link} if link else {}, json.dumps({"tags": tags}).encode())


def by_number(link: str) -> Callable[[Visit], Respond]:
    """Answer with three tags a page, and a Link that holds `{}` for the next page's number."""

    def answer(visit: Visit) -> Respond:
        number = int(parse_qs(urlsplit(visit.path).query).get("page", ["0"])[0])
        tags = TAGS[3 * number : 3 * number + 3]
        return page_of(tags, link.format(NEXT.format(number + 1)) if number < 2 else "")

    return answer


@pytest.mark.parametrize(
    "link",
    [
        '<{}>; rel="next"',
        "<{}>; rel=next",
        "<{}>; rel='next'",
        "<{}>; REL=Next",
        '{}; rel="next"',
        "<{}>",
        "{}",
        '</v2/app/tags/list>; rel="first", <{}>; rel="next"',
        '<{}>; rel="last next"; title="a, b; c"',
        '<{}>; title="a \\" b"; title*=UTF-8\'\'%e2%82%ac; rel="next"',
    ],
)
def test_a_link_in_any_form_leads_to_all_tags(link: str, canary: Answer) -> None:
    server = canary(by_number(link))
    listed = ocimirror("list", f"docker://{server.host}/app", "--json")
    assert (listed.code, listed.document["tags"]) == (0, TAGS), listed.stderr


@pytest.mark.parametrize(
    "link",
    [
        '<{}; rel="next"',
        '"{}"; rel="next"',
        '<{}> rel="next"',
        '<{}>; rel="next',
        '<{}>; rel="nxet"',
        "<{0}>, <{0}0>",
        '<{0}>; rel="next", <{0}0>; rel="next"',
        '<>; rel="next"',
        "page {}",
    ],
)
def test_a_link_that_cannot_be_read_is_an_error(link: str, canary: Answer) -> None:
    server = canary(by_number(link))
    listed = ocimirror("list", f"docker://{server.host}/app", "--json")
    assert listed.code == 3
    assert "Link header cannot be read" in listed.document["error"]["message"]


def test_two_link_headers_are_two_links(canary: Answer) -> None:
    # (A canary joins nothing: what is repeated comes as one field with a comma here.)
    server = canary(by_number('<https://cdn.example.com>; rel=preconnect, <{}>; rel="next"'))
    assert ocimirror("list", f"docker://{server.host}/app").stdout.split() == TAGS


def test_pages_that_end_nowhere_are_an_error(canary: Answer) -> None:
    def endless(visit: Visit) -> Respond:
        return page_of(TAGS, f'<{NEXT.format(len(server.visits))}>; rel="next"')

    def circle(visit: Visit) -> Respond:
        return page_of([], f'<{NEXT.format(len(server.visits) % 3)}>; rel="next"')

    def empty(visit: Visit) -> Respond:
        return page_of([], f'<{NEXT.format(len(server.visits))}>; rel="next"')

    server = canary(Respond(500))
    for script in (endless, circle, empty):
        server.script = script
        listed = ocimirror("list", f"docker://{server.host}/app", "--json")
        assert listed.code == 3, listed.stdout
        assert "tags" not in listed.document
    assert len(server.visits) < 200


@pytest.mark.parametrize("most", [10, 50, 64, 100, 1000])
@pytest.mark.parametrize("key", ["tags", "repositories"])
def test_a_list_that_stops_without_a_link_goes_on_with_last(
    key: str, most: int, canary: Answer
) -> None:
    names = [f"r{number:05d}" for number in range(2 * most + 3)]

    def capped(visit: Visit) -> Respond:
        last = parse_qs(urlsplit(visit.path).query).get("last", [""])[0]
        page = [name for name in names if name > last][:most]
        return Respond(200, {}, json.dumps({key: page}).encode())

    server = canary(capped)
    location = f"docker://{server.host}" + ("/app" if key == "tags" else "")
    listed = ocimirror("list", location, "--json")
    assert (listed.code, listed.document[key]) == (0, names), listed.stderr


@pytest.mark.parametrize("status", [0, 400, 404, 405])
def test_a_registry_that_does_not_know_last_has_told_all(status: int, canary: Answer) -> None:
    names = [f"v{number}" for number in range(100)]

    def everything(visit: Visit) -> Respond:
        return Respond(status) if status and "last=" in visit.path else page_of(names)

    server = canary(everything)
    listed = ocimirror("list", f"docker://{server.host}/app", "--json")
    assert (listed.code, listed.document["tags"]) == (0, names)
    assert len(server.visits) <= 3


def test_pages_are_relative_to_where_a_redirect_led(canary: Answer, proxy: Front) -> None:
    other = canary(by_number('<{}>; rel="next"'))
    front = proxy(other, Rule("GET", "/v2/hub/", Redirect(f"{other.url}{NEXT.format(0)}")))
    listed = ocimirror("list", f"docker://{front.host}/hub/app", "--plain-http", other.host)
    assert (listed.code, listed.stdout.split()) == (0, TAGS), listed.stderr


def test_prune_deletes_nothing_when_the_list_of_tags_cannot_be_read(
    registry: StrictRegistry, docker_registry: Registry, proxy: Front, tmp_path: Path
) -> None:
    for tag in ("1.0", "1.1"):
        images.push(registry, "prune/app", tag, images.single())
    front = proxy(registry)
    (tmp_path / "sync.yaml").write_text(
        f"mirrors:\n  - from: {front.host}/prune/app\n    to: {docker_registry.host}/prune/copy\n"
        "    prune: {grace: 0s}\n"
    )
    assert ocimirror("sync", tmp_path / "sync.yaml").code == 0
    for headers, body in (
        ({"Link": '<?last=1.0; rel="next"'}, b'{"tags": ["1.0"]}'),
        ({}, b'{"name": "prune/other", "tags": ["1.0"]}'),
        ({}, b'{"tags": ["1.0", {"tag": "1.1"}]}'),
        ({}, b"{}"),
        ({}, b""),
        ({}, b"<html>"),
        ({}, b'{"errors": [{"code": "TOOMANYREQUESTS"}], "tags": []}'),
        ({"Link": '<?last=1.0>; rel="next"'}, b'{"tags": ["1.0"]}'),
    ):
        # (The next page, if one is named, does not exist.)
        unknown = Respond(404, {}, b'{"errors": [{"code": "NAME_UNKNOWN"}]}')
        front.rules[:] = [
            Rule("GET", "/tags/list.*last", unknown),
            Rule("GET", "/tags/list", Respond(200, headers, body)),
        ]
        assert ocimirror("sync", tmp_path / "sync.yaml").code == 3
    assert sorted(docker_registry.tags("prune/copy")) == ["1.0", "1.1"]


# --- referrers -----------------------------------------------------------------------------------


def referrer(number: int) -> dict[str, object]:
    digest = images.digest_of(str(number).encode())
    return {"mediaType": images.OCI_MANIFEST, "digest": digest, "size": 7}


@pytest.mark.parametrize(
    ("link", "code"),
    [("<{}>; rel='next'", 0), ("{}", 0), ("<{}>; rel=next", 0), ("<{}; rel=next", 3)],
)
def test_referrers_are_listed_to_the_end(
    link: str, code: int, registry: StrictRegistry, proxy: Front
) -> None:
    images.push(registry, "app", "1.0", images.single())
    front = proxy(registry)

    def answer(query: str, *numbers: int, more: str = "") -> Rule:
        body = json.dumps(
            {"schemaVersion": 2, "manifests": [referrer(number) for number in numbers]}
        )
        headers = {"Content-Type": images.OCI_INDEX, **({"Link": more} if more else {})}
        return Rule("GET", f"/referrers/[^?]*{query}$", Respond(200, headers, body.encode()))

    front.rules += [answer("", 1, 2, more=link.format("?page=2")), answer(r"\?page=2", 3)]
    seen = ocimirror("inspect", f"docker://{front.host}/app:1.0", "--json")
    assert seen.code == code, seen.stderr
    if not code:
        assert len(seen.document["referrers"]) == 3


def test_referrers_that_stop_at_100_go_on_with_last(registry: StrictRegistry, proxy: Front) -> None:
    images.push(registry, "app", "1.0", images.single())
    every = sorted((referrer(number) for number in range(250)), key=lambda one: str(one["digest"]))
    front = proxy(registry)
    headers = {"Content-Type": images.OCI_INDEX}
    for start in (0, 100, 200):
        body = json.dumps({"schemaVersion": 2, "manifests": every[start : start + 100]}).encode()
        last = str(every[start - 1]["digest"]).replace(":", "%3A")
        query = rf"\?n=1000&last={last}" if start else ""
        front.rules.append(Rule("GET", f"/referrers/[^?]*{query}$", Respond(200, headers, body)))
    empty = Respond(200, headers, b'{"schemaVersion": 2, "manifests": []}')
    front.rules.append(Rule("GET", r"/referrers/.*\?", empty))
    seen = ocimirror("inspect", f"docker://{front.host}/app:1.0", "--json")
    assert (seen.code, len(seen.document["referrers"])) == (0, 250), seen.stderr


@pytest.mark.parametrize("body", [b'{"schemaVersion": 2}', b'{"manifests": {}}', b"", b"[]"])
def test_an_index_without_a_list_is_not_no_referrers(
    body: bytes, registry: StrictRegistry, proxy: Front
) -> None:
    images.push(registry, "app", "1.0", images.single())
    headers = {"Content-Type": images.OCI_INDEX}
    front = proxy(registry, Rule("GET", "/referrers/", Respond(200, headers, body)))
    assert ocimirror("inspect", f"docker://{front.host}/app:1.0").code == 5


def answer_of(body: bytes, media_type: str, **headers: str) -> Respond:
    return Respond(200, {"Content-Type": media_type, **headers}, body)


LISTED = images.compact(
    {
        "schemaVersion": 2,
        "mediaType": images.OCI_INDEX,
        "manifests": [images.with_subject(images.single()).descriptor],
    }
)
JSON = "application/json"
EMPTY_LIST = b'{"schemaVersion": 2, "manifests": []}'


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("referrers/", answer_of(b'{"errors": [{"code": "DENIED"}]}', JSON)),
        ("referrers/", answer_of(LISTED[:-5], JSON)),
        (
            "referrers/",
            answer_of(EMPTY_LIST, images.OCI_INDEX, **{"OCI-Filters-Applied": "artifactType"}),
        ),
        ("manifests/sha256-[0-9a-f]*$", answer_of(b'{"errors": [{"code": "DENIED"}]}', JSON)),
        ("manifests/sha256-[0-9a-f]*$", answer_of(LISTED[:-5], JSON)),
        ("manifests/sha256-[0-9a-f]*$", answer_of(b"", JSON)),
        ("manifests/sha256-[0-9a-f]*$", answer_of(b"<html>", "text/html")),
        ("manifests/sha256-[0-9a-f]*$", answer_of(LISTED[:-5], "application/octet-stream")),
    ],
)
def test_a_list_of_referrers_that_cannot_be_read_is_not_no_referrers(
    path: str, answer: Respond, registry: StrictRegistry, proxy: Front
) -> None:
    image = images.single()
    images.push(registry, "app", "1.0", image)
    registry.options.referrers = False
    put_fallback(registry, "app", image.root, [])
    front = proxy(registry, Rule("GET", path, answer))
    assert ocimirror("inspect", f"docker://{front.host}/app:1.0").code == 3


@pytest.mark.parametrize("how", ["an API that does not list it", "a Docker media type"])
def test_what_only_the_tag_lists_comes_along(
    how: str, registry: StrictRegistry, proxy: Front, tmp_path: Path
) -> None:
    image = images.single()
    signature = images.with_subject(image)
    images.push(registry, "app", "1.0", image)
    registry.options.referrers = False
    images.push(registry, "app", None, signature)
    put_fallback(registry, "app", image.root, [signature])
    rule = Rule("GET", "/referrers/", answer_of(EMPTY_LIST, images.OCI_INDEX))
    if how == "a Docker media type":
        listed = LISTED.replace(images.OCI_INDEX.encode(), images.DOCKER_LIST.encode())
        rule = Rule("GET", "manifests/sha256-[^.]*$", answer_of(listed, images.DOCKER_LIST))
    front = proxy(registry, rule)

    pulled = ocimirror("pull", f"{front.host}/app:1.0", tmp_path / "layout")

    assert pulled.code == 0, pulled.stderr
    assert signature.contents.items() <= contents_of(tmp_path / "layout").items()


def test_a_registry_that_says_oci_subject_and_lists_nothing_gets_the_tag(
    registry: StrictRegistry, proxy: Front, tmp_path: Path
) -> None:
    image = images.single()
    signatures = [images.with_subject(image, number) for number in (1, 2)]
    layout = images.write_layout(tmp_path / "layout", {"example.com/app:1.0": image}, signatures)
    rule = Rule("GET", "/referrers/", answer_of(EMPTY_LIST, images.OCI_INDEX))
    front = proxy(registry, rule)

    assert ocimirror("push", layout, front.host).code == 0

    listed = json.loads(registry.get_manifest("app", image.root.replace(":", "-")))
    assert {entry["digest"] for entry in listed["manifests"]} == {s.root for s in signatures}


# --- a registry's catalog ------------------------------------------------------------------------


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_host_alone_lists_the_catalog_of_that_registry(
    slash: str, docker_registry: Registry, repository: str
) -> None:
    names = [f"{repository}/{name}" for name in ("a", "b/c")]
    for name in names:
        images.push(docker_registry, name, "1.0", images.single())
    listed = ocimirror("list", f"docker://{docker_registry.host}{slash}", "--json")
    assert listed.code == 0, listed.stderr
    assert listed.document["exit_code"] == 0
    assert set(names) <= set(listed.document["repositories"])
    plain = ocimirror("list", f"docker://{docker_registry.host}")
    assert plain.stdout.split() == listed.document["repositories"]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 501])
def test_a_registry_without_a_catalog_is_exit_4_with_advice(status: int, canary: Answer) -> None:
    server = canary(Respond(status))
    listed = ocimirror("list", f"docker://{server.host}")
    assert listed.code == 4
    assert server.visits
    if status not in (401, 403):
        assert "has no catalog" in listed.stderr
        assert "list docker://HOST/REPOSITORY" in listed.stderr


@pytest.mark.parametrize("name", ["unknown.invalid", "unknown.invalid:5000", "unknown:1"])
def test_a_host_is_never_an_image_of_docker_hub(name: str) -> None:
    listed = ocimirror("list", f"docker://{name}", "--retries", "0", "-v")
    assert listed.code == 3
    assert "docker.io" not in listed.stderr


@pytest.mark.parametrize("command", ["inspect", "verify"])
@pytest.mark.parametrize("name", ["ghcr.example", "localhost", "127.0.0.1:9", "[::1]:9"])
def test_other_commands_say_that_a_host_is_no_image(command: str, name: str) -> None:
    told = ocimirror(command, f"docker://{name}")
    assert told.code == 2
    assert "names a registry" in told.stderr
