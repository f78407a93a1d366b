"""Builds every network at every precision for every backend, and writes down what the gate said of each.

    python benchmarks/matrix/build_matrix.py                          # what is not in the results yet; stop and go on
    python benchmarks/matrix/build_matrix.py pspnet- icnet --again    # those whose names begin so, again
    python benchmarks/matrix/build_matrix.py --table                  # only docs/networks.md from the results

Each cell is a build as `edgeseg build` makes it: small inputs, seeded random weights where no checkpoint ships. A
network is exported once, in a process of its own that builds all its cells.
Label agreement with random weights is a hard test, not a forecast: neighbouring classes lie closer than trained ones.
"""

import argparse
import importlib.metadata
import json
import multiprocessing
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from edgeseg.builder import BuildOptions, build, open_network
from edgeseg.errors import EdgesegError, VerificationError
from edgeseg.files import write_atomically
from edgeseg.models import MODELS
from edgeseg.models.bundled import DEFAULT_CHECKPOINTS
from edgeseg.samples import sample_images

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "build-matrix.json"
TABLE = ROOT / "docs" / "networks.md"
PRECISIONS = ("fp32", "fp16", "int8")
BACKENDS = ("onnxruntime", "tensorrt-rtx")
Cell = dict[str, Any]

HEADER = """# Every network, every precision: what the gate said

Made by `benchmarks/matrix/build_matrix.py`; each cell is one `edgeseg build` at the input size in its row. A figure is
the share of pixels, in per cent, that keep the label of the FP32 network as published: with it the build passed. **✗**
stands before the figure of a build that the gate refused, as it should; **error** for one that failed before it.
`tensorrt-rtx` engines are real ones; without a GPU their own ONNX is checked, in ONNX Runtime.

Weights are random (seeded) except where a checkpoint ships, which makes reduced precision look worse than it is: the
scores of two classes lie closer together than those of a trained network do. Of them the gate wants that 99 % of the
pixels keep their label in FP16 and 93 % in INT8, and nothing of their mIoU over classes that mean nothing
(`--max-drop 100`). {done} of {wanted} cells were built.

"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="beginnings of names; all by default")
    parser.add_argument("--backend", nargs="+", choices=BACKENDS, default=BACKENDS)
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, default=PRECISIONS)
    parser.add_argument("--side", type=int, default=128, help="input side; the network's own where it takes no other")
    parser.add_argument("--timeout", type=float, default=1800, help="seconds a network may take")
    parser.add_argument("--again", action="store_true", help="also what is in the results already")
    parser.add_argument("--table", action="store_true", help="build nothing")
    args = parser.parse_args()
    cells: list[Cell] = json.loads(RESULTS.read_text())["cells"] if RESULTS.exists() else []
    for name in [] if args.table else wanted(args.names):
        keys = [
            {"model": name, "precision": precision, "backend": backend}
            for backend in args.backend
            for precision in args.precision
        ]
        keys = [key for key in keys if args.again or not any(key.items() <= cell.items() for cell in cells)]
        for key, cell in zip(keys, built(keys, args), strict=True):
            cells = [other for other in cells if not key.items() <= other.items()] + [key | cell]
            write_results(cells)
            print(f"{' '.join(key.values())}: {describe(cell)} ({cell['seconds']} s)", flush=True)
    write_atomically(TABLE, table(cells).encode())


def wanted(beginnings: Iterable[str]) -> list[str]:
    """Networks with few parameters first, so that most of the table is there soon."""
    entries = sorted(MODELS.values(), key=lambda entry: entry.params())
    return [entry.name for entry in entries if not beginnings or entry.name.startswith(tuple(beginnings))]


def save_samples(folder: Path) -> None:
    """The pictures that ship, as a user's folder of calibration images."""
    folder.mkdir()
    for name, image in sample_images():
        Image.fromarray(image).save(folder / f"{name}.png")


def built(keys: Sequence[Cell], args: argparse.Namespace) -> list[Cell]:
    """The cells of one network, from a process that may die or hang without harm to the others."""
    if not keys:
        return []
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        process = multiprocessing.get_context("spawn").Process(target=build_cells, args=(keys, args.side, folder))
        process.start()
        process.join(args.timeout)
        died = f"process ended with exit code {process.exitcode}"
        if process.is_alive():
            died = f"not done within {args.timeout:g} s"
            process.kill()
            process.join()
        path = Path(folder) / "cells.json"
        cells: list[Cell] = json.loads(path.read_text()) if path.exists() else []
    height, width = size_for(keys[0]["model"], args.side)
    lost = {"height": height, "width": width, "passed": False, "label_agreement": None, "message": died}
    return cells + [lost | {"seconds": round(time.perf_counter() - begin, 1)}] * (len(keys) - len(cells))


def build_cells(keys: Sequence[Cell], side: int, folder: str) -> None:
    """In the network's own process: one export, every cell, cells.json after each."""
    images, cells = Path(folder) / "images", []
    save_samples(images)
    network = None
    for key in keys:
        begin = time.perf_counter()
        options = options_of(key, side, images)
        cell = dict(zip(("height", "width"), options.size or (), strict=True))
        gate, message = None, ""
        try:
            if network is None:
                network = open_network(options)
            bundle = build(options, network=network)
            gate = bundle.verification
            cell["engine_bytes"] = bundle.engine_bytes
        except VerificationError as error:
            gate, message = error.verification.to_json(), str(error)
        except (EdgesegError, ValueError) as error:
            message = str(error)
        cell |= {"passed": not message, "label_agreement": None, "message": message}
        if gate:
            cell |= {name: gate[name] for name in ("label_agreement", "agreement_miou", "executed_with")}
        cells.append(cell | {"seconds": round(time.perf_counter() - begin, 1)})
        write_atomically(Path(folder) / "cells.json", json.dumps(cells).encode())


def options_of(key: Cell, side: int, images: Path) -> BuildOptions:
    """The build of one cell. With random weights the mIoU over classes that mean nothing may fall as it likes."""
    is_random = key["model"] not in DEFAULT_CHECKPOINTS
    return BuildOptions(
        model=key["model"],
        weights="random" if is_random else None,
        size=size_for(key["model"], side),
        precision=key["precision"],
        backend=key["backend"],
        calibration_data=images,
        max_drop=100 if is_random else None,
        fallback_budget=1,  # plain precisions, nothing mixed
        output=images.parent / "bundle",
        force=True,
    )


def size_for(name: str, side: int) -> tuple[int, int]:
    """A square of that side, or the network's own size where it refuses it."""
    try:
        return MODELS[name].checked_size((side, side))
    except ValueError:
        return MODELS[name].checked_size(None)


def write_results(cells: list[Cell]) -> None:
    document = {
        "edgeseg": importlib.metadata.version("edgeseg"),
        "cells": sorted(cells, key=lambda cell: list(MODELS).index(cell["model"])),
    }
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(RESULTS, (json.dumps(document, indent=1) + "\n").encode())


def describe(cell: Cell | None) -> str:
    if cell is None:
        return "–"
    if cell["label_agreement"] is None:
        return "error"
    share = f"{100 * cell['label_agreement']:.2f}"
    return share if cell["passed"] else f"✗ {share}"


def table(cells: list[Cell]) -> str:
    """docs/networks.md."""
    found = {(cell["model"], cell["precision"], cell["backend"]): cell for cell in cells}
    columns = [(backend, precision) for backend in BACKENDS for precision in PRECISIONS]
    lines = [
        "| network | input | " + " | ".join(f"{backend} {precision.upper()}" for backend, precision in columns) + " |",
        "|---|---|" + "---|" * len(columns),
    ]
    for name in MODELS:
        row = [found.get((name, precision, backend)) for backend, precision in columns]
        sizes = {f"{cell['height']}x{cell['width']}" for cell in row if cell}
        lines.append(f"| `{name}` | {', '.join(sorted(sizes)) or '–'} | {' | '.join(map(describe, row))} |")
    errors = [cell for cell in cells if cell["label_agreement"] is None]
    if errors:
        lines += ["", "Errors, in the build's own words:", ""]
        lines += [f"- `{c['model']}` {c['precision'].upper()} {c['backend']}: {c['message']}" for c in errors]
    wanted = len(MODELS) * len(columns)
    return HEADER.format(done=len(cells), wanted=wanted) + "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
