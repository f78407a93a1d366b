"""TensorRT for RTX: builds without a GPU, for the RTX cards it is told of; kernels are chosen where it runs."""

from __future__ import annotations

from edgeseg.backends.base import BuildRequest
from edgeseg.backends.gpu import Gpu
from edgeseg.backends.trt_backend import TrtBackend


class TensorRtRtxBackend(TrtBackend):
    """`tensorrt-rtx-cu13` from PyPI, on x86-64."""

    name = "tensorrt-rtx"
    module_name = "tensorrt_rtx"
    title = "TensorRT-RTX"
    package = "tensorrt-rtx-cu13"
    needs_gpu_to_build = False
    oldest = (1, 4)

    def version_warnings(self, version: str, gpu: Gpu | None) -> tuple[str, ...]:
        if gpu and gpu.compute_capability in ("8.7", "9.0", "10.0", "11.0"):
            return (f"TensorRT-RTX is for RTX cards, not for compute capability {gpu.compute_capability}",)
        return ()

    def _check_request(self, request: BuildRequest) -> None:
        self._refuse_options(request, "compute_capabilities", "workspace_bytes", "optimization_level", "threads")
        super()._check_request(request)
