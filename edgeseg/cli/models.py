"""edgeseg models."""

from typing import Any

import typer

from edgeseg.cli.output import JSON_OPTION, parse_size, print_json

WIDTH = 120  # columns of the table where no terminal says how many there are
DATASETS = {"ade20k": "A", "cityscapes": "C", "voc": "V", "coco-stuff": "S", "camvid": "D"}


def models(
    size: str | None = typer.Option(None, metavar="HxW", help="Count at this input size [default: each one's own]."),
    classes: int | None = typer.Option(None, min=1, max=100000, help="Count with this many classes."),
    json: bool = JSON_OPTION,
) -> None:
    """The networks: parameters, multiply-accumulates as published and as deployed, published mIoU, checkpoints.

    Example: edgeseg models --size 1024x2048 --classes 19
    """
    from edgeseg.models.listing import list_models

    rows = list_models(parse_size(size), classes)
    if json:
        print_json(rows)
        return
    _print(rows)


def _print(rows: list[dict[str, Any]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    from edgeseg.models.bundled import BUNDLED

    sources = list(dict.fromkeys(result["source"] for row in rows for result in row["results"]))
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("name", no_wrap=True)
    for column in ("params M", "GMACs", "deployed"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("mIoU", no_wrap=True)
    table.add_column("FPS", no_wrap=True)
    table.add_column("checkpoints", overflow="fold")
    for row in rows:
        deployed = row["gmacs"]["deployed"]
        table.add_row(
            row["name"],
            f"{row['params'] / 1e6:.2f}",
            f"{row['gmacs']['published']:.2f}",
            "–" if deployed is None else f"{deployed:.2f}",
            _figures(row["results"], "miou", sources),
            _figures(row["results"], "fps"),
            ", ".join(name for name in row["weights"] if name not in ("edgeseg", "random", *BUNDLED)),
        )
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=WIDTH)
    console.print(table)
    for line in _legend(rows, sources):
        console.print(line, soft_wrap=True, markup=False)
    for checkpoint in BUNDLED.values():
        console.print(f"in the package: {checkpoint.name}, {checkpoint.num_classes} classes, for {checkpoint.model}")


def _figures(results: list[dict[str, Any]], figure: str, sources: list[str] | None = None) -> str:
    """The first figure for each data set, such as "A 37.4 C 76.2 (1)": data sets by letter, the source by number."""
    found = {result["dataset"]: result for result in reversed(results) if result[figure] is not None}
    text = " ".join(f"{DATASETS.get(name, name)} {found[name][figure]:.1f}" for name in sorted(found))
    numbers = sorted({sources.index(result["source"]) + 1 for result in found.values()}) if sources else []
    return f"{text} ({', '.join(map(str, numbers))})" if text and numbers else text


def _legend(rows: list[dict[str, Any]], sources: list[str]) -> list[str]:
    sizes = sorted({f"{row['height']}x{row['width']}, {row['num_classes']} classes" for row in rows})
    datasets = {result["dataset"] for row in rows for result in row["results"]}
    letters = ", ".join(f"{letter} {name}" for name, letter in DATASETS.items() if name in datasets)
    licences = {format: licence for row in rows for format, licence in row["licences"].items()}
    lines = [
        f"counted at {'; '.join(sizes)}; params with the heads that only training uses; GMACs as published, and",
        "deployed after the exact rewrites (–: not counted at this size; a build says it)",
        f"mIoU (percent, single scale) and FPS as published: {letters}",
        *(f"  ({number}) {source}" for number, source in enumerate(sources, start=1)),
        "checkpoints load with --weights FILE, in these names or as edgeseg saves them; their licences:",
        *(f"  {format}: {licence}" for format, licence in licences.items()),
    ]
    return lines
