"""What a worker has observed of its own speed, for the broker's cost prediction."""

from __future__ import annotations

import threading
import time
from typing import Any

import torch

from semshare.hf.cache import KvCache
from semshare.v1 import cache_broker_pb2 as pb

_BUCKET_TOKENS = 256
_WEIGHT = 0.3


class PrefillCosts:
    """Running means of full-prefill seconds by prompt length, and of transfer speed.
    Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._prefill: dict[int, tuple[float, float]] = {}  # Guarded by _lock.
        self._bytes_per_second = 0.0  # Guarded by _lock.

    def saw_prefill(self, tokens: int, seconds: float) -> None:
        """One full prefill. The first of a length is kept until a second one corrects it."""
        with self._lock:
            bucket = tokens // _BUCKET_TOKENS
            found = self._prefill.get(bucket, (float(tokens), seconds))
            self._prefill[bucket] = (
                found[0] + _WEIGHT * (tokens - found[0]),
                found[1] + _WEIGHT * (seconds - found[1]),
            )

    def saw_transfer(self, nbytes: int, seconds: float) -> None:
        if seconds <= 0 or nbytes == 0:
            return
        with self._lock:
            rate = nbytes / seconds
            before = self._bytes_per_second or rate
            self._bytes_per_second = before + _WEIGHT * (rate - before)

    def prefill_seconds(self, tokens: int) -> float | None:
        """The observation nearest in length, scaled; None before the first one."""
        with self._lock:
            if not self._prefill:
                return None
            near = min(self._prefill.values(), key=lambda point: abs(point[0] - tokens))
            return near[1] * tokens / near[0]

    def message(self) -> Any:
        """`WorkerCost`, or None before the first observation."""
        with self._lock:
            if not self._prefill:
                return None
            cost = pb.WorkerCost(transfer_bytes_per_second=self._bytes_per_second)
            for tokens, seconds in sorted(self._prefill.values()):
                cost.prefill.add(tokens=round(tokens), seconds=seconds)
            return cost


class TimedCache(KvCache):
    """Knows how long a forward has spent in it: `copied_s`, which is not the model's work."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.copied_s = 0.0

    def update(self, *arguments: Any, **options: Any) -> tuple[torch.Tensor, torch.Tensor]:
        began = time.perf_counter()
        rows = super().update(*arguments, **options)
        self.copied_s += time.perf_counter() - began
        return rows
