"""What is read of an image config, and what is refused."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from ocimirror.errors import MalformedManifest
from ocimirror.model.config import ImageConfig
from ocimirror.model.platform import Platform
from tests.support.images import digest_of

DIFF_ID = digest_of(b"layer")


def test_a_config_tells_its_platform_and_its_layers() -> None:
    rootfs = {"type": "layers", "diff_ids": [DIFF_ID]}
    raw = json.dumps({"os": "linux", "architecture": "arm", "variant": "v7", "rootfs": rootfs})
    config = ImageConfig.parse(raw.encode(), "config")
    assert config.platform == Platform("linux", "arm", "v7")
    assert [str(diff_id) for diff_id in config.diff_ids] == [DIFF_ID]
    assert config.created is None


@pytest.mark.parametrize(
    ("text", "second"),
    [
        ("2024-01-02T03:04:05Z", 5),
        ("2024-01-02T03:04:05.123456789Z", 5),
        ("2024-01-02T05:04:06+02:00", 6),
        ("2024-01-02T03:04:07", 7),
    ],
)
def test_a_config_tells_when_it_was_built(text, second) -> None:
    raw = json.dumps({"rootfs": {"diff_ids": []}, "created": text}).encode()
    created = ImageConfig.parse(raw, "config").created
    assert created is not None
    assert created.astimezone(UTC).replace(microsecond=0) == datetime(
        2024, 1, 2, 3, 4, second, tzinfo=UTC
    )


@pytest.mark.parametrize("text", ["", "yesterday", "99999-01-01T00:00:00Z"])
def test_a_time_that_is_none_is_not_known(text) -> None:
    raw = json.dumps({"rootfs": {"diff_ids": []}, "created": text}).encode()
    assert ImageConfig.parse(raw, "config").created is None


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"rootfs": None},
        {"rootfs": {"diff_ids": "sha256:00"}},
        {"rootfs": {"diff_ids": ["sha256:00"]}},
        {"rootfs": {"diff_ids": [1]}},
        {"rootfs": {"diff_ids": []}, "os": 5},
    ],
)
def test_a_config_of_another_shape_is_refused(document) -> None:
    with pytest.raises(MalformedManifest):
        ImageConfig.parse(json.dumps(document).encode(), "config")
