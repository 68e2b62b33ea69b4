"""What a name or digest stands for: one image, or an error that says what there is."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import images
from tests.support.command import ocimirror
from tests.support.registry import StrictRegistry, run_registry

IMAGE = images.single()
IMAGE_ID = json.loads(IMAGE.raw)["config"]["digest"]


# (The registry would look for a config's child in its key `config`.)
CONFIG = images.compact({"os": "linux", "rootfs": {"type": "layers", "diff_ids": []}})


@pytest.fixture
def here(tmp_path: Path) -> Iterator[StrictRegistry]:
    """Run a registry with one image, which gives a config as a manifest too."""
    (tmp_path / "here").mkdir()
    with run_registry(tmp_path / "here") as registry:
        images.push(registry, "app", "1.0", IMAGE)
        registry.put_manifest("app", images.digest_of(CONFIG), CONFIG, "application/octet-stream")
        registry.put_manifest("app", "config", CONFIG, images.OCI_CONFIG)
        yield registry


@pytest.mark.parametrize("command", ["copy", "inspect", "verify"])
def test_an_image_id_is_not_an_image(command: str, here: StrictRegistry, tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    assert ocimirror("pull", f"{here.host}/app:1.0", layout).code == 0
    with tarfile.open(tmp_path / "image.tar", "w") as tar:
        for name in ("oci-layout", "index.json", "blobs"):
            tar.add(layout / name, name)
    target = [f"oci:{tmp_path}/other:team/app:1"] if command == "copy" else []

    for place in (
        f"oci:{layout}:@{IMAGE_ID}",
        f"oci-archive:{tmp_path}/image.tar:@{IMAGE_ID}",
        f"docker://{here.host}/app@{images.digest_of(CONFIG)}",
        f"docker://{here.host}/app:config",
    ):
        done = ocimirror(command, place, *target)
        assert done.code == 4, (place, done.stdout, done.stderr)
        assert "is an image ID" in done.stderr
