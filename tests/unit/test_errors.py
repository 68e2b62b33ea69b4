"""Errors: one tree, whose messages are safe to show and say what to do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import ocimirror
from ocimirror import (
    NotFound,
    OciMirrorError,
    RegistryUnavailable,
)

CLASSES = [
    value
    for value in (getattr(ocimirror, name) for name in ocimirror.__all__)
    if isinstance(value, type) and issubclass(value, OciMirrorError)
]
REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "commands.md"
# What people's cron jobs depend on: a code may be added, and none changes.
CODES = {
    "usage_error": 2,
    "invalid_reference": 2,
    "registry_unavailable": 3,
    "rate_limited": 3,
    "token_service_unavailable": 3,
    "authentication_failed": 4,
    "not_found": 4,
    "push_rejected": 4,
    "manifest_blob_unknown": 4,
    "untrusted_certificate": 4,
    "url_refused": 4,
    "unsupported": 4,
    "foreign_layer": 4,
    "digest_mismatch": 5,
    "size_mismatch": 5,
    "malformed_manifest": 5,
    "missing_content": 5,
    "damaged_layout": 5,
    "locked": 7,
    "local_storage_error": 8,
    "no_space": 8,
    "digest_not_preserved": 9,
    "interrupted": 130,
}


@pytest.mark.parametrize(("code", "exit_code"), CODES.items())
def test_a_code_keeps_its_exit_code(code: str, exit_code: int) -> None:
    assert {cls("x").code: cls.exit_code for cls in CLASSES}[code] == exit_code


def test_the_exit_codes_in_the_reference_are_those_of_the_classes() -> None:
    rows = re.findall(r"^\| (\d+) \| ((?:`\w+`(?:, )?)+) \|$", REFERENCE.read_text(), re.M)
    told = {name: int(code) for code, names in rows for name in re.findall(r"\w+", names)}
    # (1 is a bug of ours, and 130 a signal.)
    assert told == {c("x").code: c.exit_code for c in CLASSES if c.exit_code not in (1, 130)}


@pytest.mark.parametrize("cls", CLASSES)
def test_only_what_may_pass_by_itself_is_retryable(cls: type[OciMirrorError]) -> None:
    assert cls("x").retryable == (cls.exit_code == 3)


@pytest.mark.parametrize("cls", CLASSES)
def test_no_error_is_an_os_error_which_requests_would_swallow(cls: type[OciMirrorError]) -> None:
    assert not issubclass(cls, (OSError, ValueError))


@pytest.mark.parametrize("cls", CLASSES)
def test_every_error_says_what_it_means(cls: type[OciMirrorError]) -> None:
    assert cls.__doc__


HOSTILE = "a\x1b[2J\r\nb\0c\u202ed\u2066e\u200bf\x9bg\u2028h\ufeffi"


@pytest.mark.bar("R42")
def test_nothing_from_outside_reaches_a_terminal_raw() -> None:
    shown = NotFound(HOSTILE, side="source", advice=HOSTILE).diagnostics()
    assert shown.count("\n") == 1
    assert shown.replace("\n", "").isprintable()
    assert "\\x1b[2J" in shown


def test_text_that_people_read_stays_as_it_is() -> None:
    assert NotFound("café 漢字 😀 'quoted'").message == "café 漢字 😀 'quoted'"


def test_diagnostics_have_the_side_the_message_and_what_to_do() -> None:
    error = RegistryUnavailable("503", side="destination")
    assert error.diagnostics() == "destination: 503\nTry again later; -v shows the requests."
    assert RegistryUnavailable("503", advice="Pay the bill.").advice == "Pay the bill."


def test_the_first_side_that_is_blamed_stays() -> None:
    error = NotFound("x")
    error.at("source")
    error.at("destination")
    assert error.side == "source"
