"""The table of the report: one row a cell of the sweep, grouped as in the SegFormer paper, sortable by each column."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from html import escape

from edgeseg.bench.results import Row
from edgeseg.report.scale import ACCURACY, OTHER, REAL_TIME, group_of, published_for
from edgeseg.report.text import NOT_MEASURED, number, percent, significant, size_of, system_of, unique


@dataclass(frozen=True)
class Column:
    """A column of figures. `value` is None where nothing was measured."""

    group: str
    title: str
    value: Callable[[Row], float | None]
    text: Callable[[float], str]
    help: str


@dataclass(frozen=True)
class Label:
    """A column of words that says which cell of the sweep a row is."""

    title: str
    text: Callable[[Row], str]


def _latency(which: str) -> Callable[[Row], float | None]:
    return lambda row: getattr(row.latency, which) if row.latency else None


def _scaled(name: str, unit: float) -> Callable[[Row], float | None]:
    def value(row: Row) -> float | None:
        found = getattr(row, name)
        return None if found is None else found / unit

    return value


COLUMNS = (
    Column("Network", "params, M", _scaled("params", 1e6), number, "million parameters"),
    Column("Network", "GMACs", _scaled("gmacs_published", 1), number, "1e9 multiply-accumulates an image as published"),
    Column("Network", "deployed", _scaled("gmacs_deployed", 1), number, "GMACs after the exact rewrites"),
    Column("Speed", "FPS", lambda row: row.fps, significant, "images a second at the median"),
    Column("Quality, %", "mIoU", _scaled("miou", 1), percent, "mIoU on the labelled data"),
    Column("Quality, %", "agreement", _scaled("agreement_miou", 1), percent, "agreement-mIoU with the FP32 network"),
    Column("Quality, %", "same labels", _scaled("label_agreement", 1), percent, "pixels with the FP32 network's label"),
    Column("Latency, ms", "p50", _latency("p50"), significant, "median, image array in to label array out"),
    Column("Latency, ms", "p95", _latency("p95"), significant, "95th percentile"),
    Column("Latency, ms", "p99", _latency("p99"), significant, "99th percentile"),
    Column("Cost", "engine, MB", _scaled("engine_bytes", 1e6), number, "what the backend loads"),
    Column("Cost", "INT8, %", _scaled("int8_share", 0.01), significant, "share of deployed MACs computed in INT8"),
    Column("Cost", "memory, MB", _scaled("peak_memory_bytes", 1e6), significant, "peak memory"),
    Column("Cost", "energy, J", _scaled("energy_joules", 1), significant, "energy an image"),
)
_LABELS = (
    Label("weights", lambda row: row.weights),
    Label("size", size_of),
    Label("batch", lambda row: str(row.batch)),
)
_PUBLISHED = ("mIoU", "GMACs", "FPS", "on")


def table(rows: tuple[Row, ...]) -> str:
    """The table and what has to be read with it. Columns without a figure, and labels that all rows share, leave the
    table and are named in a sentence instead."""
    shown = [column for column in COLUMNS if any(column.value(row) is not None for row in rows)]
    labels = [label for label in _LABELS if len({label.text(row) for row in rows}) > 1]
    shared = [f"{label.title} {escape(label.text(rows[0]))}" for label in _LABELS if label not in labels]
    absent = [_full_title(column) for column in COLUMNS if column not in shown]
    fastest = _fastest(rows)
    has_published = any(published_for(row) for row in rows)
    width = 3 + len(labels) + len(shown) + len(_PUBLISHED) * has_published
    bodies = []
    for group in (REAL_TIME, ACCURACY, OTHER):
        members = sorted((row for row in rows if group_of(row.model) == group), key=_order(rows))
        if members:
            lines = [_row(row, labels, shown, has_published, row in fastest) for row in members]
            heading = f'<tr class="group"><th colspan="{width}" scope="rowgroup">{group}</th></tr>'
            bodies.append(f"<tbody>{heading}{''.join(lines)}</tbody>")
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-labelledby="results">'
        f'<table class="sortable figures"><caption class="hidden">One row a measured cell</caption>'
        f"{_head(labels, shown, has_published)}{''.join(bodies)}</table></div>"
        f'<p class="note">{_legend(shared, absent, has_published)}</p>'
    )


def _head(labels: list[Label], shown: list[Column], has_published: bool) -> str:
    spans = [("", 3 + len(labels))]
    spans += [(group, sum(c.group == group for c in shown)) for group in unique([c.group for c in shown])]
    titles = [("network", ""), ("system", ""), ("precision", ""), *((label.title, "") for label in labels)]
    titles += [(column.title, column.help) for column in shown]
    if has_published:
        spans.append(("Published, for scale", len(_PUBLISHED)))
        titles += [(title, "as published") for title in _PUBLISHED]
    first_figure = 3 + len(labels)
    above = "".join(f'<th colspan="{span}" scope="colgroup">{escape(group)}</th>' for group, span in spans)
    below = "".join(
        f'<th scope="col" class="{"words" if index < first_figure or title == "on" else "figure"}">'
        f'<button type="button" title="{escape(help or title)}; click to sort">{escape(title)}</button></th>'
        for index, (title, help) in enumerate(titles)
    )
    return f'<thead><tr class="above">{above}</tr><tr>{below}</tr></thead>'


def _row(row: Row, labels: list[Label], shown: list[Column], has_published: bool, is_fastest: bool) -> str:
    words = (system_of(row), row.precision, *(label.text(row) for label in labels))
    cells = [f'<th scope="row">{escape(row.model)}</th>', *(f"<td>{escape(word)}</td>" for word in words)]
    if row.failure:
        cells.append(f'<td class="failure" colspan="{len(shown)}"><div><b>failed</b> {escape(row.failure)}</div></td>')
    else:
        cells += [_figure(row, column, is_fastest) for column in shown]
    if has_published:
        cells += _published(row)
    return f"<tr>{''.join(cells)}</tr>"


def _figure(row: Row, column: Column, is_fastest: bool) -> str:
    value = column.value(row)
    if value is None:
        is_by_design = column.title == "INT8, %" and row.precision != "int8"  # no share to be measured
        return f'<td class="figure">{"–" if is_by_design else NOT_MEASURED}</td>'
    text = column.text(value)
    if column.title == "p50" and row.latency and row.latency.is_noisy:
        text = f'<span class="noisy">noisy</span> {text}'
    if column.title == "FPS" and is_fastest:
        text = f"<strong>{text}</strong>"
    return f'<td class="figure" data-value="{value:.9g}">{text}</td>'


def _published(row: Row) -> list[str]:
    result = published_for(row)
    if result is None:
        return ['<td class="figure published">–</td>'] * 3 + ['<td class="published">–</td>']
    cells = []
    for value in (result.miou, result.gflops, result.fps):
        text, sort = ("–", "") if value is None else (_as_printed(value), f' data-value="{value:g}"')
        cells.append(f'<td class="figure published"{sort} title="{escape(result.source)}">{text}</td>')
    where = f"{result.dataset} {result.size[0]}×{result.size[1]}"
    return [*cells, f'<td class="published" title="{escape(result.source)}">{escape(where)}</td>']


def _as_printed(value: float) -> str:
    """One decimal as the SegFormer paper has, two where the source has two."""
    return f"{value:.1f}" if round(value, 1) == value else f"{value:.2f}"


def _legend(shared: list[str], absent: list[str], has_published: bool) -> str:
    sentences = []
    if shared:
        sentences.append(f"All rows: {', '.join(shared)}.")
    if absent:
        sentences.append(f"Not measured in this run: {', '.join(absent)}.")
    sentences.append("Bold: the highest FPS of its network, size and batch.")
    sentences.append("noisy: the machine was too busy to believe the figure.")
    if has_published:
        sentences.append(
            "Published figures are their authors', on their data, size and hardware (–: none printed); they are here "
            "for scale and compare with nothing that was measured unless data and size are the same."
        )
    return " ".join(sentences)


def sources(rows: tuple[Row, ...]) -> list[str]:
    """Where the published figures stand."""
    return sorted({result.source for row in rows if (result := published_for(row)) and result.source})


def _full_title(column: Column) -> str:
    return column.title if column.group in ("Network", "Speed", "Cost") else column.help


def _order(rows: tuple[Row, ...]) -> Callable[[Row], tuple]:
    """Networks, then sizes and batches, in the run's own order; a cell's systems side by side."""
    models = unique([row.model for row in rows])
    cells = unique([(row.weights, row.height, row.width, row.batch) for row in rows])
    return lambda row: (models.index(row.model), cells.index((row.weights, row.height, row.width, row.batch)))


def _fastest(rows: tuple[Row, ...]) -> list[Row]:
    best: dict[tuple, Row] = {}
    for row in rows:
        cell = row.model, row.weights, row.height, row.width, row.batch
        if row.fps is not None and (cell not in best or row.fps > (best[cell].fps or 0)):
            best[cell] = row
    return list(best.values())
