"""Sending a prompt's rows to the broker."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any, cast

import torch

from semshare.frames import MAX_PAYLOAD_BYTES, WriteFrame
from semshare.hf.broker import Broker, SharingBroker
from semshare.hf.cache import KvCache, plane_rows
from semshare.shm import ShmError

_LOG = logging.getLogger(__name__)

Ranges = list[tuple[int, int]]


def shared_handle(broker: Broker, cache: KvCache) -> bytes:
    """What the broker knows the cache's memory as, or `b""` if it cannot reach it: then rows go
    inline. A refusal is logged."""
    offered = getattr(broker, "shm_socket", None)
    path = offered() if offered is not None and cache.buffer is not None else ""
    if not path or cache.buffer is None:
        return b""
    try:
        return cache.buffer.register(path)
    except ShmError as error:
        _LOG.warning("shared memory is not used: %s", error)
        return b""


def upload_rows(broker: Broker, upload_id: bytes, source: KvCache, ranges: Ranges) -> Any:
    """Sends the rows of the missing ranges and commits; the broker's `WriteKvResponse`."""
    handle = shared_handle(broker, source)
    if not handle:
        return broker.write_kv(upload_id, _frames(source, ranges))
    sharing = cast(SharingBroker, broker)
    try:
        return sharing.write_kv_from(upload_id, source.view(handle), len(source.planes))
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
