"""Strict YAML: what is written is read back, and text stays text."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from hypothesis import strategies as st

from tests.support.batches import batches
from tests.support.command import ocimirror
from tests.support.configurations import check, check_all

ENTRY = "mirrors:\n  - from: quay.io/org/app\n    to: mirror.local/org/app\n"
WORDS = ["on", "no", "y", "~", "null", "1e3", "1.10", "0x1F", "${A}", "- a", "a: b", "#", "''"]
NUMBERS = st.from_regex(r"[0-9_][0-9._exob-]{0,5}", fullmatch=True).filter(str.isascii)
TEXT = st.text(min_size=1, max_size=20) | st.sampled_from(WORDS)
USERS = TEXT | st.from_regex(r"[-+]?[0-9._exob:]{1,6}", fullmatch=True).filter(str.isascii)
TAGS = st.lists(
    NUMBERS
    | st.sampled_from(["on", "no", "y", "null", "1e3", "1.10", "0x1F", "True", "2024-01-01"]),
    min_size=1,
    max_size=3,
    unique=True,
)


@batches(st.tuples(USERS, TAGS))
def test_what_is_written_is_read_back_as_text(
    tmp_path: Path, texts: list[tuple[str, list[str]]]
) -> None:
    """`config import` writes what `config check`, and any reader of YAML, reads as it was."""
    theirs = {
        f"host-{number}.io": {
            "images": {"app": tags},
            "credentials": {"username": user, "password": f" {user}"},
        }
        for number, (user, tags) in enumerate(texts)
    }
    (tmp_path / "theirs.yaml").write_text(yaml.safe_dump(theirs, sort_keys=False))
    imported = ocimirror("config", "import", tmp_path / "theirs.yaml", "--to", "oci:/srv")
    assert (imported.code, imported.stderr) == (0, "")
    written = yaml.safe_load(imported.stdout)
    (tmp_path / "ours.yaml").write_bytes(imported.raw)
    document, faults = check(tmp_path / "ours.yaml")
    assert faults == []
    for host, mirror, entry, said in zip(
        theirs, document["mirrors"], written["mirrors"], texts, strict=True
    ):
        user, tags = said
        assert document["registries"][host]["username"] == user
        auth = written["registries"][host]["auth"]
        assert auth["username"] == re.sub(r"\$(?=[${])", "$$", user)  # ($$ is a dollar to us)
        assert [tag["tag"] for tag in mirror["tags"]["explicit"]] == entry["tags"] == tags


@batches(
    st.text(max_size=60) | st.from_regex(r"[ a-c:\[\]{}&*!|>'\"#,\n\t-]{0,60}", fullmatch=True)
)
def test_any_text_is_a_document_or_has_a_finding(tmp_path: Path, texts: list[str]) -> None:
    for text, found in zip(texts, check_all(tmp_path, texts), strict=True):
        assert found.faults, text


@pytest.fixture(scope="module")
def taken_for(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return what each value is taken for where a glob is wanted, all read in one run."""
    texts = [f"{ENTRY}    tags:\n      include:\n        - {text}\n" for text, _ in VALUES]
    told = check_all(tmp_path_factory.mktemp("values"), texts)
    return {text: " and ".join(found.faults) for (text, _), found in zip(VALUES, told, strict=True)}


VALUES = [
    ("1.10", "a number"),
    ("3", "a number"),
    ("1e3", "a number"),
    ("1_000", "a number"),
    ("0x1F", "a number"),
    (".inf", "a number"),
    ("-5", "a number"),
    ("true", "true or false"),
    ("Off", "true or false"),
    ("~", "nothing"),
    ("1.2.3", "text"),
    ("v1", "text"),
    ("2024-01-01", "text"),
    ("5000:22", "text"),
    ("'1.10'", "text"),
    ('"on"', "text"),
]


@pytest.mark.parametrize(("text", "what"), VALUES)
def test_a_value_is_what_other_readers_take_it_for(
    taken_for: dict[str, str], text: str, what: str
) -> None:
    assert taken_for[text] == {
        "text": "",
        "nothing": f"6:11: a glob is wanted, not nothing ({text})"
        " (Leave the key out, or give it a value.)",
    }.get(what, f'6:11: {text} without quotes is {what}, and a glob is wanted (Write "{text}".)')
