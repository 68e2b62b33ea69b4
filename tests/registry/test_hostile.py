"""Answers that are made to break their reader: each is one of our errors, short and printable."""

from __future__ import annotations

import pytest

from tests.support.command import ocimirror
from tests.support.images import single, write_layout
from tests.support.rawpeer import answer, raw_peer


def _refusal(body: bytes, headers: str = "Content-Type: application/json\r\n"):
    return answer(body, headers, "403 Forbidden")


def _long(amount: int):
    yield f"HTTP/1.1 403 Forbidden\r\nContent-Length: {amount}\r\n\r\n".encode()
    while True:
        yield b" " * 65536


HOSTILE = {
    "terminal codes": lambda: _refusal(
        b'{"errors":[{"code":"\xff\\u001b]0;t\\u0007","message":"\x1b[2J\\u202e\\ud800\\u0000"}]}'
    ),
    "100 MB": lambda: _long(100 << 20),
    "100 kB in a field": lambda: _refusal(b"{}", f"X: {'a' * 100_000}\r\n"),
    "a thousand fields": lambda: _refusal(b"{}", "X: y\r\n" * 1000),
    "a list": lambda: _refusal(b"[1, null]"),
    "odd errors": lambda: _refusal(b'{"errors":[null,7,{"code":404,"message":["a"]}]}'),
    "a huge number": lambda: _refusal(b'{"errors":[{"code":' + b"9" * 5000 + b"}]}"),
    "deep": lambda: _refusal(b'{"errors":' * 6000),
    "a huge length": lambda: iter(
        [b"HTTP/1.1 403 Forbidden\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n{}"]
    ),
    "an odd status": lambda: iter([b"HTTP/1.1 999 \x1b[31m\xff\r\nContent-Length: 0\r\n\r\n"]),
    "a long link": lambda: answer(
        b'{"name":"a","tags":["t"]}', f"Link: <{'a' * 60_000}>; rel=next\r\n"
    ),
}


@pytest.mark.parametrize(
    ("command", "case"),
    [*(("list", case) for case in HOSTILE), ("push", "terminal codes"), ("push", "100 MB")],
)
def test_no_answer_is_a_bug_of_ours_or_printed_as_it_is(command, case, tmp_path) -> None:
    words = ("docker://{}/a",)
    if command == "push":
        write_layout(tmp_path / "l", {"r.example.com/a:v1": single()})
        words = (str(tmp_path / "l"), "{}")
    with raw_peer(lambda *_: HOSTILE[case]()) as host:
        arguments = [word.format(host) for word in words]
        done = ocimirror(command, *arguments, "--retries", "0", "--timeout", "5")
    assert done.code in (3, 4), done
    assert done.stderr.replace("\n", "").isprintable()
    assert len(done.stderr) < 3000
