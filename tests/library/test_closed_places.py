"""A place that is closed, opened for reading, or full says so, and takes nothing."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from ocimirror import (
    Archive,
    ArchiveWriter,
    DockerArchive,
    DockerArchiveWriter,
    Image,
    Layout,
    MemoryStore,
    Registry,
    Source,
    Store,
    UsageError,
    copy,
    copy_many,
    pull,
    request,
    verify,
)
from tests.support import images, witness
from tests.support.command import ocimirror
from tests.support.stores import fill

NAME = "registry.example.com/team/app:1.0"
OTHER = "registry.example.com/team/app:2.0"


def source() -> MemoryStore:
    """Return two images in memory."""
    store = MemoryStore()
    fill(store, {NAME: images.single(), OTHER: images.docker_schema2()})
    return store


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """Return a layout with one image."""
    path = tmp_path / "written"
    with Layout(path, write=True) as layout:
        copy(source()[NAME], layout[NAME])
    return path


def archive_of(kind: type[ArchiveWriter], path: Path) -> str:
    with kind(str(path)) as archive:
        copy(source()[NAME], archive[NAME])
        archive.commit()
    return str(path)


PLACES: dict[str, Callable[[Path, Path], Source]] = {
    "layout": lambda written, _: Layout(written),
    "layout to write": lambda written, _: Layout(written, write=True),
    "archive": lambda _, path: Archive(archive_of(ArchiveWriter, path)),
    "archive to write": lambda _, path: ArchiveWriter(str(path)),
    "docker-archive": lambda _, path: DockerArchive(archive_of(DockerArchiveWriter, path)),
    "docker-archive to write": lambda _, path: DockerArchiveWriter(str(path)),
    "memory": lambda *_: source(),
}


@pytest.mark.parametrize("kind", PLACES)
def test_what_is_closed_is_neither_read_nor_written(
    kind: str, written: Path, tmp_path: Path
) -> None:
    place = PLACES[kind](written, tmp_path / "image.tar")
    image = place[NAME]
    place.close()
    place.close()  # (nothing happens)
    files = sorted(path for path in written.rglob("*"))
    for use in (
        lambda: copy(image, MemoryStore()[OTHER]),
        lambda: copy(place, MemoryStore()[OTHER]),
        lambda: verify(image),
        place.names,
        *(
            (lambda: copy(source()[OTHER], Image(place, OTHER)),)
            if isinstance(place, Store)
            else ()
        ),
        *((place.commit,) if isinstance(place, Store) else ()),
    ):
        with pytest.raises(UsageError) as refused:
            use()
        assert refused.value.message == f"{place.location} is closed"
    assert sorted(path for path in written.rglob("*")) == files


def test_a_stream_of_a_closed_place_does_not_open_it_again(written: Path) -> None:
    with Layout(written) as layout:
        stream = layout.fetch(layout.resolve(NAME))
    with pytest.raises(UsageError, match="is closed"), stream:
        stream.read()


def test_a_layout_opened_for_reading_takes_nothing(written: Path) -> None:
    """It may have no lock, and `ocimirror gc` would remove what is copied into it."""
    before = (written / "index.json").read_bytes()
    with Layout(written) as layout:
        for copied in (
            lambda: copy(source()[OTHER], layout[OTHER]),
            lambda: copy(source()[NAME], layout[OTHER]),
        ):
            with pytest.raises(UsageError) as refused:
                copied()
            assert refused.value.message == f"oci:{written} was opened for reading"
            assert refused.value.advice == "Open it with write=True."
    assert (written / "index.json").read_bytes() == before


def test_gc_waits_for_a_layout_that_takes_something_and_not_for_a_closed_one(
    written: Path,
) -> None:
    with Layout(written, write=True):
        assert ocimirror("gc", "--grace", "0", str(written)).code == 7
    assert ocimirror("gc", "--grace", "0", str(written)).code == 0


def test_a_docker_archive_takes_one_image_and_refuses_the_second(tmp_path: Path) -> None:
    path = tmp_path / "image.tar"
    here = source()
    with DockerArchiveWriter(str(path)) as archive:
        copy(here[NAME], archive[NAME])
        copy(here[NAME], archive[NAME])  # (the same: nothing changes)
        for second in (here[OTHER], here[NAME]):
            with pytest.raises(UsageError, match="has room for one"):
                copy(second, archive[OTHER])
        archive.commit()
    with DockerArchive(str(path)) as read:
        verify(read)
        assert read.names() == [NAME]


def test_of_many_images_for_one_docker_archive_one_is_copied_and_the_rest_fail(
    tmp_path: Path,
) -> None:
    path = tmp_path / "image.tar"
    here = MemoryStore()
    fill(here, {NAME: images.single(), OTHER: images.docker_schema2()})
    with DockerArchiveWriter(str(path)) as archive:
        requests = [request(here[name], archive[name]) for name in (NAME, OTHER)]
        outcomes = copy_many(requests)
        archive.commit()
    copied = [outcome for outcome in outcomes if outcome.error is None]
    failed = [outcome for outcome in outcomes if isinstance(outcome.error, UsageError)]
    assert (len(copied), len(failed)) == (1, 1)
    with DockerArchive(str(path)) as read:
        verify(read)
        assert read.names() == [copied[0].request.new_name]


@pytest.mark.parametrize("kind", [ArchiveWriter, DockerArchiveWriter])
def test_an_archive_takes_nothing_after_it_was_committed(
    kind: type[ArchiveWriter], tmp_path: Path
) -> None:
    path = tmp_path / "image.tar"
    with kind(str(path)) as archive:
        copy(source()[NAME], archive[NAME])
        archive.commit()
        with pytest.raises(UsageError, match="was committed") as refused:
            copy(source()[NAME], archive[OTHER])
        assert "open another" in refused.value.advice


def test_a_closed_registry_sends_nothing_more(
    docker_registry: witness.Registry, repository: str, tmp_path: Path
) -> None:
    images.push(docker_registry, repository, "1.0", images.single())
    with Registry(docker_registry.host) as registry:
        image = registry[f"{repository}:1.0"]
        verify(image)
    registry.close()  # (nothing happens)
    with pytest.raises(UsageError, match="is closed"):
        registry[f"{repository}:1.0"]
    with pytest.raises(UsageError, match=f"{docker_registry.host}/{repository} is closed"):
        copy(image, MemoryStore()[NAME])
    with pytest.raises(UsageError, match=f"{docker_registry.host}/{repository} is closed"):
        copy(source()[NAME], image)
    # (One that is open is another.)
    (pulled,) = pull([f"{docker_registry.host}/{repository}:1.0"], str(tmp_path / "layout"))
    assert pulled.error is None


@pytest.mark.parametrize("kind", [ArchiveWriter, DockerArchiveWriter])
def test_a_commit_that_was_forgotten_is_warned_of_and_only_that(
    kind: type[ArchiveWriter], tmp_path: Path
) -> None:
    path = tmp_path / "image.tar"
    with (
        pytest.warns(UserWarning, match=r"without commit\(\)") as warned,
        kind(str(path)) as archive,
    ):
        copy(source()[NAME], archive[NAME])
    assert [Path(warning.filename) for warning in warned] == [Path(__file__)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with kind(str(path)):
            pass  # (nothing was copied)
        with pytest.raises(ZeroDivisionError), kind(str(path)) as archive:
            copy(source()[NAME], archive[NAME])
            raise ZeroDivisionError
        with kind(str(path)) as archive:
            copy(source()[NAME], archive[NAME])
            archive.commit()


@pytest.mark.parametrize("kind", ["layout to write", "archive to write", "registry"])
def test_a_place_that_was_not_closed_is_a_resource_warning(
    kind: str, written: Path, tmp_path: Path
) -> None:
    place: Registry | Source
    if kind == "registry":
        place = Registry("registry.example.com")
    else:
        place = PLACES[kind](written, tmp_path / "image.tar")
    kept = [place]
    del place
    with pytest.warns(ResourceWarning, match="was not closed"):
        kept.clear()
    with warnings.catch_warnings(), Layout(written) as layout:
        warnings.simplefilter("error")
        layout.close()
