"""Backends by name, and the choice of one."""

from edgeseg.backends.base import Backend, BackendStatus, BuildRequest, EngineFiles, Session
from edgeseg.backends.onnxruntime import OnnxRuntimeBackend
from edgeseg.backends.openvino import OpenVinoBackend
from edgeseg.backends.pytorch import TorchBackend
from edgeseg.backends.tensorrt import TensorRtBackend
from edgeseg.backends.tensorrt_rtx import TensorRtRtxBackend
from edgeseg.errors import BackendError

__all__ = ["BACKENDS", "Backend", "BackendStatus", "BuildRequest", "EngineFiles", "Session", "choose_backend"]

# Fastest first: the order in which "auto" looks for one that works here.
BACKENDS: dict[str, Backend] = {
    backend.name: backend
    for backend in (
        TensorRtBackend(),
        TensorRtRtxBackend(),
        OpenVinoBackend(),
        OnnxRuntimeBackend(),
        TorchBackend(),
    )
}

_WHY = {
    "tensorrt": "an NVIDIA GPU with TensorRT",
    "tensorrt-rtx": "an NVIDIA GPU with TensorRT-RTX",
    "openvino": "the fastest on an x86 CPU",
    "onnxruntime": "the fastest of those that work here",
    "torch": "nothing faster is installed",
}


def choose_backend(name: str = "auto", *, to_build: bool = False, precision: str = "fp32") -> tuple[Backend, str]:
    """A backend, and in one line why this one.

    Args:
        name: a key of BACKENDS, which is never replaced by another, or "auto": the fastest that works here.
        to_build: it must be able to build as well; a named one need then not be able to run.
        precision: "auto" passes over a backend that is slow at it on this very machine.

    Raises:
        ValueError: an unknown name.
        BackendError: the named one does not work here, or none does.
    """
    if name == "auto":
        return _fastest(to_build, precision)
    if name not in BACKENDS:
        raise ValueError(f"unknown backend {name!r}; there are auto, {', '.join(BACKENDS)}")
    backend = BACKENDS[name]
    status = backend.require("can_build" if to_build else "can_run")
    return backend, f"{name} {status.version}, as asked for"


def _fastest(to_build: bool, precision: str) -> tuple[Backend, str]:
    reasons, passed_over = [], ""
    for name, backend in BACKENDS.items():
        status = backend.probe()
        if not status.can_run or (to_build and not status.can_build):
            reasons.append(f"{name}: {status.reason}")
        elif slow := backend.slow_at(precision):
            passed_over += f"; not {name}: {slow}"
        else:
            return backend, f"{name} {status.version}: {_WHY[name]}{passed_over}"
    raise BackendError(f"no backend works here ({'; '.join(reasons)}{passed_over}); pip install onnxruntime")
