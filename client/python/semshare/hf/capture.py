"""Storing prompts that were computed anyway, without anybody waiting for it."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from semshare.hf.cache import KvCache, PromptCache
from semshare.hf.report import PrefillResult, StoreResult

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class CapturePolicy:
    """Which prefills are stored as references by themselves.

    Only exact rows ever are: those of a full prefill or behind an exact prefix. Of those a prompt
    is taken that has at least `min_tokens`, of which the broker held at most the share
    `max_matched`, and that is in the sample: the share `sample` of all prompts, chosen by their
    tokens alone, so that workers agree on it.

    An upload holds the prompt's KV in this process until it is over; at most `max_pending` wait or
    run, and what comes beyond that is dropped.
    """

    min_tokens: int = 512
    max_matched: float = 0.9
    sample: float = 1.0
    max_pending: int = 2
    ttl_s: float = 0.0
    priority: int = 0
    durable: bool = True

    def __post_init__(self) -> None:
        if self.min_tokens < 1 or self.max_pending < 1:
            raise ValueError("min_tokens and max_pending are at least 1")
        if not (0 <= self.max_matched <= 1 and 0 < self.sample <= 1):
            raise ValueError("max_matched lies in [0, 1], sample in (0, 1]")

    def wants(self, result: PrefillResult) -> bool:
        """Whether this prefill is to be stored."""
        tokens = len(result.ids)
        return (
            result.cache.exact
            and tokens >= self.min_tokens
            and result.report.matched_tokens <= self.max_matched * tokens
            and (self.sample == 1 or _position(result.ids) < self.sample)
        )


Put = Callable[[Sequence[int], KvCache, CapturePolicy], StoreResult]


class Captures:
    """Uploads from one thread of its own. Thread-safe.

    `counters` gets `capture:stored`, `capture:dropped` (too many pending) and `capture:failed`.
    """

    def __init__(self, policy: CapturePolicy, put: Put, counters: Counter[str]) -> None:
        self._policy = policy
        self._put = put
        self._counters = counters
        self._room = threading.Semaphore(policy.max_pending)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="semshare-capture")

    def offer(self, result: PrefillResult) -> None:
        """Queues the upload of a prefill that the policy wants; never blocks."""
        cache = result.cache
        if not isinstance(cache, PromptCache) or not self._policy.wants(result):
            return
        if not self._room.acquire(blocking=False):
            self._counters["capture:dropped"] += 1
            return
        # The rows, not the result: whoever decodes on changes the cache, but never these.
        ids, source = result.ids, cache.source
        try:
            upload = self._thread.submit(self._put, ids, source, self._policy)
            upload.add_done_callback(self._ended)
        except RuntimeError:  # Closed, or the interpreter ends.
            self._room.release()
            self._counters["capture:dropped"] += 1

    def close(self) -> None:
        """Waits for what is pending; later offers are dropped. Idempotent."""
        self._thread.shutdown(wait=True)

    def _ended(self, upload: Future[Any]) -> None:
        self._room.release()
        error = upload.exception()
        if error is not None:
            _LOG.error("a capture failed", exc_info=error)
        stored = error is None and not upload.result().error
        self._counters["capture:stored" if stored else "capture:failed"] += 1


def _position(ids: Sequence[int]) -> float:
    """Where a prompt lies in [0, 1), evenly spread over prompts."""
    tokens = np.asarray(ids, dtype="<u4").tobytes()
    digest = hashlib.blake2b(tokens, digest_size=8).digest()
    return int.from_bytes(digest, "little") / 2**64
