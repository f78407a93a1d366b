"""Energy from files as the kernel lays them out, and from nowhere."""

import time
from pathlib import Path

import pytest

from edgeseg.bench import sensors
from edgeseg.errors import EdgesegError


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch) -> Path:
    """A machine without any sensor."""
    for name in ("POWERCAP", "HWMON"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(sensors, name, tmp_path / name)
    return tmp_path


def write(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(f"{content}\n")


def test_no_sensor_is_none():
    assert sensors.find_energy_sensor() is None


def test_rapl_counts_microjoules_of_packages_and_wraps(machine):
    package, core = machine / "POWERCAP" / "intel-rapl:0", machine / "POWERCAP" / "intel-rapl:0:0"
    write(package, energy_uj=9_000_000, max_energy_range_uj=9_999_999)
    write(core, energy_uj=5, max_energy_range_uj=9)  # part of the package: not added
    sensor = sensors.find_energy_sensor()
    assert sensor and sensor.name == "RAPL"
    before = sensor.joules()
    write(package, energy_uj=9_500_000)
    assert sensor.joules() - before == pytest.approx(0.5)
    write(package, energy_uj=250_000)  # behind its largest value it began again
    assert sensor.joules() - before == pytest.approx(1.25)


def test_rapl_without_permission_is_no_sensor(machine):
    write(machine / "POWERCAP" / "intel-rapl:0", max_energy_range_uj=9_999_999)  # energy_uj is root's
    assert sensors.find_energy_sensor() is None


def test_a_jetson_has_the_rail_of_the_module_and_no_part_of_it(machine):
    device = machine / "HWMON" / "hwmon3"
    write(device, in1_label="VDD_CPU_GPU_CV", in1_input=5000, curr1_input=9000)
    assert sensors.find_energy_sensor() is None
    write(device, in2_label="VDD_IN", in2_input=5000, curr2_input=2000)  # 5 V times 2 A
    sensor = sensors.find_energy_sensor(gpu=True)
    assert sensor and sensor.name == "INA3221 VDD_IN"
    begin, first = time.monotonic(), sensor.joules()
    joules, runs = sensor.of(lambda: time.sleep(0.01), 0.1)
    assert runs >= 1
    assert joules == pytest.approx(10 * (time.monotonic() - begin), rel=0.5)
    assert first < sensor.joules()
    (device / "curr2_input").unlink()
    with pytest.raises(EdgesegError, match="stopped answering; measure with --energy-seconds 0"):
        sensor.joules()
    sensor.close()


def test_it_runs_at_least_once():
    counter = iter(range(10))
    sensor = sensors.EnergySensor("test", "nothing", lambda: float(next(counter)))
    calls: list[int] = []
    assert sensor.of(lambda: calls.append(1), 0) == (1.0, 1)
    assert calls == [1]


def test_the_driver_is_asked_by_the_names_that_it_knows(tmp_path, monkeypatch):
    from edgeseg.bench.environment import nvidia_smi

    tool = tmp_path / "nvidia-smi"  # as drivers before 535: the new name is refused
    tool.write_text(
        '#!/bin/sh\ncase "$1" in *event_reasons*) exit 2;; *throttle_reasons*) echo 0x0000000000000004;;'
        " *) echo 'A GPU, 1.0, 300 W, 40 W, 1000 MHz, 2000 MHz, 1500 MHz, 50, Enabled, 512 MiB';; esac\n"
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    state = nvidia_smi()
    assert state and state["name"] == "A GPU" and state["memory.used"] == "512 MiB"
    assert state["clocks_throttle_reasons.active"] == "0x0000000000000004"
