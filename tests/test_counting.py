"""Counts against the published networks', and ONNX counts against hand-made arithmetic and the module's."""

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from edgeseg.counting import (
    count_module,
    largest_nodes,
    macs_by_node,
    macs_of_module,
    macs_of_onnx,
    params_of_module,
    params_of_onnx,
)
from edgeseg.models import MODELS
from edgeseg.models.segformer import MixTransformerConfig, SegFormer
from edgeseg.models.segformer_config import SEGFORMERS

# GMACs counted on the original code (NVlabs') and on mmsegmentation 1.2.2: convolution + linear + matmul.
COUNTED = [
    # model, size, classes, NVlabs, mmsegmentation
    ("segformer-b0", (512, 512), 150, 8.388, 8.388),
    ("segformer-b0", (1024, 2048), 19, 120.957, 120.957),
    ("segformer-b0", (1024, 2048), 150, 125.353, 125.353),
    ("segformer-b0", (768, 1536), 19, 51.656, 51.656),
    ("segformer-b0", (640, 1280), 19, 31.402, 31.402),
    ("segformer-b0", (512, 1024), 19, 17.757, 17.757),
    ("segformer-b1", (512, 512), 150, 15.878, 15.878),
    ("segformer-b1", (1024, 2048), 19, 239.130, 239.130),
    ("segformer-b1", (1024, 2048), 150, 243.525, 243.525),
    ("segformer-b2", (512, 512), 150, 62.338, 25.680),
    ("segformer-b2", (1024, 2048), 19, 703.485, 419.011),
    ("segformer-b2", (1024, 2048), 150, 716.672, 423.407),
    ("segformer-b3", (512, 512), 150, 78.963, 42.305),
    ("segformer-b3", (1024, 2048), 19, 949.230, 664.755),
    ("segformer-b3", (1024, 2048), 150, 962.417, 669.151),
    ("segformer-b4", (512, 512), 150, 95.567, 58.909),
    ("segformer-b4", (1024, 2048), 19, 1226.752, 942.278),
    ("segformer-b4", (1024, 2048), 150, 1239.939, 946.673),
    ("segformer-b5", (640, 640), 150, 183.141, 125.863),
    ("segformer-b5", (512, 512), 150, 111.510, 74.852),
    ("segformer-b5", (1024, 2048), 19, 1446.368, 1161.894),
    ("segformer-b5", (1024, 2048), 150, 1459.555, 1166.289),
]


@pytest.mark.parametrize(("model", "size", "classes", "nvlabs", "mmsegmentation"), COUNTED)
def test_closed_form_is_the_published_count(model, size, classes, nvlabs, mmsegmentation):
    assert round(MODELS[model].published_macs(size, classes) / 1e9, 3) == nvlabs
    assert round(MODELS[f"{model}-mmseg"].published_macs(size, classes) / 1e9, 3) == mmsegmentation


@pytest.mark.parametrize("model", [entry.name for entry in SEGFORMERS[:-2]])
def test_closed_form_is_the_network_s(model):
    entry = MODELS[model]
    size = (99, 131)  # odd at every stride
    counted = count_module(entry.build, size)
    assert (counted.params, counted.macs) == (entry.params(), entry.published_macs(size))


def test_b0_to_the_last_digit():
    counted = count_module(MODELS["segformer-b0"].build, (512, 512))
    assert (counted.params, counted.macs) == (3_752_694, 8_387_821_568)


def test_deployed_counts():
    """The paper's head loses its whole fuse; mmsegmentation's runs a quarter of it on each stage's own pixels."""
    assert MODELS["segformer-b2"].deployed_macs() == 62_337_843_200 - 4 * 768 * 768 * 128 * 128
    full, own = 4 * 128 * 128, 128 * 128 + 64 * 64 + 32 * 32 + 16 * 16
    assert MODELS["segformer-b2-mmseg"].deployed_macs() == 25_679_626_240 - 256 * 256 * (full - own)
    odd = MODELS["segformer-b0"]
    assert odd.published_macs((65, 97), 3) - odd.deployed_macs((65, 97), 3) == 4 * 256 * 256 * 17 * 25


class Mixed(nn.Module):
    """One of everything that counts."""

    def __init__(self):
        super().__init__()
        self.grouped = nn.Conv2d(3, 6, 3, stride=2, padding=1, groups=3)
        self.up = nn.ConvTranspose2d(6, 4, 2, stride=2, groups=2)
        self.norm = nn.BatchNorm2d(4)
        self.linear = nn.Linear(4, 5)

    def forward(self, images):
        x = self.norm(self.up(self.grouped(images)))
        tokens = self.linear(x.flatten(2).transpose(1, 2))
        return tokens @ tokens.transpose(1, 2)


def test_module_by_hand_and_untouched():
    module = Mixed().eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    grouped = 4 * 5 * 6 * (1 * 9)
    up = 4 * 5 * 6 * (2 * 4)  # each input element to two channels of 2x2
    macs = grouped + up + 80 * 4 * 5 + 80 * 80 * 5
    assert macs_of_module(module, (8, 10)) == macs
    assert params_of_module(module) == 6 * 9 + 6 + 6 * 2 * 4 + 4 + 8 + 25
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_onnx_of_a_segformer():
    module = SegFormer(MixTransformerConfig((8, 16, 40, 64), (1, 1, 1, 1), 16), 5).eval()
    program = torch.onnx.export(module, (torch.randn(1, 3, 33, 64),), dynamo=True, verbose=False)
    assert macs_of_onnx(program.model_proto) == macs_of_module(module, (33, 64))
    largest = largest_nodes(program.model_proto, 3)
    assert len(largest) == 3 and largest[0][1] == max(macs_by_node(program.model_proto).values())


def graph(nodes, inputs, initialisers=(), outputs=("y",), opset=18, domains=()):
    """A model from nodes, {name: shape} and {name: array}; weights that counting never reads may be any array."""
    return helper.make_model(
        helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
            [numpy_helper.from_array(array, name) for name, array in dict(initialisers).items()],
        ),
        opset_imports=[helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)],
    )


def zeros(*shape, dtype=np.float32):
    return np.zeros(shape, dtype)


CASES = {
    "conv": ("Conv", {"x": (2, 8, 9, 11)}, {"w": zeros(6, 4, 3, 3)}, {"group": 2}, 2 * 6 * 7 * 9 * 4 * 9),
    "conv 1d": ("Conv", {"x": (1, 4, 10)}, {"w": zeros(6, 4, 3)}, {}, 6 * 8 * 4 * 3),
    "conv transpose": ("ConvTranspose", {"x": (1, 4, 5, 6)}, {"w": zeros(4, 3, 2, 2)}, {}, 4 * 30 * 3 * 4),
    "gemm": ("Gemm", {"x": (7, 5)}, {"w": zeros(5, 3)}, {}, 7 * 5 * 3),
    "gemm, transposed": ("Gemm", {"x": (5, 7)}, {"w": zeros(3, 5)}, {"transA": 1, "transB": 1}, 7 * 5 * 3),
    "matmul": ("MatMul", {"x": (2, 1, 4, 5)}, {"w": zeros(3, 5, 6)}, {}, 2 * 3 * 4 * 5 * 6),
    "vector by vector": ("MatMul", {"x": (5,)}, {"w": zeros(5)}, {}, 5),
    "matrix by vector": ("MatMul", {"x": (4, 5)}, {"w": zeros(5)}, {}, 20),
    "einsum": ("Einsum", {"x": (2, 3, 4)}, {"w": zeros(2, 4, 5)}, {"equation": "bij,bjk->bik"}, 2 * 3 * 4 * 5),
    "empty batch": ("Conv", {"x": (0, 3, 8, 8)}, {"w": zeros(4, 3, 3, 3)}, {}, 0),
}


@pytest.mark.parametrize("case", CASES)
def test_operators_by_hand(case):
    operator, inputs, weights, attributes, macs = CASES[case]
    model = graph([helper.make_node(operator, ["x", "w"], ["y"], name="n", **attributes)], inputs, weights)
    before = model.SerializeToString()
    assert macs_by_node(model) == {"n": macs}
    assert model.SerializeToString() == before


def test_what_costs_nothing():
    nodes = [
        helper.make_node("Einsum", ["x"], ["t"], equation="ij->ji"),
        helper.make_node("Softmax", ["t"], ["s"]),
        helper.make_node("Add", ["s", "s"], ["y"]),
    ]
    assert macs_by_node(graph(nodes, {"x": (3, 4)})) == {}


def test_quantised_convolutions_count_the_same():
    scale, zero = np.float32(0.1), np.int8(0)
    weight = zeros(64, 32, 3, 3, dtype=np.int8)  # large enough to be left out of shape inference
    scales = {"s": np.array(scale), "z": np.array(zero)}
    wrapped = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["v"]),
        helper.make_node("Conv", ["d", "v"], ["y"], name="conv"),
    ]
    integer = [
        wrapped[0],
        helper.make_node("QLinearConv", ["q", "s", "z", "w", "s", "z", "s", "z"], ["i"], name="conv"),
        helper.make_node("DequantizeLinear", ["i", "s", "z"], ["y"]),
    ]
    for nodes in (wrapped, integer):
        model = graph(nodes, {"x": (1, 32, 8, 8)}, {**scales, "w": weight})
        assert macs_by_node(model) == {"conv": 64 * 36 * 32 * 9}


def test_half_precision_counts_the_same():
    nodes = [
        helper.make_node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16),
        helper.make_node("Conv", ["h", "w"], ["c"], name="conv"),
        helper.make_node("Cast", ["c"], ["y"], to=TensorProto.FLOAT),
    ]
    model = graph(nodes, {"x": (1, 3, 8, 8)}, {"w": zeros(4, 3, 1, 1, dtype=np.float16)})
    assert macs_by_node(model) == {"conv": 4 * 64 * 3}


def test_names_where_nodes_have_none_or_share_one():
    names = ["", "twin", "twin"]
    nodes = [
        helper.make_node("MatMul", ["x" if i == 0 else f"t{i - 1}", "w"], [f"t{i}"], name=name)
        for i, name in enumerate(names)
    ]
    model = graph(nodes, {"x": (2, 4)}, {"w": zeros(4, 4)}, outputs=("t2",))
    assert macs_by_node(model) == {"t0": 32, "twin": 32, "t2": 32}


def test_symbolic_dimensions_are_named_or_given():
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="conv")
    model = graph([node], {"x": ("batch", 3, "height", None)}, {"w": zeros(4, 3, 1, 1)})
    with pytest.raises(ValueError, match=r"symbolic dimensions: x\[0\] \(batch\), x\[2\] \(height\), x\[3\]; give"):
        macs_of_onnx(model)
    model = graph([node], {"x": ("batch", 3, "height", 8)}, {"w": zeros(4, 3, 1, 1)})
    assert macs_of_onnx(model, {"batch": 2, "height": 5}) == 2 * 4 * 40 * 3
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


def test_stale_notes_about_inner_tensors_are_not_believed():
    nodes = [helper.make_node("Relu", ["x"], ["r"]), helper.make_node("Conv", ["r", "w"], ["y"])]
    model = graph(nodes, {"x": (4, 3, 8, 8)}, {"w": zeros(4, 3, 1, 1)})
    model.graph.value_info.append(helper.make_tensor_value_info("r", TensorProto.FLOAT, (1, 3, 8, 8)))
    assert macs_of_onnx(model) == 4 * 4 * 64 * 3


def test_foreign_operators_by_what_the_exporter_noted():
    nodes = [
        helper.make_node("Mystery", ["x"], ["m"], domain="com.example"),
        helper.make_node("Conv", ["m", "w"], ["y"], name="conv"),
    ]
    model = graph(nodes, {"x": (1, 3, 8, 8)}, {"w": zeros(4, 3, 1, 1)}, domains=("com.example",))
    with pytest.raises(ValueError, match=r"the shape of '[my]', which Conv 'conv' needs, is not static"):
        macs_of_onnx(model)
    for name, channels in (("m", 3), ("y", 4)):
        model.graph.value_info.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, channels, 8, 8)))
    assert macs_of_onnx(model) == 4 * 64 * 3


def test_local_functions_are_looked_into():
    function = helper.make_function(
        "local", "Twice", ["a", "b"], ["c"],
        [helper.make_node("MatMul", ["a", "b"], ["t"]), helper.make_node("MatMul", ["t", "b"], ["c"])],
        [helper.make_opsetid("", 18)],
    )  # fmt: skip
    model = graph(
        [helper.make_node("Twice", ["x", "w"], ["y"], domain="local")],
        {"x": (2, 4)},
        {"w": zeros(4, 4)},
        domains=("local",),
    )
    model.functions.append(function)
    assert macs_of_onnx(model) == 64


def test_control_flow_is_refused():
    branch = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["t"])], "b", [], [helper.make_tensor_value_info("t", 1, None)]
    )
    node = helper.make_node("If", ["c"], ["y"], name="choice", then_branch=branch, else_branch=branch)
    model = graph([node], {"x": (2, 4)}, {"w": zeros(4, 4), "c": np.array(True)})
    with pytest.raises(ValueError, match=r"cannot count If 'choice'.*control flow"):
        macs_of_onnx(model)


def test_params_of_onnx():
    weights = {
        "w": zeros(4, 3, 1, 1),
        "half": zeros(5, dtype=np.float16),
        "scalar": np.array(1.0, np.float32),
        "shape": zeros(3, dtype=np.int64),
    }
    model = graph([helper.make_node("Conv", ["x", "w"], ["y"])], {"x": (1, 3, 8, 8)}, weights)
    assert params_of_onnx(model) == 12 + 5
