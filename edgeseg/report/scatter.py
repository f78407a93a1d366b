"""Quality against cost as an SVG: one point a row, the Pareto front as a line."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import Literal

from edgeseg.report.text import significant

WIDTH, HEIGHT = 620, 400  # of the viewBox
LEFT, RIGHT, TOP, BOTTOM = 52, 600, 16, 344  # of the plotting area
LETTER = 6.2  # average width of a letter at the labels' size of 11
SMALLEST_SPAN = 2.0  # percentage points on the y axis, so that noise is not blown up to a mountain
PRECISIONS = ("fp32", "fp16", "int8", "mixed")


@dataclass(frozen=True)
class Point:
    """One row of the results."""

    x: float  # above 0
    y: float
    label: str  # beside the point
    name: str  # shown when the pointer rests on it
    series: int  # its system, which gives the colour
    precision: str  # gives the shape
    low: float | None = None  # 95 % interval of x
    high: float | None = None


def pareto_front(points: list[Point], better: Literal["left", "right"]) -> list[Point]:
    """The points to which no other is better in one thing and at least equal in the other, by ascending x."""
    sign = -1 if better == "right" else 1
    front: list[Point] = []
    for point in sorted(points, key=lambda p: (sign * p.x, -p.y)):
        if not front or point.y > front[-1].y:
            front.append(point)
    return sorted(front, key=lambda p: p.x)


def scatter(points: list[Point], *, x_title: str, y_title: str, better: Literal["left", "right"]) -> str:
    """An <svg> with logarithmic x and linear y; colours come from the page's style sheet."""
    if not points:
        raise ValueError("a scatter plot needs at least one point")
    x_axis = _LogAxis([v for p in points for v in (p.low, p.x, p.high) if v])
    y_axis = _LinearAxis([point.y for point in points])
    front = pareto_front(points, better)
    parts = [_grid(x_axis, y_axis, x_title, y_title), _front(front, x_axis, y_axis, better)]
    parts += [_interval(p, x_axis, y_axis) for p in points if p.low and p.high]
    parts += [_marker(p, x_axis, y_axis) for p in points]
    parts += _labels(points, front, x_axis, y_axis)
    title = f"<title>{escape(y_title)} against {escape(x_title)}</title>"
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" class="chart">{title}{"".join(parts)}</svg>'


def marker(precision: str, x: float, y: float, series: int | None, name: str = "") -> str:
    """FP32 a disc, FP16 a square, INT8 a triangle, all else a diamond; the colour is the system's, or grey (None)."""
    r = 5.0
    if precision == "fp32":
        shape = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r}"'
    elif precision == "fp16":
        shape = f'<rect x="{x - 4.5:.1f}" y="{y - 4.5:.1f}" width="9" height="9"'
    else:
        corners = (
            [(0, -6), (5.5, 4.2), (-5.5, 4.2)] if precision == "int8" else [(0, -6.2), (6.2, 0), (0, 6.2), (-6.2, 0)]
        )
        shape = f'<polygon points="{" ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners)}"'
    element = shape[1:].split()[0]
    title = f"<title>{escape(name)}</title>" if name else ""
    style = "neutral" if series is None else f"series{series % 8}"
    return f'{shape} class="marker {style}">{title}</{element}>'


class _LinearAxis:
    def __init__(self, values: list[float]):
        low, high = min(values), max(values)
        pad = max(0.08 * (high - low), (SMALLEST_SPAN - (high - low)) / 2)
        self.low, self.high = low - pad, high + pad
        step = _nice((self.high - self.low) / 5)
        first = math.ceil(self.low / step)
        self.ticks = [step * i for i in range(first, math.floor(min(self.high, 100) / step) + 1)]
        self.places = max(0, -math.floor(math.log10(step)))

    def at(self, value: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * (value - self.low) / (self.high - self.low)


class _LogAxis:
    def __init__(self, values: list[float]):
        low, high = math.log10(min(values)), math.log10(max(values))
        pad = max(0.07 * (high - low), 0.08)
        self.low, self.high = low - pad, high + pad
        self.ticks = self._ticks((1, 2, 5))
        if len(self.ticks) < 3:
            self.ticks = self._ticks((1, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9))

    def _ticks(self, digits: tuple[float, ...]) -> list[float]:
        decades = range(math.floor(self.low), math.floor(self.high) + 1)
        ticks = [digit * 10.0**decade for decade in decades for digit in digits]
        return [tick for tick in ticks if self.low <= math.log10(tick) <= self.high]

    def at(self, value: float) -> float:
        return LEFT + (RIGHT - LEFT) * (math.log10(value) - self.low) / (self.high - self.low)


def _nice(step: float) -> float:
    """The next of 1, 2, 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(digit * power for digit in (1, 2, 5, 10) if digit * power >= step)


def _grid(x_axis: _LogAxis, y_axis: _LinearAxis, x_title: str, y_title: str) -> str:
    parts = []
    for tick in y_axis.ticks:
        y = y_axis.at(tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(
            f'<text class="tick" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:.{y_axis.places}f}</text>'
        )
    for tick in x_axis.ticks:
        x = x_axis.at(tick)
        parts.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{BOTTOM}" y2="{BOTTOM + 4}"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{BOTTOM + 18}" text-anchor="middle">{tick:g}</text>')
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{RIGHT}" y1="{BOTTOM}" y2="{BOTTOM}"/>')
    parts.append(f'<text class="title" x="{RIGHT}" y="{BOTTOM + 42}" text-anchor="end">{escape(x_title)}</text>')
    parts.append(f'<text class="title" x="{LEFT}" y="{TOP - 4}">{escape(y_title)}</text>')
    return "".join(parts)


def _front(front: list[Point], x_axis: _LogAxis, y_axis: _LinearAxis, better: str) -> str:
    """The edge of the region in which every place is worse than some point of the front: a staircase."""
    corners: list[tuple[float, float]] = []
    ordered = front if better == "right" else front[::-1]
    start = LEFT if better == "right" else RIGHT
    previous: float = start
    for point in ordered:
        y = y_axis.at(point.y)
        corners += [(previous, y), (x_axis.at(point.x), y)]
        previous = x_axis.at(point.x)
    corners.append((previous, BOTTOM))
    return f'<polyline class="front" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in corners)}"/>'


def _interval(point: Point, x_axis: _LogAxis, y_axis: _LinearAxis) -> str:
    assert point.low and point.high
    x1, x2, y = x_axis.at(point.low), x_axis.at(point.high), y_axis.at(point.y)
    return f'<line class="interval" x1="{x1:.1f}" x2="{x2:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'


def _marker(point: Point, x_axis: _LogAxis, y_axis: _LinearAxis) -> str:
    name = f"{point.name}: {point.y:.2f} % at {significant(point.x)}"
    return marker(point.precision, x_axis.at(point.x), y_axis.at(point.y), point.series, name)


Box = tuple[float, float, float, float]  # left, top, right, bottom


def _labels(points: list[Point], front: list[Point], x_axis: _LogAxis, y_axis: _LinearAxis) -> list[str]:
    """Beside their points: each of the front, then a network that is not on it once; what would cover something is left
    out."""
    spots = {id(p): (x_axis.at(p.x), y_axis.at(p.y)) for p in points}
    taken: list[Box] = [(x - 6, y - 6, x + 6, y + 6) for x, y in spots.values()]
    texts = []
    for p in points:
        if p.low and p.high:
            y = y_axis.at(p.y)
            taken.append((x_axis.at(p.low), y - 2, x_axis.at(p.high), y + 2))
    named: set[str] = set()
    for point in sorted(points, key=lambda p: p not in front):
        text = f"{point.label} {point.precision}" if point in front else point.label
        if point not in front and point.label in named:  # a network's points lie side by side: one name is enough
            continue
        x, y = spots[id(point)]
        width = LETTER * len(text)
        for dx, dy, anchor in ((9, 4, "start"), (-9, 4, "end"), (0, -11, "middle"), (0, 19, "middle"),
                               (7, -8, "start"), (-7, -8, "end"), (7, 16, "start"), (-7, 16, "end")):  # fmt: skip
            left = x + dx - {"start": 0.0, "middle": width / 2, "end": width}[anchor]
            box = (left, y + dy - 9, left + width, y + dy + 3)
            inside = box[0] >= LEFT and box[2] <= WIDTH and box[1] >= TOP and box[3] <= BOTTOM
            if inside and not any(_overlap(box, other) for other in taken):
                taken.append(box)
                style = "label onfront" if point in front else "label"
                place = f'x="{x + dx:.1f}" y="{y + dy:.1f}" text-anchor="{anchor}"'
                texts.append(f'<text class="{style}" {place}>{escape(text)}</text>')
                named.add(point.label)
                break
    return texts


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
