"""Plots as SVG, written by hand: small, readable as text, and drawn the same everywhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["COLORS", "LogAxis", "Svg"]

# Told apart also without colour vision (Okabe and Ito), and dark enough on white.
COLORS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#b8860b",
    "#56b4e9",
    "#000000",
    "#7f7f7f",
)
_FONT = "font-family='sans-serif' font-size='12'"


@dataclass(frozen=True, slots=True)
class LogAxis:
    """Values from `low` to `high` on a logarithmic scale, at pixels from `begin` to `end`."""

    low: float
    high: float
    begin: float
    end: float

    def at(self, value: float) -> float:
        """The pixel of a value; what lies outside is drawn at the border."""
        inside = min(max(value, self.low), self.high)
        share = math.log(inside / self.low) / math.log(self.high / self.low)
        return self.begin + share * (self.end - self.begin)

    def decades(self) -> list[float]:
        """The powers of ten within."""
        first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high))
        return [10.0**power for power in range(first, last + 1)]


class Svg:
    """One drawing."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self._size = (width, height)
        self._parts: list[str] = []
        self.text(width / 2, 20, title, anchor="middle", bold=True)

    def line(
        self, x1: float, y1: float, x2: float, y2: float, color: str = "#ddd", dash: str = ""
    ) -> None:
        """A thin line."""
        dashes = f" stroke-dasharray='{dash}'" if dash else ""
        self._parts.append(
            f"<line x1='{x1:.1f}' y1='{y1:.1f}' x2='{x2:.1f}' y2='{y2:.1f}' "
            f"stroke='{color}'{dashes}/>"
        )

    def dot(self, x: float, y: float, color: str, radius: float = 5, filled: bool = True) -> None:
        """A circle, or a ring."""
        fill = color if filled else "white"
        self._parts.append(
            f"<circle cx='{x:.1f}' cy='{y:.1f}' r='{radius:g}' fill='{fill}' stroke='{color}'/>"
        )

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        color: str = "#222",
        anchor: str = "start",
        bold: bool = False,
    ) -> None:
        """A line of text, `anchor` start, middle or end."""
        weight = " font-weight='bold'" if bold else ""
        self._parts.append(
            f"<text x='{x:.1f}' y='{y:.1f}' fill='{color}' text-anchor='{anchor}'{weight}>"
            f"{escape(text)}</text>"
        )

    def legend(self, x: float, y: float, entries: Sequence[tuple[str, str, bool]]) -> None:
        """Dots with names, one under the other: (name, colour, filled)."""
        for row, (name, color, filled) in enumerate(entries):
            self.dot(x, y + 18 * row - 4, color, filled=filled)
            self.text(x + 12, y + 18 * row, name)

    def render(self) -> str:
        """The file's content."""
        width, height = self._size
        body = "\n".join(self._parts)
        return (
            f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' "
            f"width='{width}' height='{height}' {_FONT}>\n"
            f"<rect width='{width}' height='{height}' fill='white'/>\n{body}\n</svg>\n"
        )
