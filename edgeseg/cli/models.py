"""edgeseg models."""

import typer

from edgeseg.cli.output import JSON_OPTION, parse_size, print_json


def models(
    size: str | None = typer.Option(None, metavar="HxW", help="Count at this input size [default: each one's own]."),
    classes: int | None = typer.Option(None, min=1, max=100000, help="Count with this many classes."),
    json: bool = JSON_OPTION,
) -> None:
    """The networks: parameters, multiply-accumulates as published and as deployed, shipped checkpoints."""
    from edgeseg.models.listing import list_models

    rows = list_models(parse_size(size), classes)
    if json:
        print_json(rows)
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    from edgeseg.models.bundled import BUNDLED

    table = Table(box=SIMPLE_HEAD)
    table.add_column("name", no_wrap=True)
    table.add_column("encoder", no_wrap=True)
    for column in ("params M", "GMACs", "deployed"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            row["name"],
            row["encoder"],
            f"{row['params'] / 1e6:.2f}",
            f"{row['gmacs']['published']:.2f}",
            f"{row['gmacs']['deployed']:.2f}",
        )
    console = Console()
    console.print(table)
    sizes = sorted({f"{row['height']}x{row['width']}, {row['num_classes']} classes" for row in rows})
    console.print(f"counted at {'; '.join(sizes)}; GMACs as published, and deployed after the exact rewrites")
    for checkpoint in BUNDLED.values():
        console.print(f"in the package: {checkpoint.name}, {checkpoint.num_classes} classes, for {checkpoint.model}")
    console.print(
        "others by --weights: safetensors, a Hugging Face folder, .pth of NVlabs or mmsegmentation, hf:ORG/NAME"
    )
