"""The reference says what there is: every word, every default, and files that load."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support import configurations
from tests.support.command import ocimirror

REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "commands.md"
SECTION = REFERENCE.read_text().partition("## Configuration of a sync\n")[2].partition("\n## ")[0]
EXAMPLES = re.findall(r"^```yaml\n(.*?)^```", SECTION, re.DOTALL | re.MULTILINE)


def words(part: object) -> set[str]:
    """Return every key that a schema knows, at any depth."""
    found: set[str] = set()
    if isinstance(part, dict):
        found |= set(part.get("properties", {}))
        for value in part.values():
            found |= words(value)
    elif isinstance(part, list):
        for value in part:
            found |= words(value)
    return found


def test_every_word_is_in_the_reference() -> None:
    known = words(ocimirror("config", "schema").document)
    assert {"from", "max_delete", "by", "password"} <= known
    assert {
        word for word in known if f"`{word}`" not in SECTION and f"{word}: " not in SECTION
    } == set()


@pytest.mark.parametrize("text", EXAMPLES)
def test_an_example_in_the_reference_loads(text: str, tmp_path: Path) -> None:
    (tmp_path / "teams").mkdir()
    (tmp_path / "teams" / "web.yaml").write_text("mirrors: [{from: quay.io/web/app}]\n")
    path = tmp_path / "nightly.yaml"
    path.write_text(text)
    document, faults = configurations.check(path, HUB_USER="ada", HUB_TOKEN="s3cret")
    assert faults == []
    assert document["mirrors"]


def test_there_are_examples() -> None:
    assert len(EXAMPLES) == 2
