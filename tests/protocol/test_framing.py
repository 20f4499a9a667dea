from __future__ import annotations

import struct
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aioregistry._errors import ProtocolError
from aioregistry._protocol import FrameDecoder, frame, join_frames

PAYLOADS = [b"", b"a", b"", b"frame", bytes(300), b"last"]
STREAM = join_frames(PAYLOADS)


def decode(chunks: list[bytes], max_frame: int = 300) -> list[bytes]:
    decoder = FrameDecoder(max_frame)
    return [payload for chunk in chunks for payload in decoder.feed(chunk)]


def test_a_frame_is_its_length_and_its_payload() -> None:
    assert frame(b"abc") == b"\x00\x00\x00\x03abc"
    assert frame(b"") == bytes(4)


def test_frames_are_joined_in_order() -> None:
    assert b"".join(map(frame, PAYLOADS)) == STREAM
    assert join_frames([]) == b""


@pytest.mark.parametrize("at", range(len(STREAM) + 1))
def test_every_split_in_two(at: int) -> None:
    assert decode([STREAM[:at], STREAM[at:]]) == PAYLOADS


@pytest.mark.parametrize("size", range(1, 12))
def test_equal_chunks(size: int) -> None:
    assert decode([STREAM[at : at + size] for at in range(0, len(STREAM), size)]) == PAYLOADS


@settings(deadline=None)
@given(st.lists(st.binary(max_size=40)), st.data())
def test_any_split_of_any_frames(payloads: list[bytes], data: st.DataObject) -> None:
    stream = join_frames(payloads)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)))))
    chunks = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert decode(chunks, max_frame=40) == payloads


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_whatever_a_transport_hands_over(kind: type) -> None:
    decoder = FrameDecoder(300)
    received = [payload for at in range(0, len(STREAM), 7) for payload in decoder.feed(kind(STREAM[at : at + 7]))]
    assert received == PAYLOADS
    assert {type(payload) for payload in received} == {bytes}


def test_frames_do_not_change_with_the_buffer_they_came_in() -> None:
    buffer = bytearray(frame(b"abc"))
    (payload,) = FrameDecoder(10).feed(memoryview(buffer))
    buffer[:] = bytes(len(buffer))
    assert payload == b"abc"


def test_a_frame_may_be_as_long_as_agreed_and_no_longer() -> None:
    assert decode([frame(bytes(300))]) == [bytes(300)]
    with pytest.raises(ProtocolError, match=r"frame length 301 .* not within 0\.\.300"):
        decode([frame(bytes(301))])


@pytest.mark.parametrize("length", [-1, -(2**31), 301, 2**31 - 1])
@pytest.mark.parametrize("at", range(5))
def test_a_bad_length_is_named_however_it_arrives(length: int, at: int) -> None:
    prefix = struct.pack(">i", length)
    with pytest.raises(ProtocolError, match=f"frame length {length} "):
        decode([prefix[:at], prefix[at:] + b"more"])


def test_frames_before_a_bad_length_are_handed_out() -> None:
    frames = FrameDecoder(300).feed(frame(b"one") + frame(b"two") + b"\xff\xff\xff\xff")
    assert [next(frames), next(frames)] == [b"one", b"two"]
    with pytest.raises(ProtocolError):
        next(frames)


@pytest.mark.parametrize(
    ("answer", "explanation"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n", "speaks HTTP"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "speaks SSH"),
        (b"\x15\x03\x03\x00\x02\x02\x46", "speaks TLS"),
        (b"220 mail.example ESMTP\r\n", "not a ZooKeeper"),
    ],
)
def test_another_service_is_told_by_its_first_bytes(answer: bytes, explanation: str) -> None:
    with pytest.raises(ProtocolError, match=explanation):
        decode([answer])


def test_a_length_alone_reserves_nothing() -> None:
    decoder = FrameDecoder(2**30)
    tracemalloc.start()
    try:
        assert list(decoder.feed(struct.pack(">i", 2**30) + b"and a little more")) == []
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100_000


def test_a_large_frame_is_held_about_twice_at_most() -> None:
    size = 4 * 2**20
    chunks = [chunk[at : at + 2**16] for chunk in [frame(bytes(size))] for at in range(0, size + 4, 2**16)]
    decoder = FrameDecoder(size)
    tracemalloc.start()
    try:
        received = [len(payload) for chunk in chunks for payload in decoder.feed(chunk)]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert received == [size]
    assert peak < 2.5 * size
