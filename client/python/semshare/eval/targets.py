"""The numbers that the project sets itself for SmolLM2 on a CPU, at 3,500-5,000 tokens."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "ANSWER_PAIRS",
    "AUTO_KL_TARGET",
    "GATE_SPEARMAN",
    "MEAN_FACTOR",
    "PAPER_CLASSES",
    "PAPER_FACTOR",
    "TARGETS",
    "FidelityTarget",
]

MEAN_FACTOR = 5.0
"""Mean KL over 32 tokens may be this many times the first token's target."""

PAPER_FACTOR = 100.0
"""How many times lower than `semsharekv` KL shall be, at equal recompute, in `PAPER_CLASSES`."""
PAPER_CLASSES = ("system", "words", "deleted")

ANSWER_PAIRS = 50
"""On at least so many pairs the answer shall hold exactly when the full prefill's does."""

AUTO_KL_TARGET = 0.01
"""What `auto` aims at where the caller names nothing: nats, first token."""

GATE_SPEARMAN = 0.8
"""Least rank correlation of the sentinels' sigma with the KL that follows."""


@dataclass(frozen=True, slots=True)
class FidelityTarget:
    """Medians of a class: at least this speed-up, at most this KL of the first token (nats), and
    at most this share of the floor (the reference's KV taken whole), where there is one."""

    kind: str
    variant: str
    speed_up: float
    kl_first: float
    floor_share: float | None = None


TARGETS = (
    FidelityTarget("system", "auto", 12.0, 0.002),
    FidelityTarget("deleted", "auto", 15.0, 0.003),
    FidelityTarget("inserted", "auto", 8.0, 0.01),
    FidelityTarget("words", "auto", 8.0, 0.01),
    FidelityTarget("versions", "auto", 8.0, 0.005),
    FidelityTarget("reordered", "auto", 6.0, 0.01),
    FidelityTarget("retrieval", "auto", 6.0, 0.01),
    FidelityTarget("chat", "auto", 12.0, 0.0005),
    FidelityTarget("rewritten-10", "auto", 15.0, 0.001, 0.25),
    FidelityTarget("rewritten-30", "auto", 6.0, 0.01, 0.25),
    FidelityTarget("rewritten-50", "auto", 4.0, 0.015, 0.25),
    FidelityTarget("rewritten-50", "auto@0.002", 2.5, 0.002, 0.25),
    FidelityTarget("paraphrase", "auto", 2.5, 0.02, 0.25),
)
