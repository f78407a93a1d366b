"""All rules together, on whole networks: our export, mmsegmentation's head, and two exports from transformers."""

import io
import warnings

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from edgeseg.counting import macs_of_onnx
from edgeseg.export import load_onnx, onnx_from_module
from edgeseg.models.segformer import VARIANTS, ConvModuleHead, SegFormer, SegFormerHead
from edgeseg.rewrites import rewrite

from .graphs import (
    NORM_INPUTS,
    assert_same,
    check_rewrite,
    model,
    node,
    norm_weights,
    operators,
    randomise,
    run,
    weights_for,
)

STRIDES = (4, 8, 16, 32)
B0 = VARIANTS["segformer-b0"]


class Strided(nn.Module):
    """A decode head on features of the right widths and strides, without the encoder, which takes long to export."""

    def __init__(self, head: nn.Module):
        super().__init__()
        self.encoder = nn.ModuleList(
            nn.Conv2d(3, width, 3, stride, padding=1) for width, stride in zip(B0.widths, STRIDES, strict=True)
        )
        self.decode_head = head

    def forward(self, images):
        return self.decode_head([torch.relu(stage(images)) for stage in self.encoder])


@pytest.fixture(scope="module")
def segformer() -> onnx.ModelProto:
    torch.manual_seed(0)
    return onnx_from_module(randomise(SegFormer(B0, 150)), (64, 96))


@pytest.fixture(scope="module")
def dynamic_head() -> onnx.ModelProto:
    torch.manual_seed(1)
    return onnx_from_module(randomise(Strided(SegFormerHead(B0, 19))), (65, 97), batch=(1, 2, 4))


@pytest.fixture(scope="module")
def published_segformer() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(2)
    config = transformers.SegformerConfig(depths=[1, 1, 1, 1], num_labels=19)
    return randomise(transformers.SegformerForSemanticSegmentation(config))


def head_of(model: onnx.ModelProto) -> list[str]:
    """The operators after the encoder: from the first node that the rules made, without layout."""
    types = [item.op_type for item in model.graph.node if "head" in item.name]
    return [op_type for op_type in types if op_type not in ("Reshape", "Transpose", "Shape", "Concat")]


RESIZING, SPLITTING = "drop resizing to the same size", "1x1 convolution of a concatenation as a sum"
MOVING = "1x1 convolution before upsampling"
FOLDING = {
    "linear layer on tokens as a 1x1 convolution of the map": 4,
    SPLITTING: 1,
    MOVING: 3,
    "merge consecutive convolutions": 4,
}
FOLDED = sorted(["Conv"] * 4 + ["Resize"] * 3 + ["Add"] * 3 + ["Relu", "Conv"])


def test_segformer(segformer):
    after, applied = check_rewrite(segformer, (64, 96))
    assert applied == FOLDING
    assert sorted(head_of(after)) == FOLDED
    assert macs_of_onnx(segformer) - macs_of_onnx(after) == _saved_in_the_head(16 * 24)
    shapes = {tensor.name: list(tensor.dims) for tensor in after.graph.initializer}
    for stage, width in enumerate((32, 64, 160, 256)):
        assert shapes[f"decode_head.projections.{stage}.merged.weight"] == [256, width, 1, 1]


def _saved_in_the_head(pixels: int) -> int:
    """By the paper's figure: projections to 256 at each stage, then 1024 -> 256 at stride 4, against 256 C_i each."""
    sizes = [pixels // 4**stage for stage in range(4)]
    published = sum(256 * width * size for width, size in zip(B0.widths, sizes, strict=True)) + 1024 * 256 * pixels
    return published - sum(256 * width * size for width, size in zip(B0.widths, sizes, strict=True))


def test_the_encoder_is_not_touched(segformer):
    after, _ = rewrite(segformer)
    before_nodes = {item.name: item for item in segformer.graph.node if item.name.startswith("encoder")}
    after_nodes = {item.name: item for item in after.graph.node if item.name.startswith("encoder")}
    assert before_nodes.keys() == after_nodes.keys() - {name for name in after_nodes if ".nchw" in name}
    assert all(after_nodes[name] == item for name, item in before_nodes.items())


def test_odd_size_and_dynamic_batch(dynamic_head):
    after, applied = check_rewrite(dynamic_head, (65, 97))
    assert applied == FOLDING
    assert after.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert after.graph.output[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    for batch in (1, 3):
        assert_same(run(dynamic_head, batch=batch)[0], run(after, batch=batch)[0])


def test_head_with_activations_between(rng):
    """mmsegmentation's: a ReLU follows each projection, so only the fusing convolution can move."""
    torch.manual_seed(3)
    before = onnx_from_module(randomise(Strided(ConvModuleHead(B0, 19))), (65, 97))
    _, applied = check_rewrite(before, (65, 97))
    assert applied == {SPLITTING: 1, MOVING: 3}


def test_export_of_transformers(published_segformer):
    after, applied = check_rewrite(onnx_from_module(published_segformer, (64, 96)), (64, 96))
    assert applied == FOLDING | {RESIZING: 1}
    assert sorted(head_of(after)) == FOLDED


@pytest.fixture(scope="module")
def torchscript_file(published_segformer, tmp_path_factory):
    """The older of torch's two exporters, everything dynamic: 1,400 nodes."""

    class Logits(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = published_segformer

        def forward(self, images):
            return self.network(images).logits

    axes = {"images": {0: "batch", 2: "height", 3: "width"}}
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Logits().eval(),
            (torch.zeros(1, 3, 64, 96),),
            file,
            dynamo=False,
            opset_version=17,
            input_names=["images"],
            dynamic_axes=axes,
        )
    path = tmp_path_factory.mktemp("torchscript") / "segformer.onnx"
    path.write_bytes(file.getvalue())
    return path


@pytest.mark.parametrize("batch", [1, (1, 2, 4)])
def test_torchscript_export_of_transformers(torchscript_file, batch):
    _, applied = check_rewrite(load_onnx(torchscript_file, (65, 97), batch=batch), (65, 97))
    assert applied == FOLDING | {RESIZING: 1}


def test_rules_that_need_each_other(rng):
    """BN after the projection, and a BN after the fusing convolution: both must fold before the rest can merge."""
    weights = weights_for(rng, p=(8, 3, 1, 1), f=(6, 12, 1, 1)) | norm_weights(rng, 8) | norm_weights(rng, 6, "out")
    weights["sizes"] = np.array([1, 8, 6, 8])
    nodes = [
        node("Conv", "x p", "projected"),
        node("BatchNormalization", f"projected {NORM_INPUTS}", "normed"),
        node("Resize", "normed - - sizes", "up", mode="linear"),
        node("Concat", "v up", "cat", axis=1),
        node("Conv", "cat f", "fused"),
        node("BatchNormalization", "fused " + NORM_INPUTS.replace("bn_", "out_"), "t"),
        node("Relu", "t", "y"),
    ]
    before = model(nodes, {"x": (1, 3, 3, 4), "v": (1, 4, 6, 8)}, ["y"], weights)
    after, _ = rewrite(before)
    assert operators(after) == ["Add", "Conv", "Conv", "Relu", "Resize"]
    assert_same(run(before)[0], run(after)[0])
    assert macs_of_onnx(after) == 6 * 3 * 12 + 6 * 4 * 48


@pytest.mark.parametrize("kind", ["fp16", "quantised"])
def test_other_precisions_pass_through(rng, kind):
    weights = weights_for(rng, w=(4, 3, 1, 1), v=(2, 4, 1, 1))
    nodes = [node("Conv", "x w", "t"), node("Conv", "t v", "y")]
    before = model(nodes, {"x": (1, 3, 4, 4)}, ["y"], weights)
    if kind == "fp16":
        before.graph.initializer[0].data_type = onnx.TensorProto.FLOAT16
    else:
        before.graph.node.append(node("DequantizeLinear", "q s", "d"))
    after, (report,) = rewrite(before)
    assert after == before
    assert after is not before
    assert report.applied == 0
    assert {"fp16": "FP16 weights", "quantised": "quantised"}[kind] in report.name


def test_nothing_to_do_returns_an_equal_copy(rng):
    before = model([node("Relu", "x", "y")], {"x": (1, 3, 4, 4)}, ["y"], {})
    after, reports = rewrite(before)
    assert after == before
    assert after is not before
    assert all(report.applied == 0 and report.macs_before == report.macs_after == 0 for report in reports)
