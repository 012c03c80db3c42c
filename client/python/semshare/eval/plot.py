"""KL against speed-up as a PNG: up is unfaithful, right is fast."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.lines import Line2D

from semshare.eval.measure import Measurement

__all__ = ["draw"]

# A logarithmic axis has no 0: exact reuse is drawn here.
_KL_FLOOR = 1e-9
_MARKERS = "os^Dv<>PX*hp"


def draw(measurements: Sequence[Measurement], path: Path, title: str) -> None:
    """Draws one point per pair (colour) and preset (marker), filled where reuse took place.

    The bar through a point is the spread of its speed-up over the runs. Overwrites `path`. Raises
    `OSError` if it cannot be written.
    """
    pairs = list(dict.fromkeys(each.pair for each in measurements))
    presets = list(dict.fromkeys(each.preset for each in measurements))
    colors = {pair: plt.get_cmap("tab10")(index % 10) for index, pair in enumerate(pairs)}
    marks = {preset: _MARKERS[index % len(_MARKERS)] for index, preset in enumerate(presets)}
    figure, axes = plt.subplots(figsize=(9, 5.5), layout="constrained")
    for each in measurements:
        kl = max(each.kl_first, _KL_FLOOR)
        color = colors[each.pair]
        low, high = each.ttft_spread_s
        span = [each.ttft_full_s / high, each.ttft_full_s / low]
        axes.plot(span, [kl, kl], color=color, linewidth=1, alpha=0.5)
        reused = each.kind not in ("miss", "fallback")
        axes.plot(
            each.speed_up,
            kl,
            marker=marks[each.preset],
            markersize=8,
            linestyle="none",
            color=color,
            markerfacecolor=color if reused else "none",
        )
    axes.axvline(1.0, color="gray", linewidth=0.8, linestyle="--")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}x")
    axes.xaxis.set_minor_formatter(lambda value, _: f"{value:g}x" if value in _TICKS else "")
    axes.set_ylim(bottom=_KL_FLOOR / 2)
    axes.set_xlabel("speed-up of the time to first token over the model's own full prefill")
    axes.set_ylabel("KL of the first token, nats")
    axes.set_title(title)
    axes.grid(True, which="major", alpha=0.3)
    handles = [Line2D([], [], color=colors[pair], linewidth=4, label=pair) for pair in pairs]
    handles += [
        Line2D([], [], color="black", marker=marks[preset], linestyle="none", label=preset)
        for preset in presets
    ]
    handles.append(
        Line2D([], [], color="black", marker="o", linestyle="none", fillstyle="none", label="miss")
    )
    figure.legend(handles=handles, loc="outside right upper", frameon=False)
    figure.savefig(path, dpi=130)
    plt.close(figure)


# Where a logarithmic axis that spans little more than a decade is still readable.
_TICKS = (2, 3, 5, 20, 30, 50)
