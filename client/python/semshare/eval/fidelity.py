"""Results of the corpus, summed up by class, length and variant."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from semshare.eval.bootstrap import Interval, median_interval
from semshare.eval.controls import CONTROLS
from semshare.eval.correlation import spearman
from semshare.eval.results import Row
from semshare.eval.targets import MEAN_FACTOR, PAPER_CLASSES, PAPER_FACTOR, FidelityTarget
from semshare.eval.variants import ANSWER_KINDS, WHOLE
from semshare.texts import CORPUS_CLASSES

__all__ = [
    "BUCKETS",
    "LONG",
    "PRESETS",
    "SIGMA_LIMIT",
    "GateSummary",
    "Judged",
    "PaperRatio",
    "PresetChoice",
    "Report",
    "Summary",
]

PRESETS = ("auto", "fast", "heads", "balanced", "faithful")
PAPER = "semsharekv"

# Name -> prompts of at least, at most so many tokens. The targets are for LONG.
BUCKETS = {
    "500-1,500": (0, 1499),
    "1,500-3,500": (1500, 3499),
    "3,500-5,000": (3500, 5000),
    "over 5,000": (5001, 1 << 30),
}
LONG = "3,500-5,000"
# The broker's default of --sigma_limit.
SIGMA_LIMIT = 0.3
_LEAST_CORRELATED = 4
_HITS = ("exact_prefix", "shifted", "edited", "fuzzy", "semsharekv")


@dataclass(frozen=True, slots=True)
class Summary:
    """A class at a length under a variant. What was not timed has no speed-up."""

    pairs: int
    kl_first: Interval
    kl_mean: Interval
    agreement: float
    matched: float
    computed: float
    kv_bytes_per_token: float
    speed_up: Interval | None
    ttft_hit_s: float | None
    ttft_s: float | None
    full_s: float | None
    misses: int
    fallbacks: int


@dataclass(frozen=True, slots=True)
class Judged:
    """A target beside what was measured; `met` is None where something was not measured."""

    target: FidelityTarget
    summary: Summary | None
    floor_share: float | None
    met: dict[str, bool | None]

    @property
    def verdict(self) -> str:
        """`met`, `not met: ...` with what is missed, or what was not measured."""
        missed = [name for name, good in self.met.items() if good is False]
        unknown = [name for name, good in self.met.items() if good is None]
        if missed:
            return f"**not met**: {', '.join(missed)}"
        return f"not measured: {', '.join(unknown)}" if unknown else "met"


@dataclass(frozen=True, slots=True)
class PaperRatio:
    """How many times the KL of `semsharekv` is that of the preset which recomputes most among
    those that recompute no more than it: medians over a class's pairs."""

    kind: str
    pairs: int
    paper: float
    ours: float
    ratio: float

    @property
    def met(self) -> bool | None:
        """Whether the target is reached; None in a class without one."""
        return self.ratio >= PAPER_FACTOR if self.kind in PAPER_CLASSES else None


@dataclass(frozen=True, slots=True)
class PresetChoice:
    """What `auto` did on a class beside the preset that computes least among those whose median
    KL of the first token keeps `auto`'s target: known only afterwards. Over the pairs that every
    preset was measured on; `best` is None where no preset keeps it."""

    kind: str
    auto: Summary
    best_name: str
    best: Summary | None


@dataclass(frozen=True, slots=True)
class GateSummary:
    """What the sentinels' sigma says of the KL, over runs that had sentinels. The correlations are
    Spearman's; None for fewer than four runs. `above`: runs that the delivered limit refuses."""

    name: str
    runs: int
    first: float | None
    mean: float | None
    sigma: Interval
    above: int


class Report:
    """Sums over result rows. Rows of fidelity and timing are joined by pair and variant."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.runs = [row for row in rows if row["row"] == "run"]
        self.fidelity = [row for row in rows if row["row"] == "fidelity"]
        self.timing = [row for row in rows if row["row"] == "timing"]
        self._timing = {(row["pair"], row["variant"]): row for row in self.timing}

    def kinds(self) -> list[str]:
        """Classes that were measured, in the report's order."""
        found = {row["class"] for row in self.fidelity}
        return [kind for kind in CORPUS_CLASSES if kind in found]

    def select(self, kind: str | None, bucket: str | None, variant: str | None) -> list[Row]:
        """Fidelity rows; None is any."""
        low, high = BUCKETS[bucket] if bucket is not None else (0, 1 << 30)
        return [
            row
            for row in self.fidelity
            if (kind is None or row["class"] == kind)
            and (variant is None or row["variant"] == variant)
            and low <= row["tokens"] <= high
        ]

    def summary(self, kind: str, bucket: str, variant: str) -> Summary | None:
        """None where nothing was measured."""
        rows = self.select(kind, bucket, variant)
        return self._sum(rows) if rows else None

    def _sum(self, rows: Sequence[Row]) -> Summary:
        timed = [
            self._timing[row["pair"], row["variant"]]
            for row in rows
            if (row["pair"], row["variant"]) in self._timing
        ]
        runs = [
            (kind_of, seconds)
            for row in timed
            for kind_of, seconds in zip(row["kinds"], row["seconds"], strict=True)
        ]
        hits = [seconds for kind_of, seconds in runs if kind_of in _HITS]
        return Summary(
            pairs=len(rows),
            kl_first=median_interval([row["kl_first"] for row in rows]),
            kl_mean=median_interval([row["kl_mean"] for row in rows]),
            agreement=statistics.fmean(row["agreement"] for row in rows),
            matched=statistics.median(row["matched"] / row["tokens"] for row in rows),
            computed=statistics.median(row["computed"] for row in rows),
            kv_bytes_per_token=statistics.median(row["kv_bytes"] / row["tokens"] for row in rows),
            speed_up=median_interval([speed_up(row) for row in timed]) if timed else None,
            ttft_hit_s=statistics.median(hits) if hits else None,
            ttft_s=statistics.fmean(seconds for _, seconds in runs) if runs else None,
            full_s=statistics.fmean(s for row in timed for s in row["full_seconds"])
            if timed
            else None,
            misses=sum(row["kind"] == "miss" for row in rows),
            fallbacks=sum(row["kind"] == "fallback" for row in rows),
        )

    def judge(self, target: FidelityTarget) -> Judged:
        """A target against the medians at its length."""
        found = self.summary(target.kind, LONG, target.variant)
        met: dict[str, bool | None] = {"speed-up": None, "KL first": None, "KL mean": None}
        share = self.floor_share(target.kind, target.variant)
        if found is not None:
            if found.speed_up is not None:
                met["speed-up"] = found.speed_up.median >= target.speed_up
            met["KL first"] = found.kl_first.median <= target.kl_first
            met["KL mean"] = found.kl_mean.median <= MEAN_FACTOR * target.kl_first
        if target.floor_share is not None:
            met["floor"] = None if share is None else share <= target.floor_share
        return Judged(target, found, share, met)

    def floor_share(self, kind: str, variant: str) -> float | None:
        """Median KL of a variant over that of the reference taken whole, on the same pairs."""
        floors = {row["pair"]: row["kl_first"] for row in self.select(kind, LONG, WHOLE)}
        ours = {
            row["pair"]: row["kl_first"]
            for row in self.select(kind, LONG, variant)
            if row["pair"] in floors
        }
        if not ours:
            return None
        floor = statistics.median(floors[pair] for pair in ours)
        return statistics.median(ours.values()) / floor if floor > 0 else None

    def paper_ratios(self) -> list[PaperRatio]:
        """By class, at the targets' length."""
        found = []
        for kind in self.kinds():
            pairs = []
            for paper in self.select(kind, LONG, PAPER):
                rivals = [
                    row
                    for preset in PRESETS
                    for row in self.select(kind, LONG, preset)
                    if row["pair"] == paper["pair"] and row["computed"] <= paper["computed"]
                ]
                if not rivals or paper["kind"] != PAPER:
                    continue
                nearest = max(rivals, key=lambda row: float(row["computed"]))
                if nearest["kl_first"] > 0:
                    pairs.append((paper["kl_first"], nearest["kl_first"]))
            if pairs:
                found.append(
                    PaperRatio(
                        kind=kind,
                        pairs=len(pairs),
                        paper=statistics.median(paper for paper, _ in pairs),
                        ours=statistics.median(ours for _, ours in pairs),
                        ratio=statistics.median(paper / ours for paper, ours in pairs),
                    )
                )
        return found

    def choices(self, kl_target: float) -> list[PresetChoice]:
        """By class, at the targets' length, over the pairs on which every preset that the class
        was measured with was run."""
        found = []
        for kind in self.kinds():
            by_preset = {
                preset: {row["pair"]: row for row in rows}
                for preset in PRESETS
                if (rows := self.select(kind, LONG, preset))
            }
            pairs = set.intersection(*map(set, by_preset.values())) if by_preset else set()
            if kind == "unrelated" or not pairs or "auto" not in by_preset or len(by_preset) < 2:
                continue
            sums = {
                preset: self._sum([rows[pair] for pair in sorted(pairs)])
                for preset, rows in by_preset.items()
            }
            auto = sums.pop("auto")
            kept = [name for name, each in sums.items() if each.kl_first.median <= kl_target]
            best = min(kept, key=lambda name: sums[name].computed, default="")
            found.append(PresetChoice(kind, auto, best, sums.get(best)))
        return found

    def gates(self) -> list[GateSummary]:
        """All presets together, each of them, and each control: its rows are wrong."""
        watched = [row for row in self.fidelity if "sentinel_sigma" in row]
        # Two presets often come to one plan: it counts once.
        distinct = {
            (row["pair"], row["computed"], row["kl_first"]): row
            for row in watched
            if row["variant"] in PRESETS
        }
        groups = {"all presets": list(distinct.values())}
        for variant in (*PRESETS, *CONTROLS):
            groups[f"`{variant}`"] = [row for row in watched if row["variant"] == variant]
        return [_gate(name, rows) for name, rows in groups.items() if rows]

    def paper_variants(self) -> list[str]:
        """`semsharekv` and its ablations, in the order in which they were measured."""
        found = dict.fromkeys(str(row["variant"]) for row in self.fidelity)
        return [variant for variant in found if variant.partition("+")[0] == PAPER]

    def answers(self) -> list[Row]:
        """Rows of pairs whose answers are compared."""
        return [row for row in self.fidelity if row["class"] in ANSWER_KINDS and "answer" in row]

    def miss_shares(self) -> list[float]:
        """Look-up and overhead of one miss for each timed pair, over its median full prefill."""
        by_pair = {row["pair"]: row for row in self.timing if row["miss"]["kind"] == "miss"}
        return [
            row["miss"]["overhead_s"] / statistics.median(row["full_seconds"])
            for row in by_pair.values()
        ]

    def speed(self, kind: str, bucket: str, variant: str) -> Interval | None:
        """The speed-up of whatever was timed; None if nothing was."""
        low, high = BUCKETS[bucket]
        found = [
            speed_up(row)
            for row in self.timing
            if (row["class"], row["variant"]) == (kind, variant) and low <= row["tokens"] <= high
        ]
        return median_interval(found) if found else None

    def worst(self, variant: str, count: int) -> list[Row]:
        """The pairs with the largest KL of the first token."""
        rows = self.select(None, None, variant)
        return sorted(rows, key=lambda row: -float(row["kl_first"]))[:count]

    def busiest(self) -> float | None:
        """The largest load average at the beginning of a timed pair; None if nothing was timed."""
        return max((float(row["load"]) for row in self.timing), default=None)


def _gate(name: str, rows: Sequence[Row]) -> GateSummary:
    sigma = [float(row["sentinel_sigma"]) for row in rows]
    enough = len(rows) >= _LEAST_CORRELATED
    return GateSummary(
        name=name,
        runs=len(rows),
        first=spearman(sigma, [row["kl_first"] for row in rows]) if enough else None,
        mean=spearman(sigma, [row["kl_mean"] for row in rows]) if enough else None,
        sigma=median_interval(sigma),
        above=sum(each > SIGMA_LIMIT for each in sigma),
    )


def speed_up(timing: dict[str, Any]) -> float:
    """Median full prefill over the median with reuse, in the same rounds."""
    return statistics.median(timing["full_seconds"]) / statistics.median(timing["seconds"])
