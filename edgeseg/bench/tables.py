"""Results as a table: for a terminal, in Markdown, LaTeX (booktabs) and CSV, from one list of columns."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgeseg.bench.plan import BASELINES, EDGESEG
from edgeseg.bench.results import Results, Row
from edgeseg.labels import LABEL_SETS
from edgeseg.models.entry import PublishedResult
from edgeseg.report.scale import ACCURACY, OTHER, REAL_TIME, group_of, published_for

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

NOT_MEASURED = "–"
GROUPS = (REAL_TIME, ACCURACY, OTHER)
MIN_WIDTH = 100  # characters of a table on a narrow terminal
FILE_WIDTH = 160  # where there is none


@dataclass(frozen=True)
class Column:
    """`value` gives what is stored, None where nothing was measured; `text` how people read it."""

    title: str
    name: str  # in CSV
    value: Callable[[Row], Any]
    text: Callable[[Any], str] = str
    is_figure: bool = True
    is_optional: bool = (
        False  # a narrow terminal may do without it; the higher `rank`, the sooner, those of one rank together
    )
    rank: int = 0


def _percent(digits: int) -> Callable[[float], str]:
    return lambda value: f"{100 * value:.{digits}f}"


def _scaled(unit: float, digits: int) -> Callable[[float], str]:
    return lambda value: f"{value / unit:.{digits}f}"


def _fixed(digits: int) -> Callable[[float], str]:
    return lambda value: f"{value:.{digits}f}"


def significant(value: float) -> str:
    """Three digits that mean something: 1230, 123, 12.3, 1.23, 0.12."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _latency(name: str) -> Callable[[Row], float | None]:
    return lambda row: getattr(row.latency, name) if row.latency else None


def _stage(name: str) -> Callable[[Row], float | None]:
    return lambda row: getattr(row.stages, name)


def _result(row: Row) -> PublishedResult | None:
    """What is printed about the network with the row's classes; at the nearest size there is."""
    result = published_for(row)
    label_set = LABEL_SETS.get(result.dataset) if result else None
    return result if label_set and label_set.num_classes == row.num_classes else None


def _published(name: str) -> Callable[[Row], float | None]:
    def value(row: Row) -> float | None:
        result = _result(row)
        return getattr(result, name) if result else None

    return value


def _published_on(row: Row) -> str | None:
    result = _result(row)
    return f"{result.dataset} {result.size[0]}x{result.size[1]}" if result else None


def _system(row: Row) -> str:
    """`edgeseg openvino`; a baseline's own name says what runs it."""
    return f"{row.system} {row.backend}" if row.system.startswith(EDGESEG) else row.system


def _optional(title: str, name: str, value: Callable[[Row], Any], text: Callable[[Any], str], rank: int) -> Column:
    return Column(title, name, value, text, is_optional=True, rank=rank)


WORDS = (
    Column("network", "model", lambda row: row.model, is_figure=False),
    Column("weights", "weights", lambda row: row.weights, is_figure=False, is_optional=True, rank=14),
    Column("size", "size", lambda row: f"{row.height}x{row.width}", is_figure=False),
    Column("batch", "batch", lambda row: row.batch, is_figure=False),
    Column("system", "system", _system, is_figure=False),
    Column("precision", "precision", lambda row: row.precision, is_figure=False),
)
FIGURES = (
    Column("params M", "params", lambda row: row.params, _scaled(1e6, 1)),
    Column("GMACs", "gmacs_published", lambda row: row.gmacs_published, _fixed(1)),
    Column("deployed", "gmacs_deployed", lambda row: row.gmacs_deployed, _fixed(1)),
    _optional("INT8 %", "int8_share", lambda row: row.int8_share, _percent(0), 7),
    _optional("MB", "engine_bytes", lambda row: row.engine_bytes, _scaled(1e6, 1), 2),
    Column("ms", "p50_ms", _latency("p50"), significant),
    _optional("from", "p50_low_ms", _latency("low"), significant, 5),
    _optional("to", "p50_high_ms", _latency("high"), significant, 5),
    _optional("p95", "p95_ms", _latency("p95"), significant, 13),
    _optional("p99", "p99_ms", _latency("p99"), significant, 6),
    Column("FPS", "fps", lambda row: row.fps, significant),
    _optional("prep.", "preprocess_ms", _stage("preprocess"), significant, 11),
    _optional("engine", "engine_ms", _stage("engine"), significant, 11),
    _optional("tail", "tail_ms", _stage("tail"), significant, 11),
    _optional("copies", "copies_ms", _stage("copies"), significant, 11),
    _optional("peak MB", "peak_memory_bytes", lambda row: row.peak_memory_bytes, _scaled(1e6, 0), 8),
    _optional("J", "energy_joules", lambda row: row.energy_joules, significant, 4),
    _optional("same %", "label_agreement", lambda row: row.label_agreement, _percent(2), 3),
    _optional("agr. mIoU", "agreement_miou", lambda row: row.agreement_miou, _percent(2), 12),
    Column("mIoU", "miou", lambda row: row.miou, _percent(2)),
)
PUBLISHED = (
    Column("publ. mIoU", "published_miou", _published("miou"), _fixed(1)),
    _optional("publ. GMACs", "published_gmacs", _published("gflops"), _fixed(1), 10),
    Column("publ. FPS", "published_fps", _published("fps"), _fixed(1)),
    _optional("publ. on", "published_on", _published_on, str, 9),
)
EAGER = BASELINES["torch"]
TITLES = {
    "ms": "median latency of a batch",
    "from": "with `to`: 95 % interval of the median",
    "× eager": "speed, torch eager = 1",
    "same %": "pixels with the FP32 network's label",
    "agr. mIoU": "agreement-mIoU with the FP32 network",
    "publ.": "as published, on other hardware: for scale",
}


def columns_of(rows: Sequence[Row]) -> tuple[Column, ...]:
    """All of them; the speed relative to torch eager needs its row of the same network, size and batch."""

    def place(row: Row) -> tuple:
        return row.model, row.weights, row.height, row.width, row.batch

    eager = {place(row): row.latency.p50 for row in rows if row.system == EAGER and row.latency}

    def ratio(row: Row) -> float | None:
        return eager[place(row)] / row.latency.p50 if row.latency and place(row) in eager else None

    relative = _optional("× eager", "speed_by_torch_eager", ratio, significant, 1)
    index = [column.name for column in FIGURES].index("fps") + 1
    return *WORDS, *FIGURES[:index], relative, *FIGURES[index:], *PUBLISHED


def markdown(results: Results) -> str:
    """One table for each group, failures and what was not measured below it."""
    columns, shared = _shown(results.rows)
    parts = []
    for group, rows in _grouped(results.rows):
        head = f"| {' | '.join(column.title for column in columns)} |"
        rule = f"|{'|'.join('--:' if column.is_figure else '---' for column in columns)}|"
        body = [f"| {' | '.join(_cell(column, row).replace('|', '/') for column in columns)} |" for row in rows]
        parts.append("\n".join([f"**{group}**", "", head, rule, *body]))
    return "\n\n".join([*parts, "\n".join(f"- {line}" for line in [*shared, *remarks(results)])]) + "\n"


def latex(results: Results) -> str:
    r"""A `tabular` for booktabs: \usepackage{booktabs}."""
    columns, shared = _shown(results.rows)
    form = "".join("r" if column.is_figure else "l" for column in columns)
    lines = [f"% {_escaped(line)}" for line in [*shared, *remarks(results)]]
    lines += [rf"\begin{{tabular}}{{{form}}}", r"\toprule", _latex_row([c.title for c in columns]), r"\midrule"]
    for index, (group, rows) in enumerate(_grouped(results.rows)):
        lines += [r"\midrule"] * (index > 0)
        lines.append(rf"\multicolumn{{{len(columns)}}}{{l}}{{\emph{{{_escaped(group)}}}}} \\")
        lines += [_latex_row([_cell(column, row) for column in columns]) for row in rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def csv_text(results: Results) -> str:
    """Every row and column, figures as stored (fractions, bytes, milliseconds), nothing where not measured."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    columns = columns_of(results.rows)
    writer.writerow(["group", *(column.name for column in columns), "noisy", "failure"])
    for row in results.rows:
        noisy = "" if row.latency is None else str(row.latency.is_noisy).lower()
        values = (column.value(row) for column in columns)
        writer.writerow([group_of(row.model), *("" if v is None else v for v in values), noisy, row.failure or ""])
    return stream.getvalue()


def print_table(results: Results, console: Console) -> None:
    """As wide as the terminal allows; what does not fit is named."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    columns, shared = _shown(results.rows)
    columns, dropped = _fitting(
        columns, results.rows, max(console.width, MIN_WIDTH if console.is_terminal else FILE_WIDTH)
    )
    for group, rows in _grouped(results.rows):
        table = Table(box=SIMPLE_HEAD, padding=0, title=group, title_justify="left", title_style="bold")
        for column in columns:
            table.add_column(column.title, justify="right" if column.is_figure else "left", no_wrap=True)
        previous = None
        for row in rows:
            place = (row.model, row.height, row.width, row.batch)
            if previous not in (None, place):
                table.add_section()
            previous = place
            table.add_row(*(_cell(c, row) for c in columns), style="bold" if row.system.startswith(EDGESEG) else None)
        wide_enough(console, table).print(table)
    if dropped:
        shared = [*shared, f"not shown here, but in --markdown, --csv and --html: {', '.join(dropped)}"]
    for line in [*shared, *remarks(results)]:
        console.print(line, soft_wrap=True, markup=False, highlight=False)


def wide_enough(console: Console, table: Table) -> Console:
    """A console on which no cell is cut: a terminal that is narrower shows lines wrapped, a file shows them whole."""
    from rich.console import Console

    needed = console.measure(table, options=console.options.update(width=1000)).maximum
    return console if needed <= console.width else Console(file=console.file, width=needed, highlight=False)


def remarks(results: Results) -> list[str]:
    """What has to be read with the table: noise, failures, and what there is no figure of."""
    lines = [f"{name}: {meaning}" for name, meaning in TITLES.items() if _is_shown(name, results.rows)]
    noisy = [row for row in results.rows if row.latency and row.latency.is_noisy]
    if noisy:
        lines.append(
            f"~ noisy, not to be believed ({len(noisy)} of {len(results.rows)}): the 95 % interval of the median is "
            f"wider than a tenth of it; measure again on an idle machine or with more --rounds"
        )
    absent = [c.title for c in FIGURES if results.rows and all(c.value(row) is None for row in results.rows)]
    if absent:
        lines.append(f"not measured: {', '.join(absent)}")
    for row in results.rows:
        if row.failure:
            where = f"{row.model} {row.height}x{row.width} batch {row.batch}, {_system(row)} {row.precision}"
            lines.append(f"✗ {where}: {row.failure}")
    if not results.is_complete:
        lines.append("the run is not complete; --resume goes on with it")
    return lines


def _is_shown(title: str, rows: Sequence[Row]) -> bool:
    return any(c.title.startswith(title) and any(c.value(row) is not None for row in rows) for c in columns_of(rows))


def _shown(rows: Sequence[Row]) -> tuple[list[Column], list[str]]:
    """Columns with a figure in them, and words in which rows differ; what all rows share is said once."""
    columns = [c for c in WORDS if c.name in ("system", "precision") or len({c.value(r) for r in rows}) > 1]
    shared = [f"{c.title} {c.text(c.value(rows[0]))}" for c in WORDS if rows and c not in columns and c.value(rows[0])]
    columns += [c for c in columns_of(rows)[len(WORDS) :] if any(c.value(row) is not None for row in rows)]
    return columns, [f"all rows: {', '.join(shared)}"] if shared else []


def _fitting(columns: list[Column], rows: Sequence[Row], width: int) -> tuple[list[Column], list[str]]:
    """Optional columns leave, the least wanted first, until the rest fits; and the titles of those that left."""
    columns, dropped = list(columns), []

    def needed() -> int:
        return 1 + sum(1 + max([len(c.title), *(len(_cell(c, row)) for row in rows)]) for c in columns)

    while needed() > width and any(column.is_optional for column in columns):
        least = max(column.rank for column in columns if column.is_optional)
        dropped += [column.title for column in columns if column.is_optional and column.rank == least]
        columns = [column for column in columns if not (column.is_optional and column.rank == least)]
    return columns, dropped


def _grouped(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """The groups that have rows; edgeseg before the baselines where network, size and batch are one."""
    order = {row.model: index for index, row in reversed(list(enumerate(rows)))}

    def place(row: Row) -> tuple:
        return order[row.model], row.weights, -row.height * row.width, row.batch, not row.system.startswith(EDGESEG)

    groups = [(group, sorted((r for r in rows if group_of(r.model) == group), key=place)) for group in GROUPS]
    return [(group, members) for group, members in groups if members]


def _cell(column: Column, row: Row) -> str:
    value = column.value(row)
    if value is None:
        return "✗" if column.name == "p50_ms" and row.failure else NOT_MEASURED
    text = column.text(value)
    is_doubtful = column.name in ("p50_ms", "fps") and row.latency and row.latency.is_noisy
    return f"~{text}" if is_doubtful else text


_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "✗": r"$\times$", "–": "--"} | {
    character: f"\\{character}" for character in "&%$#_{}"
}


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)


def _latex_row(cells: Sequence[str]) -> str:
    return f"{' & '.join(map(_escaped, cells))} \\\\"
