"""How far one next-token distribution is from another."""

from __future__ import annotations

import torch

__all__ = ["agreement", "kl_divergence"]


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


def _check(full: torch.Tensor, reuse: torch.Tensor) -> None:
    if full.shape != reuse.shape:
        raise ValueError(f"logits of shapes {list(full.shape)} and {list(reuse.shape)}")
    for name, logits in (("full", full), ("reuse", reuse)):
        if torch.isnan(logits).any() or (logits == torch.inf).any():
            raise ValueError(f"logits of the {name} prefill are not finite")
