"""One reuse: rows come in, selected tokens are computed, logits come out."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch

from semshare.hf.broker import Broker, SharingBroker
from semshare.hf.cache import KvCache, LayerShapes
from semshare.hf.errors import MalformedAnswer
from semshare.hf.guard import TokenGuard
from semshare.hf.importance import question_importance
from semshare.hf.layers import LayerDriver
from semshare.hf.plan import Plan, SigmaWatch, read_plan
from semshare.hf.pool import KvPool
from semshare.hf.report import PrefillReport
from semshare.hf.sharing import share
from semshare.hf.transfer import InlineReceiver, Receiver, SharedReceiver, check_segments
from semshare.v1 import cache_broker_pb2 as pb

DEFAULT_QUESTION_TOKENS = 20


@dataclass
class ReuseOutcome:
    """`logits` `[vocab]`; the cache holds every row of the prompt. `exact`: every row is what the
    engine computes (design: reference). `retained`: the tokens that stay at each layer; None:
    all."""

    logits: torch.Tensor
    cache: KvCache
    exact: bool
    retained: list[torch.Tensor] | None = None


class Reuse:
    """Carries out one match. `run` once; `report` is filled even where it raises."""

    def __init__(
        self,
        driver: LayerDriver,
        shapes: LayerShapes,
        pool: KvPool,
        broker: Broker,
        report: PrefillReport,
        guard: TokenGuard | None = None,
    ) -> None:
        """Without a `guard` a fuzzy match is refused."""
        self._driver = driver
        self._shapes = shapes
        self._pool = pool
        self._broker = broker
        self._report = report
        self._guard = guard
        self.token_layers = 0

    def run(self, ids: torch.Tensor, match: Any, timeout_s: float) -> ReuseOutcome:
        """Raises `BrokerError`, `MalformedAnswer` or `SigmaExceeded`."""
        tokens = len(ids)
        targets = check_segments(match, tokens, len(match.references))
        matched = np.zeros(tokens, dtype=bool)
        matched[targets] = True
        plan = read_plan(match.plan, matched, len(self._shapes))
        self._report.segments = len(match.segments)
        cache = KvCache(self._shapes, tokens, self._driver.dtype, self._driver.device, self._pool)
        receiver = self._receive(match.lease_id, cache, targets, timeout_s)
        try:
            self._apply_guard(ids, match, matched, plan)  # While rows are on their way.
            logits = self._compute(ids, plan, match, matched, cache, receiver)
        finally:
            receiver.stop()
            cache.wait_layer = None
            cache.watch = None
            self.token_layers = cache.token_layers
            self._report.transfer_s = receiver.seconds
            self._report.wait_s = receiver.waited_s
            self._report.compute_s -= receiver.waited_s
            self._report.transfer_bytes = receiver.nbytes
        outcome = ReuseOutcome(logits, cache, _is_exact(match, plan, matched))
        retained = plan.retained()
        if retained is not None:
            outcome.retained = [torch.from_numpy(rows).to(ids.device) for rows in retained]
        return outcome

    def _apply_guard(self, ids: torch.Tensor, match: Any, matched: np.ndarray, plan: Plan) -> None:
        # The rows of an exact prefix are the engine's own; the paper's mode is what it is.
        if match.kind in (pb.RESULT_KIND_EXACT_PREFIX, pb.RESULT_KIND_SEMSHAREKV):
            return
        if self._guard is not None:
            plan.forever |= matched & self._guard.must_compute(ids.tolist(), match)
        elif match.kind == pb.RESULT_KIND_FUZZY:
            raise MalformedAnswer("a fuzzy match, which nobody has asked for")

    def _receive(
        self, lease_id: bytes, cache: KvCache, targets: np.ndarray, timeout_s: float
    ) -> Receiver:
        """Opens the stream of rows: into the cache's own memory where the broker reaches it."""
        sharing = share(self._broker, cache)
        self._report.transport, self._report.inline_reason = sharing.transport, sharing.reason
        if not sharing.handle or cache.buffer is None:
            frames = self._broker.read_kv(lease_id, timeout_s=timeout_s)
            return InlineReceiver(frames, cache, targets)
        writer = cast(SharingBroker, self._broker)
        frames = writer.read_kv(
            lease_id,
            target=cache.view(sharing.handle),
            transport=cache.buffer.transport,
            timeout_s=timeout_s,
        )
        return SharedReceiver(frames, cache, targets)

    def _compute(
        self,
        ids: torch.Tensor,
        plan: Plan,
        match: Any,
        matched: np.ndarray,
        cache: KvCache,
        receiver: Receiver,
    ) -> torch.Tensor:
        layers = len(self._shapes)
        cache.wait_layer = receiver.wait
        if plan.asked:
            self._ask(ids, plan, match, matched, cache)
        watch = SigmaWatch(cache, plan.watched(), plan.judge)
        cache.watch = watch if plan.watched() else None
        rows = torch.from_numpy(np.flatnonzero(plan.start())).to(ids.device)

        def narrow(layer: int, running: torch.Tensor) -> torch.Tensor:
            now = np.zeros(len(ids), dtype=bool)
            now[running.cpu().numpy()] = True
            left = plan.tokens_at(layer, now, watch.sigma)
            return torch.from_numpy(np.flatnonzero(left)).to(ids.device)

        began = time.perf_counter()
        try:
            logits = self._driver.run(
                ids,
                rows,
                cache,
                narrow=narrow,
                narrow_layers=plan.narrow_layers(layers),
                importance=plan.collect(ids.device),
            )
        finally:
            self._report.compute_s += time.perf_counter() - began
            self._report.sentinel_sigma = plan.sentinel_sigma
        if logits is None or not bool(torch.isfinite(logits).all()):
            raise MalformedAnswer("logits are not finite")
        return logits

    def _ask(
        self, ids: torch.Tensor, plan: Plan, match: Any, matched: np.ndarray, cache: KvCache
    ) -> None:
        """Lets the question rank the tokens over the reused rows (method B.4, *asked*)."""
        question = match.plan.question_tokens or DEFAULT_QUESTION_TOKENS
        hidden = torch.from_numpy(~matched).to(ids.device)
        # Hidden keys are masked, not skipped: what they hold must still be finite.
        rows = torch.from_numpy(np.flatnonzero(~matched)).to(ids.device)
        for planes in cache.planes:
            for plane in planes:
                plane.index_fill_(0, rows, 0)
        began = time.perf_counter()
        importance = question_importance(self._driver, ids, cache, question, hidden)
        self._report.compute_s += time.perf_counter() - began
        plan.add_asked(importance.cpu().numpy())


def _is_exact(match: Any, plan: Plan, matched: np.ndarray) -> bool:
    """Rows at offset 0 of one identical prefix, everything after it computed here."""
    if len(match.segments) != 1:
        return False
    segment = match.segments[0]
    return bool(
        segment.target_begin == 0
        and segment.source_begin == 0
        and segment.kind == 1  # SEGMENT_KIND_EXACT
        and plan.forever[~matched].all()
    )
