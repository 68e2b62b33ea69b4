"""When an image was built: its config says it, and the age rules of a sync go by it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support import images
from tests.support.command import ocimirror
from tests.support.images import Builder
from tests.support.registry import run_registry

TIMES = {
    "utc": ("2024-01-02T03:05:05Z", "03:05"),
    "nanoseconds": ("2024-01-02T03:06:05.123456789Z", "03:06"),
    "offset": ("2024-01-02T05:07:06+02:00", "03:07"),
    "no-offset": ("2024-01-02T03:08:07", "03:08"),
}
NO_TIMES = {"empty": "", "word": "yesterday", "far": "99999-01-01T00:00:00Z"}
ODD: dict[str, dict[str, Any]] = {
    "absent": {"rootfs": {"diff_ids": []}},
    "number": {"rootfs": {"diff_ids": []}, "created": 5},
    "no-config": {"created": "2024-01-02T03:05:05Z"},
}


@pytest.fixture(scope="module")
def attrition(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return why each tag is not mirrored that is more than an hour old, or has no time."""
    directory = tmp_path_factory.mktemp("times")
    configs: dict[str, dict[str, Any]] = {
        tag: {"rootfs": {"diff_ids": []}, "created": text}
        for tag, text in {**{t: text for t, (text, _) in TIMES.items()}, **NO_TIMES}.items()
    }
    with run_registry(directory / "registry") as registry:
        for tag, config in {**configs, **ODD}.items():
            builder = Builder()
            document = {
                "schemaVersion": 2,
                "mediaType": images.OCI_MANIFEST,
                "config": builder.blob(images.compact(config), images.OCI_CONFIG),
                "layers": [],
            }
            root = builder.manifest(images.compact(document), images.OCI_MANIFEST)
            images.push(registry, "team/app", tag, builder.graph(root))
        file = directory / "sync.yaml"
        file.write_text(
            f"registries: {{'{registry.host}': {{plain_http: true}}}}\nmirrors:\n"
            f"- {{from: {registry.host}/team/app, to: 'oci:x', tags: {{max_age: 1h}}}}\n"
        )
        run = ocimirror("sync", file, "--dry-run", "--json")
    assert run.code == 0, run.stderr
    assert run.document["images"] == []
    return {
        left["source"].rpartition(":")[2]: json.dumps(left) for left in run.document["attrition"]
    }


@pytest.mark.parametrize("tag", TIMES)
def test_a_config_tells_when_it_was_built(attrition: dict[str, str], tag: str) -> None:
    assert f"created 2024-01-02 {TIMES[tag][1]}Z" in attrition[tag]


@pytest.mark.parametrize("tag", [*NO_TIMES, *ODD])
def test_a_time_that_is_none_is_not_known(attrition: dict[str, str], tag: str) -> None:
    assert "its config does not say when it was created" in attrition[tag]
