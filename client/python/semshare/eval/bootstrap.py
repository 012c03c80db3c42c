"""Medians with bootstrap confidence intervals."""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Interval", "median_interval"]

_RESAMPLES = 2000
_SEED = 7
_LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """A median of `count` values and the 95 % interval around it."""

    count: int
    median: float
    low: float
    high: float


def median_interval(values: Sequence[float]) -> Interval:
    """The median and its percentile bootstrap interval, the same for the same values.

    With fewer than six values the interval is about their range: that is all they tell. Raises
    `ValueError` without values.
    """
    if not values:
        raise ValueError("a median needs values")
    rng = random.Random(_SEED)
    medians = sorted(
        statistics.median(rng.choices(values, k=len(values))) for _ in range(_RESAMPLES)
    )
    tail = (1 - _LEVEL) / 2
    low = medians[int(tail * _RESAMPLES)]
    high = medians[min(_RESAMPLES - 1, int((1 - tail) * _RESAMPLES))]
    return Interval(len(values), statistics.median(values), low, high)
