"""What the quickstart asks, and what came of it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from semshare.eval.measure import kind_name
from semshare.eval.prefill import FullPrefill, greedy
from semshare.eval.progress import Progress
from semshare.eval.report import format_kl
from semshare.hf.divergence import kl_divergence
from semshare.texts import PairMaker, PromptPair, document, fit

__all__ = ["ASKED", "Answered", "ask", "describe", "make_pairs", "summary_row"]

SEED = 7
DOCUMENT, OTHER = "tide_station", "gpl-3"
DOCUMENT_TOKENS = 4200
ANSWER_TOKENS = 28

# In the order in which they are asked.
ASKED = ("question", "system", "words", "deleted", "reordered", "unrelated")

SUMMARY_HEADER = (
    "prompt",
    "kind",
    "tokens",
    "matched",
    "computed",
    "with",
    "without",
    "faster",
    "KL first",
)


@dataclass(slots=True)
class Answered:
    """One prompt, answered twice. Seconds are from ids in hand to first logits; KL in nats."""

    pair: PromptPair
    tokens: int
    kind: str
    matched_tokens: int
    transport: str
    recomputed_share: float
    reason: str
    with_s: float
    without_s: float
    overhead_s: float
    kl_first: float
    answer_with: str
    answer_without: str
    logits: Any

    @property
    def speed_up(self) -> float:
        """How many times sooner the first token is there with semshare."""
        return self.without_s / self.with_s


def make_pairs(tokenizer: Any) -> list[PromptPair]:
    """The prompts of the scenario, always the same."""

    def count(text: str) -> int:
        return len(tokenizer(text, add_special_tokens=False).input_ids)

    source = fit(document(DOCUMENT), DOCUMENT_TOKENS, count)
    other = fit(document(OTHER), DOCUMENT_TOKENS, count)
    maker = PairMaker(source, other, SEED)
    return [maker.make(name) for name in ASKED]


def ask(
    cached: Any, full: FullPrefill, tokenizer: Any, pair: PromptPair, progress: Progress
) -> Answered:
    """Answers one prompt without semshare, then with it. Neither run stores anything."""
    ids = list(tokenizer(pair.target, add_special_tokens=False).input_ids)
    model = full.model
    with progress.layers(model, f"full prefill of {len(ids):,} tokens"):
        without_s, truth, cache = full.run(ids)
    with progress.step("its answer"):
        answer_without = _answer(model, tokenizer, truth, cache)
    del cache
    begin = time.perf_counter()
    result = cached.prefill(ids)
    with_s = time.perf_counter() - begin
    with progress.step("prefill with semshare done; its answer"):
        answer_with = _answer(model, tokenizer, result.logits, result.cache)
    report = result.report
    return Answered(
        pair=pair,
        tokens=len(ids),
        kind=kind_name(report.kind),
        matched_tokens=report.matched_tokens,
        transport=report.transport,
        recomputed_share=report.recomputed_share,
        reason=report.fallback_reason or "",
        with_s=with_s,
        without_s=without_s,
        overhead_s=report.overhead_s,
        kl_first=float(kl_divergence(truth, result.logits)),
        answer_with=answer_with,
        answer_without=answer_without,
        logits=result.logits,
    )


def describe(answered: Answered) -> str:
    """A few lines about one prompt."""
    each = answered
    kind = f"{each.kind} ({each.reason})" if each.reason else each.kind
    through = f", through {each.transport.replace('_', ' ')}" if each.matched_tokens else ""
    lines = [
        f"kind of match    {kind}",
        f"tokens matched   {each.matched_tokens:,} of {each.tokens:,}{through}",
        f"share computed   {each.recomputed_share:.1%}",
    ]
    first = f"first token      {each.with_s:.2f} s with semshare, {each.without_s:.2f} s without: "
    if each.kind in ("miss", "fallback"):
        share = each.overhead_s / each.without_s
        lines.append(first + f"the look-up cost {share:.1%} of a full prefill")
    else:
        lines.append(first + f"{each.speed_up:.1f} times faster")
    lines += [
        f"KL first token   {format_kl(each.kl_first)}",
        f"answer without   {each.answer_without}",
        f"answer with      {each.answer_with}",
    ]
    return "\n".join(f"    {line}" for line in lines)


def summary_row(answered: Answered) -> list[str]:
    """The row under `SUMMARY_HEADER`."""
    each = answered
    return [
        each.pair.title,
        each.kind,
        f"{each.tokens:,}",
        f"{each.matched_tokens:,}",
        f"{each.recomputed_share:.1%}",
        f"{each.with_s:.2f} s",
        f"{each.without_s:.2f} s",
        # A miss is a full prefill on both sides: their ratio is noise.
        "-" if each.kind == "miss" else f"{each.speed_up:.1f}x",
        format_kl(each.kl_first),
    ]


def _answer(model: Any, tokenizer: Any, logits: Any, cache: Any) -> str:
    tokens = greedy(model, logits, cache, ANSWER_TOKENS).tokens
    end = model.generation_config.eos_token_id
    ends = set(end) if isinstance(end, list) else {end}
    stop = next((place for place, token in enumerate(tokens) if token in ends), None)
    text = " ".join(tokenizer.decode(tokens[:stop], skip_special_tokens=True).split())
    # No end in sight: the reader should see that the answer was cut, not that it stopped.
    return text if stop is not None else f"{text} ..."
