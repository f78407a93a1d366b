"""What a build can be asked for, and the command line that asks for it again."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from edgeseg.backends.base import Backend
from edgeseg.sources import Batch

Precision = Literal["fp32", "fp16", "int8"]
REBUILD_OPTIONS = (
    *("model", "onnx", "onnx_output", "module", "weights", "dataset", "size", "batch", "max_drop", "fallback_budget"),
    *("data", "backend", "calibration_data", "calibration_images", "calibration_method", "migrate", "scales"),
)


@dataclass(frozen=True)
class BuildOptions:
    """What to build; the command line's options."""

    model: str | None = None
    onnx: Path | None = None
    module: str | None = None  # PACKAGE:FACTORY
    weights: str | None = None
    dataset: str | None = None
    size: tuple[int, int] | None = None  # (height, width); the checkpoint's or the network's own by default
    batch: Batch = 1
    precision: Precision | Literal["auto"] = "fp32"
    max_drop: float | None = None  # points of mIoU where there are labels, else of agreement-mIoU
    fallback_budget: float = 300.0  # seconds for the search of what to keep out of INT8
    data: Path | None = None  # a labelled data set: `max_drop` is then judged by mIoU
    backend: str = "auto"
    calibration_data: Path | None = None
    scales: Path | None = None  # INT8 ranges of an earlier calibration, such as a bundle's scales.json
    calibration_images: int = 64
    calibration_method: Literal["max", "percentile", "entropy", "mse"] = "percentile"
    migrate: Literal["auto", "none", "smooth", "equalise", "both"] = "auto"  # channels rescaled before INT8
    rewrites: bool = True
    output: Path | None = None
    force: bool = False
    compute_capabilities: tuple[str, ...] = ()  # tensorrt-rtx: the GPUs to build for, such as ("8.6", "8.9")
    onnx_output: str | None = None  # which output of an ONNX with several


def check_options(options: BuildOptions) -> None:
    """ValueError for options that contradict each other."""
    given = [name for name in ("model", "onnx", "module") if getattr(options, name)]
    if len(given) != 1:
        raise ValueError(f"pass exactly one of --model, --onnx and --module, got {' and '.join(given) or 'none'}")
    if options.calibration_images < 1:
        raise ValueError(f"--calibration-images must be at least 1, got {options.calibration_images}")
    if options.scales and options.precision not in ("int8", "auto"):
        raise ValueError(f"--scales are INT8 ranges, the build is {options.precision}; add --int8 or leave them out")
    if options.onnx and options.weights:
        raise ValueError("an ONNX file brings its own weights; leave out --weights or --onnx")
    if options.data and options.max_drop is None:
        raise ValueError("--data judges a build by its labels, and needs a limit: add --max-drop, or leave it out")
    if options.fallback_budget <= 0:
        raise ValueError(f"--fallback-budget is in seconds and above 0, got {options.fallback_budget:g}")


def recipe(options: BuildOptions, backend: Backend) -> dict:
    """What makes two builds the same bundle: a rebuild by the same recipe may replace the old one."""
    return {
        "network": options.model or str(options.onnx or options.module),
        "precision": options.precision,
        "backend": backend.name,
    }


def default_name(options: BuildOptions, backend: Backend) -> str:
    network = options.model or (options.onnx.stem if options.onnx else (options.module or "").partition(":")[2])
    return f"{network}-{options.precision}-{backend.name}"


def rebuild_command(options: BuildOptions, target: Path) -> str:
    """The command line that makes this bundle again: every option that is not at its default."""
    defaults = BuildOptions()
    words = ["edgeseg", "build"]
    for name in REBUILD_OPTIONS:
        value = getattr(options, name)
        if value != getattr(defaults, name):
            words += [f"--{name.replace('_', '-')}", _spelled(name, value)]
    for capability in options.compute_capabilities:
        words += ["--compute-capability", capability]
    words += ["--precision", "auto"] if options.precision == "auto" else [f"--{options.precision}"]
    if not options.rewrites:
        words += ["--no-rewrites"]
    return shlex.join([*words, "-o", str(target)])


def _spelled(name: str, value: Any) -> str:
    """An option's value as the command line takes it."""
    if isinstance(value, tuple):
        return ("x" if name == "size" else ":").join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
