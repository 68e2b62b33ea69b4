"""Header fields and error documents."""

from __future__ import annotations

from contextlib import suppress

import pytest

from ocimirror.errors import RegistryUnavailable
from ocimirror.stores.registry.answers import (
    ErrorDocument,
    challenges,
    content_length,
    next_page,
    retry_after_s,
)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", []),
        ("Basic", [("basic", {})]),
        ('Basic realm="r"', [("basic", {"realm": "r"})]),
        ("Basic realm=r", [("basic", {"realm": "r"})]),
        (
            'Bearer realm="https://a.example.com/t",service="s",scope="repository:a/b:pull,push"',
            [
                (
                    "bearer",
                    {
                        "realm": "https://a.example.com/t",
                        "service": "s",
                        "scope": "repository:a/b:pull,push",
                    },
                )
            ],
        ),
        (
            'BEARER Realm = "a" , SCOPE= "x:y:pull,push z:w:pull" ,error=x',
            [
                (
                    "bearer",
                    {"realm": "a", "scope": "x:y:pull,push z:w:pull", "error": "x"},
                )
            ],
        ),
        (
            'Negotiate, Basic realm="a, b", Bearer realm="c=d",service="e"',
            [
                ("negotiate", {}),
                ("basic", {"realm": "a, b"}),
                ("bearer", {"realm": "c=d", "service": "e"}),
            ],
        ),
        ("NTLM TlRMTVNTUAAC==, Basic realm=x", [("ntlm", {}), ("basic", {"realm": "x"})]),
        (r'Basic realm="a \"quoted\" \\ b"', [("basic", {"realm": r'a "quoted" \ b'})]),
        ('Basic realm=""', [("basic", {"realm": ""})]),
        ('Bearer realm="a",realm="b"', [("bearer", {"realm": "a"})]),
        ('Bearer realm="a', [("bearer", {})]),
        ('Bearer realm="https://a"x="https://b"', [("bearer", {})]),
        ('realm="a"', []),
        (",,, Basic realm=x,,,", [("basic", {"realm": "x"})]),
        ("\x00\x01", []),
    ],
)
def test_challenges_are_read_by_their_grammar(header, expected) -> None:
    assert [(each.scheme, each.parameters) for each in challenges(header)] == expected


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
def test_a_hostile_header_is_read_in_linear_time(first, part) -> None:
    for last in ("", ")", '"'):
        header = first + part * (60_000 // len(part)) + last
        list(challenges(header))
        with suppress(RegistryUnavailable):
            next_page({"Link": header}, URL)


URL = "https://r.example.com/v2/app/tags/list?n=3"


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
        ("?last=b; REL = NEXT ;", "?last=b"),
        ("</n>", "/n"),
        ("</n>; title=x", "/n"),
        ('</p>; rel=prev, , /n; rel="next",', "/n"),
        ('</n>; rel="next", </n>; rel=next', "/n"),
        ('<https://cdn.example.com>; rel=preconnect; crossorigin, </n>; rel="next"', "/n"),
        ('</v2/app/tags/list?n=3>; rel="first", </v2/app/tags/list?n=3>; rel="last"', ""),
    ],
)
def test_the_next_page_is_found(link, target) -> None:
    assert next_page({"Link": link}, URL) == target


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
def test_a_link_that_cannot_be_read_is_an_error_and_no_end(link) -> None:
    with pytest.raises(RegistryUnavailable, match="cannot be read"):
        next_page({"Link": link}, URL)


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
def test_retry_after_is_seconds_or_a_date(text, seconds) -> None:
    headers = {"Retry-After": text, "Date": "Tue, 24 Nov 2026 08:00:00 GMT"}
    assert retry_after_s(headers) == seconds


@pytest.mark.parametrize("text", ["", "-1", "+1", "1_0", " ", "5, 5", "1" * 20, "٣"])
def test_an_odd_content_length_announces_nothing(text) -> None:
    assert content_length({"Content-Length": text}) is None


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
def test_an_error_document_may_be_anything(body, media_type, codes, text) -> None:
    assert ErrorDocument.parse(body, media_type) == (frozenset(codes), text)
