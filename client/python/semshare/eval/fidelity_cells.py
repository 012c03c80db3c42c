"""Cells and tables of the fidelity report."""

from __future__ import annotations

from collections.abc import Sequence

from semshare.eval.bootstrap import Interval
from semshare.eval.fidelity import Summary
from semshare.eval.report import format_kl

__all__ = ["kl", "short", "table", "times"]


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def kl(interval: Interval) -> str:
    """A KL with its interval, where there is one."""
    if interval.count == 1:
        return format_kl(interval.median)
    low, high = format_kl(interval.low), format_kl(interval.high)
    return f"{format_kl(interval.median)} [{low}, {high}]"


def times(interval: Interval) -> str:
    """A speed-up with its interval, where there is one."""
    if interval.count == 1:
        return f"{interval.median:.1f}x"
    return f"{interval.median:.1f}x [{interval.low:.1f}, {interval.high:.1f}]"


def short(found: Summary) -> str:
    """Median KL of the first token / mean."""
    return f"{format_kl(found.kl_first.median)} / {format_kl(found.kl_mean.median)}"
