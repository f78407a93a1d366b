"""edgeseg build."""

from enum import Enum
from pathlib import Path

import typer

from edgeseg.cli.mixed_precision import print_fallback, print_precision, share_in_words
from edgeseg.cli.output import JSON_OPTION, human_bytes, parse_batch, parse_size, print_json


class MigrationName(str, Enum):
    auto = "auto"
    none = "none"
    smooth = "smooth"
    equalise = "equalise"
    both = "both"


class PrecisionName(str, Enum):
    fp32 = "fp32"
    fp16 = "fp16"
    int8 = "int8"
    auto = "auto"


class CalibrationMethod(str, Enum):
    max = "max"
    percentile = "percentile"
    entropy = "entropy"
    mse = "mse"


def build(
    model: str | None = typer.Option(None, "--model", "-m", help="A network of the zoo: see `edgeseg models`."),
    onnx: Path | None = typer.Option(None, help="Anyone's ONNX file: image in, logits (N, C, h, w) out."),
    onnx_output: str | None = typer.Option(None, help="Which output of the ONNX file, if it has several."),
    module: str | None = typer.Option(None, metavar="PKG:FACTORY", help="Anyone's torch module."),
    weights: str | None = typer.Option(
        None,
        "--weights",
        "-w",
        help="File (.safetensors, .pth), hf:ORG/NAME, 'random', or a shipped checkpoint's name.",
    ),
    dataset: str | None = typer.Option(None, help="Names and colours: camvid, ade20k, cityscapes, voc, coco-stuff."),
    size: str | None = typer.Option(None, metavar="HxW", help="Input size, such as 512x1024."),
    batch: str = typer.Option("1", metavar="B", help="Static batch, or SMALLEST:USUAL:LARGEST."),
    fp32: bool = typer.Option(False, "--fp32", help="Full precision (the default)."),
    fp16: bool = typer.Option(False, "--fp16", help="Half precision by casts, overflow-prone layers kept in FP32."),
    int8: bool = typer.Option(False, "--int8", help="8-bit weights and activations by Q/DQ."),
    precision: PrecisionName | None = typer.Option(
        None, help="The same as a word; auto tries all three and keeps the fastest on this device that passes."
    ),
    max_drop: float | None = typer.Option(
        None,
        min=0,
        max=100,
        help="Points of mIoU (labels at hand) or agreement-mIoU (none) the build may lose; INT8 that loses more keeps "
        "some blocks in floating point.",
    ),
    fallback_budget: float = typer.Option(300.0, min=1, help="Seconds to look for those blocks."),
    data: Path | None = typer.Option(None, help="A labelled data set: --max-drop is then judged by mIoU on it."),
    backend: str = typer.Option(
        "auto", "--backend", "-b", help="onnxruntime, openvino, tensorrt, tensorrt-rtx, torch."
    ),
    compute_capability: list[str] = typer.Option([], help="tensorrt-rtx: a GPU to build for, such as 8.9; repeatable."),
    calibration_data: Path | None = typer.Option(
        None, help="Folder of images like the real ones, for ranges and gate."
    ),
    scales: Path | None = typer.Option(None, help="INT8 ranges made before, such as a bundle's scales.json."),
    calibration_images: int = typer.Option(64, min=1, help="How many of them."),
    calibration_method: CalibrationMethod = typer.Option(CalibrationMethod.percentile, help="How a range is chosen."),
    migrate: MigrationName = typer.Option(
        MigrationName.auto,
        help="Rescale channels before INT8, exactly: smooth (behind LayerNorm), equalise (between convolutions); auto "
        "tries them on a few images and keeps what helps.",
    ),
    no_rewrites: bool = typer.Option(False, "--no-rewrites", help="Leave the graph as it was published."),
    output: Path | None = typer.Option(None, "--output", "-o", help="The bundle [default: MODEL-PRECISION-BACKEND]."),
    force: bool = typer.Option(False, "--force", help="Replace another bundle that is in that place."),
    json: bool = JSON_OPTION,
) -> None:
    """Network in, verified bundle out: export, exact rewrites, precision, engine, gate.

    Example: edgeseg build --model segformer-b0 --int8
    """
    from edgeseg.builder import BuildOptions
    from edgeseg.builder import build as build_bundle
    from edgeseg.errors import VerificationError
    from edgeseg.progress import RichProgress

    chosen = [name for name, given in (("fp32", fp32), ("fp16", fp16), ("int8", int8)) if given]
    chosen += [f"precision {precision.value}"] if precision else []
    if len(chosen) > 1:
        raise typer.BadParameter(f"--{chosen[0]} and --{chosen[1]} exclude each other; choose one")
    _check_dataset(dataset)
    options = BuildOptions(
        model=model,
        onnx=onnx,
        module=module,
        weights=weights,
        dataset=dataset,
        size=parse_size(size),
        batch=parse_batch(batch),
        precision=chosen[0].split()[-1] if chosen else "fp32",  # type: ignore[arg-type]
        max_drop=max_drop,
        fallback_budget=fallback_budget,
        data=data,
        backend=backend,
        calibration_data=calibration_data,
        scales=scales,
        calibration_images=calibration_images,
        calibration_method=calibration_method.value,  # type: ignore[arg-type]
        migrate=migrate.value,  # type: ignore[arg-type]
        rewrites=not no_rewrites,
        output=output,
        force=force,
        compute_capabilities=tuple(compute_capability),
        onnx_output=onnx_output,
    )
    try:
        bundle = build_bundle(options, RichProgress())
    except VerificationError as error:
        if json:
            print_json({"bundle": None, "verification": error.verification.to_json(), "fallback": error.fallback})
        elif error.fallback:
            print_fallback(error.fallback, stderr=True)
        raise
    report = bundle.report() | {"seconds": bundle.manifest["seconds"]}
    if json:
        print_json(report)
    else:
        _print(report, bundle.manifest)


def _check_dataset(name: str | None) -> None:
    from edgeseg.labels import LABEL_SETS

    if name is not None and name not in LABEL_SETS:
        raise typer.BadParameter(f"unknown data set {name!r}; one of {', '.join(LABEL_SETS)}")


def _print(report: dict, manifest: dict) -> None:
    from rich.console import Console
    from rich.table import Table

    gmacs, gate = report["gmacs"], report["verification"]
    rows = {
        "network": f"{report['model']}, weights {report['weights']}, {report['height']}x{report['width']}, "
        f"{report['num_classes']} classes",
        "engine": f"{report['backend']} {report['precision']}, {human_bytes(report['engine_bytes'])} "
        f"({report['engine_file']}); {manifest['backend_reason']}",
        "compute": f"{gmacs['published']:.2f} GMACs published, {gmacs['deployed']:.2f} deployed"
        f"{share_in_words(manifest)}; {report['params'] / 1e6:.2f} M parameters",
        "gate": f"passed: {gate['label_agreement']:.2%} of pixels keep the FP32 label, "
        f"agreement-mIoU {100 * gate['agreement_miou']:.2f} on {gate['images']} images "
        f"({gate['image_source']}); computed with {gate['executed_with']}",
    }
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for key, value in rows.items():
        table.add_row(key, value)
    for note in report["notes"]:
        table.add_row("note", note)
    for finding in gate["findings"]:
        table.add_row(finding["severity"], finding["message"])
    console = Console(markup=False)
    console.print(table)
    print_precision(manifest)
    console.print(f"✓ {report['bundle']} in {report['seconds']:.1f} s", style="green", soft_wrap=True)
    console.print(f"  next: edgeseg run {report['bundle']} IMAGE", style="dim", soft_wrap=True)
