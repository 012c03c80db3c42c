"""How far one next-token distribution is from another."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import torch

__all__ = ["agreement", "kl_divergence", "spearman"]


def kl_divergence(full: torch.Tensor, reuse: torch.Tensor) -> torch.Tensor:
    """KL(P_full || P_reuse) in nats for each row.

    Both are logits, `[vocab]` or `[rows, vocab]`, of any float dtype; the result is float64, `[]`
    or `[rows]`, never below 0. Computed as fp64 log-softmax over the whole vocabulary. Raises
    `ValueError` if the shapes differ, or if a logit is NaN or plus infinity: a broken cache must
    not look like a perfect one. Minus infinity is a token that cannot come.
    """
    _check(full, reuse)
    p = torch.log_softmax(full.double(), dim=-1)
    q = torch.log_softmax(reuse.double().to(full.device), dim=-1)
    # A token of probability 0 under P contributes 0, also where Q has 0 as well (0 * nan).
    terms = torch.where(p == -torch.inf, torch.zeros_like(p), p.exp() * (p - q))
    # Rounding leaves sums of about -1e-16 for equal rows.
    return terms.sum(dim=-1).clamp_min(0.0)


def agreement(full: torch.Tensor, reuse: torch.Tensor) -> float:
    """Share of rows whose most likely token is the same, 0..1.

    Both are logits `[rows, vocab]`, at least one row. Raises `ValueError` as `kl_divergence`.
    """
    _check(full, reuse)
    if full.dim() != 2 or full.shape[0] == 0:
        raise ValueError(f"expected logits [rows, vocab], got {list(full.shape)}")
    same = full.argmax(dim=-1) == reuse.to(full.device).argmax(dim=-1)
    return float(same.double().mean())


def spearman(one: Sequence[float], other: Sequence[float]) -> float:
    """Spearman's rank correlation, -1..1; equal values share their mean rank, and 0 is the answer
    where one side has only equal values. Raises `ValueError` for fewer than two points."""
    if len(one) != len(other) or len(one) < 2:
        raise ValueError(f"{len(one)} and {len(other)} values have no correlation")
    ranks = [_ranks(values) for values in (one, other)]
    if any(len(set(each)) == 1 for each in ranks):
        return 0.0
    return statistics.correlation(*ranks)


def _ranks(values: Sequence[float]) -> list[float]:
    order = sorted(range(len(values)), key=values.__getitem__)
    ranks = [0.0] * len(values)
    begin = 0
    while begin < len(order):
        end = begin
        while end < len(order) and values[order[end]] == values[order[begin]]:
            end += 1
        for place in order[begin:end]:
            ranks[place] = (begin + end - 1) / 2
        begin = end
    return ranks


def _check(full: torch.Tensor, reuse: torch.Tensor) -> None:
    if full.shape != reuse.shape:
        raise ValueError(f"logits of shapes {list(full.shape)} and {list(reuse.shape)}")
    for name, logits in (("full", full), ("reuse", reuse)):
        if torch.isnan(logits).any() or (logits == torch.inf).any():
            raise ValueError(f"logits of the {name} prefill are not finite")
