"""edgeseg bench."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from edgeseg.cli.output import JSON_OPTION, parse_size, print_json

if TYPE_CHECKING:
    from edgeseg.bench.results import Results

QUICK = {"rounds": 6, "images": 2, "memory": False, "energy_seconds": 0.0}


def bench(
    model: list[str] = typer.Option([], "--model", "-m", help="A network of the zoo; repeatable."),
    bundle: list[Path] = typer.Option([], help="A bundle as it is; repeatable."),
    weights: list[str] = typer.Option(
        [], "--weights", "-w", help="As for `edgeseg build`: once for all models, or once for each."
    ),
    dataset: str | None = typer.Option(None, help="The classes of the weights: camvid, ade20k, cityscapes, …"),
    backend: list[str] = typer.Option([], "--backend", "-b", help="Repeatable (default: all that run here)."),
    precision: list[str] = typer.Option(
        [], "--precision", "-p", help="fp32, fp16, int8; repeatable (default: all three)."
    ),
    size: list[str] = typer.Option([], metavar="HxW", help="Repeatable (default: the checkpoint's own)."),
    short_side: list[int] = typer.Option(
        [], min=32, max=8192, help="N stands for Nx2N, Cityscapes' shape: 1024, 768, 640, 512; repeatable."
    ),
    batch: list[int] = typer.Option([], min=1, help="Images in one run of the engine; repeatable (default: 1)."),
    baselines: bool = typer.Option(True, "--baselines/--no-baselines", help="Also what people run today."),
    baseline: list[str] = typer.Option(
        [],
        help="These alone: torch, torch-compile, onnxruntime, openvino, tensorrt, tensorrt-rtx, transformers "
        "[default: all that work here but torch-compile].",
    ),
    data: Path | None = typer.Option(None, help="A labelled data set, as for `edgeseg eval`: mIoU of every bundle."),
    split: str | None = typer.Option(None, help="Which split (default: val, or the only one)."),
    limit: int | None = typer.Option(None, min=1, help="The first so many of its images only."),
    calibration_data: Path | None = typer.Option(None, help="Images for INT8 ranges and the gate."),
    calibration_images: int = typer.Option(64, min=1, help="How many of them."),
    rounds: int = typer.Option(30, min=1, help="Timed runs of each system, one of each in turn."),
    images: int = typer.Option(8, min=1, help="Real images that every system labels, in turn."),
    threads: int | None = typer.Option(None, min=1, help="CPU threads of every system (default: its own choice)."),
    memory: bool = typer.Option(True, "--memory/--no-memory", help="Peak memory, in a process for each system."),
    energy_seconds: float = typer.Option(10, min=0, help="Time for each system's energy, where there is a sensor."),
    worst: int = typer.Option(4, min=0, help="Pictures of so many of the worst images in each row, for --html."),
    quick: bool = typer.Option(False, "--quick", help="A first look: 6 rounds, 2 images, no memory, no energy."),
    output: Path | None = typer.Option(None, "--output", "-o", help="Results as JSON; bundles are kept beside it."),
    resume: bool = typer.Option(False, "--resume", help="Go on with an --output that was stopped."),
    markdown: Path | None = typer.Option(None, help="The table as a Markdown file."),
    latex: Path | None = typer.Option(None, help="The table as a LaTeX file, for booktabs."),
    csv: Path | None = typer.Option(None, help="All figures as a CSV file."),
    html: Path | None = typer.Option(None, help="A report with plots in one HTML file."),
    json: bool = JSON_OPTION,
) -> None:
    """The table: speed, size, memory, energy and accuracy of networks, backends and precisions, beside baselines.

    Example: edgeseg bench --model segformer-b0 --data camvid --output results.json --html report.html
    """
    from edgeseg.bench.plan import PRECISIONS, BenchOptions
    from edgeseg.bench.sweep import bench as run_bench
    from edgeseg.progress import RichProgress

    if baseline and not baselines:
        raise typer.BadParameter("--baseline and --no-baselines exclude each other; choose one")
    settings = {"rounds": rounds, "images": images, "memory": memory, "energy_seconds": energy_seconds}
    options = BenchOptions(
        models=tuple(model),
        bundles=tuple(bundle),
        weights=tuple(weights),
        dataset=dataset,
        backends=tuple(backend),
        precisions=tuple(precision) or PRECISIONS,
        sizes=(*(found for text in size if (found := parse_size(text))), *((side, 2 * side) for side in short_side)),
        batches=tuple(batch) or (1,),
        baselines=tuple(baseline) or (None if baselines else ()),
        data=data,
        split=split,
        limit=limit,
        calibration_data=calibration_data,
        calibration_images=calibration_images,
        threads=threads,
        worst=worst,
        **(QUICK if quick else settings),  # type: ignore[arg-type]
    )
    try:
        results = run_bench(options, output, resume=resume, progress=RichProgress())
    except KeyboardInterrupt:
        if output and output.exists():
            print(f"what was measured is in {output}; the same command with --resume goes on", file=sys.stderr)
        raise
    _write(results, markdown, latex, csv, html)
    if json:
        print_json(results.to_json())
    else:
        _print(results)


def _write(results: "Results", markdown: Path | None, latex: Path | None, csv: Path | None, html: Path | None) -> None:
    from edgeseg.bench import tables
    from edgeseg.files import write_atomically

    for path, write in ((markdown, tables.markdown), (latex, tables.latex), (csv, tables.csv_text)):
        if path:
            write_atomically(path, write(results).encode())
    if html:
        from edgeseg.report import write_html

        write_html(results, html)


def _print(results: "Results") -> None:
    from rich.console import Console

    from edgeseg.bench.tables import print_table

    print_table(results, Console(highlight=False))
