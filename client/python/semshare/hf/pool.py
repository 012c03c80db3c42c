"""Host memory for KV caches, reused between requests.

The first touch of fresh pages costs many times a copy, and a prompt's KV is hundreds of MB, so
slabs are kept. A slab comes back by itself when the last tensor over it is gone: the tensors hold
the array, and the pool watches the array. So a cache that was handed out stays valid for as long
as anybody refers to any part of it.
"""

from __future__ import annotations

import threading
import weakref

import numpy as np
import torch

_GRANULE = 16 << 20


class KvPool:
    """Byte tensors on the CPU from reused memory. Thread-safe.

    At most `max_idle` slabs are kept while nobody uses them.
    """

    def __init__(self, max_idle: int = 3) -> None:
        self._max_idle = max_idle
        # Finalizers run wherever the last reference dies, this thread's own locked region included.
        self._lock = threading.RLock()
        self._idle: list[np.ndarray] = []  # Guarded by _lock.

    def take(self, nbytes: int) -> torch.Tensor:
        """A uint8 tensor of `nbytes`, with arbitrary content."""
        slab = self._find(nbytes)
        if slab is None:
            slab = np.empty(-(-nbytes // _GRANULE) * _GRANULE, dtype=np.uint8)
        lease = slab[:nbytes]
        weakref.finalize(lease, self._give_back, slab).atexit = False
        return torch.from_numpy(lease)

    def _find(self, nbytes: int) -> np.ndarray | None:
        with self._lock:
            fits = [slab for slab in self._idle if slab.nbytes >= nbytes]
            if not fits:
                return None
            best = min(fits, key=lambda slab: slab.nbytes)
            self._idle = [slab for slab in self._idle if slab is not best]
            return best

    def _give_back(self, slab: np.ndarray) -> None:
        with self._lock:
            self._idle.append(slab)
            if len(self._idle) > self._max_idle:
                smallest = min(self._idle, key=lambda idle: idle.nbytes)
                self._idle = [idle for idle in self._idle if idle is not smallest]
