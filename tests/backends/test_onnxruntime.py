"""ONNX Runtime: the contract, models in memory, and graphs that are not of our kind."""

import onnx
import pytest
from onnx import TensorProto, helper

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
