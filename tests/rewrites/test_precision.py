"""What the rules make, in INT8: layers are quantized, the constant matrices of interpolation are not."""

import numpy as np
import onnx
import pytest
from precision.networks import pictures

from edgeseg.calibration import calibrate
from edgeseg.precision.int8 import quantize
from edgeseg.precision.placement import find_placement
from edgeseg.rewrites import rewrite

from .graphs import onnxruntime_session
from .test_heads import SIZE, network, torchscript_export


def rewritten(size=SIZE) -> onnx.ModelProto:
    return rewrite(onnx.load_from_string(torchscript_export(network("pspnet"), size)))[0]


@pytest.fixture(scope="module")
def model():
    return rewritten()


def test_layers_are_quantized_and_interpolation_is_not(model):
    placement = find_placement(model)
    kinds = [op.key.split(":")[0] for op in placement.ops]
    assert kinds == ["Conv"] * sum(item.op_type == "Conv" for item in model.graph.node)
    assert placement.residuals == ()  # the sum's other side is upsampled
    assert sum(item.op_type == "MatMul" for item in model.graph.node) == 5


def test_one_scales_file_serves_every_size(model):
    larger = rewritten((2 * SIZE[0], SIZE[1]))
    assert find_placement(larger).keys == find_placement(model).keys


def test_quantized(model):
    images = pictures(3, SIZE)
    quantized = quantize(model, calibrate(model, images))
    onnx.checker.check_model(quantized, full_check=True)
    assert find_placement(quantized).keys == find_placement(model).keys
    expected, logits = (
        onnxruntime_session(item).run(None, {item.graph.input[0].name: images[0]})[0] for item in (model, quantized)
    )
    error = np.sqrt(np.mean((logits - expected) ** 2) / np.var(expected))
    assert 0 < error < 0.1
