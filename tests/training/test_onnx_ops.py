"""Each operator that training executes, against ONNX Runtime."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from edgeseg.errors import ExportError
from edgeseg.training.onnx_network import OnnxNetwork
from edgeseg.training.onnx_ops import OPERATORS
from tests.precision.networks import run

RNG = np.random.default_rng(0)


def floats(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


X = floats(2, 4, 7, 9)
POSITIVE = np.abs(X) + np.float32(0.1)
NONE = np.zeros(0, np.float32)  # an input left out

# operator, attributes, the input, further inputs
CASES = [
    *((op, {}, X, ()) for op in ("Abs", "Erf", "Exp", "Identity", "Neg", "Relu", "Sigmoid", "Softplus", "Tanh")),
    *((op, {}, X, ()) for op in ("HardSigmoid", "HardSwish", "GlobalAveragePool", "GlobalMaxPool", "Flatten")),
    ("Sqrt", {}, POSITIVE, ()),
    ("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}, X, ()),
    ("LeakyRelu", {"alpha": 0.2}, X, ()),
    ("PRelu", {}, X, (floats(4, 1, 1),)),
    ("Gelu", {}, X, ()),
    ("Gelu", {"approximate": "tanh"}, X, ()),
    *((op, {}, X, (floats(4, 1, 1),)) for op in ("Add", "Sub", "Mul", "Max", "Min")),
    ("Div", {}, X, (np.abs(floats(9)) + np.float32(1),)),
    ("Pow", {}, POSITIVE, (np.array(2.5, np.float32),)),
    ("Sum", {}, X, (floats(2, 4, 7, 9), floats(4, 1, 1))),
    ("Conv", {"pads": [1, 1, 1, 1], "strides": [2, 1]}, X, (floats(6, 4, 3, 3), floats(6))),
    ("Conv", {"pads": [0, 1, 2, 3], "dilations": [2, 1]}, X, (floats(6, 4, 3, 3),)),
    ("Conv", {"group": 4, "pads": [1, 2, 1, 2]}, X, (floats(4, 1, 3, 5),)),
    ("ConvTranspose", {"strides": [2, 2], "pads": [1, 1, 1, 1]}, X, (floats(4, 3, 3, 3), floats(3))),
    ("ConvTranspose", {"strides": [2, 2], "output_padding": [1, 0], "group": 2}, X, (floats(4, 3, 3, 3),)),
    ("Gemm", {"transB": 1, "alpha": 0.5, "beta": 2.0}, floats(5, 4), (floats(3, 4), floats(3))),
    ("Gemm", {"transA": 1}, floats(4, 5), (floats(4, 3),)),
    ("MatMul", {}, X, (floats(9, 3),)),
    ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}, X, ()),
    ("MaxPool", {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}, X, ()),
    ("MaxPool", {"kernel_shape": [2, 3], "pads": [0, 0, 1, 2]}, X, ()),
    ("AveragePool", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}, X, ()),
    ("AveragePool", {"kernel_shape": [3, 2], "count_include_pad": 1, "pads": [1, 0, 1, 1]}, X, ()),
    ("BatchNormalization", {"epsilon": 1e-3}, X, (floats(4), floats(4), floats(4), np.abs(floats(4)))),
    ("InstanceNormalization", {}, X, (floats(4), floats(4))),
    ("LayerNormalization", {"axis": -1, "epsilon": 1e-6}, X, (floats(9), floats(9))),
    ("LayerNormalization", {"axis": 2}, X, (floats(7, 9),)),
    ("Softmax", {"axis": 1}, X, ()),
    ("Reshape", {}, X, (ints(0, -1, 21),)),
    ("Reshape", {"allowzero": 1}, X, (ints(2, 252),)),
    ("Flatten", {"axis": -1}, X, ()),
    ("Unsqueeze", {}, X, (ints(-1, 0),)),
    ("Squeeze", {}, floats(2, 1, 3, 1), (ints(1, -1),)),
    ("Squeeze", {}, floats(2, 1, 3, 1), ()),
    ("Transpose", {"perm": [0, 2, 3, 1]}, X, ()),
    ("Transpose", {}, X, ()),
    ("Concat", {"axis": 1}, X, (floats(2, 3, 7, 9),)),
    ("Split", {"axis": 1}, X, (ints(1, 3),)),
    ("Split", {"axis": 3, "num_outputs": 2}, X, ()),
    ("Slice", {}, X, (ints(1, -3), ints(100, -1), ints(2, 3))),
    ("Slice", {}, X, (ints(0, -1), ints(2**62, -(2**62)), ints(3, 2), ints(2, -2))),
    ("Pad", {}, X, (ints(0, 0, 1, 2, 0, 1, 0, 3), np.array(-2, np.float32))),
    ("Pad", {"mode": "reflect"}, X, (ints(0, 0, 1, 2, 0, 0, 3, 0),)),
    ("Pad", {"mode": "edge"}, X, (ints(1, 2, 3, 0), NONE, ints(2, -1))),
    ("Expand", {}, floats(2, 1, 7, 1), (ints(2, 3, 1, 5),)),
    ("Gather", {"axis": 1}, X, (ints(3, -1, 0),)),
    ("Clip", {}, X, (np.array(-0.5, np.float32), np.array(1, np.float32))),
    ("Clip", {}, X, (NONE, np.array(0.25, np.float32))),
    ("ReduceMean", {"keepdims": 1}, X, (ints(2, -1),)),
    ("ReduceMean", {"keepdims": 0}, X, ()),
    ("ReduceMean", {"noop_with_empty_axes": 1}, X, ()),
    ("ReduceSum", {"keepdims": 0}, X, (ints(1),)),
    ("ReduceMax", {}, X, (ints(3),)),
    ("DepthToSpace", {"blocksize": 2, "mode": "CRD"}, X, ()),
    ("Dropout", {}, X, ()),
    ("Resize", {"mode": "linear"}, X, (NONE, NONE, ints(2, 4, 15, 4))),
    ("Resize", {"mode": "linear"}, X, (NONE, np.array([1, 1, 2, 3], np.float32))),
    (
        "Resize",
        {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
        X,
        (NONE, NONE, ints(2, 4, 13, 17)),
    ),
    (
        "Resize",
        {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
        X,
        (NONE, np.array([1, 1, 2, 2], np.float32)),
    ),
]


def model_of(op: str, attributes: dict, x: np.ndarray, others: tuple[np.ndarray, ...]) -> onnx.ModelProto:
    names = ["" if other is NONE else f"input{i}" for i, other in enumerate(others)]
    node = helper.make_node(op, ["x", *names], ["y"] + (["z"] if op == "Split" else []), name="node", **attributes)
    constants = [numpy_helper.from_array(o, n) for n, o in zip(names, others, strict=True) if n]
    x_info = helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)
    y_info = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([node], "graph", [x_info], [y_info], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


@pytest.mark.parametrize(("op", "attributes", "x", "others"), CASES, ids=[f"{i}-{c[0]}" for i, c in enumerate(CASES)])
def test_as_onnx_runtime(op, attributes, x, others):
    model = model_of(op, attributes, x, others)
    with torch.no_grad():
        ours = OnnxNetwork(model)(torch.from_numpy(x)).numpy()
    theirs = run(model, x)
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=2e-5)


def test_every_operator_has_a_case():
    assert set(OPERATORS) == {case[0] for case in CASES}


@pytest.mark.parametrize(
    ("op", "attributes", "others", "message"),
    [
        ("Det", {}, (), "knows no operator Det"),
        ("Pad", {"mode": "wrap"}, (ints(0, 0, 1, 1, 0, 0, 1, 1),), "no Pad of mode wrap"),
        ("Resize", {"mode": "cubic"}, (NONE, NONE, ints(2, 4, 9, 9)), "no Resize of mode cubic"),
        ("MaxPool", {"kernel_shape": [2, 2], "auto_pad": "SAME_UPPER"}, (), "auto_pad SAME_UPPER, only NOTSET"),
        ("DepthToSpace", {"blocksize": 2}, (), "mode DCR, only CRD"),
        ("ConvTranspose", {"pads": [0, 0, 1, 1]}, (floats(4, 3, 3, 3),), "no ConvTranspose with uneven pads"),
        ("AveragePool", {"kernel_shape": [2, 2], "pads": [0, 0, 1, 1]}, (), "no AveragePool with uneven pads"),
    ],
)
def test_what_is_not_known_is_said(op, attributes, others, message):
    with pytest.raises(ExportError, match=message):
        OnnxNetwork(model_of(op, attributes, X, others))(torch.from_numpy(X))
