"""The runtime's sequence of calls, on an engine that computes in host memory. On a GPU the same code meets TensorRT."""

import ctypes
import json
from enum import Enum
from types import ModuleType

import numpy as np
import pytest

from edgeseg.backends.trt_runtime import open_engine
from edgeseg.errors import BackendError

from .host_driver import HostDriver

SHAPE = (-1, 3, 4, 6)  # images; logits are (N, 2, 2, 3): sum and largest of each 2x2 of all channels


class TensorIOMode(Enum):
    INPUT = 1
    OUTPUT = 2


class DataType(Enum):
    FLOAT = 0
    HALF = 1


class Engine:
    def __init__(
        self, driver: HostDriver, shape: tuple[int, ...], kind: DataType = DataType.FLOAT, extra: bool = False
    ):
        self.driver, self.shape, self.kind = driver, shape, kind
        self.names = ["logits", "images", *(["auxiliary"] if extra else [])]
        self.num_io_tensors = len(self.names)
        self.contexts: list[Context] = []

    def get_tensor_name(self, index: int) -> str:
        return self.names[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name == "images" else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> DataType:
        return self.kind

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.shape if name == "images" else (self.shape[0], 2, 2, 3)

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
        return [(n, *self.shape[1:]) for n in (1, 2, 4)]

    def create_execution_context(self) -> "Context":
        self.contexts.append(Context(self))
        return self.contexts[-1]

    def create_engine_inspector(self) -> "Engine":
        return self

    def get_engine_information(self, format: str) -> str:
        layer = {"Name": "conv", "LayerType": "correlation", "Outputs": [{"Format/Datatype": "Half"}], "Metadata": "m"}
        return json.dumps({"Layers": [layer, "fused"]})


class Context:
    def __init__(self, engine: Engine):
        self.engine = engine
        self.shape = engine.shape
        self.addresses: dict[str, int] = {}
        self.shapes_set = 0
        self.fails = False

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert name == "images"
        self.shapes_set += 1
        if shape[0] > 4:
            return False
        self.shape = shape
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (self.shape[0], 2, 2, 3)

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self.addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        if self.fails:
            return False
        self.engine.driver.queues[stream_handle].append(self._compute)
        return True

    def _compute(self) -> None:
        n = self.shape[0]
        images = self._array("images", (n, 3, 4, 6))
        blocks = images.reshape(n, 3, 2, 2, 3, 2)
        self._array("logits", (n, 2, 2, 3))[:] = np.stack([blocks.sum((1, 3, 5)), blocks.max((1, 3, 5))], 1)

    def _array(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        size = int(np.prod(shape))
        return np.frombuffer((ctypes.c_float * size).from_address(self.addresses[name]), np.float32).reshape(shape)


def library(engine: Engine | None) -> ModuleType:
    """As much of a TensorRT module as the runtime uses."""

    class ILogger:
        pass

    class Runtime:
        def __init__(self, logger: ILogger):
            self.logger = logger

        def deserialize_cuda_engine(self, serialized_engine: bytes) -> Engine | None:
            if engine is None:
                self.logger.log(2, "a warning")
                self.logger.log(1, "Serialization assertion failed")
            return engine

    module = ModuleType("tensorrt")
    for name, value in {
        "ILogger": ILogger,
        "Runtime": Runtime,
        "TensorIOMode": TensorIOMode,
        "DataType": DataType,
        "LayerInformationFormat": type("LayerInformationFormat", (), {"JSON": "json"}),
        "__version__": "10.3.0",
    }.items():
        setattr(module, name, value)
    return module


def reference(images: np.ndarray) -> np.ndarray:
    rows = []
    for image in images:
        cells = [[image[:, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2] for x in range(3)] for y in range(2)]
        rows.append([[[c.sum() for c in row] for row in cells], [[c.max() for c in row] for row in cells]])
    return np.array(rows, np.float32)


@pytest.fixture
def plan(tmp_path):
    path = tmp_path / "engine.plan"
    path.write_bytes(b"ftrt" + bytes(60))
    return path


def draw(batch: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-9, 9, (batch, 3, 4, 6)).astype(np.float32)


def test_batches(plan):
    driver = HostDriver()
    engine = Engine(driver, SHAPE)
    with open_engine(library(engine), "tensorrt", plan, driver) as session:
        assert session.input_name == "images" and session.input_shape == (None, 3, 4, 6)
        for seed, batch in enumerate((2, 2, 1, 4, 4, 2)):
            images = draw(batch, seed)
            assert np.array_equal(session.infer(images), reference(images))
        (context,) = engine.contexts
        assert context.shapes_set == 4  # once a change of shape
        assert len(driver.memory) == len(driver.pinned) == 2
        with pytest.raises(ValueError, match=r"from \(1, 3, 4, 6\) to \(4, 3, 4, 6\), got \(5, 3, 4, 6\)"):
            session.infer(draw(5))
        assert np.array_equal(session.infer(images), reference(images))  # and goes on
        assert session.layers() == [
            {"name": "conv", "type": "correlation", "precision": "Half", "onnx": "m"},
            {"name": "fused", "type": "", "precision": "", "onnx": ""},
        ]
    assert not driver.memory and not driver.pinned and not driver.queues and not driver.depth


def test_static_engine_is_never_told_a_shape(plan):
    driver = HostDriver()
    engine = Engine(driver, (1, *SHAPE[1:]))
    with open_engine(library(engine), "tensorrt", plan, driver) as session:
        first = session.infer(draw(1))
        session.infer(draw(1, seed=1))
        assert np.array_equal(first, reference(draw(1)))
        assert engine.contexts[0].shapes_set == 0
        with pytest.raises(ValueError, match=r"must be \(1, 3, 4, 6\), got \(2, 3, 4, 6\)"):
            session.infer(draw(2))


def test_two_sessions(plan):
    drivers = [HostDriver(), HostDriver()]
    one, two = (open_engine(library(Engine(d, SHAPE)), "tensorrt", plan, d) for d in drivers)
    with one, two:
        a, b = one.infer(draw(1)), two.infer(draw(2, 5))
        assert np.array_equal(a, reference(draw(1))) and np.array_equal(b, reference(draw(2, 5)))


def test_failing_run(plan):
    driver = HostDriver()
    engine = Engine(driver, SHAPE)
    with open_engine(library(engine), "tensorrt", plan, driver) as session:
        engine.contexts[0].fails = True
        with pytest.raises(BackendError, match="tensorrt failed to run the engine: it gave no reason"):
            session.infer(draw(1))
        engine.contexts[0].fails = False
        assert np.array_equal(session.infer(draw(1)), reference(draw(1)))


def test_refused_engine(plan):
    with pytest.raises(BackendError, match=r"10\.3\.0 cannot load .*: Serialization assertion failed; engines fit one"):
        open_engine(library(None), "tensorrt", plan, HostDriver())


@pytest.mark.parametrize(
    "options, message",
    [
        ({"kind": DataType.HALF}, r"wanted float32 images and logits, logits is DataType\.HALF"),
        ({"extra": True}, r"one input and one output, got \['images'\] and \['logits', 'auxiliary'\]"),
    ],
)
def test_other_interfaces(plan, options, message):
    driver = HostDriver()
    with pytest.raises(BackendError, match=message):
        open_engine(library(Engine(driver, SHAPE, **options)), "tensorrt", plan, driver)
    assert not driver.queues
