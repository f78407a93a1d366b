import numpy as np
import pytest

from edgeseg.rewrites.graph import Graph
from edgeseg.rewrites.interpolation import upsampling_matrices

from .graphs import assert_same, model, node, run

SMALL = (4, 5)


def resized(*, size=(11, 13), scales=None, shape=(2, 3, *SMALL), **attributes):
    constants = {"sizes": np.array([*shape[:2], *size])} if scales is None else {"scales": np.float32(scales)}
    resize = node("Resize", "x - - sizes" if scales is None else "x - scales", "t", **{"mode": "linear"} | attributes)
    return model([resize, node("Neg", "t", "y")], {"x": shape}, ["y"], constants)


def check(before) -> bool:
    """Whether the matrices are known; they must make what ONNX Runtime makes then."""
    graph = Graph(before)
    found = upsampling_matrices(next(graph.nodes("Neg")).inputs[0])
    if found is None:
        return False
    source, (rows, columns) = found
    assert source is graph.graph.inputs[0]
    shape = [dim.dim_value or 2 for dim in before.graph.input[0].type.tensor_type.shape.dim]
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    assert_same(run(before)[0], -(rows @ x.astype(np.float64) @ columns.T))
    return True


@pytest.mark.parametrize("coordinates", ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"])
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (1, 2, 1, 1), (1, 1, 1, 6), (1, 1, 2, 13)])
def test_linear(coordinates, shape):
    assert check(resized(shape=shape, coordinate_transformation_mode=coordinates))


@pytest.mark.parametrize("mode", ["linear", "nearest"])
@pytest.mark.parametrize("coordinates", ["half_pixel", "pytorch_half_pixel", "asymmetric"])
def test_scales(mode, coordinates):
    assert check(resized(scales=[1, 1, 2, 3], mode=mode, coordinate_transformation_mode=coordinates))


@pytest.mark.parametrize("coordinates", ["half_pixel", "asymmetric"])
def test_the_given_scale_counts_not_the_ratio_of_sizes(coordinates):
    """5 pixels at 2.3 are 11, not 11.5."""
    assert check(resized(scales=[1, 1, 2.3, 2.7], coordinate_transformation_mode=coordinates))


@pytest.mark.parametrize("nearest_mode", ["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"])
@pytest.mark.parametrize("coordinates", ["half_pixel", "asymmetric"])
def test_nearest(nearest_mode, coordinates):
    attributes = {"mode": "nearest", "coordinate_transformation_mode": coordinates, "nearest_mode": nearest_mode}
    assert check(resized(size=(12, 30), **attributes))


def test_axes():
    resize = node("Resize", "x - - sizes", "t", mode="linear", axes=[3, 2])
    assert check(model([resize, node("Neg", "t", "y")], {"x": (1, 2, *SMALL)}, ["y"], {"sizes": np.array([9, 7])}))


@pytest.mark.parametrize("batch", [2, "batch"])
@pytest.mark.parametrize("small", [(1, 1), (1, 7), (5, 1)])
def test_expand(batch, small):
    nodes = [node("Expand", "x size", "t"), node("Neg", "t", "y")]
    assert check(model(nodes, {"x": (batch, 3, *small)}, ["y"], {"size": np.array([1, 1, 5, 7])}))


@pytest.mark.parametrize(
    "attributes",
    [
        {"mode": "cubic"},
        {"coordinate_transformation_mode": "tf_crop_and_resize"},
        {"coordinate_transformation_mode": "half_pixel_symmetric"},
        {"antialias": 1},
        {"mode": "nearest"},
        {"size": (3, 20)},
        {"size": SMALL},
        {"shape": (1, 3, "height", 5), "scales": [1, 1, 2, 2]},
    ],
    ids=["cubic", "crop", "symmetric", "antialias", "ties", "smaller", "same", "unknown"],
)
def test_unknown(attributes):
    if attributes.get("coordinate_transformation_mode") == "tf_crop_and_resize":
        weights = {"roi": np.float32([0, 0, 0, 0, 1, 1, 2, 2]), "sizes": np.array([1, 3, 11, 13])}
        resize = node("Resize", "x roi - sizes", "t", mode="linear", **attributes)
        assert not check(model([resize, node("Neg", "t", "y")], {"x": (1, 3, *SMALL)}, ["y"], weights))
    else:
        assert not check(resized(**attributes))


def test_channels_that_grow_are_no_upsampling():
    nodes = [node("Expand", "x size", "t"), node("Neg", "t", "y")]
    assert not check(model(nodes, {"x": (1, 1, 1, 1)}, ["y"], {"size": np.array([1, 3, 5, 7])}))
