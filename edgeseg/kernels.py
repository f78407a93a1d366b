"""Finds and loads what CMake built: libedgeseg_kernels (ctypes, no torch) and libedgeseg_torch (torch operators).

Both lie in ``edgeseg/lib`` of the installed package. Where they are missing, edgeseg computes the same with numpy or
torch, slower; :func:`status` says what there is.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.metadata
import os
import sys
from collections.abc import Callable
from pathlib import Path

from edgeseg.errors import BackendError, EdgesegError

KERNELS_VERSION = 2
"""The number of ``edgeseg_kernels.h`` that this Python code was written for."""

INSTRUCTION_SETS = {"automatic": 0, "portable": 1, "avx2": 2, "avx512": 3, "lanes16": 4}
"""Names and numbers of ``edgeseg_kernels.h``; "portable" is NEON on AArch64."""

_SUFFIX = {"darwin": ".dylib", "win32": ".dll"}.get(sys.platform, ".so")
_REBUILD = "reinstall edgeseg with a C++ compiler on the PATH (pip install --no-build-isolation -e .)"


class KernelsUnavailableError(EdgesegError):
    """The kernel library is not installed, not loadable here, or of another version than the Python code."""


def library_path(name: str) -> Path | None:
    """Where ``lib<name>`` of this installation lies, or None.

    An editable install keeps compiled files in site-packages and Python files in the checkout, so every folder of the
    package is looked through, and then the installed distribution. Who works on the kernels can point EDGESEG_LIBRARIES
    at a folder of freshly built libraries instead.
    """
    import edgeseg

    if fresh := os.environ.get("EDGESEG_LIBRARIES"):
        path = Path(fresh) / f"lib{name}{_SUFFIX}"
        return path if path.is_file() else None
    folders = [Path(folder) for folder in edgeseg.__path__]
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        folders.append(Path(str(importlib.metadata.distribution("edgeseg").locate_file("edgeseg"))))
    for folder in folders:
        path = folder / "lib" / f"lib{name}{_SUFFIX}"
        if path.is_file():
            return path
    return None


@functools.cache
def _load(name: str = "edgeseg_kernels") -> ctypes.CDLL | str:
    """The library, or why there is none."""
    path = library_path(name)
    if path is None:
        return f"lib{name}{_SUFFIX} is not in this installation; {_REBUILD}"
    try:
        library = ctypes.CDLL(str(path))
        library.edgeseg_kernels_version.restype = ctypes.c_int32
        version = library.edgeseg_kernels_version()
    except (OSError, AttributeError) as error:
        return f"{path} cannot be loaded ({error}); {_REBUILD}"
    if version != KERNELS_VERSION:
        return f"{path} has interface version {version}, this edgeseg wants {KERNELS_VERSION}; {_REBUILD}"
    for text in (library.edgeseg_status_message, library.edgeseg_instruction_set_name, library.edgeseg_cuda_error):
        text.restype = ctypes.c_char_p
    return library


def available() -> bool:
    """Whether the kernel library is here and fits."""
    return not isinstance(_load(), str)


def load(name: str = "edgeseg_kernels") -> ctypes.CDLL:
    """The kernel library; ``edgeseg_emulated`` is the one whose CUDA kernels run on the CPU, for tests.

    Raises:
        KernelsUnavailableError: there is none that fits; the message says what to do.
    """
    library = _load(name)
    if isinstance(library, str):
        raise KernelsUnavailableError(library)
    return library


_TYPES = {"p": ctypes.c_void_p, "q": ctypes.c_int64, "i": ctypes.c_int32, "f": ctypes.c_float}


@functools.cache
def function(name: str, parameters: str, library: str = "edgeseg_kernels") -> Callable[..., int]:
    """A C function that returns a status, for :func:`check`.

    Args:
        name: as in ``edgeseg_kernels.h``.
        parameters: one letter each: p an address, q int64, i int32, f float.
        library: see :func:`load`.
    """
    found = getattr(load(library), name)
    found.argtypes = [_TYPES[letter] for letter in parameters]
    found.restype = ctypes.c_int32
    return found


def check(code: int, what: str) -> None:
    """Raises what a kernel's status means; ``what`` begins the message."""
    if code == 0:
        return
    library = load()
    message = f"{what}: {library.edgeseg_status_message(code).decode()}"
    if code == 3:
        raise MemoryError(message)
    if code == 4:
        raise KernelsUnavailableError(message)
    if code == 5:
        raise BackendError(f"{message}: {library.edgeseg_cuda_error().decode()}")
    raise ValueError(message)


def cpu_instruction_set() -> str:
    """Name of the best vector instructions that this machine and the library share."""
    library = load()
    return library.edgeseg_instruction_set_name(library.edgeseg_cpu_instruction_set()).decode()


@functools.cache
def load_torch_operators() -> str:
    """Loads libedgeseg_torch into torch; "" when its operators are there, otherwise why not.

    Imports torch.
    """
    path = library_path("edgeseg_torch")
    if path is None:
        return f"libedgeseg_torch{_SUFFIX} is not in this installation (edgeseg was built without torch >= 2.10)"
    try:
        import torch

        torch.ops.load_library(str(path))
    except ImportError as error:
        return f"torch cannot be imported ({error})"
    except OSError as error:
        return f"{path} cannot be loaded ({error}); {_REBUILD}"
    return ""


def status() -> dict[str, dict[str, bool | str]]:
    """What was built and works here, for ``edgeseg doctor``.

    Returns:
        ``{"cpu": ..., "cuda": ..., "torch": ...}``, each ``{"available": bool, "detail": str}``. Without "cpu" arrays
        go through numpy; without "torch" tensors go through the "cpu" library, or torch's interpolate and argmax.
    """
    library = _load()
    if isinstance(library, str):
        cpu: dict[str, bool | str] = {"available": False, "detail": f"{library}; falling back to numpy"}
        cuda: dict[str, bool | str] = {"available": False, "detail": "no kernel library"}
    else:
        cpu = {"available": True, "detail": f"{cpu_instruction_set()}, {library_path('edgeseg_kernels')}"}
        cuda = {"available": False, "detail": "this build has no CUDA kernels (nvcc was not found)"}
        if library.edgeseg_has_cuda():
            cuda = {"available": True, "detail": "built; used where torch tensors or an engine are on a GPU"}
    try:
        importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        fault = "torch is not installed"
    else:
        from edgeseg.ops import _torch_upsample_argmax  # declares the schemas that the library implements

        fault = _torch_upsample_argmax.FAULT
    torch_status: dict[str, bool | str] = {
        "available": not fault,
        "detail": fault or str(library_path("edgeseg_torch")),
    }
    return {"cpu": cpu, "cuda": cuda, "torch": torch_status}
