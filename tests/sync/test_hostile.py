"""Whatever a file holds, it is understood or refused with a message; nothing else happens."""

from __future__ import annotations

import random
import re
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tests.property.conftest  # noqa: F401 - how hard properties are tried
from ocimirror.errors import InvalidConfiguration, UsageError
from ocimirror.sync.config import parse
from ocimirror.sync.importing import translate
from tests.sync.test_importing import REGSYNC, SKOPEO

REFERENCE = (Path(__file__).parents[2] / "docs" / "reference.md").read_text()
NIGHTLY = re.findall(r"^```yaml\n(.*?)^```", REFERENCE, re.DOTALL | re.MULTILINE)[-1]


def mangled(text: str, seed: int) -> str:
    """Return a text with a few pieces of its own cut out, doubled and put elsewhere."""
    chance = random.Random(seed)
    for _ in range(chance.randint(1, 4)):
        at, length, to = (chance.randrange(len(text)) for _ in range(3))
        piece = text[at : at + length % 30]
        text = text[:at] + text[at + chance.choice([0, 1, len(piece)]) :]
        text = text[:to] + piece * chance.choice([1, 1, 2]) + text[to:] or "x"
    return text


@given(st.integers())
def test_a_mangled_configuration_is_one_or_has_faults(seed: int) -> None:
    text = mangled(NIGHTLY.replace("include: [teams/web.yaml]", ""), seed)
    try:
        config = parse(text, "nightly.yaml", {"HUB_USER": "a", "HUB_TOKEN": "b"})
    except InvalidConfiguration:
        return
    assert all(mirror.targets for mirror in config.mirrors)


@given(st.integers(), st.sampled_from([SKOPEO, REGSYNC]), st.sampled_from(["", "m.local", "oci:x"]))
def test_a_mangled_file_of_another_tool_is_translated_or_refused(
    seed: int, text: str, to: str
) -> None:
    try:
        translation = translate(mangled(text, seed), "theirs.yaml", to)
    except UsageError:
        return
    parse(translation.text, "ours.yaml", {"HUB_USER": "a", "HUB_TOKEN": "b"})


@pytest.mark.parametrize(
    "text",
    [
        "[" * 4_000_000,
        "- a\n" * 1_000_000,
        "a: b\n" * 800_000,
        "k" * 4_000_000 + ": 1\n",
        "registries: {'" + "a-" * 1_000_000 + "': {}}\n",
        "mirrors: [{from: '" + "a/" * 1_000_000 + "', to: 'b.c/d'}]\n",
        "mirrors: [{from: a.b/c, to: 'c.d/" + "{repository}" * 300_000 + "'}]\n",
        "mirrors: [{from: a.b/c, to: c.d/e, tags: {regex: '" + "(" * 1_000_000 + "'}}]\n",
        "mirrors: [{from: a.b/c, to: c.d/e, tags: {semver: '" + "1 " * 1_000_000 + "'}}]\n",
        "mirrors: [{from: a.b/c, to: c.d/e, priority: " + "9" * 1_000_000 + "}]\n",
        "mirrors: [{from: a.b/c, to: c.d/e, sparse: " + "f" * 1_000_000 + "}]\n",
    ],
    ids=lambda text: text[:20],
)
def test_a_large_bad_file_is_refused_in_seconds(text: str) -> None:
    begin = time.process_time()
    with pytest.raises(InvalidConfiguration) as raised:
        parse(text, "nightly.yaml", {})
    assert time.process_time() - begin < 60
    assert len(raised.value.diagnostics()) < 20_000
