"""Bulk frames without protobuf: `ReadKvFrame` and `WriteKvFrame` parsed and written by hand.

A generated class would copy each payload once more on the way in and once on the way out. The
bytes are those of the .proto (https://protobuf.dev/programming-guides/encoding/): small varint
fields first, then field 15, length-delimited, which holds the rows. Unknown fields are skipped, so
either side may grow the messages.

Pure functions, thread-safe. Anything that is not a well-formed frame raises `FrameError`.
"""

from __future__ import annotations

from dataclasses import dataclass

MAX_PAYLOAD_BYTES = 2 << 20
"""Payload limit of the contract."""

_PAYLOAD_FIELD = 15
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class FrameError(ValueError):
    """Bytes that are not a frame of the contract."""


@dataclass(frozen=True, slots=True)
class KvFrame:
    """Rows `[first_row, first_row + rows)` of one plane of one layer.

    `payload` is `[row][head][width]` in the model's dtype and aliases the received message.
    """

    layer: int
    plane: int
    first_row: int
    rows: int
    payload: memoryview


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise FrameError("frame ends within a varint")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at
    raise FrameError("varint longer than 10 bytes")


def _skip(data: memoryview, at: int, wire_type: int) -> int:
    if wire_type == _VARINT:
        return _varint(data, at)[1]
    if wire_type == _FIXED64:
        at += 8
    elif wire_type == _FIXED32:
        at += 4
    elif wire_type == _BYTES:
        length, at = _varint(data, at)
        at += length
    else:
        raise FrameError(f"wire type {wire_type} is not supported")
    if at > len(data):
        raise FrameError("frame ends within a field")
    return at


def parse_read_frame(message: bytes | memoryview) -> KvFrame:
    """Reads one `ReadKvFrame`. The payload is not copied."""
    data = memoryview(message)
    fields = [0, 0, 0, 0, 0]
    payload = data[:0]
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire_type = tag >> 3, tag & 7
        if number == 0:
            raise FrameError("field number 0")
        if 1 <= number <= 4 and wire_type == _VARINT:
            value, at = _varint(data, at)
            if value > 0xFFFFFFFF:
                raise FrameError(f"field {number} exceeds uint32")
            fields[number] = value
        elif number == _PAYLOAD_FIELD and wire_type == _BYTES:
            length, at = _varint(data, at)
            if length > MAX_PAYLOAD_BYTES:
                raise FrameError(f"payload of {length} bytes exceeds {MAX_PAYLOAD_BYTES}")
            if at + length > len(data):
                raise FrameError("frame ends within its payload")
            payload = data[at : at + length]
            at += length
        else:
            at = _skip(data, at, wire_type)
    return KvFrame(fields[1], fields[2], fields[3], fields[4], payload)


def _put_varint(out: bytearray, value: int) -> None:
    while value >= 0x80:
        out.append((value & 0x7F) | 0x80)
        value >>= 7
    out.append(value)


@dataclass(frozen=True, slots=True)
class WriteFrame:
    """Rows `[token_begin, token_begin + tokens)` of one plane, to be uploaded.

    `payload` is any contiguous buffer of `[token][head][width]`, at most 2 MiB.
    """

    layer: int
    plane: int
    token_begin: int
    tokens: int
    payload: memoryview


def encode_write_frame(
    frame: WriteFrame | None, *, upload_id: bytes = b"", exact: bool = False, commit: bool = False
) -> bytes:
    """Writes one `WriteKvFrame`; without `frame` it carries only the flags."""
    out = bytearray()
    if upload_id:
        out.append((1 << 3) | _BYTES)
        _put_varint(out, len(upload_id))
        out += upload_id
    numbers = [(2, int(exact)), (7, int(commit))]
    if frame is not None:
        numbers += [
            (3, frame.layer),
            (4, frame.plane),
            (5, frame.token_begin),
            (6, frame.tokens),
        ]
    for number, value in sorted(numbers):
        if value:
            out.append((number << 3) | _VARINT)
            _put_varint(out, value)
    if frame is None:
        return bytes(out)
    payload = memoryview(frame.payload).cast("B")
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise FrameError(f"payload of {len(payload)} bytes exceeds {MAX_PAYLOAD_BYTES}")
    out.append((_PAYLOAD_FIELD << 3) | _BYTES)
    _put_varint(out, len(payload))
    return b"".join((out, payload))
