"""Shadow checks: a share of the reused prefills is run again in full when nobody waits for it."""

from __future__ import annotations

import logging
import random
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch

from semshare.hf.broker import KIND_VALUES, KINDS, PRESETS, BrokerError
from semshare.hf.divergence import kl_divergence
from semshare.hf.layers import LayerDriver
from semshare.hf.report import PrefillResult
from semshare.hf.turns import Turns
from semshare.v1 import cache_broker_pb2 as pb

_LOG = logging.getLogger(__name__)

# What is reported where the reuse rules out a token that the full prefill may choose: the contract
# wants a finite number, and no limit is above this one.
_WORST_KL = 1e6


@dataclass(frozen=True)
class ShadowPolicy:
    """Which reuses are compared with the model's own full prefill.

    The share `share` of all reuses, drawn with `seed`. At most one waits or runs, and what is drawn
    meanwhile is dropped. A check that a call interrupts starts over once no call runs; after
    `attempts` starts it is dropped, too.
    """

    share: float
    seed: int = 0
    attempts: int = 3

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError("share lies in (0, 1]")
        if self.attempts < 1:
            raise ValueError("attempts is at least 1")


class _GaveWayError(Exception):
    """A call wants the model."""


@dataclass(frozen=True)
class _Check:
    ids: tuple[int, ...]
    logits: torch.Tensor
    kind: int
    preset: int


class ShadowChecks:
    """Checks from one thread of its own, which has the model only while no call wants it.
    Thread-safe.

    `report` sends a `ReportShadowCheckRequest`, of which it adds the model, and raises
    `BrokerError`. `counters` gets `shadow:checked`, `shadow:dropped`, `shadow:interrupted`, and
    `shadow:CODE` for a check that ended with an error.
    """

    def __init__(
        self,
        policy: ShadowPolicy,
        driver: LayerDriver,
        turns: Turns,
        report: Callable[[Any], None],
        counters: Counter[str],
    ) -> None:
        self._policy = policy
        self._driver = driver
        self._turns = turns
        self._report = report
        self._changed = threading.Condition()
        self._counters = counters  # The entries of checks: guarded by _changed.
        self._random = random.Random(policy.seed)  # Guarded by _changed.
        self._pending = False  # A check waits or runs. Guarded by _changed.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="semshare-shadow")

    def offer(self, result: PrefillResult) -> None:
        """Keeps a reuse to be checked, if it is drawn; never blocks."""
        kind = KIND_VALUES[result.report.kind]
        if kind not in KINDS:
            return
        with self._changed:
            if self._random.random() >= self._policy.share:
                return
            if self._pending:
                self._count("dropped")
                return
            self._pending = True
        # A copy: the caller may do with the logits what it likes.
        logits = result.logits.clone()
        check = _Check(result.ids, logits, kind, PRESETS.get(result.report.preset, 0))
        try:
            self._thread.submit(self._run, check)
        except RuntimeError:  # Closed, or the interpreter ends.
            self._end("dropped")

    def wait(self) -> None:
        """Waits until no check is pending, so that the counters tell of all that were offered."""
        with self._changed:
            self._changed.wait_for(lambda: not self._pending)

    def close(self) -> None:
        """Ends what runs at its next layer and drops what waits; later offers are dropped.
        Idempotent."""
        self._turns.close_checks()
        self._thread.shutdown(wait=True)

    def _count(self, what: str) -> None:
        with self._changed:
            self._counters[f"shadow:{what}"] += 1

    def _end(self, what: str) -> None:
        with self._changed:
            self._count(what)
            self._pending = False
            self._changed.notify_all()

    def _run(self, check: _Check) -> None:
        what = "dropped"
        try:
            full = self._full_prefill(check)
            if full is not None:
                self._tell(check, full)
                what = "checked"
        except BrokerError as error:
            what = error.code
        except Exception as error:  # The model's or ours: a check must not end its thread silently.
            _LOG.exception("a shadow check failed")
            what = f"internal:{type(error).__name__}"
        finally:
            self._end(what)

    def _full_prefill(self, check: _Check) -> torch.Tensor | None:
        """The full prefill's logits; None if calls left no time for it."""
        ids = torch.tensor(check.ids, dtype=torch.int64, device=self._driver.device)
        for _ in range(self._policy.attempts):
            if not self._turns.take_idle():
                return None
            try:
                return self._driver.full(ids, None, before_layer=self._give_way)
            except _GaveWayError:
                self._count("interrupted")
            finally:
                self._turns.give_back()
        return None

    def _give_way(self) -> None:
        if self._turns.wanted():
            raise _GaveWayError

    def _tell(self, check: _Check, full: torch.Tensor) -> None:
        kl = float(kl_divergence(full, check.logits))
        same = int(full.argmax()) == int(check.logits.argmax())
        self._report(
            pb.ReportShadowCheckRequest(
                kind=check.kind,  # type: ignore[arg-type]
                preset=check.preset,  # type: ignore[arg-type]
                kl_first=min(kl, _WORST_KL),
                same_token=same,
            )
        )
