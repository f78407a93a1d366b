"""edgeseg eval."""

from pathlib import Path

import typer

from edgeseg.cli.output import JSON_OPTION, parse_scales, print_json


def evaluate(
    bundle: Path = typer.Argument(help="A bundle that `edgeseg build` made."),
    data: Path = typer.Option(
        ..., help="A data set: images/ + labels/, or the tree of CamVid, ADE20K, Cityscapes, VOC, COCO-Stuff."
    ),
    split: str | None = typer.Option(None, help="Which split [default: val, or the only one]."),
    save: Path | None = typer.Option(None, help="Folder for the label maps, class ids as pixel values."),
    limit: int | None = typer.Option(None, min=1, help="The first so many images only."),
    slide: str | None = typer.Option(
        None, metavar="WINDOW:STRIDE", help="Windows over the image, such as 768:512 or 512x1024:256x512."
    ),
    scales: str | None = typer.Option(None, metavar="S,S,…", help="Average over scales, such as 0.75,1,1.25."),
    flip: bool = typer.Option(False, "--flip", help="Average with the mirror image."),
    short_side: int | None = typer.Option(None, min=1, help="Scale images to this shorter side before the windows."),
    crf: bool = typer.Option(
        False, "--crf", help="Refine labels with DeepLab's fully connected CRF: seconds an image."
    ),
    worst: Path | None = typer.Option(None, help="Folder for pictures of the images of lowest mIoU."),
    worst_count: int = typer.Option(8, min=1, help="How many of them."),
    threads: int | None = typer.Option(None, min=1, help="CPU threads [default: all cores]."),
    json: bool = JSON_OPTION,
) -> None:
    """mIoU, per-class IoU, pixel and mean accuracy, frequency-weighted IoU on a labelled data set.

    Example: edgeseg eval segformer-b0-int8-onnxruntime --data camvid --split val
    """
    from edgeseg.crf import DenseCrf
    from edgeseg.datasets import open_dataset
    from edgeseg.evaluation import Labeller
    from edgeseg.evaluation import evaluate as evaluate_bundle
    from edgeseg.inference_modes import InferenceMode, Slide
    from edgeseg.pipeline import load
    from edgeseg.progress import RichProgress
    from edgeseg.worst_images import save_pictures

    windows = Slide.parse(slide) if slide else None
    with load(bundle, threads=threads, crf=DenseCrf() if crf else None) as segmenter:
        labeller: Labeller = segmenter
        mode = None
        if windows or scales or flip or short_side:
            numbers = parse_scales(scales) if scales else (1.0,)
            mode = InferenceMode(segmenter, slide=windows, scales=numbers, flip=flip, short_side=short_side)
            labeller = mode
        dataset = open_dataset(data, split, segmenter.label_set)
        report = evaluate_bundle(
            labeller, dataset, save=save, limit=limit, worst=worst_count if worst else 0, progress=RichProgress()
        )
    if mode:
        report["inference"] = mode.describe()
    if worst:
        report["worst_images"] = save_pictures(report["worst_images"], worst)
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
    for finding in report["findings"]:
        print(f"{finding['severity']}: {finding['message']}")
    for image in report.get("worst_images", ()):
        print(f"{100 * image['miou']:6.2f}  {image['picture']}")
