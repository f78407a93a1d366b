import numpy as np
import pytest

from edgeseg.rewrites.concat import split_over_concat

from .graphs import apply, model, node, operators, weights_for

SIDES = (8, 6)


def head(rng, *, axis=1, fuse=(7, 15, 1, 1), nodes=(), outputs=("y",), **fuse_attributes):
    """Three parts: a plain map (4), an upsampled one (5), a linear map of 3 channels (6)."""
    weights = weights_for(rng, w=fuse, b=fuse[:1], p=(6, 3, 1, 1), pb=(6,))
    weights["sizes"] = np.array([1, 5, *SIDES])
    made = [
        node("Resize", "u - - sizes", "up", mode="linear"),
        node("Conv", "v p pb", "lin"),
        node("Concat", "x up lin", "cat", axis=axis),
        node("Conv", "cat w b", "y", **fuse_attributes),
        *nodes,
    ]
    inputs = {"x": (1, 4, *SIDES), "u": (1, 5, 4, 3), "v": (1, 3, *SIDES)}
    return model(made, inputs, outputs, weights)


@pytest.mark.parametrize("axis", [1, -3])
def test_parts_that_gain_leave(rng, axis):
    count, after = apply(split_over_concat, head(rng, axis=axis))
    assert count == 1
    assert operators(after) == ["Add", "Add", "Conv", "Conv", "Conv", "Conv", "Resize"]


def test_the_others_stay_together(rng):
    weights = weights_for(rng, w=(7, 15, 1, 1), b=(7,)) | {"sizes": np.array([1, 5, *SIDES])}
    nodes = [
        node("Resize", "u - - sizes", "up", mode="linear"),
        node("Relu", "v", "activated"),
        node("Concat", "x up activated", "cat", axis=1),
        node("Conv", "cat w b", "y"),
    ]
    inputs = {"x": (1, 4, *SIDES), "u": (1, 5, 4, 3), "v": (1, 6, *SIDES)}
    count, after = apply(split_over_concat, model(nodes, inputs, ["y"], weights))
    assert count == 1
    assert operators(after) == ["Add", "Concat", "Conv", "Conv", "Relu", "Resize"]


def test_the_convolution_at_full_size_is_added_last(rng):
    """Convolution + addition + activation is one kernel in most runtimes."""
    _, after = apply(split_over_concat, head(rng))
    last = after.graph.node[-1]
    makers = {item.output[0]: item for item in after.graph.node}
    assert last.op_type == "Add"
    assert makers[last.input[1]].op_type == "Conv"


class TestStays:
    def test_nothing_gains(self, rng):
        weights = weights_for(rng, w=(7, 9, 1, 1))
        nodes = [node("Relu", "v", "r"), node("Concat", "x r", "cat", axis=1), node("Conv", "cat w", "y")]
        before = model(nodes, {"x": (1, 4, *SIDES), "v": (1, 5, *SIDES)}, ["y"], weights)
        assert apply(split_over_concat, before)[0] == 0

    def test_downsampled_part(self, rng):
        weights = weights_for(rng, w=(7, 9, 1, 1)) | {"sizes": np.array([1, 5, *SIDES])}
        nodes = [
            node("Resize", "u - - sizes", "down", mode="linear"),
            node("Concat", "x down", "cat", axis=1),
            node("Conv", "cat w", "y"),
        ]
        before = model(nodes, {"x": (1, 4, *SIDES), "u": (1, 5, 16, 12)}, ["y"], weights)
        assert apply(split_over_concat, before)[0] == 0

    def test_other_axis(self, rng):
        weights = weights_for(rng, w=(7, 5, 1, 1), p=(5, 3, 1, 1))
        nodes = [node("Conv", "v p", "lin"), node("Concat", "x lin", "cat", axis=2), node("Conv", "cat w", "y")]
        before = model(nodes, {"x": (1, 5, 4, 6), "v": (1, 3, 8, 6)}, ["y"], weights)
        assert apply(split_over_concat, before)[0] == 0

    def test_3x3(self, rng):
        assert apply(split_over_concat, head(rng, fuse=(7, 15, 3, 3), pads=[1, 1, 1, 1]))[0] == 0

    def test_grouped(self, rng):
        assert apply(split_over_concat, head(rng, fuse=(6, 5, 1, 1), group=3))[0] == 0

    def test_second_reader_of_the_concatenation(self, rng):
        before = head(rng, nodes=[node("Relu", "cat", "z")], outputs=("y", "z"))
        assert apply(split_over_concat, before)[0] == 0

    def test_second_reader_of_a_part_keeps_that_part(self, rng):
        nodes = [node("Relu", "up", "z"), node("Relu", "lin", "z2")]
        assert apply(split_over_concat, head(rng, nodes=nodes, outputs=("y", "z", "z2")))[0] == 0

    def test_a_part_that_comes_twice(self, rng):
        weights = weights_for(rng, w=(7, 10, 1, 1)) | {"sizes": np.array([1, 5, *SIDES])}
        nodes = [
            node("Resize", "u - - sizes", "up", mode="linear"),
            node("Concat", "up up", "cat", axis=1),
            node("Conv", "cat w", "y"),
        ]
        assert apply(split_over_concat, model(nodes, {"u": (1, 5, 4, 3)}, ["y"], weights))[0] == 0

    def test_merging_that_would_cost_more(self, rng):
        """2 channels to 32 outputs is cheaper than the 32 channels they came from to 32 outputs."""
        weights = weights_for(rng, w=(32, 6, 1, 1), p=(2, 32, 1, 1))
        nodes = [node("Conv", "v p", "lin"), node("Concat", "x lin", "cat", axis=1), node("Conv", "cat w", "y")]
        before = model(nodes, {"x": (1, 4, *SIDES), "v": (1, 32, *SIDES)}, ["y"], weights)
        assert apply(split_over_concat, before)[0] == 0
