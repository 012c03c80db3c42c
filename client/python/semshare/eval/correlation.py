"""Rank correlation: whether one figure foretells another."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

__all__ = ["spearman"]


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
