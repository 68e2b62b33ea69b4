"""Whatever a file holds, it is understood or refused with a message; nothing else happens."""

from __future__ import annotations

import itertools
import random
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import settings
from hypothesis import strategies as st

from tests.support.batches import batches
from tests.support.command import ocimirror
from tests.support.configurations import Checked, check, check_all
from tests.sync.test_importing import REGSYNC, SKOPEO

REFERENCE = (Path(__file__).parents[2] / "docs" / "reference" / "commands.md").read_text()
NIGHTLY = re.findall(r"^```yaml\n(.*?)^```", REFERENCE, re.DOTALL | re.MULTILINE)[-1]
VARIABLES = {"HUB_USER": "a", "HUB_TOKEN": "b"}
# (What a run says of the files that it reads together.)
ELSEWHERE = "has settings in another file already"


def mangled(text: str, seed: int) -> str:
    """Return a text with a few pieces of its own cut out, doubled and put elsewhere."""
    chance = random.Random(seed)
    for _ in range(chance.randint(1, 4)):
        at, length, to = (chance.randrange(len(text)) for _ in range(3))
        piece = text[at : at + length % 30]
        text = text[:at] + text[at + chance.choice([0, 1, len(piece)]) :]
        text = text[:to] + piece * chance.choice([1, 1, 2]) + text[to:] or "x"
    return text


@batches(st.integers())
def test_a_mangled_configuration_is_one_or_has_faults(tmp_path: Path, seeds: list[int]) -> None:
    # (A registry of its own each, as files that are read together do not share one.)
    alone = NIGHTLY.replace("include: [teams/web.yaml]", "")
    texts = [
        mangled(re.sub(r"docker\.io|mirror\.local", rf"\g<0>.{number}", alone), seed)
        for number, seed in enumerate(seeds)
    ]
    told = check_all(tmp_path, texts, **VARIABLES)
    right = [
        text
        for text, found in zip(texts, told, strict=True)
        if all(ELSEWHERE in fault for fault in found.faults)
    ]
    for number, text in enumerate(right[:3]):
        path = tmp_path / f"alone-{number}.yaml"
        path.write_text(text)
        document, faults = check(path, **VARIABLES)
        assert faults == []
        assert all(mirror["to"] for mirror in document["mirrors"])


def is_yaml(text: str) -> bool:
    """Say whether another reader of YAML takes a text."""
    try:
        return bool(yaml.safe_load(text))
    except (yaml.YAMLError, ValueError):
        return False


def test_a_mangled_file_of_another_tool_is_translated_or_refused(tmp_path: Path) -> None:
    """Of those that are YAML still: what is none is refused as a configuration is."""
    translated = []
    mangles = ((n, mangled([SKOPEO, REGSYNC][n % 2], n)) for n in itertools.count())
    tried = settings.default.max_examples // 4  # (a run each)
    for seed, theirs in itertools.islice((m for m in mangles if is_yaml(m[1])), tried):
        (tmp_path / "theirs.yaml").write_text(theirs)
        to = [["--to", "m.local"], [], ["--to", "oci:x"], []][seed % 4]
        result = ocimirror("config", "import", tmp_path / "theirs.yaml", *to)
        assert result.code in (0, 2), (seed, result.stderr)
        if result.code == 0:
            translated.append(result.stdout)
        else:
            assert result.stderr.startswith("error: "), seed
    assert translated
    told = check_all(tmp_path, translated, **VARIABLES)
    faults = [fault for found in told for fault in found.faults if ELSEWHERE not in fault]
    assert faults == []


LARGE = [
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
]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Checked]:
    """Return what is said of each large file; a run that takes minutes is ended."""
    told = check_all(tmp_path_factory.mktemp("large"), LARGE)
    return {text[:60]: found for text, found in zip(LARGE, told, strict=True)}


@pytest.mark.parametrize("text", [text[:60] for text in LARGE], ids=lambda text: text[:20])
def test_a_large_bad_file_is_refused_in_seconds(large: dict[str, Checked], text: str) -> None:
    faults = large[text].faults
    assert faults
    assert len("\n".join(faults)) < 20_000
