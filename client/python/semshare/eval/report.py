"""Results as JSON lines and as a table."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from semshare.eval.measure import Measurement

__all__ = ["format_kl", "format_table", "json_line", "results_table"]


def json_line(measurement: Measurement, **more: Any) -> str:
    """One line of `--out`: every field of the measurement, and `more`. Never NaN or Infinity."""
    entry = dataclasses.asdict(measurement)
    if measurement.answer_full is None:
        del entry["answer_full"], entry["answer_reuse"]
    return json.dumps({**entry, **more}, allow_nan=False)


def results_table(measurements: Sequence[Measurement]) -> str:
    """The results, aligned, one line per pair and preset."""
    answers = any(each.answer_full is not None for each in measurements)
    header = ["pair", "preset", "kind", "tokens", "matched", "computed", "KL first", "KL mean"]
    header += ["agree", "TTFT", "full", "speed-up", "spread"]
    if answers:
        header += ["answer"]
    rows = []
    for each in measurements:
        low, high = each.ttft_spread_s
        row = [
            each.pair,
            each.preset,
            each.kind,
            str(each.target_tokens),
            f"{each.matched_tokens / each.target_tokens:.1%}",
            f"{each.recomputed_share:.1%}",
            format_kl(each.kl_first),
            format_kl(each.kl_mean),
            f"{each.agreement:.2f}",
            f"{each.ttft_s:.2f} s",
            f"{each.ttft_full_s:.2f} s",
            f"{each.speed_up:.1f}x",
            f"{low:.2f}-{high:.2f} s",
        ]
        if answers:
            row.append(_answers(each))
        rows.append(row)
    table = format_table(header, rows, left=3)
    reasons = [
        f"  {each.pair}, {each.preset}: {each.kind}"
        + (f" in {each.fallbacks} of {each.runs} runs" if each.fallbacks else "")
        + f", {each.fallback_reason}"
        for each in measurements
        if each.fallback_reason
    ]
    return "\n".join([table, *reasons])


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> str:
    """Aligns columns: the first `left` to the left, the others to the right."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    lines = []
    for row in [header, ["-" * width for width in widths], *rows]:
        cells = [
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def format_kl(nats: float) -> str:
    """A KL to two digits, in plain decimals while those are short."""
    if nats >= 1e-4:
        return f"{nats:.4f}"
    return "0" if nats == 0.0 else f"{nats:.0e}"


def _answers(each: Measurement) -> str:
    if each.answer_full is None:
        return "-"
    words = {True: "yes", False: "no", None: "-"}
    return f"{words[each.answer_full]}/{words[each.answer_reuse]}"
