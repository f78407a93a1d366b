"""What TensorRT and TensorRT-RTX share as backends; `tensorrt.py` and `tensorrt_rtx.py` say what differs."""

from __future__ import annotations

import importlib
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from edgeseg.backends.base import (
    Backend,
    BackendStatus,
    BuildRequest,
    EngineFiles,
    Session,
    check_threads,
    engine_path,
)
from edgeseg.backends.cuda_driver import driver_package, open_driver
from edgeseg.backends.gpu import Gpu, find_gpu
from edgeseg.errors import BackendError
from edgeseg.progress import Progress

ENGINE = "engine.plan"
# A limit and no reservation. Jetson's GPU shares the host's memory: builds without a limit get killed there.
MAX_WORKSPACE_BYTES = 4 << 30


class TrtBackend(Backend):
    """Builder and runtime over one imported module."""

    module_name: str  # "tensorrt"
    title: str  # "TensorRT"
    package: str  # what pip installs
    needs_gpu_to_build: bool
    oldest: tuple[int, int]  # version that is supported
    int8_high_precision = "fp16"

    def probe(self) -> BackendStatus:
        try:
            module = self._import()
        except BackendError as error:
            return BackendStatus(False, False, False, reason=str(error))
        version = module.__version__
        if version_tuple(version) < self.oldest:
            oldest = ".".join(map(str, self.oldest))
            return BackendStatus(
                True, False, False, version, f"version {version} is too old; it needs {oldest} or newer"
            )
        gpu, reason = find_gpu()
        if gpu:
            reason = self.refuses(gpu)
            if not reason and not driver_package():
                reason = f"no package reaches the GPU {gpu.name}; pip install cuda-bindings (or pycuda)"
        can_build = gpu is not None or not self.needs_gpu_to_build
        return BackendStatus(True, can_build, not reason, version, reason, self.version_warnings(version, gpu))

    def build(self, request: BuildRequest, folder: Path, progress: Progress = Progress()) -> EngineFiles:
        self._check_request(request)
        status = self.require("can_build")
        from edgeseg.backends.trt_process import builder_request, run_builder

        gpu, _ = find_gpu()
        workspace_bytes = request.workspace_bytes or default_workspace_bytes(gpu)
        arguments = builder_request(self.module_name, request, folder / ENGINE, workspace_bytes)
        arguments["timing_cache"] = self.timing_cache(request, status.version, gpu)
        details = run_builder(f"{self.title} {status.version}", arguments, progress)
        details["workspace_bytes"] = workspace_bytes
        details["compute_capabilities"] = list(request.compute_capabilities) or ["default"]
        return EngineFiles(ENGINE, (ENGINE,), details)

    def open(
        self, folder: Path, main: str, manifest: Mapping[str, Any] | None = None, *, threads: int | None = None
    ) -> Session:
        check_threads(threads)  # a GPU has no use for them
        from edgeseg.backends.trt_runtime import check_plan, open_engine

        module = self._import()
        path = engine_path(folder, main)
        check_plan(module, path)
        self.require("can_run")
        return open_engine(module, self.name, path, open_driver())

    def identity(self) -> dict[str, str]:
        try:
            version = self._import().__version__
        except BackendError as error:
            raise BackendError(f"the backend {self.name} is not here: {error}") from error
        return {
            "backend": self.name,
            "package": self.module_name,
            "version": version,
            "platform": f"{platform.system().lower()}-{platform.machine()}",
        }

    def refuses(self, gpu: Gpu) -> str:
        """Why the library runs nothing on this GPU; "" where it does."""
        return ""

    def version_warnings(self, version: str, gpu: Gpu | None) -> tuple[str, ...]:
        """Known faults of this version on this GPU."""
        return ()

    def timing_cache(self, request: BuildRequest, version: str, gpu: Gpu | None) -> str | None:
        """File in which measured kernel times live between builds; None where the library has no use for one."""
        return None

    def _check_request(self, request: BuildRequest) -> None:
        if request.workspace_bytes is not None and request.workspace_bytes < 1:
            raise ValueError(f"workspace_bytes must be at least 1, got {request.workspace_bytes}")
        if request.optimization_level is not None and not 0 <= request.optimization_level <= 5:
            raise ValueError(f"optimization_level must be from 0 to 5, got {request.optimization_level}")
        check_threads(request.threads)

    def _import(self) -> ModuleType:
        """The library; BackendError where it is missing, or broken, which a container on another JetPack can be."""
        try:
            module = importlib.import_module(self.module_name)
            module.__version__  # noqa: B018  a folder of that name imports too
        except (ImportError, OSError, AttributeError) as error:
            raise BackendError(f"not installed ({error}); pip install {self.package}") from error
        return module


def version_tuple(version: str) -> tuple[int, ...]:
    """(10, 16, 1, 11) of "10.16.1.11"; letters are dropped."""
    return tuple(int("".join(filter(str.isdigit, part)) or 0) for part in version.split("."))


def default_workspace_bytes(gpu: Gpu | None) -> int:
    """A quarter of the GPU's memory, and no more than MAX_WORKSPACE_BYTES."""
    return min(gpu.memory_bytes // 4, MAX_WORKSPACE_BYTES) if gpu else MAX_WORKSPACE_BYTES


def cache_folder() -> Path:
    """Where this user's caches live: XDG_CACHE_HOME, or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgeseg"
