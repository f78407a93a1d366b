"""Energy of the device, where it has a sensor that answers; None everywhere else, never 0."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from edgeseg.errors import EdgesegError

POWERCAP = Path("/sys/class/powercap")
HWMON = Path("/sys/class/hwmon")
# The rail of the whole module first. VDD_CPU_GPU_CV and VDD_SOC are parts of it: adding them would count twice.
JETSON_RAILS = ("VDD_IN", "POM_5V_IN")
SAMPLES_PER_SECOND = 20


@dataclass(frozen=True)
class EnergySensor:
    """A counter of joules that grows: only differences mean anything."""

    name: str
    measures: str  # what is inside the figure
    joules: Callable[[], float]
    close: Callable[[], None] = lambda: None

    def of(self, run: Callable[[], object], seconds: float) -> tuple[float, int]:
        """Joules and how often `run` ran, for at least so long. Idle power is included: it is there on the device."""
        begin, end, runs = self.joules(), time.monotonic() + seconds, 0
        while runs == 0 or time.monotonic() < end:
            run()
            runs += 1
        return self.joules() - begin, runs


def find_energy_sensor(*, gpu: bool = False) -> EnergySensor | None:
    """The sensor of the whole Jetson module, of the NVIDIA GPU (`gpu`: the systems run there), or of the CPU package.

    A value is asked for before one is believed: on Jetsons NVML starts but answers nothing.
    """
    jetson = _jetson()
    if jetson:
        return jetson
    return _nvml() if gpu else _rapl()


def _jetson() -> EnergySensor | None:
    """INA3221 (kernel documentation, hwmon/ina3221): in<n>_input in mV times curr<n>_input in mA."""
    for device in sorted(HWMON.glob("hwmon*")):
        for label in sorted(device.glob("in*_label")):
            number = label.name.removeprefix("in").removesuffix("_label")
            volts, amperes = device / f"in{number}_input", device / f"curr{number}_input"
            name = _text(label)
            if name in JETSON_RAILS and _number(volts) is not None and _number(amperes) is not None:
                power = _Integrator(partial(_watts, volts, amperes))
                return EnergySensor(f"INA3221 {name}", "the whole module", power.joules, power.close)
    return None


def _rapl() -> EnergySensor | None:
    """The CPU packages' counters; readable by root alone on most systems since 2020."""
    counters = [
        (path / "energy_uj", wrap)
        for path in sorted(POWERCAP.glob("intel-rapl:*"))
        if ":" not in path.name.removeprefix("intel-rapl:")  # domains of a package are part of it
        and _number(path / "energy_uj") is not None
        and (wrap := _number(path / "max_energy_range_uj")) is not None
    ]
    if not counters:
        return None
    total = _Wrapping([(partial(_reading, path), wrap) for path, wrap in counters])
    return EnergySensor("RAPL", "the CPU packages, without memory and the rest of the machine", total.joules)


def _nvml() -> EnergySensor | None:
    """nvmlDeviceGetTotalEnergyConsumption: millijoules since the driver was loaded; Volta and newer."""
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return None
    device, energy = ctypes.c_void_p(), ctypes.c_ulonglong()

    def read() -> int:
        status: int = nvml.nvmlDeviceGetTotalEnergyConsumption(device, ctypes.byref(energy))
        return status

    if nvml.nvmlInit_v2() or nvml.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(device)) or read():
        return None

    def joules() -> float:
        read()
        return energy.value / 1000

    return EnergySensor("NVML", "the GPU's board", joules, lambda: nvml.nvmlShutdown() and None)


class _Wrapping:
    """Counters of microjoules that begin again at 0 behind their largest value, as one that only grows."""

    def __init__(self, counters: list[tuple[Callable[[], float], float]]):
        self._counters = counters
        self._last = [read() for read, _ in counters]
        self._total = 0.0

    def joules(self) -> float:
        for i, (read, wrap) in enumerate(self._counters):
            now = read()
            self._total += (now - self._last[i]) % (wrap + 1)
            self._last[i] = now
        return self._total / 1e6


class _Integrator:
    """Watts sampled by a thread, summed to joules by trapezoids."""

    def __init__(self, watts: Callable[[], float]):
        self._watts = watts
        self._total = 0.0
        self._last = (time.monotonic(), watts())
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def joules(self) -> float:
        with self._lock:
            now = (time.monotonic(), self._watts())
            self._total += (now[0] - self._last[0]) * (now[1] + self._last[1]) / 2
            self._last = now
            return self._total

    def close(self) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(1 / SAMPLES_PER_SECOND):
            self.joules()


def _watts(millivolts: Path, milliamperes: Path) -> float:
    return _reading(millivolts) * _reading(milliamperes) / 1e6


def _reading(path: Path) -> float:
    """Of a sensor that answered when it was found; one that stops is a failed measurement, not 0."""
    value = _number(path)
    if value is None:
        raise EdgesegError(f"the energy sensor {path} stopped answering; measure with --energy-seconds 0")
    return value


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _number(path: Path) -> float | None:
    try:
        return float(_text(path))
    except ValueError:
        return None
