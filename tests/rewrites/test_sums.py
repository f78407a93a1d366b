import numpy as np
import pytest

from edgeseg.counting import macs_of_onnx
from edgeseg.rewrites.sums import add_before_upsampling, broadcast_single_pixels, move_before_sums

from .graphs import apply, model, node, operators, weights_for

LARGE = (12, 16)


def up(name: str, sizes: str = "sizes", **attributes):
    return node("Resize", f"{name} - - {sizes}", f"up_{name}", **{"mode": "linear"} | attributes)


class TestConvolutionOfASum:
    def before(self, rng, *, small=((3, 4), (6, 8)), bias=True, extra=(), out=("y",), sum_nodes=None, weight=(4, 6)):
        weights = weights_for(rng, w=(*weight, 1, 1), b=weight[:1]) | {"sizes": np.array([1, 6, *LARGE])}
        names = "pqr"[: len(small)]
        nodes = [up(name) for name in names]
        nodes += sum_nodes or [node("Add", "up_p up_q", "sum")]
        nodes += [node("Conv", "sum w b" if bias else "sum w", "y"), *extra]
        return model(nodes, {n: (1, 6, *size) for n, size in zip(names, small, strict=True)}, out, weights)

    @pytest.mark.parametrize("bias", [True, False])
    def test_terms(self, rng, bias):
        before = self.before(rng, bias=bias)
        count, after = apply(move_before_sums, before)
        assert count == 1
        assert operators(after) == ["Add", "Conv", "Conv", "Resize", "Resize"]

    def test_sums_of_sums(self, rng):
        sums = [node("Add", "up_r up_p", "t"), node("Sum", "t up_q", "sum")]
        count, after = apply(move_before_sums, self.before(rng, small=((3, 4), (6, 8), (2, 2)), sum_nodes=sums))
        assert count == 1
        assert operators(after).count("Conv") == 3

    @pytest.mark.parametrize(
        "arguments",
        [
            {"small": ((3, 4), (12, 16))},
            {"small": ((10, 16), (6, 8))},
            {"extra": [node("Relu", "sum", "z")], "out": ("y", "z")},
        ],
        ids=["full_size", "too_large", "read_twice"],
    )
    def test_stays(self, rng, arguments):
        assert apply(move_before_sums, self.before(rng, **arguments))[0] == 0

    def test_a_bias_that_is_added_stays(self, rng):
        weights = weights_for(rng, w=(4, 6, 1, 1), c=(6, 1, 1)) | {"sizes": np.array([1, 6, *LARGE])}
        nodes = [up("p"), node("Add", "up_p c", "sum"), node("Conv", "sum w", "y")]
        assert apply(move_before_sums, model(nodes, {"p": (1, 6, 3, 4)}, ["y"], weights))[0] == 0


class TestAddBeforeUpsampling:
    def before(self, *, right=(3, 4), extra=(), out=("y",), **attributes):
        nodes = [up("p"), up("q", **attributes), node("Add", "up_p up_q", "y"), *extra]
        inputs = {"p": (1, 6, 3, 4), "q": (1, 6, *right)}
        return model(nodes, inputs, out, {"sizes": np.array([1, 6, *LARGE])})

    def test_once(self):
        count, after = apply(add_before_upsampling, self.before())
        assert count == 1
        assert [item.op_type for item in after.graph.node] == ["Add", "Resize"]

    def test_sizes_or_scales(self):
        constants = {"sizes": np.array([1, 6, *LARGE]), "scales": np.array([1, 1, 4, 4], np.float32)}
        other = node("Resize", "q - scales", "up_q", mode="linear", coordinate_transformation_mode="pytorch_half_pixel")
        nodes = [up("p"), other, node("Add", "up_p up_q", "y")]
        before = model(nodes, {"p": (1, 6, 3, 4), "q": (1, 6, 3, 4)}, ["y"], constants)
        assert apply(add_before_upsampling, before)[0] == 1

    @pytest.mark.parametrize(
        "arguments",
        [
            {"right": (6, 4)},
            {"coordinate_transformation_mode": "align_corners"},
            {"mode": "nearest"},
            {"extra": [node("Relu", "up_q", "z")], "out": ("y", "z")},
        ],
        ids=["size", "corners", "nearest", "read_twice"],
    )
    def test_stays(self, arguments):
        assert apply(add_before_upsampling, self.before(**arguments))[0] == 0

    def test_twice_the_same(self):
        before = model(
            [up("p"), node("Add", "up_p up_p", "y")], {"p": (1, 6, 3, 4)}, ["y"], {"sizes": np.array([1, 6, *LARGE])}
        )
        assert apply(add_before_upsampling, before)[0] == 0


class TestSinglePixels:
    @pytest.mark.parametrize("batch", [2, "batch"])
    @pytest.mark.parametrize("order", ["x up_p", "up_p x"])
    def test_expand(self, batch, order):
        nodes = [node("Expand", "p size", "up_p"), node("Add", order, "y")]
        inputs = {"x": (batch, 6, *LARGE), "p": (batch, 6, 1, 1)}
        count, after = apply(broadcast_single_pixels, model(nodes, inputs, ["y"], {"size": np.array([1, 1, *LARGE])}))
        assert count == 1
        assert operators(after) == ["Add"]

    def test_resize(self):
        inputs = {"x": (1, 6, *LARGE), "p": (1, 6, 1, 1)}
        before = model([up("p"), node("Add", "x up_p", "y")], inputs, ["y"], {"sizes": np.array([1, 6, *LARGE])})
        assert apply(broadcast_single_pixels, before)[0] == 1

    @pytest.mark.parametrize("x", [(1, 6, 1, 1), (1, 6, 1, 16)])
    def test_nothing_else_at_full_size(self, x):
        before = model(
            [up("p"), node("Add", "x up_p", "y")],
            {"x": x, "p": (1, 6, 1, 1)},
            ["y"],
            {"sizes": np.array([1, 6, *LARGE])},
        )
        assert apply(broadcast_single_pixels, before)[0] == 0

    def test_more_pixels(self):
        inputs = {"x": (1, 6, *LARGE), "p": (1, 6, 1, 2)}
        before = model([up("p"), node("Add", "x up_p", "y")], inputs, ["y"], {"sizes": np.array([1, 6, *LARGE])})
        assert apply(broadcast_single_pixels, before)[0] == 0


def test_classifier_of_maps_at_one_scale(rng):
    """SETR-MLA's end: four maps upsampled by 4, concatenated, classified. One product and one Resize remain of each."""
    from edgeseg.rewrites import rewrite

    from .graphs import assert_same, run

    weights = weights_for(rng, w=(4, 24, 1, 1), b=(4,)) | {"sizes": np.array([1, 6, *LARGE])}
    nodes = [*map(up, "pqrs"), node("Concat", "up_p up_q up_r up_s", "cat", axis=1), node("Conv", "cat w b", "y")]
    before = model(nodes, dict.fromkeys("pqrs", (1, 6, 3, 4)), ["y"], weights)
    after, _ = rewrite(before)
    assert operators(after) == ["Add"] * 3 + ["Conv"] * 4 + ["Resize"]
    assert macs_of_onnx(after) == macs_of_onnx(before) / 16
    assert_same(run(before)[0], run(after)[0])
