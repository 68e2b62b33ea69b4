"""copy, copy_many, pull, push and verify as a program calls them, against real registries."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

import ocimirror
from ocimirror import (
    Archive,
    Descriptor,
    Digest,
    IntegrityError,
    InvalidReference,
    Layout,
    Manifest,
    MemoryStore,
    NotFound,
    OciMirrorError,
    UsageError,
    copy,
    copy_many,
    pull,
    push,
    request,
    verify,
)
from tests.support import apireference, images, witness
from tests.support.command import ocimirror as ocimirror_command
from tests.support.faults import Respond, Rule
from tests.support.proxy import Proxy

MEDIA_TYPE = "application/vnd.oci.image.manifest.v1+json"


def test_an_image_goes_through_a_layout_and_keeps_its_digest(
    docker_registry: witness.Registry, repository: str, tmp_path: Path
) -> None:
    graph = images.multi()
    images.push(docker_registry, repository, "1.0", graph)
    host = docker_registry.host
    with (
        ocimirror.Registry(host) as registry,
        Layout(tmp_path / "layout", write=True) as layout,
    ):
        image = copy(registry[f"{repository}:1.0"], layout)
        assert image.digest == registry[f"{repository}:1.0"].resolve().digest
        assert str(image.digest) == graph.root
        assert (repr(registry), str(tmp_path) in repr(layout)) == (f"Registry({host!r})", True)
        assert image.bytes_copied == image.bytes_total > 0
        verify(layout)
        again = copy(layout[f"{host}/{repository}:1.0"], registry[f"other/{repository}:2.0"])
        assert again.status == "copied"
        verify(registry[f"other/{repository}:2.0"], deep=True)
    assert (
        docker_registry.get_manifest(f"other/{repository}", "2.0") == graph.manifests[graph.root][1]
    )


def test_a_docker_archive_gets_the_one_image_that_it_has_room_for(
    docker_registry: witness.Registry, repository: str, tmp_path: Path
) -> None:
    graph = images.attested()
    images.push(docker_registry, repository, "1.0", graph)
    file = tmp_path / "image.tar"
    with (
        ocimirror.Registry(docker_registry.host) as registry,
        ocimirror.DockerArchiveWriter(file) as archive,
    ):
        outcome = copy(registry[f"{repository}:1.0"], archive, platforms=["linux/amd64"])
        archive.commit()
    layout = tmp_path / "layout"
    pull([f"{docker_registry.host}/{repository}:1.0"], layout)
    done = ocimirror_command(
        *("copy", "--json", "--platform", "linux/amd64"),
        *(f"oci:{layout}", f"docker-archive:{file}.2"),
    )
    assert outcome.notes == json.loads(done.stdout)["images"][0]["notes"]
    assert len(outcome.notes) == 4
    with ocimirror.DockerArchive(file) as archive:
        verify(archive)
        (entry,) = archive.entries()
        assert entry.name == f"{docker_registry.host}/{repository}:1.0"


def test_pull_and_push_take_references_and_paths(
    docker_registry: witness.Registry, repository: str, tmp_path: Path
) -> None:
    graph = images.docker_list()
    images.push(docker_registry, repository, "1.0", graph)
    host, layout = docker_registry.host, str(tmp_path / "layout")
    absent = f"{host}/{repository}:absent"

    good, bad = pull([f"{host}/{repository}:1.0", absent], layout)
    (pushed,) = push(layout, f"{host}/inside")

    assert (good.status, good.error) == ("copied", None)
    assert (bad.status, type(bad.error)) == ("failed", NotFound)
    assert str(pushed.digest) == graph.root
    assert docker_registry.get_manifest(f"inside/{repository}", "1.0")


def test_copy_raises_what_went_wrong_and_copy_many_returns_it(tmp_path: Path) -> None:
    empty, destination = MemoryStore(), MemoryStore()
    with pytest.raises(NotFound):
        copy(empty["registry.example/a:1"], destination["registry.example/a:1"])
    (outcome,) = copy_many([request(empty["registry.example/a:1"], destination["b"])])
    assert isinstance(outcome.error, NotFound)
    with pytest.raises(NotFound):
        Layout(tmp_path / "absent")


def test_verify_raises_with_every_fault(
    docker_registry: witness.Registry, repository: str, tmp_path: Path
) -> None:
    graph = images.multi()
    images.push(docker_registry, repository, "1.0", graph)
    layout = tmp_path / "layout"
    pull([f"{docker_registry.host}/{repository}:1.0"], str(layout))
    damaged, missing = sorted(graph.blobs)[:2]
    (layout / "blobs" / "sha256" / damaged[7:]).write_bytes(b"x" * len(graph.blobs[damaged]))
    (layout / "blobs" / "sha256" / missing[7:]).unlink()

    with Layout(layout) as opened, pytest.raises(IntegrityError) as caught:
        verify(opened)

    faults = {fault.digest: fault.kind for fault in caught.value.faults}
    assert faults == {damaged: "corrupt", missing: "missing"}


def test_images_of_one_repository_are_one_run_with_one_list_of_its_tags(
    docker_registry: witness.Registry, repository: str, proxy: Callable[..., Proxy]
) -> None:
    """docker-registry has no referrers API, so that what it does not list is looked for in tags."""
    for number in range(6):
        graph = images.with_subject(number=number)
        images.push(docker_registry, repository, str(number), graph)
    front = proxy(docker_registry)
    store = MemoryStore()
    with ocimirror.Registry(front.host) as registry:
        wanted = [registry[f"{repository}:{number}"] for number in range(6)]
        outcomes = copy_many(request(image, store[f"a/b:{image.name}"]) for image in wanted)
    assert [outcome.error for outcome in outcomes] == [None] * 6
    assert front.count("GET", "/tags/list") == 1


def test_all_of_a_store_in_memory_is_verified() -> None:
    store = MemoryStore()
    graph = images.single()
    for digest, (media_type, raw) in graph.manifests.items():
        found = Descriptor(media_type, Digest.parse(digest), len(raw), kind="manifest")
        store.tag([("registry.example/a:1", Manifest.parse(raw, found))])
    with pytest.raises(IntegrityError) as caught:
        verify(store)
    assert len(caught.value.faults) == len(graph.blobs)


class _Shelf(ocimirror.Source):
    """A place of somebody else's: it has names, no index, and has lost what they stand for."""

    location = "shelf:"

    def _resolve(self, name: str) -> Descriptor:
        return Descriptor(MEDIA_TYPE, Digest.of(name.encode()), 2, kind="manifest")

    def _open(self, descriptor: Descriptor, position: int) -> NoReturn:
        raise NotFound(f"no {descriptor}")

    def _exists(self, descriptor: Descriptor) -> bool:
        return False

    def _names(self) -> list[str]:
        return ["one", "two"]

    def _referrers(self, descriptor: Descriptor) -> tuple[ocimirror.Referrer, ...]:
        return ()


def test_all_of_a_place_without_an_index_is_what_it_names() -> None:
    with pytest.raises(IntegrityError) as caught:
        verify(_Shelf())
    assert len(caught.value.faults) == 2


def test_the_names_of_a_place_cannot_be_run_through() -> None:
    """Python would ask for 0, 1, 2 … without end, since there is `place[name]`."""
    for place in (_Shelf(), ocimirror.Registry("registry.example")):
        with pytest.raises(TypeError):
            iter(place)  # type: ignore[call-overload]
        with pytest.raises(TypeError):
            _ = "one" in place  # type: ignore[operator]


def test_all_of_a_layout_is_not_copied_past_an_entry_that_cannot_be_read(tmp_path: Path) -> None:
    name = "registry.example/a:1"
    path = images.write_layout(tmp_path / "layout", {name: images.single()})
    index = json.loads((path / "index.json").read_text())
    index["manifests"].append({**index["manifests"][0], "digest": "sha256:torn", "annotations": {}})
    (path / "index.json").write_text(json.dumps(index))
    with Layout(path) as layout:
        with pytest.raises(ocimirror.DamagedLayout, match="not a digest"):
            copy(layout, MemoryStore())
        assert copy(layout[name], MemoryStore()).status == "copied"


def test_an_outcome_says_under_which_tag_an_image_went_to_a_registry(
    docker_registry: witness.Registry, repository: str, tmp_path: Path
) -> None:
    host = docker_registry.host
    path = images.write_layout(tmp_path / "layout", {"registry.example/a:1.0": images.single()})
    with ocimirror.Registry(host) as registry, Layout(path) as layout:
        outcome = copy(layout, registry[repository])
    assert outcome.result().destination == f"docker://{host}/{repository}:1.0"


def test_what_stops_a_run_stops_its_waiting_for_a_registry(
    docker_registry: witness.Registry, proxy: Callable[..., Proxy], tmp_path: Path
) -> None:
    busy = Respond(429, {"Retry-After": "300"})
    front = proxy(docker_registry, Rule("GET|HEAD", "/manifests/", busy))
    before, stop = set(threading.enumerate()), threading.Event()
    options = ocimirror.Options(stop=stop)
    threading.Timer(1.0, stop.set).start()

    (outcome,) = pull([f"{front.host}/any/image:1.0"], str(tmp_path / "layout"), options)

    assert isinstance(outcome.error, ocimirror.Interrupted)
    ours = [each for each in threading.enumerate() if each not in before]
    waiting = [each for each in ours if each.name.startswith("ocimirror")]
    for each in waiting:
        each.join(60)
    assert not any(each.is_alive() for each in waiting)


def test_a_destination_for_reading_and_a_name_by_digest_are_refused(
    docker_registry: witness.Registry, repository: str, tmp_path: Path
) -> None:
    graph = images.single()
    images.push(docker_registry, repository, "1.0", graph)
    host, layout = docker_registry.host, str(tmp_path / "layout")
    pull([f"{host}/{repository}:1.0"], layout)
    with ocimirror.Registry(host) as registry, Layout(layout) as source:
        with pytest.raises(UsageError, match="named by a tag"):
            copy(source, registry[f"{repository}@{graph.root}"])
        with pytest.raises(UsageError, match="not a name"):
            copy(registry[f"{repository}:1.0"], MemoryStore()["no name"])
        with pytest.raises(InvalidReference):
            registry["Upper:1.0"]
    with pytest.raises(UsageError, match="reading only"):
        copy(MemoryStore()["a/b:1"], for_reading(layout))


def for_reading(layout: str) -> ocimirror.Image:
    """Return an image of a place that nothing can be written to."""
    packed = f"{layout}.tar"
    subprocess.run(["tar", "-C", layout, "-cf", packed, "."], check=True)
    return Archive(packed)["a/b:1"]


def test_credentials_of_the_environment_are_used(
    htpasswd_registry: witness.Registry,
    repository: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    target = MemoryStore()[f"registry.example/{repository}:1.0"]
    with ocimirror.Registry(htpasswd_registry.host) as registry:
        with pytest.raises(OciMirrorError) as refused:
            copy(registry[f"{repository}:1.0"], target)
    assert type(refused.value) is ocimirror.AuthenticationFailed
    with ocimirror.Registry(htpasswd_registry.host, ocimirror.NetworkOptions()) as registry:
        with pytest.raises(ocimirror.AuthenticationFailed) as refused:
            copy(registry[f"{repository}:1.0"], target)
    assert "which name no credential file" in refused.value.advice
    (tmp_path / "config.json").write_text(
        json.dumps(
            {"auths": {htpasswd_registry.host: {"username": "ada", "password": "pa:ss word"}}}
        )
    )
    with (
        ocimirror.Registry(htpasswd_registry.host) as registry,
        pytest.raises(NotFound),
    ):
        copy(registry[f"{repository}:1.0"], target)


def test_everything_that_is_exported_is_there_and_is_documented() -> None:
    for name in ocimirror.__all__:
        assert inspect.getdoc(getattr(ocimirror, name)), name


def test_the_reference_says_what_the_docstrings_say() -> None:
    """`python -m tests.support.apireference` writes it anew."""
    assert apireference.PAGE.read_text() == apireference.page()


def test_what_is_exported_for_types_is_what_is_loaded() -> None:
    """The two lists of the package's front page agree: one for type checkers, one for Python."""
    source = inspect.getsource(ocimirror)
    stated = {
        (module, name.strip())
        for line in source.partition("if TYPE_CHECKING:")[2].partition("\n__all__")[0].splitlines()
        if line.startswith("    from ") and (module := line.split()[1])
        for name in line.partition(" import ")[2].split(",")
    }
    assert {(home, name) for name, home in ocimirror._HOMES.items()} == stated


def test_importing_the_package_loads_no_network_library() -> None:
    script = "import sys, ocimirror; ocimirror.Layout; ocimirror.copy; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout.split()
    assert {"requests", "urllib3", "oras", "click", "rich"} & set(loaded) == set()


def test_what_is_not_exported_is_an_error_that_names_it() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Lauoyt'"):
        ocimirror.Lauoyt  # noqa: B018 - that is what is tried


@pytest.mark.parametrize("before", ["copy_many", "push", "Plan"])
def test_a_verb_is_a_function_whatever_was_loaded_before_it(before: str) -> None:
    """Python would give the package of that name, once something in it was loaded."""
    script = f"from ocimirror import {before}\nfrom ocimirror import copy\ncopy.__code__"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_everything_that_is_exported_is_listed_before_it_is_used() -> None:
    script = "import ocimirror; print(*set(ocimirror.__all__) - set(dir(ocimirror)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "\n"
