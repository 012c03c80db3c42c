"""The ways in which a pair of the corpus is served: presets, and controls."""

from __future__ import annotations

from dataclasses import dataclass

from semshare.eval.controls import CONTROLS
from semshare.eval.measure import Preset

__all__ = [
    "ABLATION_VARIANTS",
    "ANSWER_KINDS",
    "DEFAULT_VARIANTS",
    "EXACT_PREFIX",
    "TIMED_VARIANTS",
    "WHOLE",
    "Variant",
    "applies",
]

WHOLE = "whole"
"""The reference's KV taken whole, with the target's question after it."""

EXACT_PREFIX = "exact_prefix"
"""Reuse of exact prefixes alone."""

DEFAULT_VARIANTS = (
    "auto,fast,heads,balanced,faithful,auto@0.002,semsharekv,zero,random,unrotated,whole"
)
TIMED_VARIANTS = "auto,auto@0.002,exact_prefix"

ABLATION_VARIANTS = ",".join(
    f"semsharekv+{change}"
    for change in (
        "retain=0",
        "alpha_retain=0.95",
        "high_deviation_share=0.2",
        "high_deviation_share=1+alpha_recompute=0.79",
        "alpha_recompute=0.9",
        "attention_recovery=1",
        "similarity_trigger=0",
    )
)
"""The paper's mode with one of its parts changed or left out: nothing evicted, more evicted, half
of the high-deviation tokens, no limit by deviation at the same cost, a slower decay, every token
hot, and any reference however unlike."""

# Where the default target leaves something to ask for.
_STRICT_KINDS = ("rewritten-50", "paraphrase")

ANSWER_KINDS = ("needle", "number")
_ANSWER_VARIANTS = ("auto", "fast", "balanced", "semsharekv", WHOLE)


@dataclass(frozen=True, slots=True)
class Variant:
    """A preset, a preset over wrong rows (`control`), or the reference taken whole."""

    name: str
    preset: Preset
    control: str | None = None

    @classmethod
    def parse(cls, text: str) -> Variant:
        """From a control's name, `whole`, `exact_prefix`, or what `Preset.parse` takes.

        Raises `ValueError` for anything else.
        """
        name = text.strip()
        if name in CONTROLS:
            # Few tokens are recomputed: the loaded rows carry the answer.
            return cls(name, Preset("fast"), name)
        if name == WHOLE:
            return cls(name, Preset("fast"))
        if name == EXACT_PREFIX:
            return cls(name, Preset("auto", EXACT_PREFIX))
        preset = Preset.parse(name)
        return cls(str(preset), preset)


def applies(variant: Variant, kind: str, has_whole: bool) -> bool:
    """Whether a variant says anything about a class of pair."""
    if variant.name == WHOLE and not has_whole:
        return False
    if variant.preset.kl_target is not None:
        return kind in _STRICT_KINDS
    if kind == "unrelated":
        return variant.control is None and variant.name != WHOLE
    return kind not in ANSWER_KINDS or variant.name in (*_ANSWER_VARIANTS, EXACT_PREFIX)
