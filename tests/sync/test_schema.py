"""What the JSON Schema for editors says of a file is what the loader says, as far as it can."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import strategies as st

from tests.support.batches import batches
from tests.support.command import ocimirror
from tests.support.configurations import check_all

ENTRY = "mirrors:\n  - from: quay.io/org/app\n    to: mirror.local/org/app\n"
HOST = ENTRY + "registries:\n  quay.io: "
GOOD = [
    ENTRY,
    "to: oci:/srv/{repository}\nmirrors: [{from: alpine}, {from: 'quay.io/org/*'}]\n",
    ENTRY + "    tags: ['1.10', latest]\n",
    ENTRY + "    tags: {include: ['3.*'], exclude: ['*-rc*'], regex: 'v.*', semver: ^1}\n",
    ENTRY + "    tags: {newest: 5, min_age: 3d, max_age: 52w}\n",
    ENTRY + "    tags: {newest: {count: 5, by: created}, min_age: {age: 3d, by: first_seen}}\n",
    ENTRY + "    tags: {newest: '${COUNT}', min_age: '${AGE}'}\n",
    ENTRY + "    platforms: all\n    sparse: child\n    referrers: false\n    priority: -3\n",
    ENTRY + "    platforms: [linux/amd64, linux/arm/v7]\n    prune: true\n",
    ENTRY + "    prune: {max_delete: 3, grace: 12h}\n    referrers: ${FLAG}\n",
    ENTRY.replace("mirror.local/org/app", "[mirror.local/org/app, oci:/srv/app]"),
    HOST + "{plain_http: true, ca_file: ca.pem, mirrors: [cache.local/hub]}\n",
    HOST + "{max_concurrency: 2, requests_per_second: 0.5, auth: {file: auth.json}}\n",
    HOST + "{requests_per_second: 5, auth: {username: a, password: '${PASSWORD}'}}\n",
]
BAD = [
    "[]\n",
    "text\n",
    "mirrors: []\n",
    "mirrors: {}\n",
    "mirrors: [{to: a.b/c}]\n",
    "mirrors: [text]\n",
    ENTRY + "unknown: 1\n",
    ENTRY + "    form: x\n",
    ENTRY + "    trust: {}\n",
    ENTRY + "    tags: [1.10]\n",
    ENTRY + "    tags: [3, x]\n",
    ENTRY + "    tags: [on]\n",
    ENTRY + "    tags: []\n",
    ENTRY + "    tags:\n",
    ENTRY + "    tags: {include: '3.*'}\n",
    ENTRY + "    tags: {newest: '5'}\n",
    ENTRY + "    tags: {newest: 0}\n",
    ENTRY + "    tags: {newest: 1.5}\n",
    ENTRY + "    tags: {newest: {by: created}}\n",
    ENTRY + "    tags: {newest: {count: 1, by: date}}\n",
    ENTRY + "    tags: {min_age: 3}\n",
    ENTRY + "    tags: {min_age: soon}\n",
    ENTRY + "    tags: {semver: ['^1']}\n",
    ENTRY + "    platforms: [linux]\n",
    ENTRY + "    platforms: some\n",
    ENTRY + "    sparse: maybe\n",
    ENTRY + "    referrers: 'true'\n",
    ENTRY + "    referrers: 1\n",
    ENTRY + "    priority: 1001\n",
    ENTRY + "    prune: {max_delete: 0}\n",
    ENTRY + "    prune: 3\n",
    HOST + "{insecure: true}\n",
    HOST + "{max_concurrency: 65}\n",
    HOST + "{auth: secret}\n",
    HOST + "[]\n",
]
# What takes more than a schema to find: the file as text, references, several keys together.
LOADER_ONLY = [
    ENTRY + "    to: x.y/z\n",
    ENTRY + "    referrers: yes\n",
    ENTRY + "    tags: ['a b']\n",
    ENTRY + "    tags: {semver: latest}\n",
    ENTRY + "    tags: {regex: '('}\n",
    ENTRY + "    priority: ${UNSET}\n",
    "mirrors: [{from: quay.io/org/app}]\n",
    "mirrors: [{from: UPPER, to: a.b/c}]\n",
    "mirrors: [{from: 'quay.io/*', to: a.b/c}]\n",
    HOST + "{auth: {username: a}}\n",
]
ENVIRONMENT = {"COUNT": "3", "AGE": "7d", "FLAG": "true", "PASSWORD": "p"}


@pytest.fixture(scope="module")
def validator() -> Any:
    """Return what an editor makes of the schema that is printed."""
    return jsonschema.Draft202012Validator(ocimirror("config", "schema").document)


def loads_each(directory: Path, texts: Sequence[str]) -> list[bool]:
    """Say of each file whether `config check` takes it; each names a registry of its own."""
    own = [text.replace("quay.io: ", f"quay-{n}.io: ") for n, text in enumerate(texts)]
    return [not found.faults for found in check_all(directory, own, **ENVIRONMENT)]


@pytest.fixture(scope="module")
def loads(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bool]:
    """Say of every file of the tables whether the loader takes it."""
    texts = [*GOOD, *BAD, *LOADER_ONLY]
    directory = tmp_path_factory.mktemp("schema")
    return dict(zip(texts, loads_each(directory, texts), strict=True))


def test_the_schema_is_one(validator: Any) -> None:
    jsonschema.Draft202012Validator.check_schema(validator.schema)


@pytest.mark.parametrize("text", GOOD)
def test_both_take_a_good_file(loads: dict[str, bool], validator: Any, text: str) -> None:
    assert (loads[text], validator.is_valid(yaml.safe_load(text))) == (True, True)


@pytest.mark.parametrize("text", BAD)
def test_both_refuse_a_bad_file(loads: dict[str, bool], validator: Any, text: str) -> None:
    assert (loads[text], validator.is_valid(yaml.safe_load(text))) == (False, False)


@pytest.mark.parametrize("text", LOADER_ONLY)
def test_the_loader_finds_what_a_schema_cannot(
    loads: dict[str, bool], validator: Any, text: str
) -> None:
    assert (loads[text], validator.is_valid(yaml.safe_load(text))) == (False, True)


# --- whatever the loader takes, an editor does not complain about --------------------------------

WORDS = [
    "3d",
    "a.b/c",
    "oci:/srv",
    "${COUNT}",
    "linux/amd64",
    "all",
    "full",
    "created",
    "^1",
    "x y",
]
SCALARS = st.none() | st.booleans() | st.integers(-2, 2000) | st.sampled_from([0.5, *WORDS])
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["count", "by", "age", "grace", "file"]), inner, max_size=2
        )
    ),
    max_leaves=4,
)
TAGS = st.dictionaries(
    st.sampled_from(["include", "exclude", "regex", "semver", "min_age", "max_age", "newest", "x"]),
    VALUES,
    max_size=3,
)
KEYS = ["tags", "platforms", "sparse", "referrers", "priority", "prune", "trust"]
ENTRIES = st.builds(
    lambda said, tags: {"from": "quay.io/org/app", "to": "m.local/app", **said, **tags},
    st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=2),
    TAGS.map(lambda tags: {"tags": tags}) | st.just({}),
)
REGISTRY = st.dictionaries(
    st.sampled_from(["plain_http", "ca_file", "mirrors", "max_concurrency", "auth", "x"]),
    VALUES,
    max_size=2,
)


DOCUMENTS = st.builds(
    lambda entries, defaults, registry: {
        "mirrors": entries,
        **defaults,
        "registries": {"quay.io": registry},
    },
    st.lists(ENTRIES, min_size=1, max_size=2),
    st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=1),
    REGISTRY,
)


@batches(DOCUMENTS)
def test_the_schema_takes_whatever_the_loader_takes(
    validator: Any, tmp_path: Path, documents: list[object]
) -> None:
    written = [yaml.safe_dump(document) for document in documents]
    for document, loaded in zip(documents, loads_each(tmp_path, written), strict=True):
        if loaded:
            assert validator.is_valid(document)
