"""How a broker reaches the rows of a cache."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import cast

from semshare.cuda_ipc import CudaTensorRegion
from semshare.hf.broker import Broker, SharingBroker
from semshare.hf.cache import KvCache
from semshare.shm import ShmError

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sharing:
    """`transport`: `shared_memory`, `cuda_ipc`, or `inline` with the `reason`. `handle` is what
    the broker knows the cache's memory as, `b""` if it cannot reach it."""

    transport: str
    handle: bytes = b""
    reason: str = ""


def share(broker: Broker, cache: KvCache) -> Sharing:
    """Registers the cache's memory where the broker can reach it. Work on it that the current
    stream was given so far comes before what the broker does. A refusal is logged."""
    sharing = cast(SharingBroker, broker)
    path = sharing.shm_socket() if hasattr(broker, "shm_socket") else ""
    if not path:
        return Sharing("inline", reason="the broker's socket is not on this host")
    try:
        if cache.device.type == "cuda":
            if not sharing.offers_cuda_ipc():
                return Sharing("inline", reason="the broker does not offer cuda_ipc")
            return _share_cuda(cache, path)
        if cache.buffer is None:
            return Sharing("inline", reason=f"memory of {cache.device} cannot be shared")
        return Sharing("shared_memory", cache.buffer.register(path))
    except ShmError as error:
        _LOG.warning("rows go inline: %s", error)
        return Sharing("inline", reason=str(error))


def _share_cuda(cache: KvCache, path: str) -> Sharing:
    if cache.buffer is None:
        cache.buffer = CudaTensorRegion(cache.planes[0][0])
    assert isinstance(cache.buffer, CudaTensorRegion)
    cache.buffer.record()
    return Sharing("cuda_ipc", cache.buffer.register(path))
