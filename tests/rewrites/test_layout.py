import numpy as np
import pytest

from edgeseg.rewrites.layout import linears_to_convolutions

from .graphs import apply, model, node, operators, weights_for

N, C, D, H, W = 2, 3, 5, 4, 6


def ints(**shapes):
    return {name: np.array(shape, np.int64) for name, shape in shapes.items()}


def head(rng, nodes, weights, *, inputs=None, outputs=("y",), last="map"):
    """The given nodes make a map (N, D, H, W) of ``x``, which a 1x1 convolution reads."""
    weights = weights_for(rng, w=(C, D), b=(D,), f=(7, D, 1, 1)) | weights
    nodes = [*nodes, node("Conv", f"{last} f", "y")]
    return model(nodes, inputs or {"x": (N, C, H, W)}, outputs, weights)


FLATTEN = [node("Reshape", "x rows", "flat"), node("Transpose", "flat", "tokens", perm=[0, 2, 1])]
LINEAR = [node("MatMul", "tokens w", "product"), node("Add", "product b", "linear")]
UNFLATTEN = [node("Transpose", "linear", "columns", perm=[0, 2, 1]), node("Reshape", "columns grid", "map")]
SHAPES = ints(rows=(N, C, H * W), grid=(N, D, H, W))


def test_torch_linear(rng):
    count, after = apply(linears_to_convolutions, head(rng, [*FLATTEN, *LINEAR, *UNFLATTEN], SHAPES))
    assert count == 1
    assert operators(after) == ["Conv", "Conv"]


def test_bias_first_and_minus_one(rng):
    linear = [node("MatMul", "tokens w", "product"), node("Add", "b product", "linear")]
    shapes = ints(rows=(0, 0, -1), grid=(N, D, H, -1))
    assert apply(linears_to_convolutions, head(rng, [*FLATTEN, *linear, *UNFLATTEN], shapes))[0] == 1


def test_without_a_bias(rng):
    linear = [node("MatMul", "tokens w", "linear")]
    count, after = apply(linears_to_convolutions, head(rng, [*FLATTEN, *linear, *UNFLATTEN], SHAPES))
    assert count == 1
    assert operators(after) == ["Conv", "Conv"]


@pytest.mark.parametrize("transposed", [0, 1])
def test_gemm_between_reshapes(rng, transposed):
    """What simplifiers make of MatMul + Add."""
    gemm = [
        node("Reshape", "tokens matrix", "m"),
        node("Gemm", "m w2 b", "g", transB=transposed, alpha=2.0, beta=0.5),
        node("Reshape", "g cube", "linear"),
    ]
    shapes = SHAPES | ints(matrix=(N * H * W, C), cube=(N, H * W, D))
    shapes |= weights_for(rng, w2=(D, C) if transposed else (C, D))
    count, after = apply(linears_to_convolutions, head(rng, [*FLATTEN, *gemm, *UNFLATTEN], shapes))
    assert count == 1
    assert operators(after) == ["Conv", "Conv"]


def test_channels_last(rng):
    nodes = [
        node("Transpose", "x", "tokens", perm=[0, 2, 3, 1]),
        *LINEAR,
        node("Transpose", "linear", "map", perm=[0, 3, 1, 2]),
    ]
    count, after = apply(linears_to_convolutions, head(rng, nodes, {}))
    assert count == 1
    assert operators(after) == ["Conv", "Conv"]


def test_tokens_that_were_never_a_map(rng):
    """A norm made them: the narrow tokens become a map, before the linear layer instead of after it."""
    nodes = [node("Relu", "x", "tokens"), *LINEAR, *UNFLATTEN]
    before = head(rng, nodes, SHAPES, inputs={"x": (N, H * W, C)})
    count, after = apply(linears_to_convolutions, before)
    assert count == 1
    assert operators(after) == ["Conv", "Conv", "Relu", "Reshape", "Transpose"]


def test_a_map_that_another_layer_has_made_of_the_tokens_is_used(rng):
    nodes = [
        node("Relu", "x", "tokens"),
        *LINEAR,
        *UNFLATTEN,
        node("Transpose", "tokens", "other", perm=[0, 2, 1]),
        node("Reshape", "other narrow", "z"),
    ]
    shapes = SHAPES | ints(narrow=(N, C, H, W))
    before = head(rng, nodes, shapes, inputs={"x": (N, H * W, C)}, outputs=("y", "z"))
    count, after = apply(linears_to_convolutions, before)
    assert count == 1
    assert operators(after) == ["Conv", "Conv", "Relu", "Reshape", "Transpose"]
    assert next(item for item in after.graph.node if item.op_type == "Conv").input[0] == "z"


def test_through_resize_and_concat(rng):
    nodes = [
        *FLATTEN,
        *LINEAR,
        *UNFLATTEN,
        node("Resize", "map - - sizes", "up", mode="linear"),
        node("Concat", "v up", "cat", axis=1),
    ]
    shapes = SHAPES | ints(sizes=(N, D, 2 * H, 2 * W)) | weights_for(rng, f=(7, D + 1, 1, 1))
    inputs = {"x": (N, C, H, W), "v": (N, 1, 2 * H, 2 * W)}
    assert apply(linears_to_convolutions, head(rng, nodes, shapes, inputs=inputs, last="cat"))[0] == 1


def test_dynamic_batch(rng):
    shapes = ints(rows=(0, 0, -1), grid=(0, D, H, W))
    before = head(rng, [*FLATTEN, *LINEAR, *UNFLATTEN], shapes, inputs={"x": ("batch", C, H, W)})
    count, after = apply(linears_to_convolutions, before)
    assert count == 1
    assert after.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


def test_dynamic_batch_computed_by_the_graph(rng):
    """As TorchScript exports it: the target shape from the input's, where plain shape inference loses the thread."""
    nodes = [
        node("Shape", "x", "leading", start=0, end=2),
        node("Concat", "leading minus", "rows", axis=0),
        *FLATTEN,
        *LINEAR,
        UNFLATTEN[0],
        node("Shape", "x", "n", start=0, end=1),
        node("Concat", "n sides", "grid", axis=0),
        UNFLATTEN[1],
    ]
    before = head(rng, nodes, ints(minus=(-1,), sides=(D, H, W)), inputs={"x": ("batch", C, H, W)})
    assert apply(linears_to_convolutions, before)[0] == 1


@pytest.mark.parametrize("sides", [(1, 6), (4, 1), (1, 1)])
def test_maps_of_one_pixel_in_a_direction(rng, sides):
    h, w = sides
    shapes = ints(rows=(1, C, h * w), grid=(1, D, h, w))
    before = head(rng, [*FLATTEN, *LINEAR, *UNFLATTEN], shapes, inputs={"x": (1, C, h, w)})
    assert apply(linears_to_convolutions, before)[0] == 1


class TestStays:
    def test_transposed_image(self, rng):
        """Tokens in columns: the grid is (W, H), so the same numbers land on other pixels."""
        before = head(rng, [*FLATTEN, *LINEAR, *UNFLATTEN], ints(rows=(N, C, H * W), grid=(N, D, W, H)))
        count, after = apply(linears_to_convolutions, before)  # equal outputs are asserted there
        assert count == 1  # it is a map of W rows of H pixels, made of the tokens anew
        assert "Reshape" in operators(after)

    def test_tokens_cut_into_wrong_pieces(self, rng):
        """(N, L, D) reshaped to (N, D, H, W) without a transpose scrambles channels and pixels."""
        nodes = [*FLATTEN, *LINEAR, node("Reshape", "linear grid", "map")]
        assert apply(linears_to_convolutions, head(rng, nodes, SHAPES))[0] == 0

    def test_second_reader_of_the_tokens(self, rng):
        before = head(rng, [*FLATTEN, *LINEAR, *UNFLATTEN, node("Relu", "linear", "z")], SHAPES, outputs=("y", "z"))
        assert apply(linears_to_convolutions, before)[0] == 0

    def test_no_pointwise_convolution_follows(self, rng):
        """The expansion of a Mix-FFN: its map goes to a depth-wise 3x3."""
        weights = weights_for(rng, w=(C, D), b=(D,), f=(D, 1, 3, 3)) | SHAPES
        nodes = [*FLATTEN, *LINEAR, *UNFLATTEN, node("Conv", "map f", "y", group=D)]
        assert apply(linears_to_convolutions, model(nodes, {"x": (N, C, H, W)}, ["y"], weights))[0] == 0

    def test_sum_of_two_tokens(self, rng):
        nodes = [*FLATTEN, node("MatMul", "tokens w", "product"), node("Add", "product v", "linear"), *UNFLATTEN]
        inputs = {"x": (N, C, H, W), "v": (N, H * W, D)}
        assert apply(linears_to_convolutions, head(rng, nodes, SHAPES, inputs=inputs))[0] == 0

    def test_bias_that_differs_between_tokens(self, rng):
        weights = SHAPES | weights_for(rng, b=(H * W, D))
        assert apply(linears_to_convolutions, head(rng, [*FLATTEN, *LINEAR, *UNFLATTEN], weights))[0] == 0
