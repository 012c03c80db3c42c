"""Hand-written frames against the generated message classes, both ways."""

from __future__ import annotations

import pytest

from semshare.frames import (
    MAX_PAYLOAD_BYTES,
    FrameError,
    WriteFrame,
    encode_write_frame,
    parse_read_frame,
)
from semshare.v1 import cache_broker_pb2 as pb


@pytest.mark.parametrize(
    ("layer", "plane", "first", "rows", "size"),
    [(0, 0, 0, 0, 0), (0, 1, 0, 1, 1), (29, 1, 131071, 682, 127), (127, 7, 1 << 31, 128, 128)],
)
def test_reads_what_protobuf_writes(
    layer: int, plane: int, first: int, rows: int, size: int
) -> None:
    payload = bytes(range(256))[: size % 256] * 1
    message = pb.ReadKvFrame(
        layer=layer, plane=plane, first_row=first, rows=rows, payload=payload
    ).SerializeToString()
    frame = parse_read_frame(message)
    assert (frame.layer, frame.plane, frame.first_row, frame.rows) == (layer, plane, first, rows)
    assert bytes(frame.payload) == payload


def test_reads_the_largest_payload_and_no_larger() -> None:
    largest = pb.ReadKvFrame(rows=1, payload=bytes(MAX_PAYLOAD_BYTES)).SerializeToString()
    assert len(parse_read_frame(largest).payload) == MAX_PAYLOAD_BYTES
    larger = pb.ReadKvFrame(rows=1, payload=bytes(MAX_PAYLOAD_BYTES + 1)).SerializeToString()
    with pytest.raises(FrameError, match="exceeds"):
        parse_read_frame(larger)


def test_skips_unknown_fields_of_every_wire_type() -> None:
    known = pb.ReadKvFrame(layer=3, rows=2, payload=b"abc").SerializeToString()
    unknown = (
        bytes([9 << 3 | 0, 0x96, 0x01])
        + bytes([10 << 3 | 1])
        + bytes(8)
        + bytes([11 << 3 | 2, 4])
        + b"skip"
        + bytes([12 << 3 | 5])
        + bytes(4)
    )
    frame = parse_read_frame(unknown + known + unknown)
    assert (frame.layer, frame.rows, bytes(frame.payload)) == (3, 2, b"abc")


@pytest.mark.parametrize(
    "message",
    [
        b"\x80",
        b"\x08",
        b"\x08" + b"\xff" * 11,
        b"\x08\xff\xff\xff\xff\xff\x01",
        bytes([15 << 3 | 2, 5]) + b"abcd",
        bytes([9 << 3 | 2, 5]) + b"abcd",
        bytes([9 << 3 | 1]) + b"abc",
        bytes([9 << 3 | 3]),
        b"\x00\x01",
    ],
)
def test_malformed_messages_are_refused(message: bytes) -> None:
    with pytest.raises(FrameError):
        parse_read_frame(message)


def test_every_truncation_is_refused_or_shorter() -> None:
    message = pb.ReadKvFrame(layer=300, plane=1, rows=9, payload=b"x" * 300).SerializeToString()
    for end in range(1, len(message)):
        try:
            frame = parse_read_frame(message[:end])
        except FrameError:
            continue
        assert len(frame.payload) == 0


def test_protobuf_reads_what_is_written() -> None:
    payload = bytes(range(200)) * 7
    frame = WriteFrame(29, 1, 4096, 65, memoryview(payload))
    first = pb.WriteKvFrame.FromString(
        encode_write_frame(frame, upload_id=b"u" * 16, exact=True, commit=False)
    )
    assert first == pb.WriteKvFrame(
        upload_id=b"u" * 16,
        exact=True,
        layer=29,
        plane=1,
        token_begin=4096,
        tokens=65,
        payload=payload,
    )
    last = pb.WriteKvFrame.FromString(encode_write_frame(None, commit=True))
    assert last == pb.WriteKvFrame(commit=True)
    zero = WriteFrame(0, 0, 0, 1, memoryview(b""))
    assert pb.WriteKvFrame.FromString(encode_write_frame(zero)) == pb.WriteKvFrame(tokens=1)


def test_too_large_a_payload_is_not_written() -> None:
    frame = WriteFrame(0, 0, 0, 1, memoryview(bytes(MAX_PAYLOAD_BYTES + 1)))
    with pytest.raises(FrameError):
        encode_write_frame(frame)
