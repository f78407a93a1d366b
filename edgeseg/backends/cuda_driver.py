"""The little of CUDA that running an engine takes, over cuda-python or over pycuda, whichever is installed.

Both work in the device's primary context, which TensorRT, torch and our own kernels share. (pycuda's `autoinit` makes a
context of its own, in which the others' handles are invalid; it is not used.)
"""

from __future__ import annotations

import ctypes
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from edgeseg.backends.gpu import find_gpu
from edgeseg.errors import BackendError


class CudaDriver(ABC):
    """Memory and streams of the first visible GPU. Addresses and stream handles are plain integers.

    Every call belongs inside `with driver.active():`, which makes the context current on this thread.
    """

    name: str

    @abstractmethod
    def active(self) -> Any:
        """Context manager: the primary context is current on the calling thread."""

    @abstractmethod
    def allocate(self, size_bytes: int) -> int:
        """Address of new device memory."""

    @abstractmethod
    def free(self, address: int) -> None:
        """Give device memory back."""

    @abstractmethod
    def allocate_pinned(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """Array in page-locked host memory, which copies need to run asynchronously."""

    @abstractmethod
    def free_pinned(self, array: np.ndarray) -> None:
        """Give it back; the array must not be touched again."""

    @abstractmethod
    def create_stream(self) -> int:
        """Handle of a stream that does not wait for the default stream."""

    @abstractmethod
    def destroy_stream(self, stream: int) -> None:
        """Give it back."""

    @abstractmethod
    def copy_to_device(self, address: int, array: np.ndarray, stream: int) -> None:
        """Queue a copy from a pinned array."""

    @abstractmethod
    def copy_to_host(self, array: np.ndarray, address: int, stream: int) -> None:
        """Queue a copy into a pinned array."""

    @abstractmethod
    def synchronize(self, stream: int) -> None:
        """Wait for all that was queued; BackendError if any of it failed."""


class CudaPythonDriver(CudaDriver):
    """NVIDIA's own bindings, package `cuda-bindings`: the runtime API."""

    name = "cuda-python"

    def __init__(self) -> None:
        from cuda.bindings import runtime

        self._cuda = runtime
        with self.active():
            self._call(runtime.cudaFree, 0)  # makes the context now, where its failure has a name

    @contextmanager
    def active(self) -> Iterator[None]:
        self._call(self._cuda.cudaSetDevice, 0)
        yield

    def allocate(self, size_bytes: int) -> int:
        return int(self._call(self._cuda.cudaMalloc, size_bytes))

    def free(self, address: int) -> None:
        self._call(self._cuda.cudaFree, address)

    def allocate_pinned(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        num_bytes = dtype.itemsize * math.prod(shape)
        address = int(self._call(self._cuda.cudaMallocHost, num_bytes))
        return np.ctypeslib.as_array((ctypes.c_ubyte * num_bytes).from_address(address)).view(dtype).reshape(shape)

    def free_pinned(self, array: np.ndarray) -> None:
        self._call(self._cuda.cudaFreeHost, array.ctypes.data)

    def create_stream(self) -> int:
        return int(self._call(self._cuda.cudaStreamCreateWithFlags, self._cuda.cudaStreamNonBlocking))

    def destroy_stream(self, stream: int) -> None:
        self._call(self._cuda.cudaStreamDestroy, stream)

    def copy_to_device(self, address: int, array: np.ndarray, stream: int) -> None:
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call(self._cuda.cudaMemcpyAsync, address, array.ctypes.data, array.nbytes, kind, stream)

    def copy_to_host(self, array: np.ndarray, address: int, stream: int) -> None:
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call(self._cuda.cudaMemcpyAsync, array.ctypes.data, address, array.nbytes, kind, stream)

    def synchronize(self, stream: int) -> None:
        self._call(self._cuda.cudaStreamSynchronize, stream)

    def _call(self, function: Any, *arguments: Any) -> Any:
        """The result behind the status, which these bindings return and never raise."""
        status, *results = function(*arguments)
        if status != self._cuda.cudaError_t.cudaSuccess:
            _, text = self._cuda.cudaGetErrorString(status)
            reason = text.decode() if isinstance(text, bytes) else text
            raise BackendError(f"CUDA failed in {function.__name__}: {reason}")
        return results[0] if results else None


class PyCudaDriver(CudaDriver):
    """pycuda on the primary context."""

    name = "pycuda"

    def __init__(self) -> None:
        import pycuda.driver
        from pycuda import autoprimaryctx

        self._cuda = pycuda.driver
        self._context = autoprimaryctx.context
        self._alive: dict[int, Any] = {}  # pycuda frees what nobody holds

    @contextmanager
    def active(self) -> Iterator[None]:
        self._context.push()
        try:
            yield
        except self._cuda.Error as error:
            raise BackendError(f"CUDA failed: {error}") from error
        finally:
            self._context.pop()

    def allocate(self, size_bytes: int) -> int:
        memory = self._cuda.mem_alloc(size_bytes)
        self._alive[int(memory)] = memory
        return int(memory)

    def free(self, address: int) -> None:
        self._alive.pop(address).free()

    def allocate_pinned(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        return self._cuda.pagelocked_empty(shape, dtype)

    def free_pinned(self, array: np.ndarray) -> None:
        array.base.free()  # type: ignore[union-attr]  # a PagelockedHostAllocation

    def create_stream(self) -> int:
        stream = self._cuda.Stream(1)  # CU_STREAM_NON_BLOCKING
        self._alive[stream.handle] = stream
        return stream.handle

    def destroy_stream(self, stream: int) -> None:
        del self._alive[stream]

    def copy_to_device(self, address: int, array: np.ndarray, stream: int) -> None:
        self._cuda.memcpy_htod_async(address, array, self._alive[stream])

    def copy_to_host(self, array: np.ndarray, address: int, stream: int) -> None:
        self._cuda.memcpy_dtoh_async(array, address, self._alive[stream])

    def synchronize(self, stream: int) -> None:
        self._alive[stream].synchronize()


DRIVERS: tuple[type[CudaDriver], ...] = (CudaPythonDriver, PyCudaDriver)


def driver_package() -> str:
    """Name of the package that `open_driver` would use, "" when none is installed."""
    for name, module in (("cuda-python", "cuda.bindings.runtime"), ("pycuda", "pycuda.driver")):
        try:
            __import__(module)
        except (ImportError, OSError):
            continue
        return name
    return ""


def open_driver() -> CudaDriver:
    """The first that works.

    Raises:
        BackendError: no GPU or driver, or neither package installed; the reason of each.
    """
    gpu, reason = find_gpu()
    if gpu is None:
        raise BackendError(f"no NVIDIA GPU to run on: {reason}")
    reasons = []
    for driver in DRIVERS:
        try:
            return driver()
        except Exception as error:  # pycuda raises its own kinds from its import on
            reasons.append(f"{driver.name}: {error}")
    raise BackendError(
        f"the GPU {gpu.name} is there, but no package to reach it works ({'; '.join(reasons)}); "
        f"pip install cuda-bindings (or pycuda)"
    )
