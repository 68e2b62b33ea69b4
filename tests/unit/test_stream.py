"""VerifiedStream: whoever received all the bytes received the right ones."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest

from ocimirror import (
    Descriptor,
    Digest,
    DigestMismatch,
    IntegrityError,
    Interrupted,
    MemoryStore,
    SizeMismatch,
    Unsupported,
    VerifiedStream,
)
from tests.support.images import noise
from tests.support.stores import OCTETS, blob_of, push_blob, stream_of

CONTENT = noise("stream", 600_000)
CHUNKED: dict[str, Callable[[VerifiedStream], bytes]] = {
    "small reads": lambda stream: drained(stream, 4096),
    "default reads": lambda stream: drained(stream),
    "one read of all": lambda stream: drained(stream, len(CONTENT)),
    "reads of more than all": lambda stream: drained(stream, 10 * len(CONTENT)),
    "read_all": lambda stream: stream.read_all(len(CONTENT)),
}


class Recorder(io.BytesIO):
    """A raw reader that notes what it was asked for."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.amounts: list[int | None] = []

    def read(self, amount: int | None = -1, /) -> bytes:
        self.amounts.append(amount)
        return super().read(amount)


class Generous(io.BytesIO):
    """A raw reader that breaks its contract: it returns all it has, whatever was asked."""

    def read(self, amount: int | None = -1, /) -> bytes:
        return super().read()


def drained(stream: VerifiedStream, *amount: int) -> bytes:
    parts = []
    while chunk := stream.read(*amount):
        parts.append(chunk)
    return b"".join(parts)


@pytest.mark.parametrize("read", CHUNKED.values(), ids=list(CHUNKED))
def test_right_content_arrives_whole(read: Callable[[VerifiedStream], bytes]) -> None:
    stream = stream_of(blob_of(CONTENT), CONTENT)
    assert read(stream) == CONTENT
    assert stream.verified


@pytest.mark.parametrize("read", CHUNKED.values(), ids=list(CHUNKED))
@pytest.mark.parametrize(
    ("content", "error"),
    [
        pytest.param(b"", SizeMismatch, id="empty"),
        pytest.param(CONTENT[:-1], SizeMismatch, id="short by one"),
        pytest.param(CONTENT[:4096], SizeMismatch, id="short at a chunk's end"),
        pytest.param(CONTENT + b"\0", SizeMismatch, id="one trailing byte"),
        pytest.param(CONTENT + CONTENT, SizeMismatch, id="long"),
        pytest.param(CONTENT[:-1] + b"\0", DigestMismatch, id="last byte corrupt"),
        pytest.param(b"\0" + CONTENT[1:], DigestMismatch, id="first byte corrupt"),
    ],
)
def test_wrong_content_never_arrives_whole(
    read: Callable[[VerifiedStream], bytes], content: bytes, error: type[IntegrityError]
) -> None:
    stream = stream_of(blob_of(CONTENT), content)
    with pytest.raises(error) as caught:
        read(stream)
    assert not stream.verified
    assert caught.value.side == "source"
    assert str(blob_of(CONTENT).digest) in caught.value.message


@pytest.mark.parametrize("content", [b"right conten!", b"right content, and more"])
def test_the_last_byte_is_withheld_until_all_is_checked(content: bytes) -> None:
    stream = stream_of(blob_of(b"right content"), content)
    assert b"".join(stream.read(1) for _ in range(12)) == b"right conten"
    with pytest.raises(IntegrityError):
        stream.read(1)


@pytest.mark.parametrize("content", [CONTENT[:-1] + b"\0", CONTENT + b"\0", CONTENT[:-1]])
def test_reading_on_after_an_error_yields_no_end(content: bytes) -> None:
    stream = stream_of(blob_of(CONTENT), content)
    for _ in range(3):
        with pytest.raises(IntegrityError):
            drained(stream)


def test_a_reader_that_returns_more_than_was_asked_cannot_slip_content_past_the_check() -> None:
    stream = VerifiedStream(blob_of(CONTENT), lambda _: Generous(CONTENT + b"evil"))
    with pytest.raises(SizeMismatch):
        drained(stream, 4096)


def test_a_digest_mismatch_names_both_digests() -> None:
    with pytest.raises(DigestMismatch) as caught:
        drained(stream_of(blob_of(b"wanted"), b"gotten"))
    assert str(Digest.of(b"gotten")) in caught.value.message
    assert str(Digest.of(b"wanted")) in caught.value.message


def test_the_size_is_checked_before_the_digest() -> None:
    with pytest.raises(SizeMismatch):
        drained(stream_of(blob_of(b"wanted"), b"another, and longer"))


def test_sha512_is_checked_with_sha512() -> None:
    descriptor = blob_of(CONTENT, "sha512")
    assert drained(stream_of(descriptor, CONTENT)) == CONTENT
    with pytest.raises(DigestMismatch, match="sha512:"):
        drained(stream_of(descriptor, CONTENT[::-1]))


def test_nothing_is_opened_before_the_first_read() -> None:
    opened: list[int] = []

    def reader(_: int) -> io.BytesIO:
        opened.append(1)
        return io.BytesIO(CONTENT)

    with VerifiedStream(blob_of(CONTENT), reader) as stream:
        assert opened == []
        stream.read(1)
        stream.read(1)
    assert opened == [1]


def test_closing_a_stream_that_was_never_read_opens_nothing() -> None:
    def refuse(_: int) -> io.BytesIO:
        raise AssertionError("opened")

    VerifiedStream(blob_of(CONTENT), refuse).close()


def test_closing_closes_the_reader_and_may_be_repeated() -> None:
    reader = io.BytesIO(CONTENT)
    stream = VerifiedStream(blob_of(CONTENT), lambda _: reader)
    stream.read(10)
    stream.close()
    stream.close()
    assert reader.closed


def test_a_closed_stream_is_not_read() -> None:
    stream = stream_of(blob_of(CONTENT), CONTENT)
    stream.close()
    with pytest.raises(ValueError, match="closed"):
        stream.read()


def test_empty_content_is_verified_without_opening_it() -> None:
    def refuse(_: int) -> io.BytesIO:
        raise AssertionError("opened")

    stream = VerifiedStream(blob_of(b""), refuse)
    assert stream.verified
    assert stream.read() == b""
    assert len(stream) == 0


def test_empty_content_with_the_digest_of_something_is_refused_when_it_is_made() -> None:
    descriptor = Descriptor(OCTETS, Digest.of(b"something"), 0)
    with pytest.raises(DigestMismatch) as caught:
        stream_of(descriptor, b"")
    assert caught.value.side == "source"


def test_an_algorithm_we_cannot_compute_is_refused_when_the_stream_is_made() -> None:
    descriptor = Descriptor(OCTETS, Digest.parse("md5:" + "0" * 32), 5)
    with pytest.raises(Unsupported, match="md5") as caught:
        stream_of(descriptor, b"12345")
    assert caught.value.side == "source"


@pytest.mark.parametrize("amount", [-1, -(2**40)])
def test_a_negative_amount_is_one_chunk_and_not_everything(amount: int) -> None:
    chunk = len(stream_of(blob_of(CONTENT), CONTENT).read())
    assert chunk < len(CONTENT)
    assert len(stream_of(blob_of(CONTENT), CONTENT).read(amount)) == chunk


def test_an_amount_of_zero_reads_nothing() -> None:
    stream = stream_of(blob_of(CONTENT), CONTENT)
    assert stream.read(0) == b""
    assert drained(stream) == CONTENT


def test_no_more_than_one_byte_past_the_end_is_asked_of_the_reader() -> None:
    reader = Recorder(CONTENT)
    drained(VerifiedStream(blob_of(CONTENT), lambda _: reader), 500_000)
    assert reader.amounts == [500_000, 100_000, 1]


@pytest.mark.bar("R15")
def test_content_without_end_is_given_up_one_byte_past_its_size() -> None:
    zeros = open("/dev/zero", "rb", buffering=0)  # noqa: SIM115 - the stream closes it
    stream = VerifiedStream(blob_of(b"\0" * 1000), lambda _: zeros)
    with stream as right, pytest.raises(SizeMismatch):
        right.read_all(1000)
    assert zeros.closed


def test_a_small_document_that_announces_too_much_is_not_read() -> None:
    reader = Recorder(CONTENT)
    stream = VerifiedStream(blob_of(CONTENT), lambda _: reader)
    with pytest.raises(SizeMismatch, match="limit 1000"):
        stream.read_all(1000)
    assert reader.amounts == []


def test_its_length_is_the_descriptors() -> None:
    assert len(stream_of(blob_of(CONTENT), CONTENT)) == len(CONTENT)


def test_it_cannot_be_iterated_so_that_requests_announces_its_length() -> None:
    assert not hasattr(VerifiedStream, "__iter__")


def test_the_watch_is_told_of_every_byte() -> None:
    counted: list[int] = []
    stream = VerifiedStream(blob_of(CONTENT), lambda _: io.BytesIO(CONTENT), watch=counted.append)
    drained(stream, 70_000)
    assert sum(counted) == len(CONTENT)
    assert len(counted) == 9


def test_a_watch_that_raises_stops_the_stream() -> None:
    def watch(count: int) -> None:
        raise Interrupted("stopped")

    stream = VerifiedStream(blob_of(CONTENT), lambda _: io.BytesIO(CONTENT), watch=watch)
    with pytest.raises(Interrupted):
        stream.read()
    assert not stream.verified


def test_a_stream_that_was_stopped_cannot_be_read_to_a_good_end() -> None:
    raised: list[int] = []

    def watch(count: int) -> None:
        if not raised:
            raised.append(count)
            raise Interrupted("stopped")

    stream = VerifiedStream(blob_of(CONTENT), lambda _: io.BytesIO(CONTENT), watch=watch)
    with pytest.raises(Interrupted):
        stream.read(1000)
    with pytest.raises(IntegrityError):
        drained(stream)


def test_a_stream_knows_which_source_handed_it_out() -> None:
    store = MemoryStore()
    descriptor = push_blob(store, CONTENT)
    assert store.fetch(descriptor).origin is store
