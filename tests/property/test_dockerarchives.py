"""docker-archive: whatever the layers are, out and in again is the same image, or an error."""

from __future__ import annotations

import gzip
import json
import tempfile
from pathlib import Path

import zstandard
from hypothesis import given
from hypothesis import strategies as st

from ocimirror import DockerArchive, DockerArchiveWriter, IntegrityError, MemoryStore
from tests.support import images
from tests.support.dockerarchives import flat, saved
from tests.support.stores import copy_all, failures, memory

NAME = "registry.example.com/team/app:v1"
WAYS = {
    images.OCI_LAYER: lambda content: content,
    images.OCI_LAYER_GZIP: lambda content: gzip.compress(content, mtime=0),
    images.OCI_LAYER_ZSTD: zstandard.compress,
}


@given(st.lists(st.tuples(st.binary(max_size=3000), st.sampled_from(sorted(WAYS))), max_size=5))
def test_any_image_keeps_its_id_and_its_layers(parts: list[tuple[bytes, str]]) -> None:
    # (A plain layer begins as a tar does: what looks compressed is taken for it, as docker does.)
    parts = [(b"./file" + content, way) for content, way in parts]
    builder = images.Builder()
    raw = images.compact(images.config_of([content for content, _ in parts], images.PLATFORMS[0]))
    document = {
        "schemaVersion": 2,
        "mediaType": images.OCI_MANIFEST,
        "config": builder.blob(raw, images.OCI_CONFIG),
        "layers": [builder.blob(WAYS[way](content), way) for content, way in parts],
    }
    graph = builder.graph(builder.manifest(images.compact(document), images.OCI_MANIFEST))
    with tempfile.TemporaryDirectory() as directory:
        path, back = f"{directory}/a.tar", MemoryStore()
        with DockerArchiveWriter(path, durable=False) as writer:
            assert failures(copy_all(memory({NAME: graph}), writer, [NAME])) == []
            writer.commit()
        with DockerArchive(path) as archive:
            assert failures(copy_all(archive, back, [NAME])) == []
    manifest = back.read_manifest(back.resolve(NAME))
    config, *layers = [b"".join(_read(back, blob)) for blob in manifest.blobs]
    assert config == raw
    for kept, blob, (content, way) in zip(layers, manifest.blobs[1:], parts, strict=True):
        plain = way != images.OCI_LAYER_GZIP
        assert kept == (content if plain else WAYS[way](content))
        assert blob.media_type == (images.OCI_LAYER if plain else way)


IMAGE = saved()


def _archive() -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        return flat(IMAGE, [NAME]).write(Path(directory) / "a.tar").read_bytes()


ARCHIVE = _archive()


@given(st.integers(0, len(ARCHIVE) - 1), st.integers(1, 255))
def test_any_changed_byte_is_an_error_or_does_not_matter(position: int, change: int) -> None:
    content = bytearray(ARCHIVE)
    content[position] ^= change
    destination = MemoryStore()
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "a.tar"
        path.write_bytes(content)
        try:
            with DockerArchive(str(path)) as archive:
                (outcome,) = copy_all(archive, destination, [""])
        except IntegrityError:
            return
    if outcome.error is not None:
        assert isinstance(outcome.error, IntegrityError)
        return
    assert outcome.root is not None
    manifest = destination.read_manifest(outcome.root)
    assert json.loads(manifest.raw)["config"]["digest"] == IMAGE.image_id
    assert [str(layer.digest) for layer in manifest.blobs[1:]] == IMAGE.diff_ids
    contents = [b"".join(_read(destination, blob)) for blob in manifest.blobs]
    assert contents == [IMAGE.config, *IMAGE.tars]


def _read(store: MemoryStore, blob: object) -> list[bytes]:
    parts = []
    with store.fetch(blob) as stream:  # type: ignore[arg-type]
        while chunk := stream.read():
            parts.append(chunk)
    return parts
