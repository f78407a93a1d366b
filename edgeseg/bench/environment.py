"""What a measurement depends on besides the code: machine, clocks, power mode, load, versions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from edgeseg import kernels
from edgeseg.doctor import examine

CPUS = Path("/sys/devices/system/cpu")
PACKAGES = (
    *("edgeseg", "numpy", "pillow", "torch", "onnx", "onnxruntime", "onnxruntime-gpu", "openvino", "transformers"),
    *("tensorrt", "tensorrt-rtx-cu13", "tensorrt_rtx_cu13", "cuda-bindings", "pycuda"),
)
NVIDIA_SMI = (
    *("name", "driver_version", "power.limit", "power.draw", "clocks.sm", "clocks.mem", "clocks.max.sm"),
    *("temperature.gpu", "persistence_mode", "memory.used"),
)
THROTTLING = ("clocks_event_reasons.active", "clocks_throttle_reasons.active")  # its name in new and in old drivers


def describe_environment(threads: int | None) -> dict[str, Any]:
    """JSON; None where this machine does not tell. `threads`: as the user asked for, None: each system's own choice."""
    report = examine()
    return {
        "devices": report["devices"],
        "cpu": {
            "cores": os.cpu_count(),
            "usable": usable_cores(),
            "threads": threads,
            "governor": _text(CPUS / "cpu0/cpufreq/scaling_governor"),
            "max_mhz": _megahertz(CPUS / "cpu0/cpufreq/cpuinfo_max_freq"),
            **clocks(),
        },
        "gpu": nvidia_smi(),
        "power_mode": {"nvpmodel": _output("nvpmodel", "-q"), "jetson_clocks": _output("jetson_clocks", "--show")},
        "kernels": [name for name, found in report["kernels"].items() if found["available"]],
        "kernel_instructions": kernels.cpu_instruction_set() if kernels.available() else None,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "versions": versions(),
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
    }


def clocks() -> dict[str, Any]:
    """What changes while a benchmark runs; taken before and after it."""
    return {
        "mhz": _current_megahertz(),
        "load_1min": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "throttled": throttle_count(),
    }


def versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package.lower().replace("_", "-")] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def usable_cores() -> int:
    """Cores that this process may run on: a container or taskset can have fewer than the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def throttle_count() -> int | None:
    """How often any core was slowed down for heat since the machine started."""
    counts = [_text(path) for path in CPUS.glob("cpu[0-9]*/thermal_throttle/core_throttle_count")]
    numbers = [int(count) for count in counts if count and count.isdigit()]
    return sum(numbers) if numbers else None


def nvidia_smi() -> dict[str, str] | None:
    """The first GPU's state in the driver's own words; None without one. A driver refuses a query with a field that it
    does not know, so the reasons for slowing down are asked for apart."""
    state = _query_gpu(NVIDIA_SMI)
    if state is None:
        return None
    return state | next((found for name in THROTTLING if (found := _query_gpu((name,)))), {})


def _query_gpu(fields: tuple[str, ...]) -> dict[str, str] | None:
    line = _output("nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader")
    return dict(zip(fields, map(str.strip, line.splitlines()[0].split(",")), strict=False)) if line else None


def _current_megahertz() -> float | None:
    """The highest of the cores' present clocks."""
    kilohertz = [_text(path) for path in CPUS.glob("cpu[0-9]*/cpufreq/scaling_cur_freq")]
    found = [int(value) / 1000 for value in kilohertz if value and value.isdigit()]
    if not found:
        lines = (_text(Path("/proc/cpuinfo")) or "").splitlines()
        found = [float(line.split(":")[1]) for line in lines if line.startswith("cpu MHz")]
    return round(max(found)) if found else None


def _megahertz(path: Path) -> float | None:
    text = _text(path)
    return int(text) / 1000 if text and text.isdigit() else None


def _text(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None


def _output(*command: str) -> str | None:
    """What a tool prints; None where it is missing or fails."""
    if not shutil.which(command[0]):
        return None
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
