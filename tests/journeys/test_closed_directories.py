"""Where nothing can be written, a run is refused before it begins, and a dry run like it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import images
from tests.support.command import obeying_modes, ocimirror
from tests.support.judge import faults_of, names_of

NAME = "registry.example.com/app:v1"
SINGLE = images.single()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Write an image to copy from."""
    layout = images.write_layout(tmp_path_factory.mktemp("source") / "layout", {NAME: SINGLE})
    return f"oci:{layout}"


@pytest.fixture(scope="module")
def written(source: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a layout as the command leaves it; tests change its modes, and put them back."""
    layout = tmp_path_factory.mktemp("written") / "layout"
    assert ocimirror("copy", source, f"oci:{layout}").code == 0
    return layout


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
    scheme: str, make: Callable[[Path], Path], code: int, source: str, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    base.mkdir()
    destination = f"{scheme}:{make(base)}"
    before = sorted(base.rglob("*"))
    assert obeying_modes("copy", source, destination, "--dry-run").code == code
    assert sorted(base.rglob("*")) == before
    assert obeying_modes("copy", source, destination).code == code


@pytest.mark.parametrize("place", ["oci:{}", "oci:{}/new/layout", "oci-archive:{}/a.tar"])
def test_a_dry_run_makes_nothing(place: str, source: str, tmp_path: Path) -> None:
    assert ocimirror("copy", source, place.format(tmp_path), "--dry-run").code == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("part", ["", "blobs", "blobs/sha256", ".ocimirror", ".ocimirror/tmp"])
@pytest.mark.bar("R06")
def test_a_directory_that_cannot_be_written_is_found_out_before_anything(
    part: str, source: str, written: Path
) -> None:
    (written / part).chmod(0o555)
    done = obeying_modes("copy", source, f"oci:{written}")
    (written / part).chmod(0o755)
    assert done.code == 8
    assert str(written / part) in done.stderr
    assert names_of(written) == {NAME: SINGLE.root}


@pytest.mark.bar("R06")
def test_a_layout_that_cannot_be_made_is_found_out_before_anything(
    source: str, tmp_path: Path
) -> None:
    (tmp_path / "closed").mkdir(mode=0o555)
    assert obeying_modes("copy", source, f"oci:{tmp_path}/closed/new/layout").code == 8
    assert list((tmp_path / "closed").iterdir()) == []


def test_a_layout_is_made_below_a_directory_that_cannot_be_listed(
    source: str, tmp_path: Path
) -> None:
    (tmp_path / "closed" / "layout").mkdir(parents=True)
    (tmp_path / "closed").chmod(0o311)
    done = obeying_modes("copy", source, f"oci:{tmp_path}/closed/layout")
    (tmp_path / "closed").chmod(0o755)
    assert done.code == 0, done.stderr
    assert names_of(tmp_path / "closed" / "layout") == {NAME: SINGLE.root}
    assert faults_of(tmp_path / "closed" / "layout") == []


def test_a_layout_whose_lock_cannot_be_opened_can_still_be_read(written: Path) -> None:
    lock = written / ".ocimirror" / "lock"
    lock.chmod(0)
    done = obeying_modes("list", written, "--json")
    lock.chmod(0o644)
    assert [image["name"] for image in done.document["images"]] == [NAME]
