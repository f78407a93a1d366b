"""`edgeseg bench`: every cell built, checked and timed; the results on disk after each group of them."""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from edgeseg.bench.environment import clocks, describe_environment
from edgeseg.bench.group import measure_group
from edgeseg.bench.inputs import describe_inputs
from edgeseg.bench.plan import BenchOptions, plan
from edgeseg.bench.results import Results, Row
from edgeseg.datasets import calibration_images, open_dataset
from edgeseg.errors import InputError
from edgeseg.files import make_folder
from edgeseg.progress import Progress

# What may differ between the runs of one results file: it only says which cells there are.
CHOICES = ("models", "bundles", "weights", "backends", "precisions", "sizes", "batches", "baselines", "memory", "worst")


def bench(
    options: BenchOptions,
    output: Path | None = None,
    *,
    resume: bool = False,
    progress: Progress = Progress(),
) -> Results:
    """Measure everything in the plan. A cell that fails is a row with `failure`.

    Args:
        options: what and how.
        output: the results file, written anew after each group; bundles are kept in a folder beside it. None: nothing
            is kept.
        resume: go on with an unfinished `output`: cells with a measurement are left as they are.

    Raises:
        ValueError: wrong options.
        InputError: `output` is there already, or was measured in another way; images that cannot be found.
    """
    groups = plan(options)
    if options.data:
        open_dataset(options.data, options.split)
    if options.calibration_data:
        calibration_images(options.calibration_data)
    results = _begin(options, output, resume)
    begin = time.monotonic() - results.seconds
    done = {row.key: row for row in results.rows if row.failure is None}
    left = {group: [c for c in cells if c.key not in done] for group, cells in groups.items()}
    order = [cell.key for cells in groups.values() for cell in cells]
    rows = dict(done)
    with ExitStack() as stack:
        if output:
            folder = make_folder(output.with_name(f"{output.stem}-cells"))
        else:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgeseg-bench-")))
        advance = stack.enter_context(progress.task("cells", sum(map(len, left.values()))))
        for group, cells in left.items():
            if not cells:
                continue
            measured, classes = measure_group(group, cells, options, folder, progress)
            apart = len(cells) < len(groups[group])
            rows |= {row.key: _noted(row, apart) for row in measured}
            results = replace(
                results,
                rows=_ordered(rows, order),
                classes=results.classes or classes,
                dataset=results.dataset or _dataset(options, measured),
                seconds=round(time.monotonic() - begin, 1),
            )
            _save(results, output)
            advance(len(cells))
    environment = results.environment | {"after": clocks()}
    results = replace(results, rows=_ordered(rows, order), environment=environment, is_complete=True)
    _save(results, output)
    return results


def _begin(options: BenchOptions, output: Path | None, resume: bool) -> Results:
    environment = describe_environment(options.threads)
    arguments = _arguments(options)
    if output and output.exists():
        if not resume:
            raise InputError(f"{output} exists; --resume goes on with it, or choose another --output")
        earlier = Results.load(output)
        _check_same(earlier, environment, arguments, output)
        return replace(earlier, is_complete=False, arguments=arguments)
    if resume and not output:
        raise ValueError("--resume goes on with the --output of an earlier run, which is not given")
    started = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return Results((), environment, arguments, started=started, is_complete=False)


def _check_same(earlier: Results, environment: dict[str, Any], arguments: dict[str, Any], output: Path) -> None:
    """One file holds what was measured in one way on one machine."""
    differing = {
        name: (earlier.environment.get(name), environment[name])
        for name in ("versions", "devices", "kernel_instructions")
        if earlier.environment.get(name) != environment[name]
    }
    differing |= {
        f"--{name.replace('_', '-')}": (earlier.arguments.get(name), value)
        for name, value in arguments.items()
        if name not in CHOICES and earlier.arguments.get(name) != value
    }
    if differing:
        name, (before, now) = next(iter(differing.items()))
        if isinstance(before, dict):
            changed = [key for key in {**before, **now} if before.get(key) != now.get(key)]
            name, before, now = changed[0], before.get(changed[0]), now.get(changed[0])
        raise InputError(
            f"{output} was measured with {name} {before}, this run has {now}; one file holds one way of measuring: "
            f"choose another --output"
        )


def _arguments(options: BenchOptions) -> dict[str, Any]:
    def plain(value: Any) -> Any:
        if isinstance(value, Path):
            return str(value)
        return [plain(item) for item in value] if isinstance(value, tuple) else value

    return {name: plain(value) for name, value in asdict(options).items()} | {"inputs": describe_inputs(options)}


def _noted(row: Row, apart: bool) -> Row:
    if not apart or row.failure:
        return row
    return replace(row, notes=(*row.notes, "timed in a later run than others of its network, size and batch"))


def _ordered(rows: dict[tuple, Row], order: list[tuple]) -> tuple[Row, ...]:
    """In the plan's order, behind those of an earlier run with another plan."""
    planned = [rows[key] for key in order if key in rows]
    return (*(row for key, row in rows.items() if key not in set(order)), *planned)


def _dataset(options: BenchOptions, rows: list[Row]) -> dict[str, Any] | None:
    if not options.data or not any(row.miou is not None for row in rows):
        return None
    dataset = open_dataset(options.data, options.split)
    images = len(list(dataset)[: options.limit])
    return {"name": dataset.layout, "split": dataset.split, "images": images}


def _save(results: Results, output: Path | None) -> None:
    if output:
        results.save(output)
