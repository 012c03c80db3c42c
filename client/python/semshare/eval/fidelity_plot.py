"""The plots of the fidelity report."""

from __future__ import annotations

import statistics

from semshare.eval.fidelity import LONG, PAPER, PRESETS, Report, speed_up
from semshare.eval.svg import COLORS, LogAxis, Svg
from semshare.eval.targets import TARGETS
from semshare.eval.variants import WHOLE
from semshare.texts import CORPUS_CLASSES

__all__ = ["kl_plot", "speed_plot"]

_KL_LOW, _KL_HIGH = 1e-6, 20.0
_SHOWN = (
    *((name, True) for name in PRESETS if name != "heads"),
    (PAPER, False),
    ("unrotated", False),
    ("random", False),
    (WHOLE, False),
)
_LABELS = {
    PAPER: "SemShareKV as published",
    "unrotated": "without rotation",
    "random": "random rows",
    WHOLE: "the reference's KV taken whole",
}
_WIDTH, _LEFT, _TOP, _ROW = 1060, 300, 60, 30


def kl_plot(report: Report) -> str:
    """KL of the first token: a row per class, a dot per preset or control (medians), a bar at the
    target."""
    kinds = [kind for kind in report.kinds() if report.select(kind, LONG, "auto")]
    bottom = _TOP + _ROW * len(kinds)
    svg = Svg(_WIDTH, bottom + 70, f"KL of the first token, median by class, {LONG} tokens")
    axis = LogAxis(_KL_LOW, _KL_HIGH, _LEFT, _WIDTH - 230)
    for value in axis.decades():
        svg.line(axis.at(value), _TOP - 15, axis.at(value), bottom)
        svg.text(axis.at(value), bottom + 18, f"{value:g}", anchor="middle")
    svg.text(
        (axis.begin + axis.end) / 2,
        bottom + 42,
        "nats; left is better, 0 is drawn at the left border",
        anchor="middle",
    )
    targets = {target.kind: target.kl_first for target in reversed(TARGETS)}
    for row, kind in enumerate(kinds):
        y = _TOP + _ROW * row
        svg.line(axis.begin, y, axis.end, y)
        svg.text(_LEFT - 14, y + 4, CORPUS_CLASSES[kind], anchor="end")
        if kind in targets:
            x = axis.at(targets[kind])
            svg.line(x, y - 11, x, y + 11, "#c00")
        # The first is drawn last: it is what the targets are for.
        for index, (variant, filled) in reversed(list(enumerate(_SHOWN))):
            found = report.summary(kind, LONG, variant)
            if found is not None:
                svg.dot(axis.at(found.kl_first.median), y, COLORS[index], filled=filled)
    entries = [
        (_LABELS.get(name, name), COLORS[index], filled)
        for index, (name, filled) in enumerate(_SHOWN)
    ]
    svg.legend(_WIDTH - 205, _TOP, entries)
    y = _TOP + 18 * len(entries)
    svg.line(_WIDTH - 205, y - 11, _WIDTH - 205, y + 3, "#c00")
    svg.text(_WIDTH - 193, y, "target of auto")
    return svg.render()


def speed_plot(report: Report) -> str | None:
    """Speed-up against KL: a small dot per pair under `auto`, a large one per class (medians). None
    where nothing was timed."""
    points: dict[str, list[tuple[float, float]]] = {}
    timed = {row["pair"]: row for row in report.timing if row["variant"] == "auto"}
    for row in report.select(None, LONG, "auto"):
        if row["pair"] in timed:
            point = (speed_up(timed[row["pair"]]), row["kl_first"])
            points.setdefault(row["class"], []).append(point)
    if not points:
        return None
    height = 560
    svg = Svg(_WIDTH, height, f"Speed-up against KL with auto, by class, {LONG} tokens")
    across = LogAxis(0.8, 80.0, 90, _WIDTH - 330)
    up = LogAxis(_KL_LOW, 1.0, height - 70, _TOP)
    for value in up.decades():
        svg.line(across.begin, up.at(value), across.end, up.at(value))
        svg.text(across.begin - 8, up.at(value) + 4, f"{value:g}", anchor="end")
    for value in (1, 2, 4, 8, 16, 32, 64):
        svg.line(across.at(value), up.begin, across.at(value), up.end)
        svg.text(across.at(value), up.begin + 18, f"{value}x", anchor="middle")
    middle = (across.begin + across.end) / 2
    svg.text(middle, height - 22, "time to first token: right is faster", anchor="middle")
    svg.text(8, _TOP - 16, "KL of the first token, nats: down is better")
    kinds = [kind for kind in report.kinds() if kind in points]
    for index, kind in enumerate(kinds):
        color, filled = COLORS[index % len(COLORS)], index < len(COLORS)
        for speed, kl in points[kind]:
            svg.dot(across.at(speed), up.at(kl), color, 2.5, filled)
        speed = statistics.median(speed for speed, _ in points[kind])
        kl = statistics.median(kl for _, kl in points[kind])
        svg.dot(across.at(speed), up.at(kl), color, 7, filled)
    entries = [
        (CORPUS_CLASSES[kind], COLORS[i % len(COLORS)], i < len(COLORS))
        for i, kind in enumerate(kinds)
    ]
    svg.legend(_WIDTH - 310, _TOP, entries)
    return svg.render()
