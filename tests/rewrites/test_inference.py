import numpy as np
import pytest

from edgeseg.rewrites import rewrite
from edgeseg.rewrites.inference import remove_training_parts

from .graphs import NORM_INPUTS, apply, assert_same, model, node, norm_weights, operators, run, weights_for


def graph(nodes, outputs=("y",), weights=None, opset=18):
    return model(nodes, {"x": (1, 6, 4, 5)}, outputs, weights or {}, opset)


@pytest.mark.parametrize("training", ["", " - off"])
def test_dropout_and_identity(training):
    nodes = [node("Dropout", f"x{training}", "d mask"), node("Identity", "d", "i"), node("Relu", "i", "y")]
    count, after = apply(remove_training_parts, graph(nodes, weights={"off": np.array(False)} if training else {}))
    assert count == 2
    assert operators(after) == ["Relu"]


def test_dropout_that_works_stays():
    nodes = [node("Dropout", "x ratio on", "d"), node("Relu", "d", "y")]
    from edgeseg.rewrites.graph import Graph

    before = graph(nodes, weights={"ratio": np.float32(0.5), "on": np.array(True)})
    assert remove_training_parts(Graph(before)) == 0


def test_dropout_whose_mask_is_read_stays():
    nodes = [node("Dropout", "x", "d mask"), node("Cast", "mask", "z", to=1), node("Relu", "d", "y")]
    assert apply(remove_training_parts, graph(nodes, ("y", "z")))[0] == 0


@pytest.mark.parametrize("op_type", ["Identity", "Dropout"])
def test_outputs_keep_their_names(op_type):
    assert apply(remove_training_parts, graph([node("Relu", "x", "t"), node(op_type, "t", "y")]))[0] == 0


def test_auxiliary_head_that_no_output_reads(rng):
    """What is left of an auxiliary head when its output is taken off the graph."""
    weights = weights_for(rng, aux=(3, 6, 3, 3), w=(2, 6, 1, 1))
    nodes = [node("Conv", "x w", "y"), node("Conv", "x aux", "a"), node("Relu", "a", "dead")]
    count, after = apply(remove_training_parts, graph(nodes, weights=weights))
    assert count == 2
    assert operators(after) == ["Conv"]
    assert [item.name for item in after.graph.initializer] == ["w"]


def test_batch_norm_behind_dropout_and_identity(rng):
    weights = weights_for(rng, w=(8, 6, 1, 1)) | norm_weights(rng, 8)
    nodes = [
        node("Conv", "x w", "t"),
        node("Dropout", "t", "d"),
        node("Identity", "d", "i"),
        node("BatchNormalization", f"i {NORM_INPUTS}", "y"),
    ]
    before = graph(nodes, weights=weights)
    after, _ = rewrite(before)
    assert operators(after) == ["Conv"]
    assert_same(run(before)[0], run(after)[0])
