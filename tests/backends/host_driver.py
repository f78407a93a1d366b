"""The CUDA driver's interface on host memory: what the runtime does with addresses and copies, without a GPU."""

import ctypes
import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from edgeseg.backends.cuda_driver import CudaDriver
from edgeseg.errors import BackendError


class HostDriver(CudaDriver):
    """Copies are queued and happen at `synchronize`, as late as a GPU may do them."""

    name = "host"

    def __init__(self) -> None:
        self.memory: dict[int, ctypes.Array] = {}
        self.pinned: list[np.ndarray] = []
        self.queues: dict[int, list] = {}
        self.depth = 0

    @contextmanager
    def active(self) -> Iterator[None]:
        self.depth += 1
        try:
            yield
        finally:
            self.depth -= 1

    def allocate(self, size_bytes: int) -> int:
        assert self.depth
        buffer = (ctypes.c_ubyte * size_bytes)(*([0xFF] * size_bytes))  # NaN until written
        address = ctypes.addressof(buffer)
        self.memory[address] = buffer
        return address

    def free(self, address: int) -> None:
        del self.memory[address]

    def allocate_pinned(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        self.pinned.append(
            np.frombuffer(bytearray(b"\xff" * (dtype.itemsize * math.prod(shape))), dtype).reshape(shape)
        )
        return self.pinned[-1]

    def free_pinned(self, array: np.ndarray) -> None:
        self.pinned = [other for other in self.pinned if other is not array]

    def create_stream(self) -> int:
        self.queues[len(self.queues) + 1] = []
        return len(self.queues)

    def destroy_stream(self, stream: int) -> None:
        del self.queues[stream]

    def copy_to_device(self, address: int, array: np.ndarray, stream: int) -> None:
        assert any(array is other for other in self.pinned) and array.nbytes <= len(self.memory[address])
        self.queues[stream].append(lambda: ctypes.memmove(address, array.ctypes.data, array.nbytes))

    def copy_to_host(self, array: np.ndarray, address: int, stream: int) -> None:
        assert any(array is other for other in self.pinned) and array.nbytes <= len(self.memory[address])
        self.queues[stream].append(lambda: ctypes.memmove(array.ctypes.data, address, array.nbytes))

    def synchronize(self, stream: int) -> None:
        for work in self.queues[stream]:
            try:
                work()
            except RuntimeError as error:
                raise BackendError(f"CUDA failed: {error}") from error
        self.queues[stream].clear()
