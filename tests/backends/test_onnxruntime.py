"""ONNX Runtime: the contract, models in memory, and graphs that are not of our kind."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeseg.backends.onnxruntime import session_from_model
from edgeseg.errors import BackendError

from .contract import OnnxBuildContract, ReducedPrecisionContract, RunContract
from .networks import random_images


class TestOnnxRuntime(OnnxBuildContract, RunContract, ReducedPrecisionContract):
    name = "onnxruntime"
    engine_file = "model.onnx"

    def test_onnx_must_lie_in_the_bundle(self, networks, tmp_path):
        (tmp_path / "elsewhere").mkdir()
        request = self.request(networks, networks.fp32, tmp_path / "elsewhere")
        with pytest.raises(ValueError, match="must lie in the bundle"):
            self.backend.build(request, tmp_path)


def test_model_in_memory(networks):
    images = random_images()
    with (
        session_from_model(onnx.load(networks.fp32)) as a,
        session_from_model(networks.fp32.read_bytes()) as b,
        session_from_model(networks.fp32) as c,
    ):
        assert a.provider in ("CPUExecutionProvider", "CUDAExecutionProvider")
        wanted = networks.logits(images)
        for session in (a, b, c):
            assert abs(session.infer(images) - wanted).max() <= 1e-5 * abs(wanted).max()


def quantized_convolutions(weight_step: float, *, half: bool) -> onnx.ModelProto:
    """Two convolutions with biases of about 1 and Q/DQ around them, as `quantize` writes them, all of it in float16
    with `half`."""
    rng = np.random.default_rng(0)
    floats = np.float16 if half else np.float32
    values = {"step": np.array(0.02, floats), "zero": np.zeros((), np.int8)}
    nodes, tensor = [], "images"
    if half:
        nodes.append(helper.make_node("Cast", ["images"], ["half"], to=TensorProto.FLOAT16))
        tensor = "half"
    for i, width in enumerate((3, 8)):
        values |= {
            f"w{i}": rng.integers(-127, 128, (8, width, 1, 1)).astype(np.int8),
            f"steps{i}": np.full(8, weight_step, floats),
            f"zeros{i}": np.zeros(8, np.int8),  # not shared: the exact INT8 kernels refuse that
            f"bias{i}": rng.normal(0, 1, 8).astype(floats),
        }
        nodes += [
            helper.make_node("QuantizeLinear", [tensor, "step", "zero"], [f"q{i}"]),
            helper.make_node("DequantizeLinear", [f"q{i}", "step", "zero"], [f"dq{i}"]),
            helper.make_node("DequantizeLinear", [f"w{i}", f"steps{i}", f"zeros{i}"], [f"wdq{i}"], axis=0),
            helper.make_node("Conv", [f"dq{i}", f"wdq{i}", f"bias{i}"], [f"y{i}"]),
        ]
        tensor = f"y{i}"
    nodes.append(helper.make_node("Cast", [tensor], ["logits"], to=TensorProto.FLOAT))
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, width, 8, 8])
        for name, width in (("images", 3), ("logits", 8))
    ]
    weights = [numpy_helper.from_array(value, name) for name, value in values.items()]
    graph = helper.make_graph(nodes, "quantized", ends[:1], ends[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


def unoptimized(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model.SerializeToString(), options).run(None, {"images": images})[0]


@pytest.mark.parametrize(("weight_step", "half"), [(4e-4, True), (1e-3, False), (1e-13, False)])
def test_another_runtimes_graph_is_computed_as_written(weight_step, half):
    """The optimizer WeightBiasQuantization rounds biases to 32-bit steps of the weight's scale x the input's: float16
    has no such number, and 32 bits cannot count up to a bias of 1 in steps of 2e-15."""
    model = quantized_convolutions(weight_step, half=half)
    images = np.random.default_rng(1).normal(0, 1, (1, 3, 8, 8)).astype(np.float32)
    wanted = unoptimized(model, images)
    with session_from_model(model, as_written=True) as session:
        np.testing.assert_allclose(session.infer(images), wanted, rtol=1e-2 if half else 1e-5, atol=1e-2)


def test_broken_bytes():
    with pytest.raises(BackendError, match=r"ONNX Runtime [\d.]+ cannot load the ONNX: .*"):
        session_from_model(b"not an ONNX")


@pytest.mark.parametrize(
    "images_type, outputs, message",
    [
        (TensorProto.FLOAT16, 1, r"wanted float32 images and logits, got tensor\(float16\)"),
        (TensorProto.FLOAT, 2, "one input and one output, got 1 and 2"),
    ],
)
def test_other_interfaces(images_type, outputs, message):
    names = [f"logits{i}" for i in range(outputs)]
    graph = helper.make_graph(
        [helper.make_node("Relu", ["images"], [name]) for name in names],
        "other",
        [helper.make_tensor_value_info("images", images_type, [1, 3, 8, 8])],
        [helper.make_tensor_value_info(name, images_type, [1, 3, 8, 8]) for name in names],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    with pytest.raises(BackendError, match=message):
        session_from_model(model)
