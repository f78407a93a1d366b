import numpy as np
import pytest

from edgeseg.counting import macs_of_onnx
from edgeseg.rewrites.resize import drop_identity_resizes, move_before_upsampling

from .graphs import apply, model, node, operators, weights_for

SMALL, LARGE = (5, 4), (13, 8)


def graph(
    rng, *, sizes=(1, 6, *LARGE), scales=None, conv="x w b", shape=(1, 6, *SMALL), weight=(3, 6, 1, 1), **attributes
):
    attributes = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"} | attributes
    conv_attributes = attributes.pop("conv_attributes", {})
    weights = weights_for(rng, w=weight, b=weight[:1])
    if scales is not None:
        weights["scales"] = np.array(scales, np.float32)
    else:
        weights["sizes"] = np.array(sizes, np.int64)
    resize = node("Resize", "x - scales" if scales is not None else "x - - sizes", "t", **attributes)
    return model([resize, node("Conv", "t w b", "y", **conv_attributes)], {"x": shape}, ["y"], weights)


@pytest.mark.parametrize("mode", ["half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel"])
def test_linear(rng, mode):
    before = graph(rng, coordinate_transformation_mode=mode)
    count, after = apply(move_before_upsampling, before)
    assert count == 1
    assert [item.op_type for item in after.graph.node] == ["Conv", "Resize"]
    assert macs_of_onnx(after) == 3 * 6 * 20 < macs_of_onnx(before)


@pytest.mark.parametrize("nearest_mode", ["floor", "ceil", "round_prefer_floor"])
def test_nearest(rng, nearest_mode):
    before = graph(rng, mode="nearest", nearest_mode=nearest_mode, coordinate_transformation_mode="asymmetric")
    assert apply(move_before_upsampling, before)[0] == 1


def test_scales(rng):
    count, after = apply(move_before_upsampling, graph(rng, scales=[1, 1, 2.5, 2]))
    assert count == 1
    assert [item.op_type for item in after.graph.node] == ["Conv", "Resize"]


def test_axes(rng):
    assert apply(move_before_upsampling, graph(rng, sizes=LARGE, axes=[2, 3]))[0] == 1
    assert apply(move_before_upsampling, graph(rng, sizes=LARGE, axes=[-2, -1]))[0] == 1


def test_without_a_bias(rng):
    weights = weights_for(rng, w=(3, 6, 1, 1)) | {"sizes": np.array([1, 6, *LARGE])}
    nodes = [node("Resize", "x - - sizes", "t", mode="linear"), node("Conv", "t w", "y")]
    count, after = apply(move_before_upsampling, model(nodes, {"x": (1, 6, *SMALL)}, ["y"], weights))
    assert count == 1
    assert len(after.graph.node[0].input) == 2


def test_dynamic_batch_survives(rng):
    """Exporters compute the sizes from the batch then, and so does the new graph, for its new number of channels."""
    weights = weights_for(rng, w=(3, 6, 1, 1), b=(3,)) | {"sides": np.array(LARGE)}
    nodes = [
        node("Shape", "x", "leading", start=0, end=2),
        node("Concat", "leading sides", "sizes", axis=0),
        node("Resize", "x - - sizes", "t", mode="linear"),
        node("Conv", "t w b", "y"),
    ]
    before = model(nodes, {"x": ("batch", 6, *SMALL)}, ["y"], weights)
    count, after = apply(move_before_upsampling, before)  # runs with a batch of 2
    assert count == 1
    assert after.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


class TestStays:
    @pytest.mark.parametrize(
        "attributes",
        [
            {"mode": "cubic"},
            {"coordinate_transformation_mode": "tf_crop_and_resize"},
            {"keep_aspect_ratio_policy": "not_larger", "axes": [2, 3], "sizes": LARGE},
            {"sizes": (1, 6, 3, 3)},
            {"sizes": (1, 6, *SMALL)},
            {"weight": (3, 6, 3, 3)},
            {"weight": (3, 2, 1, 1), "conv_attributes": {"group": 3}},
            {"conv_attributes": {"pads": [1, 1, 1, 1]}},
            {"conv_attributes": {"strides": [2, 2]}},
            {"weight": (3, 12, 1, 1), "sizes": (1, 12, *LARGE), "mode": "nearest"},
        ],
        ids=["cubic", "crop", "aspect", "down", "same", "3x3", "grouped", "padded", "strided", "channels"],
    )
    def test_what_does_not_commute_or_pay(self, rng, attributes):
        if attributes.get("coordinate_transformation_mode") == "tf_crop_and_resize":
            before = _cropped(rng)
        else:
            before = graph(rng, **attributes)
        assert apply(move_before_upsampling, before)[0] == 0

    def test_second_reader(self, rng):
        weights = weights_for(rng, w=(3, 6, 1, 1)) | {"sizes": np.array([1, 6, *LARGE])}
        nodes = [node("Resize", "x - - sizes", "t", mode="linear"), node("Conv", "t w", "y"), node("Relu", "t", "z")]
        assert apply(move_before_upsampling, model(nodes, {"x": (1, 6, *SMALL)}, ["y", "z"], weights))[0] == 0

    def test_resize_that_is_an_output(self, rng):
        weights = weights_for(rng, w=(3, 6, 1, 1)) | {"sizes": np.array([1, 6, *LARGE])}
        nodes = [node("Resize", "x - - sizes", "t", mode="linear"), node("Conv", "t w", "y")]
        assert apply(move_before_upsampling, model(nodes, {"x": (1, 6, *SMALL)}, ["y", "t"], weights))[0] == 0

    def test_unknown_size(self, rng):
        weights = weights_for(rng, w=(3, 6, 1, 1)) | {"scales": np.array([1, 1, 2, 2], np.float32)}
        nodes = [node("Resize", "x - scales", "t", mode="linear"), node("Conv", "t w", "y")]
        before = model(nodes, {"x": (1, 6, "height", "width")}, ["y"], weights)
        assert apply(move_before_upsampling, before)[0] == 0


def _cropped(rng):
    """Half of what is asked for lies outside, where the value is a constant and not a mean of pixels."""
    weights = weights_for(rng, w=(3, 6, 1, 1), b=(3,))
    weights |= {"roi": np.array([0, 0, 0, 0, 1, 1, 2, 2], np.float32), "sizes": np.array([1, 6, *LARGE])}
    attributes = {"coordinate_transformation_mode": "tf_crop_and_resize", "extrapolation_value": 5.0}
    nodes = [node("Resize", "x roi - sizes", "t", mode="linear", **attributes), node("Conv", "t w b", "y")]
    return model(nodes, {"x": (1, 6, *SMALL)}, ["y"], weights)


class TestIdentity:
    @pytest.mark.parametrize("mode", ["linear", "nearest"])
    @pytest.mark.parametrize("coordinates", ["half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel"])
    def test_is_dropped(self, rng, mode, coordinates):
        attributes = {"mode": mode, "coordinate_transformation_mode": coordinates}
        nodes = [node("Resize", "x - - sizes", "t", **attributes), node("Relu", "t", "y")]
        before = model(nodes, {"x": (1, 6, *SMALL)}, ["y"], {"sizes": np.array([1, 6, *SMALL])})
        count, after = apply(drop_identity_resizes, before)
        assert count == 1
        assert operators(after) == ["Relu"]

    def test_output_keeps_its_name(self, rng):
        nodes = [node("Relu", "x", "t"), node("Resize", "t - - sizes", "y", mode="linear")]
        before = model(nodes, {"x": (1, 6, *SMALL)}, ["y"], {"sizes": np.array([1, 6, *SMALL])})
        assert apply(drop_identity_resizes, before)[0] == 0

    def test_change_of_size_stays(self, rng):
        assert apply(drop_identity_resizes, graph(rng))[0] == 0
