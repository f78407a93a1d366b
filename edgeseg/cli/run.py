"""edgeseg run."""

from pathlib import Path

import typer

from edgeseg.cli.output import JSON_OPTION, print_json


def run(
    bundle: Path = typer.Argument(help="A bundle that `edgeseg build` made."),
    inputs: list[str] = typer.Argument(metavar="INPUT...", help="Images, folders, videos, camera:0 or a stream's URL."),
    output: Path = typer.Option(Path("masks"), "--output", "-o", help="Folder for label maps and overlays."),
    overlay: bool = typer.Option(True, "--overlay/--no-overlay", help="Draw coloured pictures with a legend."),
    alpha: float = typer.Option(0.5, min=0, max=1, help="Opacity of the colours."),
    max_frames: int | None = typer.Option(None, min=1, help="Stop a video or camera after so many frames."),
    threads: int | None = typer.Option(None, min=1, help="CPU threads [default: all cores]."),
    crf: bool = typer.Option(
        False, "--crf", help="Refine labels with DeepLab's fully connected CRF: seconds an image."
    ),
    slide: str | None = typer.Option(
        None, metavar="WINDOW:STRIDE", help="Windows over large images, such as 512:384 or 512x1024:256x512."
    ),
    json: bool = JSON_OPTION,
) -> None:
    """Segment images, folders, videos or a camera.

    Example: edgeseg run segformer-b0-int8-onnxruntime street.jpg
    """
    from edgeseg.crf import DenseCrf
    from edgeseg.inference_modes import InferenceMode, Slide
    from edgeseg.pipeline import load
    from edgeseg.progress import RichProgress
    from edgeseg.running import run as run_inputs

    windows = Slide.parse(slide) if slide else None
    with load(bundle, threads=threads, crf=DenseCrf() if crf else None) as segmenter:
        report = run_inputs(
            InferenceMode(segmenter, slide=windows) if windows else segmenter,
            inputs,
            output,
            overlay=overlay,
            alpha=alpha,
            max_frames=max_frames,
            progress=RichProgress(),
        )
    if json:
        print_json(report)
        return
    for entry in report["outputs"]:
        shares = ", ".join(f"{name} {share:.0%}" for name, share in list(entry["classes"].items())[:4])
        skipped = f"  ({entry['skipped']} damaged packets skipped)" if entry.get("skipped") else ""
        print(f"{entry['overlay'] or entry['labels']}  {shares}{skipped}")
    latency = report["latency_ms"]
    print(f"median ms: preprocess {latency['preprocess']}, engine {latency['engine']}, tail {latency['tail']}")
