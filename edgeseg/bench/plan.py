"""What to measure: the options of `edgeseg bench`, and the cells that follow from them."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import NamedTuple

from edgeseg.backends import BACKENDS
from edgeseg.bundle import Bundle, load_bundle

EDGESEG = "edgeseg"
PRECISIONS = ("fp32", "fp16", "int8")
BASELINES = {
    "torch": "torch eager",
    "torch-compile": "torch.compile",
    "onnxruntime": "onnxruntime, unmodified",
    "openvino": "openvino, unmodified",
    "tensorrt": "tensorrt, unmodified",
    "tensorrt-rtx": "tensorrt-rtx, unmodified",
    "transformers": "transformers",
}
"""What people run today, by the name that `--baseline` takes, and as rows name it."""

SLOW_TO_START = ("torch-compile",)  # only where asked for by name
_FASTER_IN_FP16 = ("openvino", "tensorrt", "tensorrt-rtx")  # so that people run it; OpenVINO in bf16 where the CPU can


@dataclass(frozen=True)
class BenchOptions:
    """What to measure and how; the command line's options. An empty choice means all that work here."""

    models: tuple[str, ...] = ()
    bundles: tuple[Path, ...] = ()
    weights: tuple[str, ...] = ()  # none, one for all, or one for each model
    dataset: str | None = None  # the classes that the weights were trained for
    backends: tuple[str, ...] = ()
    precisions: tuple[str, ...] = PRECISIONS
    sizes: tuple[tuple[int, int], ...] = ()  # (height, width); the checkpoint's own by default
    batches: tuple[int, ...] = (1,)
    baselines: tuple[str, ...] | None = None  # keys of BASELINES; None: all that work here and start quickly
    data: Path | None = None
    split: str | None = None
    limit: int | None = None
    calibration_data: Path | None = None
    calibration_images: int = 64
    rounds: int = 30  # timed runs of each system
    images: int = 8  # real images that every system labels, in turn while it is timed
    threads: int | None = None  # CPU threads of every system; None: each one's own choice
    memory: bool = True
    worst: int = 4  # pictures of the images with the lowest mIoU, in each row
    energy_seconds: float = 10  # how long each system runs for its energy, where there is a sensor; 0: not at all


@dataclass(frozen=True)
class Cell:
    """One system with one network at one precision, size and batch: the fields of `Row.key`, and its origin."""

    system: str
    model: str
    weights: str
    backend: str
    precision: str
    size: tuple[int, int]
    batch: int
    bundle: Path | None = None  # a bundle as it is; None: to be built
    baseline: str | None = None  # a key of BASELINES

    @property
    def key(self) -> tuple:
        """Equal to that of the row it becomes."""
        return self.system, self.model, self.weights, self.backend, self.precision, *self.size, self.batch


class Group(NamedTuple):
    """What is measured side by side, one run of each in turn: one network at one size and batch."""

    model: str
    weights: str
    size: tuple[int, int]
    batch: int


def plan(options: BenchOptions) -> dict[Group, list[Cell]]:
    """The cells, edgeseg's before the baselines in each group.

    Raises:
        ValueError: unknown names, or nothing to measure.
        BundleError: a bundle that cannot be read.
    """
    _check(options)
    cells: list[Cell] = []
    for (model, weights), batch in product(_sources(options), options.batches):
        for size in options.sizes or (_own_size(model, weights),):
            cells += _cells_of_network(Group(model, weights, size, batch), options)
    cells += _cells_of_bundles(options, taken={cell.key for cell in cells})
    groups: dict[Group, list[Cell]] = {}
    for cell in sorted(cells, key=lambda cell: cell.baseline is not None):
        groups.setdefault(Group(cell.model, cell.weights, cell.size, cell.batch), []).append(cell)
    return groups


def _check(options: BenchOptions) -> None:
    from edgeseg.models import model_entry

    for model in options.models:
        model_entry(model)
    for what, names, known in (
        ("backend", options.backends, BACKENDS),
        ("precision", options.precisions, PRECISIONS),
        ("baseline", options.baselines or (), BASELINES),
    ):
        for name in names:
            if name not in known:
                raise ValueError(f"unknown {what} {name!r}; there are {', '.join(known)}")
    if len(options.weights) > 1 and len(options.weights) != len(options.models):
        raise ValueError(
            f"--weights is given {len(options.weights)} times and --model {len(options.models)} times; "
            f"give the weights once for all models (random), or once for each"
        )
    if options.weights and not options.models:
        raise ValueError("--weights belong to a --model; a bundle brings its own")
    if options.baselines and options.bundles and not options.models:
        raise ValueError("baselines run the network that a --model names; a bundle does not hold it as published")
    for name, least in (("rounds", 1), ("images", 1)):
        if getattr(options, name) < least:
            raise ValueError(f"--{name} must be at least {least}, got {getattr(options, name)}")
    if any(batch < 1 for batch in options.batches):
        raise ValueError(f"a batch must be at least 1, got {min(options.batches)}")
    if options.data is None and (options.split or options.limit):
        raise ValueError("--split and --limit choose among the images of --data, which is not given")


def _sources(options: BenchOptions) -> list[tuple[str, str]]:
    """(model, weights); "" where a model has none, which its build will say."""
    from edgeseg.models.bundled import DEFAULT_CHECKPOINTS

    models = options.models or (() if options.bundles else ("segformer-b0",))
    weights = options.weights * len(models) if len(options.weights) == 1 else options.weights
    if not weights:
        return [(model, DEFAULT_CHECKPOINTS.get(model, "")) for model in models]
    return list(zip(models, weights, strict=True))


def _own_size(model: str, weights: str) -> tuple[int, int]:
    from edgeseg.models import model_entry
    from edgeseg.models.bundled import BUNDLED

    return BUNDLED[weights].size if weights in BUNDLED else model_entry(model).size


def _cells_of_network(group: Group, options: BenchOptions) -> list[Cell]:
    backends = options.backends or tuple(
        name for name, backend in BACKENDS.items() if name != "torch" and backend.probe().can_run
    )
    cells = [
        Cell(EDGESEG, group.model, group.weights, backend, precision, group.size, group.batch)
        for backend, precision in product(backends, options.precisions)
        if backend != "torch" or precision == "fp32"  # casts and Q/DQ live in the ONNX
    ]
    for name in _baselines(group.model, options):
        for precision in ("fp32", *(["fp16"] if name in _FASTER_IN_FP16 and "fp16" in options.precisions else [])):
            backend = name if name in BACKENDS else "torch"
            cells.append(
                Cell(
                    BASELINES[name],
                    group.model,
                    group.weights,
                    backend,
                    precision,
                    group.size,
                    group.batch,
                    baseline=name,
                )
            )
    return cells


def _baselines(model: str, options: BenchOptions) -> tuple[str, ...]:
    if options.baselines is not None:
        return options.baselines
    return tuple(name for name in BASELINES if name not in SLOW_TO_START and not refusal(name, model))


def refusal(baseline: str, model: str) -> str:
    """Why a baseline cannot be measured here; "" when it can."""
    if baseline == "transformers":
        if not model.startswith("segformer-") or model.endswith("-mmseg"):
            return f"transformers has no {model}; this baseline is for segformer-b0 to -b5"
        if importlib.util.find_spec("transformers") is None:
            return "transformers is not installed; pip install transformers"
        return ""
    backend = BACKENDS.get(baseline, BACKENDS["torch"])
    status = backend.probe()
    return "" if status.can_build and status.can_run else f"{backend.name} cannot run here: {status.reason}"


def _cells_of_bundles(options: BenchOptions, taken: set[tuple]) -> list[Cell]:
    """Bundles, with the folder in their name where they would be a cell that is there already."""
    cells: list[Cell] = []
    for path in options.bundles:
        for cell in _cells_of_bundle(load_bundle(path), options.batches):
            named = replace(cell, system=f"{EDGESEG} {path.name}") if cell.key in taken else cell
            if named.key in taken:
                raise ValueError(f"two bundles called {path.name} hold the same network; rename one of the folders")
            taken.add(named.key)
            cells.append(named)
    return cells


def _cells_of_bundle(bundle: Bundle, batches: tuple[int, ...]) -> list[Cell]:
    manifest = bundle.manifest
    static = manifest["input"]["shape"][0]
    height, width = manifest["preprocess"]["size"]
    return [
        Cell(
            EDGESEG,
            manifest["model"]["name"],
            manifest["model"]["weights"],
            manifest["backend"]["backend"],
            manifest["precision"],
            (height, width),
            batch,
            bundle.path,
        )
        for batch in ((static,) if static else batches)
    ]
