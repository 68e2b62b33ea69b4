"""A dry run is refused what a run would be refused, and writes nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ocimirror.copy.places import Places
from ocimirror.errors import OciMirrorError
from ocimirror.model.reference import Location
from ocimirror.registry import NetworkOptions
from tests.support import images
from tests.unit.test_layout import as_an_ordinary_user

NAME = "registry.example.com/app:v1"


def a_file(base: Path) -> Path:
    (base / "file").write_bytes(b"x")
    return base / "file"


def below_a_file(base: Path) -> Path:
    return a_file(base) / "layout"


def other_files(base: Path) -> Path:
    a_file(base)
    return base


def closed(base: Path) -> Path:
    (base / "closed").mkdir(mode=0o555)
    return base / "closed"


def below_closed(base: Path) -> Path:
    return closed(base) / "new" / "layout"


def closed_within(base: Path) -> Path:
    images.write_layout(base / "layout", {NAME: images.single()})
    (base / "layout" / "blobs" / "sha256").chmod(0o555)
    return base / "layout"


@pytest.mark.bar("R06")
@pytest.mark.parametrize(
    ("scheme", "make", "code"),
    [
        ("oci", a_file, 2),
        ("oci", below_a_file, 2),
        ("oci", other_files, 2),
        ("oci", closed, 8),
        ("oci", below_closed, 8),
        ("oci", closed_within, 8),
        ("oci-archive", other_files, 2),  # (a directory)
        ("oci-archive", below_a_file, 8),
        ("oci-archive", below_closed, 8),
    ],
)
def test_a_dry_run_is_refused_what_a_run_is(
    scheme: str, make: Callable[[Path], Path], code: int, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    base.mkdir()
    location = Location(scheme, str(make(base)))  # type: ignore[arg-type]
    before = sorted(base.rglob("*"))
    for dry_run in (True, False):
        with (
            as_an_ordinary_user(base),
            Places(NetworkOptions) as places,
            pytest.raises(OciMirrorError) as caught,
        ):
            places.destination(location, dry_run=dry_run)
        assert caught.value.exit_code == code
        if dry_run:
            assert sorted(base.rglob("*")) == before


@pytest.mark.parametrize("make", [lambda base: base, lambda base: base / "new" / "layout"])
def test_a_dry_run_makes_nothing(make: Callable[[Path], Path], tmp_path: Path) -> None:
    with Places(NetworkOptions) as places:
        places.destination(Location("oci", str(make(tmp_path))), dry_run=True)
        places.destination(Location("oci-archive", str(tmp_path / "a.tar")), dry_run=True)
    assert list(tmp_path.iterdir()) == []
