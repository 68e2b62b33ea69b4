"""What `docker info` says, in the shapes of old and new daemons."""

from __future__ import annotations

import pytest

from ocimirror.engines.docker.daemon import DockerInfo
from ocimirror.errors import EngineFailed

GRAPHDRIVER = {
    "ServerVersion": "20.10.24",
    "DockerRootDir": "/var/lib/docker",
    "Driver": "overlay2",
    "DriverStatus": [["Backing Filesystem", "extfs"], ["userxattr", "false"]],
    "ContainersRunning": 3,
    "LiveRestoreEnabled": False,
}
CONTAINERD = {
    **GRAPHDRIVER,
    "ServerVersion": "29.7.2",
    "Driver": "overlayfs",
    "DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]],
    "LiveRestoreEnabled": True,
}


def test_the_two_kinds_of_store_are_told_apart() -> None:
    info = DockerInfo.parse(GRAPHDRIVER)
    assert (info.data_root, info.driver, info.containerd_store) == (
        "/var/lib/docker",
        "overlay2",
        False,
    )
    assert (info.containers_running, info.live_restore) == (3, False)
    assert DockerInfo.parse(CONTAINERD).containerd_store
    assert not DockerInfo.parse({**GRAPHDRIVER, "DriverStatus": None}).containerd_store


@pytest.mark.parametrize("change", [{"DockerRootDir": ""}, {"Driver": None}, {"Driver": 5}])
def test_a_document_without_root_or_driver_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(EngineFailed):
        DockerInfo.parse({**GRAPHDRIVER, **change})
