import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeseg.precision.graph import Graph
from edgeseg.precision.placement import find_placement, places_behind
from precision.networks import ConvNet, export, network, with_random_weights


def graph_of(nodes, weights=(), outputs=("y",)):
    """An ONNX model around nodes that read `x`; weights are (name, shape)."""
    rng = np.random.default_rng(0)
    initializers = [numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name) for name, shape in weights]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 8, 8])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def node(op, inputs, output, **attributes):
    return helper.make_node(op, inputs, [output], name=f"{output}_node", **attributes)


def test_segformer_has_its_linear_layers_and_convolutions_and_no_attention_product():
    module, model = network("segformer")
    placement = find_placement(model)
    weights = sorted(p.numel() for p in module.parameters() if p.ndim > 1)
    shapes = [op.key.split(":")[2] for op in placement.ops]
    assert sorted(int(np.prod([int(n) for n in shape.split("x")])) for shape in shapes) == weights
    assert placement.residuals == ()
    assert sum(n.op_type == "MatMul" for n in model.graph.node) > sum(
        op.key.startswith("MatMul") for op in placement.ops
    )


def test_convnet_has_every_kind_and_both_shortcuts():
    _, model = network("convnet")
    placement = find_placement(model)
    kinds = [key.split(":")[0] for key in placement.keys]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {"Conv": 10, "ConvTranspose": 1, "Gemm": 2}
    assert [key.endswith(":residual") for key in placement.keys].count(True) == 2
    for op in placement.ops:
        assert (op.axis == 1) == (op.key.startswith("ConvTranspose")), op.key


def test_keys_survive_another_size_new_names_and_another_order_of_nodes(rng):
    _, model = network("convnet")
    keys = find_placement(model).keys
    assert find_placement(export(with_random_weights(ConvNet()), (32, 64))).keys == keys
    renamed = onnx.ModelProto()
    renamed.CopyFrom(model)
    for item in renamed.graph.node:
        item.name = ""
        for names in (item.input, item.output):
            names[:] = [f"t_{name}" if name not in ("", "images", "logits") else name for name in names]
    for tensor in renamed.graph.initializer:
        tensor.name = f"t_{tensor.name}"
    shuffled = [renamed.graph.node[i] for i in rng.permutation(len(renamed.graph.node))]
    del renamed.graph.node[:]
    renamed.graph.node.extend(shuffled)
    assert find_placement(renamed).keys == keys


def test_order_is_topological():
    _, model = network("segformer")
    graph = Graph(model)
    position = {index: i for i, index in enumerate(graph.order())}
    for index in position:
        for name in graph.nodes[index].input:
            if name in graph.producer:
                assert position[graph.producer[name]] < position[index]


@pytest.mark.parametrize(
    "nodes, key, axis",
    [
        ([node("MatMul", ["x", "w"], "y")], "MatMul:0:8x8", 1),
        ([node("MatMul", ["w", "x"], "y")], "MatMul:0:8x8", 0),
        ([node("Identity", ["w"], "v"), node("MatMul", ["x", "v"], "y")], "MatMul:0:8x8", 1),
        ([node("Transpose", ["w"], "v", perm=[1, 0]), node("MatMul", ["x", "v"], "y")], "MatMul:0:8x8", 1),
        ([node("MatMul", ["x", "x"], "y")], None, None),
        ([node("MatMul", ["x", "row"], "y")], None, None),
        ([node("MatMul", ["w", "w"], "v"), node("Add", ["x", "v"], "y")], None, None),
    ],
)
def test_a_weight_is_found_where_exporters_put_it(nodes, key, axis):
    ops = find_placement(graph_of(nodes, [("w", (8, 8)), ("row", (8,))])).ops
    assert [(op.key, op.axis) for op in ops] == ([] if key is None else [(key, axis)])


@pytest.mark.parametrize("trans_b, axis", [(0, 1), (1, 0)])
def test_gemm_channels_follow_trans_b(trans_b, axis):
    nodes = [node("Reshape", ["x", "shape"], "flat"), node("Gemm", ["flat", "w"], "y", transB=trans_b)]
    model = graph_of(nodes, [("w", (8, 8))])
    model.graph.initializer.append(numpy_helper.from_array(np.int64([-1, 8]), "shape"))
    assert [op.axis for op in find_placement(model).ops] == [axis]


CONV = node("Conv", ["x", "k"], "c")


@pytest.mark.parametrize(
    "nodes, shortcut",
    [
        ([CONV, node("Relu", ["x"], "r"), node("Add", ["c", "r"], "y")], "r"),
        ([CONV, node("Relu", ["x"], "r"), node("Add", ["r", "c"], "y")], "r"),
        ([CONV, node("Add", ["c", "bias"], "y")], None),  # a bias is no shortcut
        ([CONV, node("Resize", ["x", "", "s"], "r"), node("Add", ["c", "r"], "y")], None),
        ([CONV, node("Resize", ["x", "", "s"], "r"), node("Add", ["r", "x"], "a"), node("Add", ["c", "a"], "y")], None),
        ([CONV, node("Relu", ["x"], "r"), node("Add", ["c", "r"], "a"), node("Add", ["a", "c"], "y")], None),
        (  # with a convolution on both sides the shorter branch is the shortcut
            [CONV, node("Conv", ["x", "k"], "d"), node("Conv", ["d", "k"], "e"), node("Add", ["c", "e"], "y")],
            "c",
        ),
    ],
)
def test_shortcuts(nodes, shortcut):
    model = graph_of(nodes, [("k", (4, 4, 1, 1)), ("bias", (1, 4, 1, 1)), ("s", (4,))])
    placement = find_placement(model)
    tensors = placement.tensors(model)
    assert [tensors[place.key] for place in placement.residuals] == ([] if shortcut is None else [shortcut])


def test_places_behind_a_concatenation():
    nodes = [
        node("Concat", ["x", "x"], "cat", axis=1),
        node("Relu", ["cat"], "r"),
        node("Conv", ["r", "k8"], "near"),
        node("Conv", ["near", "k"], "y"),
    ]
    model = graph_of(nodes, [("k", (4, 4, 1, 1)), ("k8", (4, 8, 1, 1))])
    assert places_behind(model, find_placement(model), ["Concat"]) == {"Conv:0:4x8x1x1"}
    assert places_behind(model, find_placement(model), []) == set()
