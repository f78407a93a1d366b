"""Everything that waits for a GPU, in one call: the `cuda` tests, then real engines built, verified and timed on it.

    python benchmarks/gpu/run.py --output benchmarks/results/gpu.json

Without a GPU it says so and exits with 1; `--backends onnxruntime` tries the script itself on a CPU.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import edgeseg
from edgeseg.backends import BACKENDS
from edgeseg.doctor import examine
from edgeseg.errors import EdgesegError
from edgeseg.samples import sample_images

PRECISIONS = ("fp32", "fp16", "int8")


def main() -> None:
    args = parse_arguments()
    doctor = examine()
    usable = [name for name in args.backends if BACKENDS[name].probe().can_run]
    if not usable:
        reasons = (f"{name}: {BACKENDS[name].probe().reason}" for name in args.backends)
        sys.exit(f"nothing to run here ({'; '.join(reasons)})")
    report = {
        "environment": {"platform": platform.platform(), "driver": driver_query(), **doctor},
        "cuda_tests": cuda_tests(),
        "rows": [],
    }
    image = sample_images()[0][1]
    for backend in usable:
        for size in args.sizes:
            for precision in PRECISIONS:
                row = measure(backend, precision, size, image, args.repeats)
                print(json.dumps(row))
                report["rows"].append(row)
                args.output.parent.mkdir(parents=True, exist_ok=True)
                args.output.write_text(json.dumps(report, indent=2) + "\n")
    print(args.output)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=["tensorrt", "tensorrt-rtx"])
    parser.add_argument("--sizes", nargs="+", default=["360x480", "512x1024"], metavar="HxW")
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--output", type=Path, required=True)
    return parser.parse_args()


def driver_query() -> str | None:
    """Name, driver, clocks, power limit and temperature, as the driver tells them."""
    fields = "name,driver_version,clocks.sm,clocks.mem,power.limit,temperature.gpu"
    try:
        done = subprocess.run(["nvidia-smi", f"--query-gpu={fields}", "--format=csv"], capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.strip()


def cuda_tests() -> dict:
    """The tests marked `cuda`; pytest's exit code 5 means that there are none."""
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-m", "pytest", "-m", "cuda", str(root / "tests")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root)
    return {"exit_code": done.returncode, "summary": done.stdout.strip().splitlines()[-1:]}


def measure(backend: str, precision: str, size: str, image: np.ndarray, repeats: int) -> dict:
    """One engine: the gate's verdict on this device, and the medians of each stage in milliseconds."""
    height, width = map(int, size.split("x"))
    row = {"backend": backend, "precision": precision, "height": height, "width": width}
    with tempfile.TemporaryDirectory() as folder:
        try:
            bundle = edgeseg.build(
                model="segformer-b0",
                size=(height, width),
                precision=precision,
                backend=backend,
                output=Path(folder) / "bundle",
            )
        except EdgesegError as error:
            return row | {"error": str(error)}
        verification = bundle.verification
        with edgeseg.load(bundle.path) as segmenter:
            for _ in range(20):
                segmenter(image)
            times = []
            begin = time.perf_counter()
            for _ in range(repeats):
                segmenter(image)
                assert segmenter.times
                times.append(list(vars(segmenter.times).values()))
            seconds = time.perf_counter() - begin
    stages = dict(zip(("preprocess", "engine", "tail"), np.median(times, axis=0).round(3).tolist(), strict=True))
    return row | {
        "stages_ms": stages,
        "fps": round(repeats / seconds, 1),
        "engine_bytes": bundle.engine_bytes,
        "verification": verification,
        "layers": bundle.manifest["engine"]["details"].get("layer_summary"),
    }


if __name__ == "__main__":
    main()
