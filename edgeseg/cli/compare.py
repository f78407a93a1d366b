"""edgeseg compare."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from edgeseg.cli.output import JSON_OPTION, print_json

if TYPE_CHECKING:
    from edgeseg.bench.compare import Change


def compare(
    before: Path = typer.Argument(help="Results of `edgeseg bench --output`."),
    after: Path = typer.Argument(help="Results of a later run, with rows for the same cells."),
    threshold: float = typer.Option(
        5, min=0, help="Per cent by which a median or an engine must change, noise aside, to count."
    ),
    miou_threshold: float = typer.Option(0.1, min=0, help="Points of mIoU that may be lost."),
    agreement_threshold: float = typer.Option(0.5, min=0, help="Points of agreement-mIoU that may be lost."),
    json: bool = JSON_OPTION,
) -> None:
    """What changed between two benchmark results beyond noise; exit code 1 where something became worse.

    Example: edgeseg compare main.json branch.json
    """
    from edgeseg.bench.compare import Limits, differing_conditions
    from edgeseg.bench.compare import compare as compare_results
    from edgeseg.bench.results import Results

    first, second = Results.load(before), Results.load(after)
    limits = Limits(threshold / 100, miou_threshold / 100, agreement_threshold / 100, threshold / 100)
    changes = compare_results(first, second, limits)
    conditions = differing_conditions(first, second)
    regressions = sum(bool(change.regressions) for change in changes)
    if json:
        rows = [change.to_json() for change in changes]
        print_json({"rows": rows, "differing_conditions": conditions, "regressions": regressions})
    else:
        _print(changes, conditions)
    if regressions:
        raise typer.Exit(1)


def _print(changes: "list[Change]", conditions: list[str]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    from edgeseg.bench.tables import wide_enough

    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("cell", no_wrap=True)
    for title in ("time, first = 1", "speed", "mIoU", "agreement", "engine"):
        table.add_column(title, justify="right", no_wrap=True)
    for change in changes:
        words = [
            f"{change.latency_ratio:.2f} ({change.ratio_low:.2f} to {change.ratio_high:.2f})"
            if change.latency_ratio is not None
            else "–",
            change.speed or (change.presence if change.presence != "both" else "–"),
            _points(change.miou),
            _points(change.agreement_miou),
            f"{100 * (change.engine_bytes_ratio - 1):+.1f} %" if change.engine_bytes_ratio else "–",
        ]
        style = "red" if change.regressions else "green" if change.speed == "faster" else None
        table.add_row(_title(change.key), *words, style=style)
    console = Console(markup=False, highlight=False)
    wide_enough(console, table).print(table)
    for condition in conditions:
        console.print(f"differs: {condition}", style="yellow", soft_wrap=True)
    worse = [change for change in changes if change.regressions]
    for change in worse:
        console.print(f"worse: {_title(change.key)}: {'; '.join(change.regressions)}", style="red", soft_wrap=True)
    if not worse:
        both = sum(change.presence == "both" for change in changes)
        console.print(f"no regression in {both} cells that both results have")


def _title(key: tuple) -> str:
    system, model, _, backend, precision, height, width, batch = key
    runs_on = f" {backend}" if system.startswith("edgeseg") else ""
    return f"{model} {height}x{width} batch {batch}, {system}{runs_on} {precision}"


def _points(difference: float | None) -> str:
    return "–" if difference is None else f"{100 * difference:+.2f}"
