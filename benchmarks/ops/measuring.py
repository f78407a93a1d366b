"""What the benchmarks of the ops share: side-by-side timing on CPU and CUDA, the memory roof, the environment.

times = side_by_side({"edgeseg": ours, "torch": theirs}, rounds=7, device="cuda", cold=True)
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from edgeseg import kernels

Method = Callable[[], object]
CACHE_BYTES = 256 << 20  # more than any last-level cache here: streaming through so much leaves nothing warm
SETTLE = 0.2  # seconds; the threads of the method before spin for a while and would take cores from the next
HEAD_START = 1_000_000  # cycles that a GPU waits before a timed call, in which the whole of it is queued
REPEATS = 5  # timed calls of one method in a row: a round of one call each would time cold code


def side_by_side(
    methods: Mapping[str, Method], *, rounds: int, device: str = "cpu", cold: bool = False
) -> dict[str, list[float]]:
    """Milliseconds of every call of every method; methods take turns, so that drift meets all alike.

    Args:
        methods: each already bound to its own tensors.
        rounds: timed rounds of `REPEATS` calls each; one more comes before them to warm up.
        device: "cpu", or "cuda" for CUDA events on the current stream: the GPU's own time, without Python's.
        cold: stream through `CACHE_BYTES` before every call, so that the inputs come from memory.
    """
    times: dict[str, list[float]] = {name: [] for name in methods}
    junk = torch.zeros(CACHE_BYTES // 4, device=device) if cold else None
    once = _once_on_cuda if device == "cuda" else _once_on_cpu
    for round_number in range(rounds + 1):
        for name, method in methods.items():
            if device == "cpu":
                time.sleep(SETTLE)
            for _ in range(REPEATS):
                if junk is not None:
                    junk.add_(1)
                elapsed = once(method)
                if round_number:
                    times[name].append(elapsed)
    return times


def _once_on_cpu(method: Method) -> float:
    begin = time.perf_counter()
    method()
    return 1000 * (time.perf_counter() - begin)


def _once_on_cuda(method: Method) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda._sleep(HEAD_START)
    begin.record()
    method()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end)


def compiled(function: Callable) -> Callable:
    """torch.compile of one graph; what earlier cases compiled is forgotten, since dynamo keeps only so many shapes."""
    torch.compiler.reset()
    return torch.compile(function, fullgraph=True, dynamic=False)


def summary(times: Mapping[str, list[float]]) -> dict[str, dict[str, float]]:
    """p50, p25 and p75 in milliseconds, and the least."""
    return {
        name: dict(zip(("p25", "p50", "p75"), statistics.quantiles(values, n=4), strict=True)) | {"min": min(values)}
        for name, values in times.items()
    }


def roof_gb_per_s(num_bytes: int, device: str = "cpu", cold: bool = False) -> float:
    """Gigabytes per second of torch's plain copy at its best, moving `num_bytes` in all: what memory can do."""
    source = torch.zeros(max(num_bytes // 2, 1), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    times = side_by_side({"copy": lambda: target.copy_(source)}, rounds=5, device=device, cold=cold)["copy"]
    return num_bytes / min(times) / 1e6


def memory_table(rows: list[dict], *columns: str) -> str:
    """Markdown of memory-bound ops; "of the roof" is the share of a plain copy's speed on as many bytes."""
    heads = (*columns, "cache", "edgeseg ms", *(f"vs {name}" for name in rows[0]["ratio"]), "of the roof")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in rows:
        ours = min(value["p50"] for name, value in row["latency_ms"].items() if name.startswith("edgeseg"))
        cells = [*(row[column] for column in columns), "cold" if row["cold"] else "warm", f"{ours:.3f}"]
        cells += [*(f"{ratio:.1f}x" for ratio in row["ratio"].values())]
        cells += [f"{row['gb_per_s'] / row['roof_gb_per_s']:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that all of them have."""
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads of every method")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--json", type=Path, help="where to write the result")


def environment(device: str, threads: int) -> dict[str, object]:
    """What a result must say about where it was measured."""
    described: dict[str, object] = {
        "machine": platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": device,
    }
    if device == "cuda":
        return described | {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda, "driver": driver_state()}
    return described | {"instruction_set": kernels.cpu_instruction_set(), "threads": threads}


def driver_state() -> str | None:
    """Name, driver, clocks, power limit and temperature, as nvidia-smi tells them; None without it."""
    fields = "name,driver_version,clocks.sm,clocks.mem,power.limit,temperature.gpu"
    try:
        done = subprocess.run(["nvidia-smi", f"--query-gpu={fields}", "--format=csv"], capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.strip()


def write(path: Path | None, device: str, threads: int, rows: list[dict]) -> None:
    """The result as JSON, where one is wanted."""
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"environment": environment(device, threads), "rows": rows}, indent=2) + "\n")
