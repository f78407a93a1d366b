"""ONNX Runtime: the bundle's own model.onnx on the CPU, or on an NVIDIA GPU where onnxruntime-gpu is installed."""

from __future__ import annotations

from collections.abc import Mapping
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
)
from edgeseg.backends.gpu import find_gpu
from edgeseg.errors import BackendError, EngineBuildError
from edgeseg.progress import Progress

if TYPE_CHECKING:
    import onnx
    import onnxruntime


# Fusing a quantised MatMul with its float bias makes a Gemm, which has no INT8 kernel for one: it would run in float.
DISABLED_OPTIMIZERS = {"int8": ["MatMulAddFusion"]}
# Rounds the float bias of a quantised convolution to 32-bit steps of input scale x weight scale. Its own INT8 kernels
# need that, and `quantize` keeps such biases within 32 bits. A float16 step, though, is 0 or far too coarse.
BIAS_ROUNDING = "WeightBiasQuantization"


class OnnxRuntimeBackend(Backend):
    """The embedded default: any CPU, Arm included, from one file that every machine can read."""

    name = "onnxruntime"

    def probe(self) -> BackendStatus:
        try:
            import onnxruntime
        except (ImportError, OSError) as error:
            return BackendStatus(False, False, False, reason=f"not installed ({error}); pip install onnxruntime")
        return BackendStatus(True, True, True, onnxruntime.__version__)

    def build(self, request: BuildRequest, folder: Path, progress: Progress = Progress()) -> EngineFiles:
        """The engine is the ONNX itself: the runtime optimises it for the CPU at hand in a fraction of a second when it
        is loaded, and a file optimised here would be tied to this CPU's instructions."""
        self._refuse_options(request)
        self.require("can_build")
        if request.onnx_path.resolve().parent != folder.resolve():
            raise ValueError(f"the ONNX must lie in the bundle {folder}, got {request.onnx_path}")
        with progress.task("load into ONNX Runtime"):
            try:
                session_from_model(request.onnx_path, precision=request.precision).close()
            except BackendError as error:
                raise EngineBuildError(str(error)) from error
        return EngineFiles(request.onnx_path.name)

    def open(
        self, folder: Path, main: str, manifest: Mapping[str, Any] | None = None, *, threads: int | None = None
    ) -> OnnxRuntimeSession:
        self.require("can_run")
        return session_from_model(engine_path(folder, main), threads=threads, precision=precision_of(manifest))

    def identity(self) -> dict[str, str]:
        return {"backend": self.name, "version": self.require("can_run").version}


class OnnxRuntimeSession(Session):
    """`onnxruntime.InferenceSession` on one image input and one logits output."""

    def __init__(self, session: onnxruntime.InferenceSession):
        inputs, outputs = session.get_inputs(), session.get_outputs()
        if len(inputs) != 1 or len(outputs) != 1:
            raise BackendError(f"wanted an ONNX with one input and one output, got {len(inputs)} and {len(outputs)}")
        if inputs[0].type != "tensor(float)" or outputs[0].type != "tensor(float)":
            raise BackendError(
                f"wanted float32 images and logits, got {inputs[0].type} and {outputs[0].type}; "
                f"keep reduced precision inside the graph"
            )
        shape = tuple(size if isinstance(size, int) and size > 0 else None for size in inputs[0].shape)
        super().__init__("onnxruntime", inputs[0].name, shape)
        self.provider: str = session.get_providers()[0]  # "CPUExecutionProvider" or "CUDAExecutionProvider"
        self._session: onnxruntime.InferenceSession | None = session

    def _infer(self, images: np.ndarray) -> np.ndarray:
        assert self._session
        try:
            return self._session.run(None, {self.input_name: images})[0]
        except Exception as error:  # the binding has no common base for its errors
            raise BackendError(f"ONNX Runtime failed: {_first_line(error)}") from error

    def _close(self) -> None:
        self._session = None


def session_from_model(
    model: Path | onnx.ModelProto | bytes,
    *,
    threads: int | None = None,
    precision: str = "fp32",
    as_written: bool = False,
) -> OnnxRuntimeSession:
    """A session on an ONNX file, or on one in memory.

    Args:
        threads: CPU threads; None is the runtime's own choice.
        precision: that of the whole, as in `BuildRequest`.
        as_written: the ONNX is another runtime's: compute its Q/DQ as they stand, no bias rounded.

    Raises:
        BackendError: not installed, or the file is not an ONNX that it can run.
    """
    check_threads(threads)
    try:
        import onnxruntime
    except (ImportError, OSError) as error:
        raise BackendError(f"onnxruntime is not installed ({error}); pip install onnxruntime") from error
    if isinstance(model, Path):
        source, name = str(model), str(model)
    else:
        source, name = model if isinstance(model, bytes) else model.SerializeToString(), "the ONNX"  # type: ignore[assignment]
    providers = _providers(onnxruntime.get_available_providers(), precision)
    disabled = [*DISABLED_OPTIMIZERS.get(precision, []), *([BIAS_ROUNDING] if as_written else [])]
    try:
        session = onnxruntime.InferenceSession(
            source, _options(threads), providers=providers, disabled_optimizers=disabled
        )
    except Exception as error:  # the binding has no common base for its errors
        raise BackendError(
            f"ONNX Runtime {onnxruntime.__version__} cannot load {name}: {_first_line(error)}"
        ) from error
    wanted, found = providers[0][0], session.get_providers()[0]
    if found != wanted:
        raise BackendError(
            f"ONNX Runtime has no working {wanted} and would fall back to {found}; "
            f"install the CUDA and cuDNN that it was built for, or pip install onnxruntime for the CPU"
        )
    return OnnxRuntimeSession(session)


def _options(threads: int | None) -> onnxruntime.SessionOptions:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3  # errors; they reach the caller as exceptions too
    if threads is not None:
        options.intra_op_num_threads = threads
    # Threads spin between operators by default, which is what latency wants; left so.
    # x86 without VNNI multiplies int8 in pairs that saturate at 16 bits: logits come out wrong by tens of percent, with
    # no error. This asks for the slower exact kernels there, and changes nothing on other CPUs.
    # onnxruntime_session_options_config_keys.h: kOrtSessionOptionsAvx2PrecisionMode
    options.add_session_config_entry("session.x64quantprecision", "1")
    return options


def _providers(available: list[str], precision: str) -> list[tuple[str, dict[str, str]]]:
    """The GPU before the CPU, where there is one. TF32 has ten bits of mantissa: it is no FP32."""
    cpu: tuple[str, dict[str, str]] = ("CPUExecutionProvider", {})
    if "CUDAExecutionProvider" in available and find_gpu()[0] is not None:
        return [("CUDAExecutionProvider", {"use_tf32": "0" if precision == "fp32" else "1"}), cpu]
    return [cpu]


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
