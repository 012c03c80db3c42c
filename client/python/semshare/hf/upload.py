"""Sending a prompt's rows to the broker."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch

from semshare.frames import MAX_PAYLOAD_BYTES, WriteFrame
from semshare.hf.broker import Broker, SharingBroker
from semshare.hf.cache import KvCache, plane_rows
from semshare.hf.sharing import share

Ranges = list[tuple[int, int]]


def upload_rows(broker: Broker, upload_id: bytes, source: KvCache, ranges: Ranges) -> Any:
    """Sends the rows of the missing ranges and commits; the broker's `WriteKvResponse`."""
    sharing = share(broker, source)
    if not sharing.handle:
        return broker.write_kv(upload_id, _frames(source, ranges))
    taker = cast(SharingBroker, broker)
    try:
        return taker.write_kv_from(upload_id, source.view(sharing.handle), len(source.planes))
    except BaseException:
        if source.buffer is not None:
            source.buffer.retire()
        raise


def _frames(source: KvCache, ranges: Ranges) -> Iterator[WriteFrame]:
    """Rows of the missing ranges in the order layer, plane, range, token."""
    for layer, planes in enumerate(source.planes):
        for plane in range(len(planes)):
            rows = plane_rows(source, layer, plane)
            step = max(1, MAX_PAYLOAD_BYTES // (rows[0].numel() * rows.element_size()))
            for begin, end in ranges:
                for at in range(begin, end, step):
                    count = min(step, end - at)
                    part = rows[at : at + count].contiguous().cpu()
                    data = part.view(torch.uint8).numpy().data.cast("B")
                    yield WriteFrame(layer, plane, at, count, data)
