"""TensorRT for RTX: builds without a GPU, for the RTX cards it is told of; kernels are chosen where it runs."""

from __future__ import annotations

from edgeseg.backends.base import BuildRequest
from edgeseg.backends.gpu import Gpu
from edgeseg.backends.trt_backend import TrtBackend

RTX_BEFORE_BLACKWELL = ("7.5", "8.0", "8.6", "8.9")  # and all from 12.0 on; not Orin, Hopper, B200 or Thor


class TensorRtRtxBackend(TrtBackend):
    """`tensorrt-rtx-cu13` from PyPI, on x86-64."""

    name = "tensorrt-rtx"
    module_name = "tensorrt_rtx"
    title = "TensorRT-RTX"
    package = "tensorrt-rtx-cu13"
    needs_gpu_to_build = False
    oldest = (1, 4)

    def refuses(self, gpu: Gpu) -> str:
        capability = gpu.compute_capability
        if capability in RTX_BEFORE_BLACKWELL or int(capability.partition(".")[0]) >= 12:
            return ""
        return f"TensorRT-RTX is for RTX cards and runs nothing on {gpu.name} (compute capability {capability})"

    def _check_request(self, request: BuildRequest) -> None:
        self._refuse_options(request, "compute_capabilities", "workspace_bytes", "optimization_level", "threads")
        super()._check_request(request)
