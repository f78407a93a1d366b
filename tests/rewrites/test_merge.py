import pytest

from edgeseg.counting import macs_of_onnx
from edgeseg.rewrites.merge import merge_convolutions

from .graphs import apply, model, node, operators, weights_for


def test_two_pointwise(rng):
    weights = weights_for(rng, w1=(9, 4, 1, 1), b1=(9,), w2=(5, 9, 1, 1), b2=(5,))
    nodes = [node("Conv", "x w1 b1", "t"), node("Conv", "t w2 b2", "y")]
    before = model(nodes, {"x": (2, 4, 3, 5)}, ["y"], weights)
    count, after = apply(merge_convolutions, before)
    assert count == 1
    assert operators(after) == ["Conv"]
    assert macs_of_onnx(after) == 2 * 15 * 5 * 4 < macs_of_onnx(before)


@pytest.mark.parametrize("bias1, bias2", [("b1", "-"), ("-", "b2"), ("-", "-")])
def test_missing_biases(rng, bias1, bias2):
    weights = weights_for(rng, w1=(9, 4, 1, 1), b1=(9,), w2=(5, 9, 1, 1), b2=(5,))
    nodes = [node("Conv", f"x w1 {bias1}", "t"), node("Conv", f"t w2 {bias2}", "y")]
    assert apply(merge_convolutions, model(nodes, {"x": (2, 4, 3, 5)}, ["y"], weights))[0] == 1


def test_three_in_a_row(rng):
    weights = weights_for(rng, w1=(9, 4, 1, 1), b1=(9,), w2=(9, 9, 1, 1), b2=(9,), w3=(3, 9, 1, 1), b3=(3,))
    nodes = [node("Conv", "x w1 b1", "s"), node("Conv", "s w2 b2", "t"), node("Conv", "t w3 b3", "y")]
    count, after = apply(merge_convolutions, model(nodes, {"x": (1, 4, 3, 5)}, ["y"], weights))
    assert count == 2
    assert operators(after) == ["Conv"]


def test_into_a_3x3_with_padding_stride_and_dilation(rng):
    """Its padding comes before both, so its bias reaches the border in the merged one as well."""
    weights = weights_for(rng, w1=(16, 2, 3, 3), b1=(16,), w2=(3, 16, 1, 1), b2=(3,))
    first = node("Conv", "x w1 b1", "t", pads=[2, 2, 2, 2], strides=[2, 1], dilations=[2, 2])
    before = model([first, node("Conv", "t w2 b2", "y")], {"x": (1, 2, 7, 8)}, ["y"], weights)
    assert apply(merge_convolutions, before)[0] == 1


class TestStays:
    def test_where_it_would_cost_more(self, rng):
        """A bottleneck: 32 -> 2 -> 32 is cheaper than 32 -> 32."""
        weights = weights_for(rng, w1=(2, 32, 1, 1), w2=(32, 2, 1, 1))
        nodes = [node("Conv", "x w1", "t"), node("Conv", "t w2", "y")]
        assert apply(merge_convolutions, model(nodes, {"x": (1, 32, 3, 3)}, ["y"], weights))[0] == 0

    def test_second_reader(self, rng):
        weights = weights_for(rng, w1=(9, 4, 1, 1), w2=(5, 9, 1, 1))
        nodes = [node("Conv", "x w1", "t"), node("Conv", "t w2", "y"), node("Relu", "t", "z")]
        assert apply(merge_convolutions, model(nodes, {"x": (1, 4, 3, 3)}, ["y", "z"], weights))[0] == 0

    def test_activation_between(self, rng):
        weights = weights_for(rng, w1=(9, 4, 1, 1), w2=(5, 9, 1, 1))
        nodes = [node("Conv", "x w1", "s"), node("Relu", "s", "t"), node("Conv", "t w2", "y")]
        assert apply(merge_convolutions, model(nodes, {"x": (1, 4, 3, 3)}, ["y"], weights))[0] == 0

    @pytest.mark.parametrize(
        "shape, attributes",
        [
            ((5, 9, 3, 3), {"pads": [1, 1, 1, 1]}),
            ((6, 3, 1, 1), {"group": 3}),
            ((5, 9, 1, 1), {"strides": [2, 2]}),
            ((5, 9, 1, 1), {"pads": [1, 0, 0, 0]}),
        ],
        ids=["3x3", "grouped", "strided", "padded"],
    )
    def test_second_is_not_a_pointwise_map(self, rng, shape, attributes):
        weights = weights_for(rng, w1=(9, 4, 1, 1), b1=(9,), w2=shape)
        nodes = [node("Conv", "x w1 b1", "t"), node("Conv", "t w2", "y", **attributes)]
        assert apply(merge_convolutions, model(nodes, {"x": (1, 4, 3, 3)}, ["y"], weights))[0] == 0

    def test_first_is_depthwise(self, rng):
        weights = weights_for(rng, w1=(9, 1, 3, 3), w2=(5, 9, 1, 1))
        nodes = [node("Conv", "x w1", "t", group=9), node("Conv", "t w2", "y")]
        assert apply(merge_convolutions, model(nodes, {"x": (1, 9, 3, 3)}, ["y"], weights))[0] == 0

    def test_weights_are_computed(self, rng):
        weights = weights_for(rng, w1=(9, 4, 1, 1), w2=(5, 9, 1, 1))
        nodes = [node("Conv", "x w1", "t"), node("Relu", "w2", "v"), node("Conv", "t v", "y")]
        assert apply(merge_convolutions, model(nodes, {"x": (1, 4, 3, 3)}, ["y"], weights))[0] == 0
