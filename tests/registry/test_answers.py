"""Header fields and error documents, as registries send them."""

from __future__ import annotations

from contextlib import suppress
from urllib.parse import parse_qs

import pytest

from ocimirror import AuthenticationFailed, NotFound, RateLimited, RegistryUnavailable
from tests.support import images
from tests.support.faults import Respond
from tests.support.stores import blob_of, root_of

BASIC, NO_REALM, NOTHING = "Basic YWRhOnNlY3JldA==", "a token, and not whose", "offers no Bearer"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", NOTHING),
        ("Basic", BASIC),
        ('Basic realm="r"', BASIC),
        ("Basic realm=r", BASIC),
        (
            'Bearer realm="{url}/t",service="s",scope="repository:a/b:pull,push"',
            ("/t", "s", ["repository:app:pull", "repository:a/b:pull,push"]),
        ),
        (
            'BEARER Realm = "a" , SCOPE= "x:y:pull,push z:w:pull" ,error=x',
            ("/a", "", ["repository:app:pull", "x:y:pull,push", "z:w:pull"]),
        ),
        (
            'Negotiate, Basic realm="a, b", Bearer realm="c=d",service="e"',
            ("/c=d", "e", ["repository:app:pull"]),
        ),
        ("NTLM TlRMTVNTUAAC==, Basic realm=x", BASIC),
        (
            r'Bearer realm="/", service="a \"quoted\" \\ b"',
            ("/", r'a "quoted" \ b', ["repository:app:pull"]),
        ),
        (r'Basic realm="a \"quoted\" \\ b"', BASIC),
        ('Basic realm=""', BASIC),
        ('Bearer realm="a",realm="b"', ("/a", "", ["repository:app:pull"])),
        ('Bearer realm="a', NO_REALM),
        ('Bearer realm="https://a"x="https://b"', NO_REALM),
        ('realm="a"', NOTHING),
        (",,, Basic realm=x,,,", BASIC),
        ("\x00\x01", NOTHING),
    ],
)
def test_challenges_are_read_by_their_grammar(header, expected, canary, connect, login) -> None:
    """What is sent next says what was read: a password, or a request for a token, or nothing."""

    def script(visit):
        if not visit.path.startswith("/v2/"):
            return Respond(200, {}, b'{"token": "good"}')
        if "authorization" in visit.headers:
            return Respond(404)
        return Respond(401, {"WWW-Authenticate": header.replace("{url}", server.url)})

    server = canary(script)
    store = connect(server.host, auth_files=login(server.host, "ada", "secret")).repository("app")
    if expected in (NO_REALM, NOTHING):
        with pytest.raises(AuthenticationFailed, match=expected):
            store.exists(blob_of(b"x"))
        assert len(server.visits) == 1
        return
    assert not store.exists(blob_of(b"x"))
    after = server.visits[1]
    if expected == BASIC:
        assert after.headers["authorization"] == BASIC
        return
    path, _, query = after.path.partition("?")
    asked = parse_qs(query)
    assert (path, asked.get("service", [""])[0], asked["scope"]) == expected


HOSTILE = [
    'Basic realm="',
    "a=b,",
    "Bearer Bearer ",
    ' \\"',
    "a ",
    ",",
    " ",
    "; ",
    "<",
    "<x>; rel=",
    ';rel="a ',
]


@pytest.mark.timeout(10)
@pytest.mark.parametrize("part", HOSTILE)
@pytest.mark.parametrize("first", ["", "<x>;rel=", '<x>; rel="', "<x>", "Bearer ", "a"])
def test_a_hostile_header_is_read_in_linear_time(first, part, canary, connect) -> None:
    for last in ("", ")", '"'):
        header = first + part * (60_000 // len(part)) + last
        server = canary(Respond(401, {"WWW-Authenticate": header}))
        with pytest.raises(AuthenticationFailed):
            connect(server.host).repository("app").names()
        server.script = lambda visit, link=header: page(
            {"Link": link} if "n=" in visit.path else {}
        )
        with suppress(RegistryUnavailable):
            connect(server.host).repository("app").names()


def page(headers) -> Respond:
    """Return a page of a list of tags."""
    return Respond(200, headers, b'{"name": "app", "tags": ["a"]}')


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("", ""),
        ('</v2/x?n=1>; rel="next"', "/v2/x?n=1"),
        ("</v2/x>;rel=next", "/v2/x"),
        ('</p>; rel="prev", </n>; rel="next"', "/n"),
        ('</a,b>; title="x, y"; rel="next"', "/a,b"),
        ('</n>; rel="last next"', "/n"),
        ('</n>; rel="nextish"', ""),
        ('</n>; rel="prev"', ""),
        ("</n>; rel='next'", "/n"),
        ("/n; rel=next", "/n"),
        ("?last=b; REL = NEXT ;", "/v2/app/tags/list?last=b"),
        ("</n>", "/n"),
        ("</n>; title=x", "/n"),
        ('</p>; rel=prev, , /n; rel="next",', "/n"),
        ('</n>; rel="next", </n>; rel=next', "/n"),
        ('<https://cdn.example.com>; rel=preconnect; crossorigin, </n>; rel="next"', "/n"),
        ('</v2/app/tags/list?n=3>; rel="first", </v2/app/tags/list?n=3>; rel="last"', ""),
    ],
)
def test_the_next_page_is_found(link, target, canary, connect) -> None:
    server = canary(lambda _: page({"Link": link} if len(server.visits) == 1 else {}))
    assert connect(server.host).repository("app").names() == ["a"]
    assert [visit.path for visit in server.visits[1:]] == [target] * bool(target)


@pytest.mark.parametrize(
    "link",
    [
        '<>; rel="next"',
        "next",
        '"/n"; rel=next',
        '</n; rel="next"',
        '</n> rel="next"',
        '</n>; rel="next',
        '</a>; rel="next", </b>; rel="next"',
        "</a>, </b>",
        "/v2/app/tags/list?last=a,b; rel=next",
        '</v2/app/tags/list?n=3&last=c>; rel="nxet"',
    ],
)
def test_a_link_that_cannot_be_read_is_an_error_and_no_end(link, canary, connect) -> None:
    server = canary(page({"Link": link}))
    with pytest.raises(RegistryUnavailable, match="cannot be read"):
        connect(server.host).repository("app").names()
    assert len(server.visits) == 1


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        ("1_0", None),
        ("-1", None),
        ("1.5", None),
        ("", None),
        ("Tue, 24 Nov 2026 08:00:10 GMT", 10.0),
        ("Tue, 24 Nov 2026 07:00:00 GMT", 0.0),
        ("Tue, 99 Nov 2026 07:00:00 GMT", None),
        ("yesterday", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(text, seconds, canary, connect) -> None:
    headers = {"Retry-After": text, "Date": "Tue, 24 Nov 2026 08:00:00 GMT"}
    server = canary(Respond(429, headers))
    with pytest.raises(RateLimited) as caught:
        connect(server.host, retries=0).repository("app").resolve("v1")
    assert caught.value.retry_after_s == seconds


@pytest.mark.parametrize("text", ["", "-1", "+1", "1_0", " ", "5, 5", "1" * 20, "٣"])
def test_an_odd_content_length_announces_nothing(text, canary, connect) -> None:
    image = images.single()
    stated = {"Content-Type": image.root_media_type, "Docker-Content-Digest": image.root}

    def script(visit):
        if visit.method == "GET":
            return Respond(200, stated, image.raw)
        return Respond(200, {**stated, "Content-Length": text.encode().decode("latin-1")})

    server = canary(script)
    assert connect(server.host).repository("app").resolve("v1") == root_of(image)
    assert [visit.method for visit in server.visits] == ["HEAD", "GET"]


@pytest.mark.parametrize(
    ("body", "media_type", "codes", "text"),
    [
        (b'{"errors":[{"code":"A","message":"m"}]}', "application/json", {"A"}, "A: m"),
        (b'{"errors":[{"code":"A"},{"message":"n"}]}', "application/json", {"A"}, "A; n"),
        (b'{"errors":[{"code":7,"message":["x"]}]}', "application/json", set(), ""),
        (b'{"errors":[7, null]}', "application/json", set(), ""),
        (b'{"errors":{}}', "application/json", set(), ""),
        (b'{"error": "x"}', "application/json", set(), ""),
        (b"404 page\n not  found\n", "text/plain", set(), "404 page not found"),
        (b"<html>long page</html>", "text/html", set(), ""),
        (b"\xff\xfe", "text/plain", set(), "\ufffd\ufffd"),
        (b"[" * 100_000, "application/json", set(), ""),
        (b"see https://h/x?sig=s for more", "text/plain", set(), "see https://h/x?… for more"),
    ],
)
def test_an_error_document_may_be_anything(body, media_type, codes, text, canary, connect) -> None:
    server = canary(Respond(404, {"Content-Type": media_type}, body))
    with pytest.raises(NotFound) as caught:
        connect(server.host).repository("app").resolve("v1")
    assert caught.value.codes == codes
    assert caught.value.message.endswith(f"404 Not Found: {text}" if text else "404 Not Found")
