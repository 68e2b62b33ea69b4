"""What a program gives wrong is refused at once, in words; and no password is in them."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest

from ocimirror import (
    Archive,
    ArchiveWriter,
    Descriptor,
    Digest,
    InvalidReference,
    Manifest,
    MemoryStore,
    NetworkOptions,
    Options,
    Outcome,
    Plan,
    Platform,
    Registry,
    Request,
    UsageError,
    VerifiedStream,
    copy,
    copy_many,
    from_environment,
    pull,
    push,
    request,
    verify,
)
from tests.support import images

NAME = "registry.example/a:1"


def held(graph: images.Graph, name: str) -> MemoryStore:
    """Return a store in memory with an image."""
    store = MemoryStore()
    for digest, raw in graph.blobs.items():
        blob = Descriptor("application/octet-stream", Digest.parse(digest), len(raw))
        store.push(blob, VerifiedStream(blob, lambda _, raw=raw: io.BytesIO(raw)))
    for digest, (media_type, raw) in graph.manifests.items():
        found = Descriptor(media_type, Digest.parse(digest), len(raw), kind="manifest")
        manifest = Manifest.parse(raw, found)
        store.push_manifest(manifest)
        if digest == graph.root:
            store.tag([(name, manifest)])
    return store


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Options(jobs=0),
        lambda: Options(retries=-1),
        lambda: Options(sparse="bogus"),  # type: ignore[arg-type]
        lambda: NetworkOptions(jobs=0),
        lambda: NetworkOptions(retries=-1),
        lambda: NetworkOptions(timeout_s=0),
        lambda: NetworkOptions(bytes_per_second=-1),
        lambda: NetworkOptions(plain_http="registry.example"),  # type: ignore[arg-type]
        lambda: NetworkOptions(proxy="http://"),
        lambda: NetworkOptions(proxy="http://[::1"),
    ],
)
def test_options_out_of_range_are_refused(wrong: Callable[[], object]) -> None:
    with pytest.raises(UsageError):
        wrong()


def test_one_text_is_not_taken_for_a_list(tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    with pytest.raises(UsageError, match=r"as \['busybox'\]"):
        pull("busybox", layout)
    with pytest.raises(UsageError, match="not one text"):
        push(layout, "registry.example", images="busybox")
    with pytest.raises(UsageError, match=r"as \['linux/amd64'\]"):
        pull(["busybox"], layout, platforms="linux/amd64")
    assert not layout.exists()


def test_platforms_may_be_text() -> None:
    source = held(images.multi(), NAME)[NAME]
    wanted = request(
        source, MemoryStore()[NAME], platforms=["linux/arm64", Platform("linux", "amd64")]
    )
    assert wanted.platforms == (Platform("linux", "arm64"), Platform("linux", "amd64"))
    for refused in (
        lambda: request(source, MemoryStore()[NAME], platforms=["amd64"]),
        lambda: verify(source, platforms=["amd64"]),
        lambda: pull(["a"], "layout", platforms=["amd64"]),
        lambda: push("layout", "registry.example", platforms=["amd64"]),
    ):
        with pytest.raises(InvalidReference, match="not a platform: 'amd64'"):
            refused()


def test_a_login_in_a_registry_is_refused_and_not_printed(tmp_path: Path) -> None:
    text = "user:hunter2@registry.example"
    for refused in (
        lambda: Registry("user:hun@ter2@registry.example"),
        lambda: Registry(text),
        lambda: push(tmp_path, text),
        lambda: pull([f"{text}/team/app:1.0"], tmp_path),
    ):
        with pytest.raises(InvalidReference) as error:
            refused()
        assert "hun" not in error.value.diagnostics()
        assert "ter2" not in error.value.diagnostics()


def test_a_proxy_without_a_scheme_is_one_of_http_and_its_login_is_a_secret() -> None:
    options = NetworkOptions(proxy="ada:hunter2@proxy.example:3128")
    assert options.proxy == "http://ada:hunter2@proxy.example:3128"
    assert "hunter2" in options.secrets
    assert "hunter2" not in repr(options)
    with pytest.raises(UsageError) as error:
        NetworkOptions(proxy="ada:hunter2@proxy.example:0")
    assert "hunter2" not in error.value.diagnostics()


def test_options_of_the_environment_are_to_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("HTTPS_PROXY", "proxy.example:3128")
    options = from_environment()
    assert tmp_path / "config.json" in [file.path for file in options.auth_files]
    assert options.proxy == "http://proxy.example:3128"
    assert NetworkOptions(retries=2).auth_files == ()


class _Failing:
    """A reporter with a fault of its own in one method."""

    def __init__(self, where: str, error: Exception) -> None:
        self._where, self._error = where, error
        self.counts: list[int] = []

    def planned(self, request: Request, plan: Plan) -> None:
        self._maybe("planned")

    def moved(self, request: Request, count: int) -> None:
        self.counts.append(count)
        self._maybe("moved")

    def finished(self, outcome: Outcome) -> None:
        self._maybe("finished")

    def _maybe(self, here: str) -> None:
        if here == self._where:
            raise self._error


@pytest.mark.parametrize("where", ["planned", "moved", "finished"])
def test_what_a_reporter_raises_ends_the_run_and_is_raised_as_it_is(where: str) -> None:
    source = held(images.multi(), NAME)[NAME]
    error = ValueError("mine")
    reporter, target = _Failing(where, error), MemoryStore()
    with pytest.raises(ValueError, match="mine") as caught:
        copy_many([request(source, target[NAME])], reporter=reporter)
    assert caught.value is error
    assert bool(target.names()) == (where == "finished")


def test_a_reporter_is_never_told_of_no_bytes() -> None:
    source = held(images.attested(), NAME)[NAME]
    reporter, target = _Failing("", ValueError()), MemoryStore()
    first = copy(source, target[NAME], reporter=reporter)
    assert sum(reporter.counts) == first.bytes_total > 0
    copy(source, target[NAME], Options(deep=True), reporter)
    assert 0 not in reporter.counts


def test_archives_take_paths(tmp_path: Path) -> None:
    source, file = held(images.multi(), NAME)[NAME], tmp_path / "images.tar"
    with ArchiveWriter(file) as archive:
        copied = copy(source, archive[NAME])
        archive.commit()
    with Archive(file) as opened:
        assert opened[NAME].resolve().digest == copied.digest
        assert repr(opened) == f"Archive('oci-archive:{file}')"
