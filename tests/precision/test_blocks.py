import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from edgeseg.precision.blocks import find_blocks
from edgeseg.precision.placement import find_placement
from precision.networks import network


def chain(names: list[str]) -> onnx.ModelProto:
    """1x1 convolutions in a row, under these names."""
    weight = numpy_helper.from_array(np.ones((3, 3, 1, 1), "float32"), "w")
    nodes = [
        helper.make_node("Conv", [f"t{i}" if i else "images", "w"], [f"t{i + 1}"], name) for i, name in enumerate(names)
    ]
    nodes[-1].output[0] = "logits"
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 3, 4, 5]) for name in ("images", "logits")]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


@pytest.mark.parametrize("most", [1, 2, 7, 30])
def test_every_place_is_in_one_block_and_all_in_order(most):
    _, model = network("convnet")
    blocks = find_blocks(model, most)
    assert [key for block in blocks for key in block.keys] == [op.key for op in find_placement(model).ops]
    assert 1 <= len(blocks) <= most
    assert len({block.name for block in blocks}) == len(blocks)
    assert all(block.macs > 0 for block in blocks)


def test_names_decide_where_to_cut():
    names = [f"net/stage{s}/block{b}/{part}/Conv" for s in (1, 2) for b in (0, 1) for part in ("a", "b", "c")]
    names = ["net/stem/Conv", *names, "net/head/Conv"]
    assert [block.name for block in find_blocks(chain(names), 4)] == [
        "net.stem",
        "net.stage1",
        "net.stage2",
        "net.head",
    ]
    assert [block.name for block in find_blocks(chain(names), 6)] == [
        *("net.stem", "net.stage1.block0", "net.stage1.block1", "net.stage2.block0", "net.stage2.block1"),
        "net.head",
    ]
    assert [block.macs for block in find_blocks(chain(names), 4)] == [n * 9 * 20 for n in (1, 6, 6, 1)]


def test_without_names_it_is_cut_into_equal_parts():
    blocks = find_blocks(chain([""] * 40), 5)
    assert [len(block.keys) for block in blocks] == [8] * 5
    assert blocks[0].name == "Conv:0:3x3x1x1 … Conv:7:3x3x1x1"


def test_a_network_without_weights_has_no_blocks():
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 3, 4, 5]) for name in ("images", "logits")]
    graph = helper.make_graph([helper.make_node("Relu", ["images"], ["logits"])], "none", ends[:1], ends[1:])
    assert find_blocks(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])) == ()
