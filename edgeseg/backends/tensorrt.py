"""TensorRT 10.3 - 11.x: builds and runs on the GPU at hand, a Jetson's above all."""

from __future__ import annotations

import re

from edgeseg.backends.base import BuildRequest
from edgeseg.backends.gpu import Gpu, find_gpu, is_jetson
from edgeseg.backends.trt_backend import TrtBackend, cache_folder, version_tuple
from edgeseg.errors import BackendError


class TensorRtBackend(TrtBackend):
    """An engine is tuned by timing kernels on this very GPU, and fits it alone."""

    name = "tensorrt"
    module_name = "tensorrt"
    title = "TensorRT"
    package = (
        "tensorrt (on a Jetson: apt install python3-libnvinfer, and a virtual environment with --system-site-packages)"
    )
    needs_gpu_to_build = True
    oldest = (10, 3)

    def identity(self) -> dict[str, str]:
        gpu, reason = find_gpu()
        if gpu is None:
            raise BackendError(f"an engine of TensorRT belongs to one GPU, and none is here: {reason}")
        return {**super().identity(), "gpu": gpu.name, "compute_capability": gpu.compute_capability}

    def version_warnings(self, version: str, gpu: Gpu | None) -> tuple[str, ...]:
        return known_faults(version, gpu, is_jetson())

    def timing_cache(self, request: BuildRequest, version: str, gpu: Gpu | None) -> str | None:
        """One file per version and GPU: TensorRT refuses, or worse believes, one that was made for another."""
        assert gpu
        folder = request.timing_cache or cache_folder() / "timing"
        name = re.sub(r"[^A-Za-z0-9.]+", "-", f"tensorrt-{version}-{gpu.name}-{gpu.compute_capability}")
        return str(folder / f"{name}.cache")

    def _check_request(self, request: BuildRequest) -> None:
        self._refuse_options(request, "workspace_bytes", "optimization_level", "threads", "timing_cache")
        super()._check_request(request)


def known_faults(version: str, gpu: Gpu | None, jetson: bool) -> tuple[str, ...]:
    """Warnings for a supported version, each with its source."""
    parsed = version_tuple(version)
    faults = []
    if parsed < (10, 6):
        faults.append(
            f"TensorRT {version} miscomputes vision transformers in FP16 (NVIDIA/TensorRT#4723, #4742; fixed in 10.6): "
            f"trust an FP16 build only as far as its verification goes"
        )
    if jetson and (11, 0) <= parsed < (11, 4, 1):
        faults.append(f"TensorRT {version} does not support JetPack; use 10.16 (JetPack 7.2) or 11.4.1 (7.2.2)")
    if (10, 16, 2) <= parsed < (10, 17) and gpu and gpu.compute_capability == "8.7":
        faults.append(f"TensorRT {version} refuses some INT8 networks with FP16 on Orin (NVIDIA/TensorRT#4832)")
    return tuple(faults)
