"""Which NVIDIA GPU is here, asked of the driver itself, so that no package is needed to know."""

import ctypes
from dataclasses import dataclass
from functools import cache
from pathlib import Path

# cuDeviceGetAttribute, cuda.h: CUdevice_attribute
_COMPUTE_CAPABILITY_MAJOR = 75
_COMPUTE_CAPABILITY_MINOR = 76


@dataclass(frozen=True)
class Gpu:
    """The first visible device."""

    name: str  # "NVIDIA GeForce RTX 4070"
    compute_capability: str  # "8.9"
    memory_bytes: int
    driver: str  # CUDA version of the driver: "13.0"


@cache
def find_gpu() -> tuple[Gpu | None, str]:
    """The GPU, or None and the reason."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None, "no NVIDIA driver (libcuda.so.1 is not on this machine)"
    try:
        return _query(cuda), ""
    except _DriverError as error:
        return None, str(error)


def is_jetson() -> bool:
    """Whether this is an NVIDIA Jetson: its Linux for Tegra leaves this file."""
    return Path("/etc/nv_tegra_release").exists()


class _DriverError(Exception):
    pass


def _query(cuda: ctypes.CDLL) -> Gpu:
    _call(cuda, "cuInit", 0)
    count, device, value = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    _call(cuda, "cuDeviceGetCount", ctypes.byref(count))
    if count.value == 0:
        raise _DriverError("the NVIDIA driver sees no GPU (is CUDA_VISIBLE_DEVICES set?)")
    _call(cuda, "cuDeviceGet", ctypes.byref(device), 0)
    name = ctypes.create_string_buffer(256)
    _call(cuda, "cuDeviceGetName", name, len(name), device)
    memory = ctypes.c_size_t()
    _call(cuda, "cuDeviceTotalMem_v2", ctypes.byref(memory), device)
    capability = []
    for attribute in (_COMPUTE_CAPABILITY_MAJOR, _COMPUTE_CAPABILITY_MINOR):
        _call(cuda, "cuDeviceGetAttribute", ctypes.byref(value), attribute, device)
        capability.append(str(value.value))
    _call(cuda, "cuDriverGetVersion", ctypes.byref(value))
    driver = f"{value.value // 1000}.{value.value % 1000 // 10}"
    return Gpu(name.value.decode(), ".".join(capability), memory.value, driver)


def _call(cuda: ctypes.CDLL, function: str, *arguments: object) -> None:
    status = getattr(cuda, function)(*arguments)
    if status != 0:
        # 100 CUDA_ERROR_NO_DEVICE, 803 CUDA_ERROR_SYSTEM_DRIVER_MISMATCH, ...: cuda.h, CUresult
        known = {100: "no GPU", 803: "driver and kernel module differ; restart the machine", 999: "unknown error"}
        raise _DriverError(f"the NVIDIA driver does not work: {function} says {known.get(status, f'error {status}')}")
