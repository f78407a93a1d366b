"""edgeseg finetune."""

from enum import Enum
from pathlib import Path

import typer

from edgeseg.cli.output import JSON_OPTION, parse_size, print_json


class Device(str, Enum):
    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


def finetune(
    data: Path = typer.Option(..., help="Labelled data with the splits train and val; for --qat a folder of images."),
    output: Path = typer.Option(..., "--output", "-o", help="The run's folder: best weights, log, state for --resume."),
    model: str = typer.Option("", "--model", "-m", help="A network of the zoo (`edgeseg models`), or a bundle of one."),
    weights: str | None = typer.Option(
        None,
        "--weights",
        "-w",
        help="Where to start: a file, hf:ORG/NAME, a shipped checkpoint, or 'random' [default: what ships, or random].",
    ),
    qat: bool = typer.Option(False, "--qat", help="Train the INT8 network with its rounding; the result is a bundle."),
    onnx: Path | None = typer.Option(None, help="With --qat: anyone's ONNX file, as `edgeseg build` takes it."),
    scales: Path | None = typer.Option(None, help="With --qat: INT8 ranges to begin with [default: calibrate]."),
    backend: str = typer.Option("auto", "--backend", "-b", help="With --qat: what the bundle is built for."),
    iterations: int | None = typer.Option(None, min=1, help="Training steps [default: 4000, with --qat 500]."),
    size: str | None = typer.Option(None, metavar="HxW", help="What the network is meant for [default: the images']."),
    crop: str | None = typer.Option(None, metavar="HxW", help="Size of a training sample [default: at most 512x512]."),
    batch: int | None = typer.Option(None, min=1, help="Samples a step [default: 8, with --qat 4]."),
    lr: float | None = typer.Option(None, help="Learning rate [default: by the kind of network, see the docs]."),
    evaluate_every: int | None = typer.Option(
        None, min=1, help="Steps between two evaluations [default: 250, with --qat 100]."
    ),
    val_images: int | None = typer.Option(None, min=1, help="Evaluate on so many validation images only."),
    time_limit: float | None = typer.Option(None, metavar="MINUTES", help="Stop by then; --resume goes on."),
    threads: int | None = typer.Option(None, min=1, help="CPU threads [default: all cores]."),
    device: Device = typer.Option(Device.auto, help="Where to train; auto takes a GPU if there is one."),
    seed: int = typer.Option(0, help="Of everything random."),
    resume: bool = typer.Option(False, "--resume", help="Go on with the run in the output folder."),
    json: bool = JSON_OPTION,
) -> None:
    """Train a network on labelled images: from scratch, from weights, or (--qat) with INT8 rounding inside.

    Stop it as you like (Ctrl-C, --time-limit) and go on with --resume.

    Example: edgeseg finetune --model deeplabv3plus-mobilenetv2 --data camvid -o runs/camvid
    """
    from edgeseg.progress import RichProgress
    from edgeseg.training.options import FinetuneOptions

    options = FinetuneOptions(
        model=model,
        data=data,
        output=output,
        weights=weights,
        qat=qat,
        onnx=onnx,
        scales=scales,
        backend=backend,
        size=parse_size(size),
        crop=parse_size(crop),
        iterations=iterations or (500 if qat else 4000),
        batch=batch or (4 if qat else 8),
        learning_rate=lr,
        evaluate_every=evaluate_every or (100 if qat else 250),
        val_images=val_images,
        time_limit=None if time_limit is None else 60 * time_limit,
        threads=threads,
        device=device.value,  # type: ignore[arg-type]
        seed=seed,
        resume=resume,
    )
    if qat:
        from edgeseg.training.qat import finetune_quantized as train
    else:
        from edgeseg.training.finetune import finetune as train
    report = train(options, RichProgress())
    if json:
        print_json(report)
    else:
        _print(report)


def _print(report: dict) -> None:
    from rich.console import Console

    console = Console(markup=False, highlight=False)
    done = f"{report['iteration']} of {report['iterations']} iterations, {report['seconds'] / 60:.0f} minutes"
    if report["best_miou"] is not None:
        done += f"; best {report.get('figure', 'mIoU')} {report['best_miou']:.2f} on {report['val_images']} images"
    console.print(f"{report['model']}: {done}", soft_wrap=True)
    if report["stopped"] != "done":
        console.print(f"stopped by the {report['stopped']}; --resume goes on", soft_wrap=True)
    if "bundle" in report:
        fp32 = f"FP32 {report['fp32']['miou']:.2f}, " if report["fp32"] else ""
        console.print(f"{fp32}INT8 before training {report['ptq']['miou']:.2f}", soft_wrap=True)
        console.print(f"✓ {report['bundle']}", style="green", soft_wrap=True)
        console.print(f"  next: edgeseg run {report['bundle']} IMAGE", style="dim", soft_wrap=True)
    elif report["weights"]:
        next_step = f"edgeseg build --model {report['model']} --weights {report['weights']}"
        console.print(f"✓ {report['weights']}", style="green", soft_wrap=True)
        console.print(f"  next: {next_step}", style="dim", soft_wrap=True)
