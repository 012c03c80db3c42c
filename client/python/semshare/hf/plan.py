"""From the broker's `RecomputePlan` to the tokens that each layer computes.

All sets are nested: a token's hidden state exists at a layer only if it was computed at the layer
before. Sets are bool arrays over the prompt's tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch

from semshare.hf.cache import KvCache
from semshare.hf.errors import MalformedAnswer, SigmaExceeded

Sigma = dict[int, np.ndarray]
"""By layer: `[tokens]` float64, NaN for tokens that were not compared."""


def mark(ranges: Iterable[Any], tokens: int, what: str) -> np.ndarray:
    """`[tokens]` bool of half-open ranges; raises `MalformedAnswer` unless ascending, disjoint and
    inside the prompt."""
    marks = np.zeros(tokens, dtype=bool)
    end = 0
    for part in ranges:
        if part.begin < end or part.end <= part.begin or part.end > tokens:
            raise MalformedAnswer(f"{what}: bad range [{part.begin}, {part.end})")
        end = part.end
        marks[part.begin : end] = True
    return marks


def top(scores: np.ndarray, count: int, among: np.ndarray) -> np.ndarray:
    """`[tokens]` bool of the `count` largest scores among the marked tokens; NaN never wins."""
    chosen = np.zeros(len(scores), dtype=bool)
    candidates = np.flatnonzero(among & ~np.isnan(scores))
    if count >= len(candidates):
        chosen[candidates] = True
    elif count > 0:
        best = np.argpartition(scores[candidates], -count)[-count:]
        chosen[candidates[best]] = True
    return chosen


class StaticPlan:
    """Sets that are known before the run: `forever` tokens are computed at every layer, sentinels
    through the sentinel layer."""

    def __init__(self, plan: Any, matched: np.ndarray, layers: int) -> None:
        tokens = len(matched)
        self.forever = mark(plan.mandatory, tokens, "mandatory")
        self.forever |= mark(plan.selected, tokens, "selected")
        _require_covered(self.forever, matched)
        self.sentinels = np.zeros(tokens, dtype=bool)
        if len(plan.sentinels):
            where = np.asarray(plan.sentinels, dtype=np.int64)
            if where.max() >= tokens or not matched[where].all():
                raise MalformedAnswer("sentinels: not a matched token of the prompt")
            self.sentinels[where] = True
            if plan.sentinel_layer >= layers:
                raise MalformedAnswer(f"sentinel_layer {plan.sentinel_layer} of {layers}")
        self.sentinel_layer: int = plan.sentinel_layer
        self.sigma_limit: float = plan.sigma_limit
        self.sentinel_sigma = float("nan")
        self.asked: int = plan.asked.tokens if plan.HasField("asked") else 0
        self.prior = np.zeros(tokens, dtype=np.float32)
        if self.asked:
            mark((p.range for p in plan.asked.prior), tokens, "prior")
            for part in plan.asked.prior:
                self.prior[part.range.begin : part.range.end] = part.weight
            if not np.isfinite(self.prior).all() or (self.prior < 0).any():
                raise MalformedAnswer("prior: not finite or negative")

    def add_asked(self, importance: np.ndarray) -> None:
        """Adds the `asked` tokens with the largest importance x prior."""
        score = importance * self.prior
        self.forever |= top(score, self.asked, ~self.forever & (score > 0))

    def start(self) -> np.ndarray:
        """Tokens of layer 0."""
        return self.forever | self.sentinels

    def watched(self) -> set[int]:
        """Layers whose fresh rows are compared with the realigned ones."""
        return {self.sentinel_layer} if self.sentinels.any() else set()

    def narrow_layers(self, layers: int) -> list[int]:
        """Layers that may start with fewer tokens than the one before."""
        narrow = self.sentinel_layer + 1
        return [narrow] if self.sentinels.any() and narrow < layers else []

    def tokens_at(self, layer: int, running: np.ndarray, sigma: Sigma) -> np.ndarray:
        """Tokens of `layer`, a subset of `running`."""
        wanted = self.start() if layer <= self.sentinel_layer else self.forever
        return wanted & running

    def judge(self, layer: int, sigma: np.ndarray) -> None:
        """Notes the sentinels' mean sigma, and raises `SigmaExceeded` if it is too large
        (method B.5)."""
        if layer != self.sentinel_layer or not self.sentinels.any():
            return
        self.sentinel_sigma = float(np.mean(sigma[self.sentinels]))
        if self.sigma_limit > 0 and not self.sentinel_sigma <= self.sigma_limit:
            raise SigmaExceeded(f"sigma {self.sentinel_sigma:.3g} above {self.sigma_limit:.3g}")

    def collect(self, device: torch.device) -> torch.Tensor | None:
        """Nothing: the sets depend on no attention of the run itself."""
        return None

    def retained(self) -> list[np.ndarray] | None:
        """All rows stay."""
        return None


class SemShareKvPlan:
    """The schedule of arXiv 2509.24832 (method A.5-A.8): layer 0 in full, then fewer tokens at
    every layer, ranked anew by sigma x weight, where a token is hot if it is among the most
    attended that share `attention_recovery` of layer 0's attention. Unmatched tokens and the
    question always stay. Afterwards every layer keeps its most attended tokens.
    """

    asked = 0
    sentinel_sigma = float("nan")

    def __init__(self, plan: Any, matched: np.ndarray, layers: int) -> None:
        tokens = len(matched)
        self._hot: np.ndarray | None = None
        schedule = plan.semsharekv
        self._recovery: float = schedule.attention_recovery
        self._hot_weight: float = schedule.hot_weight
        self._cold_weight: float = schedule.cold_weight
        self._alpha_retain: float = schedule.alpha_retain
        collected = layers if self._alpha_retain > 0 else 1
        self._attention = torch.zeros((collected, tokens), dtype=torch.float32)
        self._least_retained: float = schedule.least_retained
        for name in (
            "attention_recovery",
            "hot_weight",
            "cold_weight",
            "alpha_retain",
            "least_retained",
        ):
            if not 0 <= getattr(schedule, name) <= 1:
                raise MalformedAnswer(f"semsharekv: {name} is not a share")
        self.schedule = list(schedule.recompute_tokens)
        if len(self.schedule) != layers or self.schedule[0] != tokens:
            raise MalformedAnswer("semsharekv: the schedule does not fit the prompt")
        if any(b > a for a, b in zip(self.schedule, self.schedule[1:], strict=False)):
            raise MalformedAnswer("semsharekv: the schedule increases")
        self.forever = mark(plan.mandatory, tokens, "mandatory")
        self._question_begin = tokens - min(tokens, max(1, plan.question_tokens))
        _require_covered(self.forever, matched)

    def start(self) -> np.ndarray:
        return np.ones(len(self.forever), dtype=bool)

    def watched(self) -> set[int]:
        return set(range(len(self.schedule) - 1))

    def narrow_layers(self, layers: int) -> list[int]:
        return list(range(1, layers))

    def tokens_at(self, layer: int, running: np.ndarray, sigma: Sigma) -> np.ndarray:
        count = self.schedule[layer] - int(self.forever.sum())
        ranked = sigma.pop(layer - 1) * self.weights()
        return self.forever | top(ranked, max(0, count), running & ~self.forever)

    def collect(self, device: torch.device) -> torch.Tensor | None:
        """`[n, tokens]` float32, zeros: where the run adds the attention that each token gets at
        each of the first n layers from the tokens that are computed there. Only eviction looks at
        more than one."""
        self._attention = self._attention.to(device)
        return self._attention

    def weights(self) -> np.ndarray:
        """`[tokens]`: the hot weight of the fewest tokens with `attention_recovery` of layer 0's
        attention, the cold weight of the others. Layer 0 must have run."""
        if self._hot is None:
            attention = self._attention[0].cpu().numpy()
            order = np.argsort(-attention, kind="stable")
            mass = np.cumsum(attention[order], dtype=np.float64)
            count = int(np.searchsorted(mass, self._recovery * mass[-1])) + 1
            self._hot = np.zeros(len(order), dtype=bool)
            self._hot[order[:count]] = True
        return np.where(self._hot, self._hot_weight, self._cold_weight)

    def retained(self) -> list[np.ndarray] | None:
        """For each layer the sorted tokens whose rows stay, the question's always; None: all."""
        if self._alpha_retain == 0:
            return None
        share = max(self._least_retained, float(self.weights().mean()))
        question = self.forever & (np.arange(len(self.forever)) >= self._question_begin)
        kept = []
        for attention in self._attention.cpu().numpy():
            count = round(share * len(question)) - int(question.sum())
            kept.append(np.flatnonzero(question | top(attention, max(0, count), ~question)))
            share *= self._alpha_retain
        return kept

    def judge(self, layer: int, sigma: np.ndarray) -> None:
        """The paper has no gate."""

    def add_asked(self, importance: np.ndarray) -> None:
        raise MalformedAnswer("semsharekv: asks for importance")


Plan = StaticPlan | SemShareKvPlan


def read_plan(plan: Any, matched: np.ndarray, layers: int) -> Plan:
    """Checks a `RecomputePlan` against the prompt. `matched` `[tokens]` bool: rows to be sent."""
    if plan.HasField("semsharekv"):
        return SemShareKvPlan(plan, matched, layers)
    return StaticPlan(plan, matched, layers)


def _require_covered(forever: np.ndarray, matched: np.ndarray) -> None:
    if not forever[-1]:
        raise MalformedAnswer("mandatory: the last token is missing")
    if not (forever | matched).all():
        raise MalformedAnswer("mandatory: unmatched tokens are missing")


class SigmaWatch:
    """Compares fresh rows with the realigned ones they replace, at the watched layers.

    `sigma[t] = |dK| / mean|K| + |dV| / mean|V|` (method B.4), norms over all heads, means over the
    compared tokens' fresh rows.
    """

    def __init__(
        self,
        cache: KvCache,
        layers: set[int],
        judge: Callable[[int, np.ndarray], None],
    ) -> None:
        self._cache = cache
        self._layers = layers
        self._judge = judge
        self.sigma: Sigma = {}

    def __call__(self, layer: int, *fresh: torch.Tensor) -> None:
        """`fresh` are `[1, heads, n, width]` rows of both planes, not yet in the cache."""
        rows = self._cache.rows
        if layer not in self._layers or rows is None:
            return
        planes = self._cache.planes[layer]
        total = torch.zeros(len(rows), dtype=torch.float32, device=rows.device)
        for stored, new in zip(planes, fresh, strict=True):
            now = new[0].transpose(0, 1).float()
            difference = now - stored.index_select(0, rows).float()
            scale = now.flatten(1).norm(dim=1).mean()
            total += difference.flatten(1).norm(dim=1) / scale
        sigma = np.full(self._cache.tokens, np.nan)
        sigma[rows.cpu().numpy()] = total.double().cpu().numpy()
        self._judge(layer, sigma)
        self.sigma[layer] = sigma
