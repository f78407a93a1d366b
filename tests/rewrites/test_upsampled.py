import numpy as np
import pytest

from edgeseg.counting import macs_of_onnx
from edgeseg.rewrites.upsampled import convolve_before_upsampling

from .graphs import apply, model, node, operators, weights_for

LARGE, SMALL = (21, 26), (3, 2)
WIDE = 128  # input channels of a part: with few, the product would not pay


def alone(
    rng,
    *,
    kernel=(3, 3),
    shape=(1, WIDE, *SMALL),
    size=LARGE,
    bias=True,
    outputs=6,
    channels=WIDE,
    nodes=(),
    out=("y",),
    resize=None,
    conv_attributes=None,
):
    """conv(up(p)), nothing else."""
    weights = weights_for(rng, w=(outputs, channels, *kernel), b=(outputs,))
    weights["sizes"] = np.array([shape[0], shape[1], *size])
    made = [
        node("Resize", "p - - sizes", "up", **{"mode": "linear"} | (resize or {})),
        node("Conv", "up w b" if bias else "up w", "y", **conv_attributes or {"pads": [1, 1, 1, 1]}),
        *nodes,
    ]
    return model(made, {"p": shape}, out, weights)


def pyramid(rng, *, bins=(1, 2, 3), batch: int | str = 1, resize=None, last=False, axis=1):
    """A PSPNet bottleneck: conv(concat(x, up(p_1), ..)), and x last where asked for."""
    widths = [5, *[WIDE - 8 * index for index in range(len(bins))]]
    weights = weights_for(rng, w=(7, sum(widths), 3, 3), b=(7,))
    weights["sides"] = np.array(LARGE)
    nodes, names, inputs = [], ["x"], {"x": (batch, 5, *LARGE)}
    for index, (count, width) in enumerate(zip(bins, widths[1:], strict=True)):
        nodes += [
            node("Shape", f"p{index}", f"leading{index}", start=0, end=2),
            node("Concat", f"leading{index} sides", f"sizes{index}", axis=0),
            node("Resize", f"p{index} - - sizes{index}", f"up{index}", **{"mode": "linear"} | (resize or {})),
        ]
        names.append(f"up{index}")
        inputs[f"p{index}"] = (batch, width, count, count)
    names = names[1:] + names[:1] if last else names
    nodes += [node("Concat", " ".join(names), "cat", axis=axis), node("Conv", "cat w b", "y", pads=[1, 1, 1, 1])]
    return model(nodes, inputs, ["y"], weights)


class TestAlone:
    @pytest.mark.parametrize(
        ("kernel", "attributes"),
        [
            ((3, 3), {"pads": [1, 1, 1, 1]}),
            ((3, 3), {}),
            ((3, 3), {"auto_pad": "VALID"}),
            ((3, 3), {"pads": [6, 6, 6, 6], "dilations": [6, 6]}),
            ((3, 3), {"pads": [0, 1, 2, 1], "strides": [2, 2]}),
            ((5, 3), {"pads": [2, 0, 1, 2], "strides": [1, 2], "dilations": [2, 1]}),
            ((1, 3), {"pads": [0, 1, 0, 1]}),
            ((2, 4), {"pads": [30, 0, 0, 0]}),
        ],
        ids=["same", "valid", "auto", "dilated", "strided", "mixed", "flat", "outside"],
    )
    def test_every_kind_of_convolution(self, rng, kernel, attributes):
        before = alone(rng, kernel=kernel, conv_attributes=attributes or {"group": 1})
        count, after = apply(convolve_before_upsampling, before)
        assert count == 1
        assert operators(after) == sorted(["Conv", "Reshape", "Transpose", "Reshape", "MatMul", "MatMul", "Add"])
        assert macs_of_onnx(after) < macs_of_onnx(before) / 2

    @pytest.mark.parametrize("mode", ["half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel"])
    def test_every_interpolation(self, rng, mode):
        assert apply(convolve_before_upsampling, alone(rng, resize={"coordinate_transformation_mode": mode}))[0] == 1

    def test_nearest(self, rng):
        attributes = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        assert apply(convolve_before_upsampling, alone(rng, size=(21, 26), resize=attributes))[0] == 1

    @pytest.mark.parametrize("small", [(1, 1), (1, 4), (4, 1)])
    def test_single_pixels(self, rng, small):
        count, after = apply(convolve_before_upsampling, alone(rng, shape=(2, WIDE, *small), bias=False))
        assert count == 1
        assert operators(after).count("Transpose") == (small != (1, 1))

    @pytest.mark.parametrize("batch", [1, 2])
    def test_expand(self, rng, batch):
        weights = weights_for(rng, w=(6, WIDE, 3, 3)) | {"size": np.array([1, 1, *LARGE])}
        nodes = [node("Expand", "p size", "up"), node("Conv", "up w", "y", pads=[1, 1, 1, 1])]
        count, after = apply(convolve_before_upsampling, model(nodes, {"p": (batch, WIDE, 1, 1)}, ["y"], weights))
        assert count == 1
        assert operators(after) == ["Conv", "MatMul", "MatMul", "Reshape"]


class TestConcatenation:
    @pytest.mark.parametrize("batch", [1, 2, "batch"])
    @pytest.mark.parametrize("last", [False, True])
    def test_upsampled_parts_leave_and_are_summed_in_one_product(self, rng, batch, last):
        count, after = apply(convolve_before_upsampling, pyramid(rng, batch=batch, last=last))
        assert count == 1
        types = operators(after)
        assert types.count("MatMul") == 4
        assert types.count("Conv") == 4
        assert types.count("Concat") == types.count("Add") == 1
        assert "Resize" not in types
        assert "Shape" not in types
        assert after.graph.input[0].type.tensor_type.shape.dim[0].dim_param == (batch if batch == "batch" else "")

    def test_align_corners(self, rng):
        before = pyramid(rng, resize={"coordinate_transformation_mode": "align_corners"})
        assert apply(convolve_before_upsampling, before)[0] == 1

    def test_one_part(self, rng):
        count, after = apply(convolve_before_upsampling, pyramid(rng, bins=(1,), axis=-3))
        assert count == 1
        assert operators(after) == ["Add", "Conv", "Conv", "MatMul", "MatMul", "Reshape"]

    def test_multiply_accumulates(self, rng):
        """9 C D for each pixel of p, then D (3 b)^2 W, then D (3 b) H W."""
        before, (height, width) = pyramid(rng, bins=(2, 3)), LARGE
        _, after = apply(convolve_before_upsampling, before)
        expected = 9 * 5 * 7 * height * width
        for bins, channels in ((2, WIDE), (3, WIDE - 8)):
            expected += 9 * channels * 7 * bins**2 + 7 * (3 * bins) ** 2 * width + 7 * 3 * bins * height * width
        assert macs_of_onnx(after) == expected < macs_of_onnx(before) / 10

    def test_names(self, rng):
        before = pyramid(rng, bins=(1,))
        _, after = apply(convolve_before_upsampling, before)
        assert {"y_node", "y_node.1.taps", "y_node.sum"} <= {item.name for item in after.graph.node}


class TestOtherReaders:
    @pytest.mark.parametrize(("nodes", "out"), [([node("Neg", "up", "z")], ("y", "z")), ([], ("y", "up"))])
    def test_of_the_upsampled_map_keep_it(self, rng, nodes, out):
        count, after = apply(convolve_before_upsampling, alone(rng, nodes=nodes, out=out))
        assert count == 1
        assert operators(after).count("Resize") == 1

    def test_of_the_concatenation_keep_it(self, rng):
        """OCRNet: one convolution for the coarse classes, one for the pixels."""
        weights = weights_for(rng, w=(7, 8 + 2 * WIDE, 3, 3), v=(9, 8 + 2 * WIDE, 3, 3), o=(2, 8 + 2 * WIDE, 1, 1))
        weights["sizes"] = np.array([1, WIDE, *LARGE])
        nodes = [
            node("Resize", "p - - sizes", "up_p", mode="linear"),
            node("Resize", "q - - sizes", "up_q", mode="linear"),
            node("Concat", "x up_p z up_q", "cat", axis=1),
            node("Conv", "cat w", "y", pads=[1, 1, 1, 1]),
            node("Conv", "cat v", "y2", pads=[2, 2, 2, 2], dilations=[2, 2]),
            node("Conv", "cat o", "y3"),
        ]
        inputs = {"x": (1, 5, *LARGE), "z": (1, 3, *LARGE), "p": (1, WIDE, 2, 3), "q": (1, WIDE, 4, 3)}
        count, after = apply(convolve_before_upsampling, model(nodes, inputs, ["y", "y2", "y3"], weights))
        assert count == 2
        assert operators(after).count("Resize") == 2
        channels = [item.dims[1] for item in after.graph.initializer if len(item.dims) == 4 and item.dims[0] in (7, 9)]
        assert channels == [8, 8]

    def test_a_part_that_comes_twice(self, rng):
        weights = weights_for(rng, w=(6, 2 * WIDE, 3, 3)) | {"sizes": np.array([1, WIDE, *LARGE])}
        nodes = [
            node("Resize", "p - - sizes", "up", mode="linear"),
            node("Concat", "up up", "cat", axis=1),
            node("Conv", "cat w", "y"),
        ]
        assert apply(convolve_before_upsampling, model(nodes, {"p": (1, WIDE, *SMALL)}, ["y"], weights))[0] == 1


class TestStays:
    @pytest.mark.parametrize(
        "arguments",
        [
            {"kernel": (1, 1), "conv_attributes": {"strides": [1, 1]}},
            {"channels": 64, "conv_attributes": {"group": 2, "pads": [1, 1, 1, 1]}},
            {"conv_attributes": {"auto_pad": "SAME_UPPER"}},
            {"resize": {"mode": "cubic"}},
            {"shape": (1, WIDE, 13, 11), "outputs": 128},
            {"shape": (1, 16, *SMALL), "channels": 16, "outputs": 32},
            {"shape": (1, 64, 15, 20), "channels": 64, "kernel": (1, 1), "outputs": 2, "size": (15, 21)},
            {"shape": (1, WIDE, *LARGE)},
        ],
        ids=[
            "1x1",
            "grouped",
            "auto_pad",
            "cubic",
            "too_large",
            "too_narrow",
            "more_products",
            "same_size",
        ],
    )
    def test_what_differs_or_does_not_pay(self, rng, arguments):
        assert apply(convolve_before_upsampling, alone(rng, **arguments))[0] == 0

    def test_parts_at_full_size(self, rng):
        weights = weights_for(rng, w=(6, 2 * WIDE, 3, 3))
        nodes = [node("Concat", "x v", "cat", axis=1), node("Conv", "cat w", "y")]
        before = model(nodes, {"x": (1, WIDE, *LARGE), "v": (1, WIDE, *LARGE)}, ["y"], weights)
        assert apply(convolve_before_upsampling, before)[0] == 0

    def test_unknown_size(self, rng):
        weights = weights_for(rng, w=(3, WIDE, 3, 3)) | {"scales": np.array([1, 1, 8, 8], np.float32)}
        nodes = [node("Resize", "p - scales", "t", mode="linear"), node("Conv", "t w", "y")]
        assert apply(convolve_before_upsampling, model(nodes, {"p": (1, WIDE, "h", "w_")}, ["y"], weights))[0] == 0

    def test_concatenation_of_rows(self, rng):
        weights = weights_for(rng, w=(6, WIDE, 3, 3)) | {"sizes": np.array([1, WIDE, *LARGE])}
        nodes = [
            node("Resize", "p - - sizes", "up", mode="linear"),
            node("Concat", "x up", "cat", axis=2),
            node("Conv", "cat w", "y"),
        ]
        inputs = {"x": (1, WIDE, 5, LARGE[1]), "p": (1, WIDE, *SMALL)}
        assert apply(convolve_before_upsampling, model(nodes, inputs, ["y"], weights))[0] == 0
