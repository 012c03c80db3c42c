"""Host memory for KV caches, reused between requests and shared with a broker on this host.

The first touch of fresh pages costs many times a copy, and a prompt's KV is hundreds of MB, so
slabs are kept. A slab comes back by itself when the last tensor over it is gone: the tensors hold
the array, and the pool watches the array. So a cache that was handed out stays valid for as long
as anybody refers to any part of it.

Slabs are `SharedBuffer`s: the broker can write rows to where attention reads them, and take rows
from where the model wrote them.
"""

from __future__ import annotations

import threading
import weakref
from dataclasses import dataclass

import torch

from semshare.shm import SharedBuffer

_GRANULE = 16 << 20


@dataclass(frozen=True)
class PooledMemory:
    """`tensor` `[nbytes]` uint8 lies at the beginning of `buffer`."""

    tensor: torch.Tensor
    buffer: SharedBuffer


class KvPool:
    """Byte tensors on the CPU from reused memory. Thread-safe.

    At most `max_idle` slabs are kept while nobody uses them, and none that is retired.
    """

    def __init__(self, max_idle: int = 3) -> None:
        self._max_idle = max_idle
        # Finalizers run wherever the last reference dies, this thread's own locked region included.
        self._lock = threading.RLock()
        self._idle: list[SharedBuffer] = []  # Guarded by _lock.

    def take(self, nbytes: int) -> PooledMemory:
        """`nbytes` bytes with arbitrary content."""
        slab = self._find(nbytes)
        if slab is None:
            slab = SharedBuffer(-(-nbytes // _GRANULE) * _GRANULE)
        lease = slab.array[:nbytes]
        weakref.finalize(lease, self._give_back, slab).atexit = False
        return PooledMemory(torch.from_numpy(lease), slab)

    def _find(self, nbytes: int) -> SharedBuffer | None:
        with self._lock:
            fits = [slab for slab in self._idle if slab.nbytes >= nbytes]
            if not fits:
                return None
            best = min(fits, key=lambda slab: slab.nbytes)
            self._idle = [slab for slab in self._idle if slab is not best]
            return best

    def _give_back(self, slab: SharedBuffer) -> None:
        if slab.retired:
            return
        with self._lock:
            self._idle.append(slab)
            if len(self._idle) > self._max_idle:
                smallest = min(self._idle, key=lambda idle: idle.nbytes)
                self._idle = [idle for idle in self._idle if idle is not smallest]
