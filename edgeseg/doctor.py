"""What this machine can build and run: `edgeseg doctor`."""

import os
import platform
import shutil
import subprocess
from pathlib import Path

from edgeseg import kernels
from edgeseg.backends import BACKENDS, choose_backend
from edgeseg.errors import BackendError


def examine() -> dict:
    """The JSON document of `edgeseg doctor`."""
    backends: dict[str, dict] = {}
    warnings: list[str] = []
    for name, backend in BACKENDS.items():
        status = backend.probe()
        backends[name] = {
            "usable": status.can_run,
            "can_build": status.can_build,
            "version": status.version,
            "reason": status.reason,
        }
        warnings += status.warnings
    try:
        chosen, reason = choose_backend("auto", to_build=True)
        auto: dict[str, str | None] = {"backend": chosen.name, "reason": reason}
    except BackendError as error:
        auto = {"backend": None, "reason": str(error)}
    return {
        "backends": backends,
        "kernels": kernels.status(),
        "devices": [_cpu(), *_gpus()],
        "warnings": warnings,
        "auto": auto,
    }


def _cpu() -> dict:
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    except OSError:
        pass
    vectors = kernels.cpu_instruction_set() if kernels.available() else "no kernel library"
    return {"kind": "cpu", "name": name, "detail": f"{os.cpu_count()} threads, {vectors}"}


def _gpus() -> list[dict]:
    """NVIDIA GPUs as the driver's own tool names them; none where there is no driver."""
    if not shutil.which("nvidia-smi"):
        return []
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        lines = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return []
    return [
        {"kind": "gpu", "name": line.split(",")[0].strip(), "detail": line.partition(",")[2].strip()} for line in lines
    ]
