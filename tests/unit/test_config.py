"""What is read of an image config, and what is refused."""

from __future__ import annotations

import json

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
