"""Interleaved, verified runs of one pair: full prefill against every preset."""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from semshare.eval.prefill import Decoded, FullPrefill, forced_logits, greedy, synchronize
from semshare.hf.divergence import agreement, kl_divergence
from semshare.v1 import cache_broker_pb2 as pb

__all__ = [
    "Answers",
    "Fidelity",
    "MeasureOptions",
    "Measurement",
    "Pair",
    "Preset",
    "Reuser",
    "Timed",
    "answers_of",
    "kind_name",
    "measure_pair",
    "time_rounds",
    "verify",
]

_BREAKDOWN = ("lookup_s", "transfer_s", "wait_s", "compute_s", "overhead_s")


@dataclass(frozen=True, slots=True)
class Pair:
    """Prompts as token ids: what is stored, what is asked, and a text its answer should hold."""

    name: str
    references: tuple[tuple[int, ...], ...]
    target: tuple[int, ...]
    answer: str | None = None


@dataclass(frozen=True, slots=True)
class Preset:
    """How a target is prefilled; `mode` None leaves the mode to the preset, `kl_target` None the
    target to the broker. `paper`: fields of `SemShareKvOptions` that differ from the paper's."""

    preset: str
    mode: str | None = None
    kl_target: float | None = None
    paper: tuple[tuple[str, float], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Preset:
        """From `PRESET`, `PRESET:MODE`, or either with `@KL`; `semsharekv+FIELD=VALUE...` has other
        numbers than the paper's. Raises `ValueError` otherwise."""
        text, *fields = text.strip().split("+")
        how, at, target = text.partition("@")
        preset, colon, mode = how.partition(":")
        if not preset or (colon and not mode):
            raise ValueError(f"'{text}' is not PRESET or PRESET:MODE")
        kl_target = float(target) if at else None
        if kl_target is not None and not 0 < kl_target < math.inf:
            raise ValueError(f"'{text}': the KL target must be positive")
        return cls(preset, mode or None, kl_target, _paper_fields(preset, fields))

    def __str__(self) -> str:
        how = self.preset if self.mode is None else f"{self.preset}:{self.mode}"
        how = how if self.kl_target is None else f"{how}@{self.kl_target:g}"
        return "+".join([how, *(f"{name}={value:g}" for name, value in self.paper)])


def _paper_fields(preset: str, fields: Sequence[str]) -> tuple[tuple[str, float], ...]:
    """`FIELD=VALUE` each; raises `ValueError` for what the contract does not have."""
    known = {field.name for field in pb.SemShareKvOptions.DESCRIPTOR.fields}
    found = []
    for field_ in fields:
        name, equals, value = field_.partition("=")
        if preset != "semsharekv" or not equals or name not in known:
            raise ValueError(f"'+{field_}' is none of semsharekv's {', '.join(sorted(known))}")
        found.append((name, float(value)))
    return tuple(found)


class Reuser(Protocol):
    """The part of `semshare.hf.CachedModel` that is measured."""

    def prefill(self, ids: Any, preset: str = ..., **options: Any) -> Any: ...


@dataclass(frozen=True, slots=True)
class MeasureOptions:
    """What to run. `prefill_options` go to every `prefill` call (kl_target, question_tokens)."""

    runs: int = 5
    forced_tokens: int = 32
    answer_tokens: int = 24
    prefill_options: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Measurement:
    """One pair under one preset. Seconds are medians over the runs, spreads are (min, max)."""

    pair: str
    preset: str
    kind: str
    target_tokens: int
    matched_tokens: int
    recomputed_share: float
    # The largest first-token KL of any run, the untimed one included; nats.
    kl_first: float
    kl_mean: float
    agreement: float
    ttft_s: float
    ttft_full_s: float
    ttft_spread_s: tuple[float, float]
    ttft_full_spread_s: tuple[float, float]
    lookup_s: float
    transfer_s: float
    wait_s: float
    compute_s: float
    overhead_s: float
    runs: int
    # Runs that fell back to a full prefill; their full time is in ttft_s.
    fallbacks: int
    fallback_reason: str | None
    answer_full: bool | None = None
    answer_reuse: bool | None = None

    @property
    def speed_up(self) -> float:
        """Median full prefill over median time to first token with reuse."""
        return self.ttft_full_s / self.ttft_s


@dataclass(slots=True)
class Fidelity:
    """How one prefill with reuse compares with the truth. `answer` is None where none is wanted;
    `kv_bytes` is the request's own KV before decoding."""

    report: Any
    kl_first: float
    kl_mean: float
    agreement: float
    kv_bytes: int
    answer: bool | None = None
    # Whether the answer is the full prefill's, word for word.
    same_answer: bool | None = None


@dataclass(slots=True)
class Timed:
    """The timed runs of one preset: seconds, and what each run reported."""

    seconds: list[float] = field(default_factory=list)
    reports: list[Any] = field(default_factory=list)
    kl_first: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Answers:
    """What a pair's answer should hold, what the full prefill answers, and how ids become text."""

    wanted: str | None
    full: str
    decode: Callable[[list[int]], str]

    @property
    def full_holds(self) -> bool | None:
        """Whether the full prefill's answer holds it; None where nothing is wanted."""
        return None if self.wanted is None else self.wanted in self.full


def measure_pair(
    full: FullPrefill,
    reuser: Reuser,
    pair: Pair,
    presets: Sequence[Preset],
    options: MeasureOptions,
    decode: Callable[[list[int]], str],
    progress: Callable[[str], None] = lambda _: None,
) -> list[Measurement]:
    """Measures a pair whose references are stored already.

    Fidelity is computed before anything is timed, and those runs are the warm-up. Then come
    `options.runs` rounds of one full prefill and one prefill per preset, in alternating order,
    each timed from ids in hand to first logits, with its own lease and cache. Raises `ValueError`
    if logits are not finite, and whatever the model raises.
    """
    # Garbage is collected before each run, so that none is collected within one. What lives now
    # (the model, the libraries) is put aside meanwhile: walking it takes a second each time.
    gc.collect()
    gc.freeze()
    try:
        return _measure_pair(full, reuser, pair, presets, options, decode, progress)
    finally:
        gc.unfreeze()


def _measure_pair(
    full: FullPrefill,
    reuser: Reuser,
    pair: Pair,
    presets: Sequence[Preset],
    options: MeasureOptions,
    decode: Callable[[list[int]], str],
    progress: Callable[[str], None],
) -> list[Measurement]:
    target = list(pair.target)
    progress(f"{pair.name}: full prefill, for the truth")
    _, logits, cache = full.run(target)
    tokens = max(options.forced_tokens, options.answer_tokens)
    truth = greedy(full.model, logits, cache, tokens)
    del logits, cache
    answers = answers_of(full.model, pair, truth, decode, options)
    found: dict[Preset, Fidelity] = {}
    for preset in presets:
        progress(f"{pair.name}: {preset}, for its fidelity")
        found[preset] = verify(full.model, reuser, target, preset, truth, answers, options)
    full_seconds, timed = time_rounds(
        full, reuser, pair, presets, truth.logits[0], options, progress
    )
    return [
        _summarise(pair, preset, found[preset], timed[preset], full_seconds, answers)
        for preset in presets
    ]


def time_rounds(
    full: FullPrefill,
    reuser: Reuser,
    pair: Pair,
    presets: Sequence[Preset],
    truth: torch.Tensor,
    options: MeasureOptions,
    progress: Callable[[str], None] = lambda _: None,
) -> tuple[list[float], dict[Preset, Timed]]:
    """`options.runs` rounds of one full prefill and one prefill per preset: the seconds of the full
    ones, and the runs of each preset. `truth` `[vocab]`: the first logits of a full prefill."""
    target = list(pair.target)
    timed = {preset: Timed() for preset in presets}
    full_seconds = []
    for number in range(options.runs):
        progress(f"{pair.name}: run {number + 1} of {options.runs}, full prefill")
        seconds, logits, cache = full.run(target)
        full_seconds.append(seconds)
        del logits, cache
        # Neither the first nor the last place in a round belongs to one preset.
        for preset in presets if number % 2 == 0 else list(reversed(presets)):
            progress(f"{pair.name}: run {number + 1} of {options.runs}, {preset}")
            seconds, result = _reuse(full.model, reuser, target, preset, options)
            runs = timed[preset]
            runs.seconds.append(seconds)
            runs.reports.append(result.report)
            runs.kl_first.append(float(kl_divergence(truth, _row(result.logits))))
            del result
    return full_seconds, timed


def answers_of(
    model: Any,
    pair: Pair,
    truth: Decoded,
    decode: Callable[[list[int]], str],
    options: MeasureOptions,
) -> Answers:
    """What the full prefill answers, from its `truth`."""
    wanted = None if pair.answer is None else _squeeze(pair.answer)
    return Answers(wanted, _squeeze(decode(_answer(model, truth.tokens, options))), decode)


def _reuse(
    model: Any, reuser: Reuser, target: list[int], preset: Preset, options: MeasureOptions
) -> tuple[float, Any]:
    """One prefill through the broker, timed from outside: nothing it does is left out."""
    extra = dict(options.prefill_options)
    if preset.mode is not None:
        extra["mode"] = preset.mode
    if preset.kl_target is not None:
        extra["kl_target"] = preset.kl_target
    if preset.paper:
        message = pb.SemShareKvOptions()
        for name, value in preset.paper:
            setattr(message, name, bool(value) if name == "retain" else value)
        extra["semsharekv"] = message
    gc.collect()
    synchronize(model)
    begin = time.perf_counter()
    result = reuser.prefill(target, preset=preset.preset, **extra)
    synchronize(model)
    return time.perf_counter() - begin, result


def verify(
    model: Any,
    reuser: Reuser,
    target: list[int],
    preset: Preset,
    truth: Decoded,
    answers: Answers,
    options: MeasureOptions,
) -> Fidelity:
    """The fidelity of one prefill of `target` with reuse, which is not timed."""
    _, result = _reuse(model, reuser, target, preset, options)
    tokens = truth.tokens[: options.forced_tokens]
    wanted_rows = truth.logits[: options.forced_tokens]
    kv_bytes = sum(each.keys.nbytes + each.values.nbytes for each in result.cache.layers)
    forced = forced_logits(model, _row(result.logits), result.cache, tokens)
    kl = kl_divergence(wanted_rows, forced)
    found = Fidelity(
        report=result.report,
        kl_first=float(kl[0]),
        kl_mean=float(kl.mean()),
        agreement=agreement(wanted_rows, forced),
        kv_bytes=kv_bytes,
    )
    if answers.wanted is None:
        return found
    # Decoding has grown the cache, and not every cache can be cut again: the answer gets its own.
    del result
    _, result = _reuse(model, reuser, target, preset, options)
    decoded = greedy(model, _row(result.logits), result.cache, options.answer_tokens)
    said = _squeeze(answers.decode(_answer(model, decoded.tokens, options)))
    found.answer = answers.wanted in said
    found.same_answer = said == answers.full
    return found


def _summarise(
    pair: Pair,
    preset: Preset,
    fidelity: Fidelity,
    runs: Timed,
    full_seconds: list[float],
    answers: Answers,
) -> Measurement:
    # A fallback in any run is what the table should name; else every run is alike.
    kinds = [kind_name(report.kind) for report in runs.reports]
    fallbacks = kinds.count("fallback")
    report = runs.reports[kinds.index("fallback") if fallbacks else 0]
    parts = {
        name: statistics.median([float(getattr(each, name) or 0.0) for each in runs.reports])
        for name in _BREAKDOWN
    }
    return Measurement(
        pair=pair.name,
        preset=str(preset),
        kind=kind_name(report.kind),
        target_tokens=len(pair.target),
        matched_tokens=int(report.matched_tokens),
        recomputed_share=statistics.fmean(float(each.recomputed_share) for each in runs.reports),
        kl_first=max([fidelity.kl_first, *runs.kl_first]),
        kl_mean=fidelity.kl_mean,
        agreement=fidelity.agreement,
        ttft_s=statistics.median(runs.seconds),
        ttft_full_s=statistics.median(full_seconds),
        ttft_spread_s=(min(runs.seconds), max(runs.seconds)),
        ttft_full_spread_s=(min(full_seconds), max(full_seconds)),
        runs=len(runs.seconds),
        fallbacks=fallbacks,
        fallback_reason=report.fallback_reason or None,
        answer_full=answers.full_holds,
        answer_reuse=fidelity.answer,
        **parts,
    )


def kind_name(kind: Any) -> str:
    """The name of a result kind, whether it is a string or an enum member."""
    return str(getattr(kind, "value", kind)).lower()


def _row(logits: torch.Tensor) -> torch.Tensor:
    return logits.reshape(-1)


def _answer(model: Any, tokens: list[int], options: MeasureOptions) -> list[int]:
    """The tokens of an answer, up to where the model ends it."""
    end = model.generation_config.eos_token_id
    ends = set(end) if isinstance(end, list) else {end}
    answer = tokens[: options.answer_tokens]
    for place, token in enumerate(answer):
        if token in ends:
            return answer[:place]
    return answer


def _squeeze(text: str) -> str:
    """For comparing answers: case and white space do not count."""
    return " ".join(text.split()).casefold()
