"""Measuring the corpus through a real broker: fidelity of every variant, or timed runs.

Each group of pairs gets a broker of its own on an empty folder; another process stores the
references, and no target is ever stored. Fidelity needs one prefill per variant; its broker has no
cost gate and patient timeouts, so that a busy machine changes no result. Timed runs have everything
as delivered.
"""

from __future__ import annotations

import gc
import math
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semshare.client import Client
from semshare.eval.controls import tampered
from semshare.eval.corpus import CorpusItem, group_lines
from semshare.eval.measure import (
    Answers,
    Fidelity,
    MeasureOptions,
    answers_of,
    kind_name,
    time_rounds,
    verify,
)
from semshare.eval.oracle import Oracle
from semshare.eval.prefill import Decoded, FullPrefill
from semshare.eval.progress import Progress
from semshare.eval.results import Results, Row
from semshare.eval.store import store_in_subprocess
from semshare.eval.variants import WHOLE, Variant, applies
from semshare.hf import CachedModel, TokenGuard
from semshare.quickstart.daemon import Daemon

__all__ = ["CorpusRun", "RunOptions"]

_FIDELITY, _TIMING = "fidelity", "timing"
# What a few references of 6,000 tokens need; less to touch at the start than the default.
_DEVICE_MEMORY_BYTES = 2 << 30


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How to run. `timings` 0 measures fidelity; else that many timed rounds. `seconds` bounds the
    run: no pair is begun after that. `flags` are the broker's, after the ones that are set here."""

    semshared: Path
    model_name: str
    variants: tuple[Variant, ...]
    seed: int
    oracle: Path
    timings: int = 0
    threads: int | None = None
    seconds: float = math.inf
    flags: tuple[str, ...] = ()


class CorpusRun:
    """One run over the corpus. `measure` may be called once."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        items: Sequence[CorpusItem],
        results: Results,
        options: RunOptions,
        progress: Progress,
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._items = items
        self._results = results
        self._options = options
        self._progress = progress
        self._kind = _TIMING if options.timings else _FIDELITY
        self._full = FullPrefill(model)
        self._measuring = MeasureOptions(runs=options.timings)
        self._oracle: Oracle | None = None
        self._end = time.monotonic() + options.seconds

    def measure(self) -> int:
        """Measures what the results lack; the number of pairs that are still to do.

        Raises `DaemonError`, `StoreError` or `BrokerError`; what was measured by then is kept.
        """
        gc.collect()
        gc.freeze()
        try:
            for group in dict.fromkeys(item.group for item in self._items):
                todo = [item for item in self._items if item.group == group and self._lacks(item)]
                if todo and time.monotonic() < self._end:
                    self._measure_group(todo)
        finally:
            gc.unfreeze()
        return sum(bool(self._lacks(item)) for item in self._items)

    def _lacks(self, item: CorpusItem) -> list[Variant]:
        return [
            variant
            for variant in self._options.variants
            if applies(variant, item.kind, item.whole is not None)
            and not self._results.has(self._kind, item.name, variant.name)
        ]

    def _measure_group(self, items: Sequence[CorpusItem]) -> None:
        options = self._options
        flags = [f"--device_memory_bytes={_DEVICE_MEMORY_BYTES}"]
        if self._kind == _FIDELITY:
            flags.append("--minimum_gain=0")
        flags += options.flags
        with tempfile.TemporaryDirectory(prefix="semshare-corpus-") as folder:
            file = Path(folder) / "pairs.jsonl"
            file.write_text(group_lines(items), encoding="utf-8")
            with Daemon(options.semshared, Path(folder) / "data", *flags) as daemon:
                with self._progress.step(f"{items[0].group}: storing from another process"):
                    store_in_subprocess(daemon.address, options.model_name, file, options.threads)
                with Client(daemon.address) as client:
                    cached = self._cached(client)
                    for item in items:
                        if time.monotonic() < self._end:
                            self._measure_pair(cached, item)
                    cached.close()

    def _cached(self, client: Client) -> CachedModel:
        guard = TokenGuard(self._tokenizer)
        if self._kind == _TIMING:
            return CachedModel(self._model, client, guard=guard)
        return CachedModel(
            self._model, client, lookup_timeout_s=60.0, transfer_timeout_s=600.0, guard=guard
        )

    def _measure_pair(self, cached: Any, item: CorpusItem) -> None:
        truth = self._truth(cached, item)
        if self._kind == _TIMING:
            self._time(cached, item, truth)
            return
        answers = answers_of(self._model, item.pair, truth, self._decode, self._measuring)
        for variant in self._lacks(item):
            self._progress(f"{item.name}: {variant.name}")
            found = self._verify(cached, item, variant, truth, answers)
            self._results.add(self._row(item, variant) | _fidelity_row(found, answers))

    def _truth(self, cached: Any, item: CorpusItem) -> Decoded:
        if self._oracle is None:
            self._oracle = Oracle(
                self._full,
                cached.description.spec.weights_digest,
                self._options.oracle,
                max(self._measuring.forced_tokens, self._measuring.answer_tokens),
            )
        self._progress(f"{item.name}: {len(item.pair.target)} tokens, the truth")
        return self._oracle.truth(item.pair.target)

    def _verify(
        self,
        cached: Any,
        item: CorpusItem,
        variant: Variant,
        truth: Decoded,
        answers: Answers,
    ) -> Fidelity:
        target = item.whole if variant.name == WHOLE else item.pair.target
        assert target is not None  # `applies` saw to it

        def run() -> Fidelity:
            return verify(
                self._model,
                cached,
                list(target),
                variant.preset,
                truth,
                answers,
                self._measuring,
            )

        if variant.control is None:
            return run()
        with tampered(cached, variant.control, self._options.seed):
            return run()

    def _time(self, cached: Any, item: CorpusItem, truth: Decoded) -> None:
        lacking = self._lacks(item)
        by_preset = {variant.preset: variant for variant in lacking}
        busy = os.getloadavg()[0]
        # Nothing like it was stored: a miss, which is what a miss costs, warms the model up, and
        # lets the worker know, and tell the broker, how long a full prefill of this length takes.
        miss = cached.prefill(list(reversed(item.pair.target))).report
        full, timed = time_rounds(
            self._full,
            cached,
            item.pair,
            list(by_preset),
            truth.logits[0],
            self._measuring,
            self._progress,
        )
        for preset, runs in timed.items():
            reports = runs.reports
            self._results.add(
                self._row(item, by_preset[preset])
                | {
                    "kinds": [kind_name(report.kind) for report in reports],
                    "reasons": sorted({report.fallback_reason for report in reports} - {""}),
                    "seconds": runs.seconds,
                    "full_seconds": full,
                    "lookup_s": [report.lookup_s for report in reports],
                    "overhead_s": [report.overhead_s for report in reports],
                    "kl_first": max(runs.kl_first),
                    "miss": {"kind": kind_name(miss.kind), "overhead_s": miss.overhead_s},
                    "load": busy,
                }
            )

    def _row(self, item: CorpusItem, variant: Variant) -> Row:
        return {
            "row": self._kind,
            "pair": item.name,
            "class": item.kind,
            "length": item.length,
            "tokens": len(item.pair.target),
            "variant": variant.name,
        }

    def _decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))


def _fidelity_row(found: Fidelity, answers: Answers) -> Row:
    report = found.report
    row: Row = {
        "kind": kind_name(report.kind),
        "preset": report.preset,
        "reason": report.fallback_reason,
        "matched": report.matched_tokens,
        "segments": report.segments,
        "computed": report.recomputed_share,
        "kl_first": found.kl_first,
        "kl_mean": found.kl_mean,
        "agreement": found.agreement,
        "kv_bytes": found.kv_bytes,
    }
    if math.isfinite(report.sentinel_sigma):
        row["sentinel_sigma"] = report.sentinel_sigma
    if answers.wanted is not None:
        row |= {
            "answer_full": answers.full_holds,
            "answer": found.answer,
            "same_answer": found.same_answer,
        }
    return row
