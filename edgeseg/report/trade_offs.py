"""The Pareto plots: quality against speed, and against multiply-accumulates."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from edgeseg.bench.results import Row
from edgeseg.report.scatter import PRECISIONS, Point, marker, scatter
from edgeseg.report.text import name_of, size_of, system_of, unique

_NOTE = (
    "The line is the Pareto front: no other row is better in one respect and at least as good in the other. Thin bars "
    "are 95 % intervals of the median. Names stand at the front's points, and once for each network "
    "elsewhere where there is room; every point tells its name under the pointer."
)
_AGREEMENT_NOTE = " Agreement-mIoU compares each build with its own FP32 network; it does not rank networks."


def trade_offs(rows: Sequence[Row]) -> str:
    """Two plots with their legends, by mIoU or, where no row has one, by agreement-mIoU; "" without rows."""
    has_miou = any(row.miou is not None for row in rows)
    judged = [row for row in rows if _quality(row, has_miou) is not None and not row.failure]
    if not judged:
        nothing = "Neither mIoU nor agreement-mIoU was measured, so there is nothing to weigh speed against."
        return f"<p>{nothing}</p>" if rows else ""
    systems = unique([system_of(row) for row in judged])
    speed = [_point(row, row.fps, has_miou, rows, systems) for row in judged if row.fps]
    cost = [_point(row, row.gmacs_deployed, has_miou, rows, systems) for row in judged if row.gmacs_deployed]
    y_title = "mIoU, %" if has_miou else "agreement-mIoU, %"
    plots = ""
    if speed:
        plots += scatter(speed, x_title="FPS (logarithmic; further right is faster)", y_title=y_title, better="right")
    if cost:
        x_title = "deployed GMACs (logarithmic; further left is cheaper)"
        plots += scatter(cost, x_title=x_title, y_title=y_title, better="left")
    note = _NOTE if has_miou else _NOTE + _AGREEMENT_NOTE
    if len(judged) < len(rows):
        note += (
            f" {len(rows) - len(judged)} of {len(rows)} rows have no {y_title.removesuffix(', %')} and are not here."
        )
    return f'{_legend(judged, systems)}<div class="plots">{plots}</div><p class="note">{note}</p>'


def _quality(row: Row, has_miou: bool) -> float | None:
    return row.miou if has_miou else row.agreement_miou


def _point(row: Row, x: float | None, has_miou: bool, rows: Sequence[Row], systems: list[str]) -> Point:
    low = high = None
    if row.latency and x == row.fps and row.latency.low > 0:
        low, high = 1000 * row.batch / row.latency.high, 1000 * row.batch / row.latency.low
    label = row.model if len({size_of(other) for other in rows}) == 1 else f"{row.model} {size_of(row)}"
    quality = _quality(row, has_miou)
    assert x is not None and quality is not None
    return Point(x, 100 * quality, label, name_of(row), systems.index(system_of(row)), row.precision, low, high)


def _legend(rows: Sequence[Row], systems: list[str]) -> str:
    """Colours are systems, shapes are precisions."""
    found = unique([row.precision for row in rows])
    precisions = [p for p in PRECISIONS if p in found] + [p for p in found if p not in PRECISIONS]
    colours = "".join(f"<li>{_key('fp32', i)}{escape(system)}</li>" for i, system in enumerate(systems))
    shapes = "".join(f"<li>{_key(precision, None)}{escape(precision)}</li>" for precision in precisions)
    return f'<ul class="legend">{colours}</ul><ul class="legend">{shapes}</ul>'


def _key(precision: str, series: int | None) -> str:
    return f'<svg class="key" viewBox="0 0 14 14" aria-hidden="true">{marker(precision, 7, 7, series)}</svg>'
