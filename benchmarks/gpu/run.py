"""Everything that waits for a GPU, in one call: kernels built, tested, sanitised and timed; engines built and run.

    python benchmarks/gpu/run.py --output benchmarks/results/gpu.json

It needs an installed edgeseg, nvcc and a torch with CUDA, and leaves one JSON that names the device, its driver and its
clocks; every step's outcome is in it, failures too, and it is written anew after each. The ops' results lie beside it.
Without a GPU it says so and exits with 1; `--device cpu` tries the script itself on the CPU's kernels and ONNX Runtime.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parents[2]
PRECISIONS = ("fp32", "fp16", "int8")
OPS = sorted(path.stem.removeprefix("bench_") for path in (ROOT / "benchmarks" / "ops").glob("bench_*.py"))
SANITIZERS = ("memcheck", "racecheck", "synccheck")
SANITIZED = "any_size or margin_of_ties or every_byte or (TestTorchOperator and on_cuda) or shape0 or shape6 or shape7"
"""Which tests: small maps of every op, ragged ones among them."""


def main() -> None:
    arguments = parse_arguments()
    report: dict = {"environment": environment()}
    if arguments.device == "cuda" and not report["environment"]["nvidia_smi"]:
        sys.exit("nothing to run here: nvidia-smi finds no GPU; --device cpu tries the script itself")
    with tempfile.TemporaryDirectory() as folder:
        libraries = Path(folder) / "installed" / "edgeseg" / "lib"
        steps = {
            "build": lambda: build_kernels(Path(folder), arguments.device),
            "tests": lambda: tests(libraries, arguments.device),
            "sanitizer": lambda: sanitizer(libraries, arguments),
            "ops": lambda: benchmarks(libraries, arguments),
            "engines": lambda: engines(libraries, arguments),
        }
        for name in arguments.steps:
            print(f"== {name}", file=sys.stderr, flush=True)
            report[name] = steps[name]()
            arguments.output.parent.mkdir(parents=True, exist_ok=True)
            arguments.output.write_text(json.dumps(report, indent=2) + "\n")
    print(arguments.output)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    steps = ["build", "tests", "sanitizer", "ops", "engines"]
    parser.add_argument("--steps", nargs="+", choices=steps, default=steps)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--sizes", nargs="+", default=["360x480", "512x1024"], metavar="HxW", help="of the engines")
    parser.add_argument("--repeats", type=int, default=200, help="timed frames of every engine")
    parser.add_argument("--ops", nargs="+", choices=OPS, default=OPS, help="whose benchmarks to run")
    parser.add_argument("--sanitizer-seconds", type=float, default=600, help="after which each tool is stopped")
    parser.add_argument("--rounds", type=int, default=7, help="of every op's benchmark")
    parser.add_argument("--output", type=Path, required=True)
    return parser.parse_args()


def environment() -> dict:
    """The machine: platform, what nvidia-smi tells, and nvcc's version."""
    fields = "name,driver_version,compute_cap,clocks.sm,clocks.max.sm,clocks.mem,power.limit,temperature.gpu"
    return {
        "platform": platform.platform(),
        "python": platform.python_version(),
        "nvidia_smi": output(["nvidia-smi", f"--query-gpu={fields}", "--format=csv"]),
        "nvcc": output(["nvcc", "--version"]),
    }


def output(command: list[str]) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def run(command: list[str], libraries: Path | None = None, seconds: float | None = None) -> dict:
    """A command's exit code and the end of what it said; its kernels come from `libraries`; stopped after `seconds`."""
    variables = os.environ | ({"EDGESEG_LIBRARIES": str(libraries)} if libraries and libraries.is_dir() else {})
    with tempfile.TemporaryFile("w+") as said:
        try:
            done = subprocess.run(
                command, stdout=said, stderr=subprocess.STDOUT, cwd=ROOT, env=variables, timeout=seconds
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return {"exit_code": None, "tail": [*_tail(said), str(error)]}
        return {"exit_code": done.returncode, "tail": _tail(said)}


def _tail(said: IO[str]) -> list[str]:
    said.seek(0)
    return said.read().strip().splitlines()[-40:]


def build_kernels(folder: Path, device: str) -> dict:
    """The libraries, compiled for this GPU alone."""
    architectures = ["-DEDGESEG_CUDA=OFF"]
    if device == "cuda":
        capability = output(["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]) or ""
        architectures = [f"-DEDGESEG_CUDA_ARCHITECTURES={capability.splitlines()[0].replace('.', '')}"]
    configure = ["cmake", "-S", ".", "-B", str(folder / "build"), f"-DPython_EXECUTABLE={sys.executable}"]
    outcome = run([*configure, f"-DCMAKE_INSTALL_PREFIX={folder / 'installed'}", *architectures])
    for step in (["--build", str(folder / "build"), "--parallel"], ["--install", str(folder / "build")]):
        if outcome["exit_code"] == 0:
            outcome = run(["cmake", *step])
    return outcome


def tests(libraries: Path, device: str) -> dict:
    """The tests marked `cuda`, eight at a time where pytest-xdist is."""
    marked = "cuda" if device == "cuda" else "not cuda and not slow"
    parallel = ["-n", "8"] if importlib.util.find_spec("xdist") else []
    command = [sys.executable, "-m", "pytest", "-m", marked, "-p", "no:cacheprovider", "--tb=short", "-rf"]
    return run([*command, *parallel, "tests/ops"], libraries)


def sanitizer(libraries: Path, arguments: argparse.Namespace) -> dict:
    """memcheck, racecheck and synccheck side by side on a few tests of every op; exit code 9 means a finding."""
    if arguments.device == "cpu":
        return {"skipped": "compute-sanitizer needs a GPU"}
    chosen = ["-m", "cuda", "-k", SANITIZED, "-p", "no:cacheprovider", "-v", "tests/ops"]
    pytest = [sys.executable, "-m", "pytest", *chosen]
    command = ["compute-sanitizer", "--error-exitcode", "9", "--target-processes", "all", "--print-limit", "5"]

    def check(tool: str) -> dict:
        return run([*command, "--tool", tool, *pytest], libraries, arguments.sanitizer_seconds)

    with ThreadPoolExecutor() as pool:
        return dict(zip(SANITIZERS, pool.map(check, SANITIZERS), strict=True))


def benchmarks(libraries: Path, arguments: argparse.Namespace) -> dict:
    """Every op against its baselines; each result is a file of its own beside the report."""
    outcomes = {}
    for op in arguments.ops:
        script = ROOT / "benchmarks" / "ops" / f"bench_{op}.py"
        result = arguments.output.with_name(f"{op.replace('_', '-')}-{arguments.output.name}").resolve()
        options = ["--device", arguments.device, "--rounds", str(arguments.rounds), "--json", str(result)]
        outcome = run([sys.executable, str(script), *options], libraries)
        outcomes[op] = outcome | {"result": result.name if outcome["exit_code"] == 0 else None}
        print("\n".join(outcome["tail"]), file=sys.stderr, flush=True)
    return outcomes


def engines(libraries: Path, arguments: argparse.Namespace) -> list[dict]:
    """Engines built, verified and timed on this device, each in a process of its own: an engine can take one down."""
    backends = ("tensorrt", "tensorrt-rtx") if arguments.device == "cuda" else ("onnxruntime",)
    script = str(Path(__file__).with_name("engine.py"))
    rows = []
    for backend in backends:
        for size in arguments.sizes:
            for precision in PRECISIONS:
                options = ["--backend", backend, "--size", size, "--precision", precision]
                outcome = run([sys.executable, script, *options, "--repeats", str(arguments.repeats)], libraries)
                row = {"backend": backend, "size": size, "precision": precision}
                try:
                    rows.append(row | json.loads(outcome["tail"][-1]))
                except (IndexError, ValueError):
                    rows.append(row | outcome)
                print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    return rows


if __name__ == "__main__":
    main()
