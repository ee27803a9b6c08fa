"""A line plot as inline SVG: axes with round ticks, a legend, colors from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from inferloop.core.report import Plot

_WIDTH, _HEIGHT = 736, 340
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 14, 46
_MOST_POINTS = 800
_COLORS = 6
_DASHES = ("", "7 4", "2 4")

Points = Sequence[tuple[float, float]]


class _Axis(NamedTuple):
    """From values to pixels."""

    low: float
    high: float
    start: float
    end: float

    def place(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def line_plot(plot: Plot) -> str:
    """The `<svg>` element; points that are not finite are left out."""
    series = {
        name: _thinned([(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)])
        for name, points in plot.series.items()
    }
    points = [point for line in series.values() for point in line]
    if not points:
        return "<p>no points to plot</p>"
    legend_rows = math.ceil(len(series) / 3) if len(series) > 1 else 0
    top = _TOP + 20 * legend_rows
    x_ticks, y_ticks = ticks([x for x, _ in points]), ticks([y for _, y in points])
    x_axis = _Axis(x_ticks[0], x_ticks[-1], _LEFT, _WIDTH - _RIGHT)
    y_axis = _Axis(y_ticks[0], y_ticks[-1], top + _HEIGHT - _TOP - _BOTTOM, top)
    height = top + _HEIGHT - _TOP
    body = [
        *_grid(x_axis, y_axis, x_ticks=x_ticks, y_ticks=y_ticks),
        *_titles(plot, x_axis, y_axis),
        *(_line(index, line, x_axis=x_axis, y_axis=y_axis) for index, line in enumerate(series.values())),
        *(_legend(list(series)) if legend_rows else ()),
    ]
    return f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(plot.title)}">' + "".join(body) + "</svg>"


def ticks(values: Sequence[float], *, wanted: int = 6) -> list[float]:
    """Round numbers around all values: steps of 1, 2 or 5 times a power of ten, at least two."""
    low, high = min(values), max(values)
    if high - low <= 1e-12 * max(1.0, abs(low), abs(high)):
        margin = abs(low) * 0.1 or 0.5
        low, high = low - margin, high + margin
    rough = (high - low) / (wanted - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{index * step:.12g}") for index in range(first, last + 1)]


def _grid(x_axis: _Axis, y_axis: _Axis, *, x_ticks: Sequence[float], y_ticks: Sequence[float]) -> list[str]:
    parts = []
    for value in x_ticks:
        x = x_axis.place(value)
        parts.append(f'<line class="grid" x1="{x:.1f}" y1="{y_axis.start:.1f}" x2="{x:.1f}" y2="{y_axis.end:.1f}"/>')
        parts.append(f'<text x="{x:.1f}" y="{y_axis.start + 17:.1f}" text-anchor="middle">{value:g}</text>')
    for value in y_ticks:
        y = y_axis.place(value)
        parts.append(f'<line class="grid" x1="{x_axis.start:.1f}" y1="{y:.1f}" x2="{x_axis.end:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{x_axis.start - 8:.1f}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    parts.append(f'<path class="axis" fill="none" d="M{x_axis.start:.1f} {y_axis.end:.1f}V{y_axis.start:.1f}H{x_axis.end:.1f}"/>')
    return parts


def _titles(plot: Plot, x_axis: _Axis, y_axis: _Axis) -> list[str]:
    middle_x, middle_y = (x_axis.start + x_axis.end) / 2, (y_axis.start + y_axis.end) / 2
    turned = f'transform="rotate(-90 14 {middle_y:.1f})"'
    return [
        f'<text x="{middle_x:.1f}" y="{y_axis.start + 37:.1f}" text-anchor="middle">{escape(plot.x_label)}</text>',
        f'<text x="14" y="{middle_y:.1f}" text-anchor="middle" {turned}>{escape(plot.y_label)}</text>',
    ]


def _line(index: int, points: Points, *, x_axis: _Axis, y_axis: _Axis) -> str:
    placed = [(x_axis.place(x), y_axis.place(y)) for x, y in points]
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in placed) if placed else ""
    dots = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" style="fill:{_color(index)}"/>' for x, y in placed if len(placed) <= 30
    )
    return f'<path class="mark" d="{path}" style="{_stroke(index)}"/>{dots}'


def _legend(names: Sequence[str]) -> list[str]:
    parts = []
    for index, name in enumerate(names):
        x, y = _LEFT + (index % 3) * 224, _TOP + (index // 3) * 20
        parts.append(f'<path class="mark" d="M{x} {y}h22" style="{_stroke(index)}"/>')
        shown = name if len(name) <= 26 else name[:25] + "…"
        parts.append(f'<text x="{x + 28}" y="{y + 4}">{escape(shown)}</text>')
    return parts


def _color(index: int) -> str:
    return f"var(--s{index % _COLORS})"


def _stroke(index: int) -> str:
    dash = _DASHES[index // _COLORS % len(_DASHES)]
    return f"stroke:{_color(index)}" + (f";stroke-dasharray:{dash}" if dash else "")


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most `_MOST_POINTS` of them, the last one kept."""
    stride = math.ceil(len(points) / _MOST_POINTS)
    return points if stride <= 1 else [*points[:-1:stride], points[-1]]
