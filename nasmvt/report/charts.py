"""Charts as SVG inside the page, drawn here: a library's script for them would make up most of the file.

What a mark stands for is in its `data-tip`, which the page shows when the pointer is on it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

Point = tuple[float, float]

COLORS = ("#2f6fb2", "#d9822b", "#3a8f5c", "#a4508b", "#7a6a4f", "#c0504d", "#4c8c9b", "#8268b0")
"""Of series, in order; they repeat."""

_WIDTH, _HEIGHT = 480, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 14, 12, 38
_DOT, _LONE_DOT = 1.8, 4.5
"""Radius of the points of a curve, and of the only one."""
_MOST_POINTS = 200
"""Points of a curve; more are averaged in groups of neighbours."""


@dataclass(frozen=True)
class Series:
    """A curve."""

    name: str
    points: Sequence[Point]


@dataclass(frozen=True)
class Mark:
    """A point of a scatter plot."""

    x: float
    y: float
    tip: str
    color: str
    ring: bool = False
    """Whether it stands out."""


def color(number: int) -> str:
    """Return the colour of a series."""
    return COLORS[number % len(COLORS)]


def shade(share: float) -> str:
    """Return a colour from light blue (0) to dark red (1), for what has an order."""
    return f"hsl({210 + 140 * share:.0f} {60 + 15 * share:.0f}% {68 - 25 * share:.0f}%)"


def line_chart(series: Sequence[Series], x_label: str, y_label: str, *, zero: bool = False) -> str:
    """Return curves over common axes; values that are not finite are left out.

    Args:
        series: the curves.
        x_label: name of the horizontal axis.
        y_label: name of the vertical axis.
        zero: whether the vertical axis begins at 0.
    """
    curves = [Series(one.name, _thinned([p for p in one.points if all(map(math.isfinite, p))])) for one in series]
    points = [point for curve in curves for point in curve.points]
    if not points:
        return ""
    frame = _Frame(points, zero)
    parts = [frame.axes(x_label, y_label)]
    for number, curve in enumerate(curves):
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(frame.place, curve.points))
        parts.append(f'<polyline class="curve" stroke="{color(number)}" points="{path}"/>')
        radius = _DOT if len(curve.points) > 1 else _LONE_DOT
        for point in curve.points:
            x, y = frame.place(point)
            tip = escape(f"{curve.name}\n{x_label} {point[0]:g}: {point[1]:.4g}")
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{color(number)}"/>')
            parts.append(f'<circle class="hit" cx="{x:.1f}" cy="{y:.1f}" r="6" data-tip="{tip}"/>')
    return _svg(parts, f"{y_label} by {x_label}")


def scatter(
    marks: Sequence[Mark], x_label: str, y_label: str, *, limit: float | None = None, front: Sequence[Point] = ()
) -> str:
    """Return points over axes.

    Args:
        marks: the points.
        x_label: name of the horizontal axis.
        y_label: name of the vertical axis.
        limit: an upper bound on x, drawn as a line.
        front: corners of a line through the best points, by rising x.
    """
    ends = [] if limit is None or not marks else [(limit, marks[0].y)]
    frame = _Frame([(mark.x, mark.y) for mark in marks] + ends, False)
    parts = [frame.axes(x_label, y_label)]
    if limit is not None:
        x, _ = frame.place((limit, 0.0))
        bottom = _HEIGHT - _BOTTOM
        parts.append(f'<line class="budget" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{bottom}"/>')
        parts.append(f'<text x="{x - 4:.1f}" y="{_TOP + 9}" text-anchor="end">budget {short(limit)}</text>')
    if front:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(frame.place, front))
        parts.append(f'<polyline class="front" points="{path}"/>')
    for mark in sorted(marks, key=lambda mark: mark.ring):
        x, y = frame.place((mark.x, mark.y))
        if mark.ring:
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="8" fill="none" stroke="#1c2230" stroke-width="1.6"/>')
        place = f'cx="{x:.1f}" cy="{y:.1f}" r="4.5"'
        parts.append(f'<circle {place} fill="{mark.color}" fill-opacity=".85" data-tip="{escape(mark.tip)}"/>')
    return _svg(parts, f"{y_label} by {x_label}")


def short(value: float) -> str:
    """Return a number in few characters: 1.2M, 350k, 0.004."""
    for unit, name in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:.4g}{name}"
    return f"{value:.4g}"


class _Frame:
    """Axes that hold some points."""

    def __init__(self, points: Sequence[Point], zero: bool) -> None:
        xs, ys = [x for x, _ in points], [y for _, y in points]
        self._x = _range(min(xs), max(xs))
        self._y = _range(0.0 if zero else min(ys), max(ys))

    def place(self, point: Point) -> Point:
        """Return where a point is on the drawing."""
        across = (point[0] - self._x[0]) / (self._x[1] - self._x[0])
        up = (point[1] - self._y[0]) / (self._y[1] - self._y[0])
        return _LEFT + across * (_WIDTH - _LEFT - _RIGHT), _HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM)

    def axes(self, x_label: str, y_label: str) -> str:
        """Return grid, numbers and names of the axes."""
        parts = []
        for tick in _ticks(*self._x):
            x, _ = self.place((tick, 0.0))
            parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}"/>')
            parts.append(f'<text x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 14}" text-anchor="middle">{short(tick)}</text>')
        for tick in _ticks(*self._y):
            _, y = self.place((0.0, tick))
            parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{short(tick)}</text>')
        middle = (_TOP + _HEIGHT - _BOTTOM) / 2
        parts.append(
            f'<text x="{(_LEFT + _WIDTH) / 2}" y="{_HEIGHT - 6}" text-anchor="middle">{escape(x_label)}</text>'
        )
        turned = f'transform="rotate(-90 12 {middle})"'
        parts.append(f'<text x="12" y="{middle}" text-anchor="middle" {turned}>{escape(y_label)}</text>')
        return "".join(parts)


def _range(low: float, high: float) -> Point:
    """Return ends a little outside of the smallest and the largest value."""
    margin = 0.04 * (high - low) or 0.05 * abs(high) or 1.0
    return (low if low == 0 else low - margin), high + margin


def _ticks(low: float, high: float) -> list[float]:
    """Return about five round numbers."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    return [round(step * i, 12) for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _thinned(points: Sequence[Point]) -> list[Point]:
    size = -(-len(points) // _MOST_POINTS) or 1
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    return [(group[-1][0], sum(y for _, y in group) / len(group)) for group in groups]


def _svg(parts: Sequence[str], label: str) -> str:
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'
