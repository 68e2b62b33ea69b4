"""Strict YAML: what is written is read back, and text stays text."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import tests.property.conftest  # noqa: F401 - how hard properties are tried
from ocimirror.sync import yamlfile
from ocimirror.sync.shapes import kind
from ocimirror.sync.yamlfile import Findings, Mapping, Node, Scalar, Sequence

TEXT = st.text(max_size=20) | st.from_regex(r"[-+]?[0-9._exob:]{1,6}", fullmatch=True)
TEXTS = TEXT | st.sampled_from(["on", "no", "y", "~", "null", "1e3", "1.10", "0x1F", "${A}", "- a"])
DOCUMENTS = st.recursive(
    TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=12,
)


def read(text: str) -> Node:
    findings = Findings()
    node = yamlfile.parse(text, "a.yaml", findings)
    assert findings.found == []
    assert node is not None
    return node


def plain(node: Node) -> object:
    """Return the texts in a tree, none of which may be taken for anything else."""
    if isinstance(node, Mapping):
        return {key.text: plain(value) for key, value in node.pairs}
    if isinstance(node, Sequence):
        return [plain(item) for item in node.items]
    assert kind(node) == "text"
    return node.text


@given(DOCUMENTS)
def test_what_is_written_is_read_back_as_text(document: object) -> None:
    written = yamlfile.write(document)
    assert plain(read(written)) == document
    assert yaml.safe_load(written) == document


@given(st.text(max_size=60) | st.from_regex(r"[ a-c:\[\]{}&*!|>'\"#,\n\t-]{0,60}", fullmatch=True))
def test_any_text_is_a_document_or_has_a_finding(text: str) -> None:
    findings = Findings()
    node = yamlfile.parse(text, "a.yaml", findings, {})
    assert (node is None) <= bool(findings.found)


@pytest.mark.parametrize(
    ("text", "what"),
    [
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
    ],
)
def test_a_value_is_what_other_readers_take_it_for(text: str, what: str) -> None:
    node = read(text)
    assert isinstance(node, Scalar)
    assert kind(node) == what
