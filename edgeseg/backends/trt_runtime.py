"""Runs an engine of TensorRT 10.3 - 11.x or TensorRT-RTX: their runtime API is the same."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from edgeseg.backends.base import Session
from edgeseg.backends.cuda_driver import CudaDriver
from edgeseg.backends.device_pipeline import DevicePipeline, has_cuda_kernels
from edgeseg.backends.trt_builder import Log, make_logger
from edgeseg.errors import BackendError
from edgeseg.preprocess import Preprocess

if TYPE_CHECKING:
    import tensorrt

# An engine's first bytes, which no document promises: for a friendly message only, never to trust a file.
MAGICS = {"tensorrt": b"ftrt", "tensorrt_rtx": b"vtrt"}
_VERSION_OFFSET = 24  # major, minor, patch, build: one byte each


def check_plan(module: ModuleType, path: Path) -> None:
    """BackendError for a file that is no engine of this library, or one of another version, with both sides named."""
    ours = module.__name__.partition(".")[0]
    with path.open("rb") as file:
        header = file.read(_VERSION_OFFSET + 4)
    theirs = next((name for name, magic in MAGICS.items() if header.startswith(magic)), None)
    if theirs is None or len(header) < _VERSION_OFFSET + 4:
        raise BackendError(f"{path} is not an engine of {ours}: it is corrupt or another file; build it again")
    if theirs != ours:
        raise BackendError(f"{path} is an engine of {theirs}, this is {ours}; build it again for this backend")
    made_by = tuple(header[_VERSION_OFFSET:])
    here = tuple(int(part) for part in module.__version__.split(".")[:4])
    if made_by[: len(here)] != tuple(part & 0xFF for part in here):
        found, wanted = ".".join(map(str, made_by)), module.__version__
        raise BackendError(f"{path} was built by {ours} {found}, this is {wanted}; build it again on this machine")


def open_engine(module: ModuleType, name: str, path: Path, driver: CudaDriver) -> EngineSession:
    """Deserialise an engine, which is to run native code: the caller has checked its hash.

    Raises:
        BackendError: the library refused it, with the library's own words.
    """
    if TYPE_CHECKING:
        import tensorrt as trt
    else:
        trt = module
    logger = make_logger(module)
    with driver.active():
        runtime = trt.Runtime(logger.ilogger)
        engine = runtime.deserialize_cuda_engine(path.read_bytes())
        if engine is None:
            raise BackendError(
                f"{name} {module.__version__} cannot load {path}: {logger.last_errors()}; "
                f"engines fit one version and GPU, so build it again on this machine"
            )
        context = engine.create_execution_context()
        if context is None:
            raise BackendError(f"{name} cannot make an execution context for {path}: {logger.last_errors()}")
        return EngineSession(module, name, (runtime, engine, context), logger, driver)


class EngineSession(Session):
    """One execution context, one stream, and buffers that live as long as the batch size stays the same."""

    def __init__(
        self,
        module: ModuleType,
        name: str,
        loaded: tuple[tensorrt.Runtime, tensorrt.ICudaEngine, tensorrt.IExecutionContext],
        logger: Log,
        driver: CudaDriver,
    ):
        if TYPE_CHECKING:
            import tensorrt as trt
        else:
            trt = module
        self._runtime, self._engine, self._context = loaded
        engine = self._engine
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        inputs = [n for n in names if engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT]
        outputs = [n for n in names if n not in inputs]
        if len(inputs) != 1 or len(outputs) != 1:
            raise BackendError(f"wanted an engine with one input and one output, got {inputs} and {outputs}")
        for tensor in names:
            if engine.get_tensor_dtype(tensor) != trt.DataType.FLOAT:
                raise BackendError(f"wanted float32 images and logits, {tensor} is {engine.get_tensor_dtype(tensor)}")
        shape = tuple(None if size == -1 else size for size in engine.get_tensor_shape(inputs[0]))
        super().__init__(name, inputs[0], shape)
        self._output_name = outputs[0]
        self._json = trt.LayerInformationFormat.JSON
        self._logger = logger
        self.driver = driver
        self.stream = driver.create_stream()
        self._buffers: Buffers | None = None
        self._pipelines: list[DevicePipeline] = []

    def on_device(self, prepare: Preprocess) -> DevicePipeline | None:
        """With edgeseg's CUDA kernels and an engine that takes one image."""
        if self.input_shape[0] not in (None, 1) or not has_cuda_kernels():
            return None
        self._pipelines.append(DevicePipeline(self, prepare))
        return self._pipelines[-1]

    def execute(self) -> None:
        """Queue the engine on the stream, between the buffers of the last `buffers_for`."""
        if not self._context.execute_async_v3(self.stream):
            self.driver.synchronize(self.stream)
            raise BackendError(f"{self.backend} failed to run the engine: {self._logger.last_errors()}")

    def _infer(self, images: np.ndarray) -> np.ndarray:
        driver, stream = self.driver, self.stream
        with driver.active():
            buffers = self.buffers_for(images.shape)
            np.copyto(buffers.images, images)
            driver.copy_to_device(buffers.images_address, buffers.images, stream)
            self.execute()
            driver.copy_to_host(buffers.logits, buffers.logits_address, stream)
            driver.synchronize(stream)
            return buffers.logits.copy()

    def layers(self) -> list[dict]:
        """{"name", "type", "precision", "onnx"} as the engine's inspector tells them."""
        import json

        with self.driver.active():
            text = self._engine.create_engine_inspector().get_engine_information(self._json)
        return [_inspected(layer) for layer in json.loads(text).get("Layers", [])]

    def buffers_for(self, shape: tuple[int, ...]) -> Buffers:
        """The engine's input and output for images of this shape, kept until the next other shape."""
        if self._buffers and self._buffers.images.shape == shape:
            return self._buffers
        if None in self.input_shape and not self._context.set_input_shape(self.input_name, shape):
            smallest, _, largest = self._engine.get_tensor_profile_shape(self.input_name, 0)
            raise ValueError(
                f"images must be from {tuple(smallest)} to {tuple(largest)}, got {shape}; "
                f"build for this size with --size and --batch"
            )
        logits_shape = tuple(self._context.get_tensor_shape(self._output_name))
        self._free_buffers()
        self._buffers = buffers = Buffers(self.driver, shape, logits_shape)
        for name, address in ((self.input_name, buffers.images_address), (self._output_name, buffers.logits_address)):
            if not self._context.set_tensor_address(name, address):
                raise BackendError(f"{self.backend} refused the buffer of {name}: {self._logger.last_errors()}")
        return buffers

    def _free_buffers(self) -> None:
        if self._buffers:
            self._buffers.free(self.driver)
            self._buffers = None

    def _close(self) -> None:
        for pipeline in self._pipelines:
            pipeline.close()
        with self.driver.active():
            self.driver.synchronize(self.stream)
            self._free_buffers()
            self.driver.destroy_stream(self.stream)
            # In this order: each belongs to the next.
            del self._context
            del self._engine
            del self._runtime


class Buffers:
    """Pinned host memory and device memory for one shape."""

    def __init__(self, driver: CudaDriver, images_shape: tuple[int, ...], logits_shape: tuple[int, ...]):
        self.images = driver.allocate_pinned(images_shape, np.dtype(np.float32))
        self.logits = driver.allocate_pinned(logits_shape, np.dtype(np.float32))
        self.images_address = driver.allocate(self.images.nbytes)
        self.logits_address = driver.allocate(self.logits.nbytes)

    def free(self, driver: CudaDriver) -> None:
        driver.free(self.images_address)
        driver.free(self.logits_address)
        driver.free_pinned(self.images)
        driver.free_pinned(self.logits)


def _inspected(layer: dict | str) -> dict:
    """One layer of the inspector's JSON; a bare name where the engine was built with less detail."""
    if isinstance(layer, str):
        return {"name": layer, "type": "", "precision": "", "onnx": ""}
    outputs = layer.get("Outputs", [])
    types = sorted({str(o.get("DataType") or o.get("Format/Datatype") or o.get("Datatype") or "") for o in outputs})
    return {
        "name": layer.get("Name", ""),
        "type": layer.get("LayerType", ""),
        "precision": "/".join(filter(None, types)),
        "onnx": str(layer.get("Metadata", "")),
    }
