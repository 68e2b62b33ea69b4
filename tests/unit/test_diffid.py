"""The diff_id of layers, however they are compressed."""

from __future__ import annotations

import gzip
import io
import lzma

import pytest

from ocimirror.engines.diffid import diff_id_of
from ocimirror.errors import DamagedLayout, DigestMismatch, Unsupported
from ocimirror.model.descriptor import Descriptor
from ocimirror.model.digest import Digest
from ocimirror.stores.stream import VerifiedStream
from tests.support.images import gzip_stored, noise, zstd_stored, zstd_zeros

TAR = noise("layer", 3_000_000)
ZEROS = bytes(20_000_000)


def stream_of(content: bytes, digest: Digest | None = None) -> VerifiedStream:
    descriptor = Descriptor("application/x", digest or Digest.of(content), len(content))
    return VerifiedStream(descriptor, lambda _: io.BytesIO(content))


@pytest.mark.parametrize(
    ("layer", "tar"),
    [
        (TAR, TAR),
        (b"", b""),
        (b"abc", b"abc"),
        (gzip.compress(TAR), TAR),
        (gzip_stored(TAR), TAR),
        (gzip.compress(TAR) + gzip.compress(b"more"), TAR + b"more"),
        (gzip.compress(ZEROS), ZEROS),
        (gzip.compress(b""), b""),
        (zstd_stored(TAR), TAR),
        (zstd_stored(TAR) + zstd_stored(b"more"), TAR + b"more"),
        (zstd_zeros(20_000_000), bytes(-(-20_000_000 // (1 << 17)) << 17)),
    ],
    ids=[
        *("plain", "empty", "short", "gzip", "gzip stored", "gzip twice", "gzip of zeros"),
        *("gzip of nothing", "zstd", "zstd twice", "zstd of zeros"),
    ],
)
def test_a_layer_has_the_digest_of_its_tar(layer: bytes, tar: bytes) -> None:
    assert diff_id_of(stream_of(layer)) == Digest.of(tar)


@pytest.mark.parametrize(
    "layer",
    [
        gzip.compress(TAR)[:-1],
        gzip.compress(TAR)[: 1 << 20],
        gzip.compress(TAR) + b"rest",
        b"\x1f\x8b\x08" + bytes(range(200)),
        zstd_stored(TAR)[:9] + b"\xff" * 100,
    ],
    ids=["cut at the end", "cut", "followed by something", "no gzip", "no zstd"],
)
def test_broken_compression_is_refused(layer: bytes) -> None:
    with pytest.raises(DamagedLayout):
        diff_id_of(stream_of(layer))


def test_the_layer_itself_is_verified() -> None:
    with pytest.raises(DigestMismatch):
        diff_id_of(stream_of(gzip.compress(TAR), Digest.of(b"something else")))


def test_what_oci_layers_are_not_compressed_with_is_refused() -> None:
    with pytest.raises(Unsupported):
        diff_id_of(stream_of(lzma.compress(TAR)))
