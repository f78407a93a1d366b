"""Builds every network at every precision for every backend, and writes down what the gate said of each.

    python benchmarks/matrix/build_matrix.py                          # what is not in the results yet; Ctrl-C and go on
    python benchmarks/matrix/build_matrix.py pspnet- icnet --again    # those whose names begin so, again
    python benchmarks/matrix/build_matrix.py --table                  # only docs/networks.md from the results

Each cell is one `edgeseg build` in a process of its own, small inputs, seeded random weights where no checkpoint ships.
Label agreement with random weights is a hard test, not a forecast: neighbouring classes lie closer than trained ones.
"""

import argparse
import importlib.metadata
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

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
    parser.add_argument("--timeout", type=float, default=900, help="seconds a cell may take")
    parser.add_argument("--again", action="store_true", help="also what is in the results already")
    parser.add_argument("--table", action="store_true", help="build nothing")
    args = parser.parse_args()
    cells: list[Cell] = json.loads(RESULTS.read_text())["cells"] if RESULTS.exists() else []
    if not args.table:
        with tempfile.TemporaryDirectory() as folder:
            save_samples(Path(folder) / "images")
            for name, precision, backend in wanted(args):
                key = {"model": name, "precision": precision, "backend": backend}
                is_done = any(key.items() <= cell.items() for cell in cells)
                if is_done and not args.again:
                    continue
                cell = key | build(key, args, Path(folder))
                cells = [other for other in cells if not key.items() <= other.items()] + [cell]
                write_results(cells)
                print(f"{name} {precision} {backend}: {describe(cell)} ({cell['seconds']} s)", flush=True)
    write_atomically(TABLE, table(cells).encode())


def wanted(args: argparse.Namespace) -> Iterator[tuple[str, str, str]]:
    """Small networks first, so that most of the table is there soon."""
    for entry in sorted(MODELS.values(), key=lambda entry: entry.published_macs() or 0):
        if not args.names or entry.name.startswith(tuple(args.names)):
            for backend in args.backend:
                for precision in args.precision:
                    yield entry.name, precision, backend


def save_samples(folder: Path) -> None:
    """The pictures that ship, as a user's folder of calibration images."""
    folder.mkdir()
    for name, image in sample_images():
        Image.fromarray(image).save(folder / f"{name}.png")


def build(key: Cell, args: argparse.Namespace, folder: Path) -> Cell:
    """One cell: the build's own JSON, or why there is none."""
    begin = time.perf_counter()
    height, width = size_for(key["model"], args.side)
    command = [sys.executable, "-c", "from edgeseg.cli import main; main()", "build", "--model", key["model"]]
    command += ["--size", f"{height}x{width}", f"--{key['precision']}", "--backend", key["backend"]]
    command += ["--calibration-data", str(folder / "images"), "--json", "--force", "--output", str(folder / "bundle")]
    if key["model"] not in DEFAULT_CHECKPOINTS:
        command += ["--weights", "random", "--max-drop", "100"]  # the limit on changed labels stands
    cell: Cell = {"height": height, "width": width}
    try:
        process = subprocess.run(command, capture_output=True, text=True, timeout=args.timeout)
        report = json.loads(process.stdout) if process.stdout.strip() else {}
        gate = report.get("verification")
        cell |= {
            "passed": process.returncode == 0,
            "label_agreement": gate["label_agreement"] if gate else None,
            "agreement_miou": gate["agreement_miou"] if gate else None,
            "executed_with": gate["executed_with"] if gate else None,
            "engine_bytes": report.get("engine_bytes"),
            "message": "" if process.returncode == 0 else (process.stderr.strip().splitlines() or ["no message"])[-1],
        }
    except subprocess.TimeoutExpired:
        cell |= {"passed": False, "label_agreement": None, "message": f"not done within {args.timeout:g} s"}
    return cell | {"seconds": round(time.perf_counter() - begin, 1)}


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
