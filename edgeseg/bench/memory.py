"""Peak memory of one system, in a process that does nothing else: `python -m edgeseg.bench.memory < spec.json`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from edgeseg.bench.environment import nvidia_smi
from edgeseg.bench.systems import SystemSpec, open_system
from edgeseg.errors import EdgesegError

RUNS = 3
TIMEOUT_SECONDS = 600


def peak_memory(spec: SystemSpec) -> int:
    """Bytes: resident memory of the process; on a GPU what the device has in use more than before.

    Raises:
        EdgesegError: the process failed, with its last line.
    """
    try:
        process = subprocess.run(
            [sys.executable, "-m", "edgeseg.bench.memory"],
            input=spec.to_json(),
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            env=os.environ | {"PYTHONWARNINGS": "ignore"},
        )
    except subprocess.TimeoutExpired as error:
        raise EdgesegError(f"peak memory: not known after {TIMEOUT_SECONDS} s") from error
    lines = process.stdout.split()
    if process.returncode != 0 or not lines:
        said = process.stderr.strip().rpartition("\n")[2] or f"exit code {process.returncode}"
        raise EdgesegError(f"peak memory: {said}")
    return int(lines[-1])


def main() -> None:
    from edgeseg.bench.inputs import photograph

    spec = SystemSpec.from_json(sys.stdin.read())
    before = _gpu_bytes()
    with open_system(spec) as system:
        images = [photograph(spec.size)] * spec.batch
        for _ in range(RUNS):
            system(images)
        after = _gpu_bytes()
    on_gpu = before is not None and after is not None and after > before
    print(after - before if on_gpu else _peak_resident_bytes())  # type: ignore[operator]


def _peak_resident_bytes() -> int:
    """Of this process since it began to run this program. `getrusage` would count the parent's memory in as well, which
    a child holds between fork and exec."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM:")).split()[1])
    except (OSError, StopIteration):
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _gpu_bytes() -> int | None:
    """What all processes hold of the first GPU."""
    used = (nvidia_smi() or {}).get("memory.used", "").split()
    return int(used[0]) << 20 if used and used[0].isdigit() else None


if __name__ == "__main__":
    main()
