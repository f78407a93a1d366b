"""edgeseg eval."""

from pathlib import Path

import typer

from edgeseg.cli.output import JSON_OPTION, print_json


def evaluate(
    bundle: Path = typer.Argument(help="A bundle that `edgeseg build` made."),
    data: Path = typer.Option(
        ..., help="A data set: images/ + labels/, or the tree of CamVid, ADE20K, Cityscapes, VOC, COCO-Stuff."
    ),
    split: str | None = typer.Option(None, help="Which split [default: val, or the only one]."),
    save: Path | None = typer.Option(None, help="Folder for the label maps, class ids as pixel values."),
    limit: int | None = typer.Option(None, min=1, help="The first so many images only."),
    threads: int | None = typer.Option(None, min=1, help="CPU threads [default: all cores]."),
    json: bool = JSON_OPTION,
) -> None:
    """mIoU, per-class IoU, pixel and mean accuracy, frequency-weighted IoU on a labelled data set.

    Example: edgeseg eval segformer-b0-int8-onnxruntime --data camvid --split val
    """
    from edgeseg.datasets import open_dataset
    from edgeseg.evaluation import evaluate as evaluate_bundle
    from edgeseg.pipeline import load
    from edgeseg.progress import RichProgress

    with load(bundle, threads=threads) as segmenter:
        dataset = open_dataset(data, split, segmenter.label_set)
        report = evaluate_bundle(segmenter, dataset, save=save, limit=limit, progress=RichProgress())
    if json:
        print_json(report)
    else:
        _print(report)


def _print(report: dict) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{report['images']} images of {report['split']}")
    table.add_column("class")
    table.add_column("IoU", justify="right")
    for name, iou in report["per_class_iou"].items():
        table.add_row(name, "–" if iou is None or iou != iou else f"{100 * iou:.2f}")
    table.add_section()
    table.add_row("mIoU", f"{100 * report['miou']:.2f}", style="bold")
    table.add_row("pixel accuracy", f"{100 * report['pixel_accuracy']:.2f}")
    table.add_row("mean accuracy", f"{100 * report['mean_accuracy']:.2f}")
    table.add_row("frequency-weighted IoU", f"{100 * report['frequency_weighted_iou']:.2f}")
    Console().print(table)
