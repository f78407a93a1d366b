"""OpenVINO on x86 CPUs: engine.xml and engine.bin, made from the ONNX without changing a weight."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeseg.backends.base import (
    Backend,
    BackendStatus,
    BuildRequest,
    EngineFiles,
    Session,
    check_threads,
    engine_path,
    precision_of,
    remove_files,
)
from edgeseg.errors import BackendError, EngineBuildError
from edgeseg.progress import Progress

if TYPE_CHECKING:
    import openvino

XML, BIN = "engine.xml", "engine.bin"


class OpenVinoBackend(Backend):
    """OpenVINO's CPU plugin. Only the parts that send no telemetry are used: `read_model`, `save_model`."""

    name = "openvino"
    # 2026.4 computes convolutions of signed INT8 behind a concatenation wrongly, by tens of percent
    int8_exclude_behind = ("Concat",)

    def probe(self) -> BackendStatus:
        try:
            import openvino
        except (ImportError, OSError) as error:
            return BackendStatus(False, False, False, reason=f"not installed ({error}); pip install openvino")
        version = openvino.__version__.partition("-")[0]  # "2026.4.1-21234-abc": the rest names the commit
        if platform.machine().lower() not in ("x86_64", "amd64"):
            reason = f"for x86 CPUs, this is {platform.machine()}; use onnxruntime"
            return BackendStatus(True, False, False, version, reason)
        return BackendStatus(True, True, True, version)

    def build(self, request: BuildRequest, folder: Path, progress: Progress = Progress()) -> EngineFiles:
        self._refuse_options(request)
        self.require("can_build")
        import openvino

        try:
            with progress.task("convert for OpenVINO"):
                model = _core().read_model(request.onnx_path)
                openvino.save_model(model, folder / XML, compress_to_fp16=False)  # precision is the ONNX's business
        except BaseException as error:
            remove_files(folder / XML, folder / BIN)
            if isinstance(error, RuntimeError | OSError):
                raise EngineBuildError(f"OpenVINO cannot build {request.onnx_path}: {_last_line(error)}") from error
            raise
        return EngineFiles(XML, (XML, BIN))

    def open(
        self, folder: Path, main: str, manifest: Mapping[str, Any] | None = None, *, threads: int | None = None
    ) -> OpenVinoSession:
        check_threads(threads)
        self.require("can_run")
        path = engine_path(folder, main)
        engine_path(folder, Path(main).with_suffix(".bin").name)
        try:
            model = _core().read_model(path)
            return OpenVinoSession(_core().compile_model(model, "CPU", _config(precision_of(manifest), threads)))
        except RuntimeError as error:
            raise BackendError(f"OpenVINO cannot load {path}: {_last_line(error)}") from error

    def identity(self) -> dict[str, str]:
        return {"backend": self.name, "version": self.require("can_run").version}

    def slow_at(self, precision: str) -> str:
        if precision == "int8" and not _int8_is_exact():
            return "this CPU's int8 products saturate (no VNNI), so it would compute INT8 in float"
        return ""


class OpenVinoSession(Session):
    """A compiled model and its one inference request."""

    def __init__(self, compiled: openvino.CompiledModel):
        if len(compiled.inputs) != 1 or len(compiled.outputs) != 1:
            found = f"{len(compiled.inputs)} and {len(compiled.outputs)}"
            raise BackendError(f"wanted an engine with one input and one output, got {found}")
        port = compiled.inputs[0]
        shape = tuple(size.get_length() if size.is_static else None for size in port.get_partial_shape())
        super().__init__("openvino", port.get_any_name(), shape)
        self._compiled: openvino.CompiledModel | None = compiled
        self._request = compiled.create_infer_request()

    def _infer(self, images: np.ndarray) -> np.ndarray:
        try:
            return self._request.infer([images], share_inputs=True)[0]  # the output is a copy
        except RuntimeError as error:
            raise BackendError(f"OpenVINO failed: {_last_line(error)}") from error

    def layers(self) -> list[dict[str, Any]]:
        """{"name", "type", "precision", "onnx"} of each layer as executed."""
        assert self._compiled
        layers = []
        for node in self._compiled.get_runtime_model().get_ordered_ops():
            info = node.get_rt_info()
            kind = info["layerType"].astype(str)
            if kind in ("Const", "Input", "Output"):
                continue
            layers.append(
                {
                    "name": node.get_friendly_name(),
                    "type": kind,
                    "precision": info["runtimePrecision"].astype(str),
                    "onnx": info["originalLayersNames"].astype(str),
                }
            )
        return layers

    def _close(self) -> None:
        self._compiled = self._request = None


def _config(precision: str, threads: int | None) -> dict[str, Any]:
    config: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
    if threads is not None:
        config["INFERENCE_NUM_THREADS"] = threads
    if precision == "fp32":
        config["INFERENCE_PRECISION_HINT"] = "f32"  # else it computes in bf16 on CPUs that have it
    if precision == "int8" and not _int8_is_exact():
        config["LP_TRANSFORMS_MODE"] = "NO"
    return config


@cache
def _core() -> openvino.Core:
    import openvino

    return openvino.Core()


@cache
def _int8_is_exact() -> bool:
    """Whether this CPU's int8 products are right, found by trying one.

    x86 without VNNI sums two int8 products in 16 bits, which saturate: outputs are wrong by tens of percent, with no
    error. Where that is so, the network runs in float with its rounding to 8 bits kept: right, and slower than FP32.
    """
    import openvino
    from openvino import opset8 as ops

    size = 64
    images = ops.parameter([1, size], np.float32)
    low, high = np.float32(-128), np.float32(127)
    activations = ops.fake_quantize(images, low, high, low, high, 256)
    weights = ops.fake_quantize(np.full((size, size), 127, np.float32), low, high, low, high, 256)
    model = openvino.Model([ops.matmul(activations, weights, False, True)], [images], "int8")
    compiled = _core().compile_model(model, "CPU", {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"})
    found = compiled(np.full((1, size), 127, np.float32))[0]
    return bool(np.allclose(found, 127 * 127 * size, rtol=1e-3))


def _last_line(error: BaseException) -> str:
    """OpenVINO's messages are a chain of source locations; the last line says what happened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
