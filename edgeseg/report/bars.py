"""Bars beside their figures: the time in each stage, and the IoU of each class in each precision."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from edgeseg.bench.results import Row
from edgeseg.report.text import NOT_MEASURED, percent, significant, size_of, system_of, unique

STAGES = ("preprocess", "engine", "tail", "copies")
MOST_CLASSES = 30  # of a figure: those that differ most are shown
PRECISIONS = ("fp32", "fp16", "int8", "mixed")


def stage_tables(rows: Sequence[Row]) -> str:
    """A table for each size and batch: a stacked bar a row, the slowest first; "" where no stage was timed."""
    timed = [row for row in rows if _total(row)]
    cells = unique([(row.height, row.width, row.batch) for row in timed])
    return _side_by_side([_stage_table([r for r in timed if (r.height, r.width, r.batch) == c], c) for c in cells])


def _stage_table(rows: list[Row], cell: tuple[int, int, int]) -> str:
    longest = max(map(_total, rows))
    shown = [stage for stage in STAGES if any(getattr(row.stages, stage) is not None for row in rows)]
    lines = []
    for row in sorted(rows, key=_total, reverse=True):
        pieces = [(getattr(row.stages, stage) or 0.0, f"stage-{stage}") for stage in shown]
        cells = "".join(_milliseconds(getattr(row.stages, stage)) for stage in shown)
        system = row.backend if row.system == "edgeseg" else system_of(row)
        name = f"{escape(row.model)} {escape(row.precision)} <small>{escape(system)}</small>"
        lines.append(f'<tr><th scope="row">{name}</th><td class="bar">{_stacked(pieces, longest)}</td>{cells}</tr>')
    batch = f", batch {cell[2]}" if cell[2] != 1 else ""
    heads = "".join(f'<th scope="col" class="figure"><i class="key stage-{stage}"></i>{stage}</th>' for stage in shown)
    return (
        f'<table class="figures bars"><caption>{cell[0]}×{cell[1]}{batch}, milliseconds</caption>'
        f'<thead><tr><th scope="col">network</th><td></td>{heads}</tr></thead><tbody>{"".join(lines)}</tbody></table>'
    )


def _total(row: Row) -> float:
    return sum(getattr(row.stages, stage) or 0.0 for stage in STAGES)


def _milliseconds(value: float | None) -> str:
    return f'<td class="figure">{NOT_MEASURED if value is None else significant(value)}</td>'


def _stacked(pieces: list[tuple[float, str]], longest: float) -> str:
    rectangles, x = [], 0.0
    for length, style in pieces:
        width = 100 * length / longest
        rectangles.append(f'<rect class="{style}" x="{x:.2f}" y="1" width="{width:.2f}" height="10"/>')
        x += width
    return f'<svg viewBox="0 0 100 12" preserveAspectRatio="none" aria-hidden="true">{"".join(rectangles)}</svg>'


def class_tables(rows: Sequence[Row]) -> str:
    """A table for each network and size: a bar a precision in each class; "" where no IoU was measured.

    Of several backends the one with most precisions is shown.
    """
    measured = [row for row in rows if row.per_class_iou and row.system.startswith("edgeseg")]
    figures = []
    for cell in unique([(row.model, row.weights, row.height, row.width) for row in measured]):
        members = [row for row in measured if (row.model, row.weights, row.height, row.width) == cell]
        systems = unique([system_of(row) for row in members])
        system = max(systems, key=lambda name: len({row.precision for row in members if system_of(row) == name}))
        chosen = {row.precision: row for row in members if system_of(row) == system}
        figures.append(_class_table(sorted(chosen.values(), key=_precision_order), system))
    return _side_by_side(figures)


def _side_by_side(tables: list[str]) -> str:
    return f'<div class="plots">{"".join(f"<div>{table}</div>" for table in tables)}</div>' if tables else ""


def _precision_order(row: Row) -> int:
    return PRECISIONS.index(row.precision) if row.precision in PRECISIONS else len(PRECISIONS)


def _class_table(rows: list[Row], system: str) -> str:
    ious: list[dict[str, float | None]] = [row.per_class_iou or {} for row in rows]
    classes = unique([name for iou in ious for name in iou])
    caption = f"{escape(rows[0].model)} at {size_of(rows[0])}, {escape(system)}"
    if len(classes) > MOST_CLASSES:
        caption += f": the {MOST_CLASSES} of {len(classes)} classes that differ most between precisions"
        chosen = sorted(classes, key=lambda name: -_spread([iou.get(name) for iou in ious]))[:MOST_CLASSES]
        classes = [name for name in classes if name in chosen]
    styles = [f"precision-{escape(row.precision)}" for row in rows]
    lines = []
    for name in classes:
        values = [iou.get(name) for iou in ious]
        cells = "".join(f'<td class="figure">{"–" if value is None else percent(value)}</td>' for value in values)
        bars = _parallel([value or 0.0 for value in values], styles)
        lines.append(f'<tr><th scope="row">{escape(name)}</th><td class="bar">{bars}</td>{cells}</tr>')
    names = [escape(row.precision) for row in rows]
    heads = "".join(f'<th scope="col" class="figure"><i class="key precision-{n}"></i>{n}</th>' for n in names)
    mean = "".join(f'<td class="figure">{NOT_MEASURED if row.miou is None else percent(row.miou)}</td>' for row in rows)
    return (
        f'<table class="figures bars"><caption>{caption}</caption><thead><tr><th scope="col">class</th><td></td>{heads}'
        f"</tr></thead><tbody>{''.join(lines)}</tbody>"
        f'<tfoot><tr><th scope="row">mIoU</th><td></td>{mean}</tr></tfoot></table>'
    )


def _spread(values: list[float | None]) -> float:
    known = [value for value in values if value is not None]
    return max(known) - min(known) if known else -1.0


def _parallel(fractions: list[float], styles: list[str]) -> str:
    """Thin bars one below the other, of fractions of the whole width."""
    height = 12 / len(fractions)
    rectangles = (
        f'<rect class="{style}" x="0" y="{i * height:.2f}" width="{100 * fraction:.2f}" height="{0.8 * height:.2f}"/>'
        for i, (fraction, style) in enumerate(zip(fractions, styles, strict=True))
    )
    return f'<svg viewBox="0 0 100 12" preserveAspectRatio="none" aria-hidden="true">{"".join(rectangles)}</svg>'
