import numpy as np
import pytest

from edgeseg.rewrites.batch_norm import fold_batch_norms

from .graphs import NORM_INPUTS, apply, model, node, norm_weights, operators, weights_for


def with_norm(layer, source, output="y", **attributes):
    return [layer, node("BatchNormalization", f"{source} {NORM_INPUTS}", output, **attributes)]


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("bias", [True, False])
def test_conv(rng, groups, bias):
    weights = weights_for(rng, w=(8, 6 // groups, 3, 3)) | norm_weights(rng, 8)
    weights |= weights_for(rng, b=(8,)) if bias else {}
    conv = node("Conv", "x w b" if bias else "x w", "t", group=groups, pads=[1, 1, 1, 1], strides=[2, 2])
    before = model(with_norm(conv, "t", epsilon=1e-3), {"x": (2, 6, 7, 9)}, ["y"], weights)
    count, after = apply(fold_batch_norms, before)
    assert count == 1
    assert operators(after) == ["Conv"]


@pytest.mark.parametrize("groups", [1, 3])
def test_conv_transpose(rng, groups):
    weights = weights_for(rng, w=(6, 4, 2, 3), b=(4 * groups,)) | norm_weights(rng, 4 * groups)
    layer = node("ConvTranspose", "x w b", "t", group=groups, strides=[2, 1])
    count, after = apply(fold_batch_norms, model(with_norm(layer, "t"), {"x": (1, 6, 5, 4)}, ["y"], weights))
    assert count == 1
    assert operators(after) == ["ConvTranspose"]


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("bias_shape", [(5,), (1, 5), (1,), None])
def test_gemm(rng, transposed, bias_shape):
    weights = weights_for(rng, w=(5, 7) if transposed else (7, 5)) | norm_weights(rng, 5)
    weights |= weights_for(rng, b=bias_shape) if bias_shape else {}
    inputs = "x w b" if bias_shape else "x w"
    layer = node("Gemm", inputs, "t", transB=transposed, alpha=0.5, beta=3.0)
    count, after = apply(fold_batch_norms, model(with_norm(layer, "t"), {"x": (3, 7)}, ["y"], weights))
    assert count == 1
    assert operators(after) == ["Gemm"]


def test_matmul_becomes_gemm(rng):
    weights = weights_for(rng, w=(7, 5)) | norm_weights(rng, 5)
    count, after = apply(
        fold_batch_norms, model(with_norm(node("MatMul", "x w", "t"), "t"), {"x": (3, 7)}, ["y"], weights)
    )
    assert count == 1
    assert operators(after) == ["Gemm"]


def test_norm_of_tokens_is_over_another_axis(rng):
    """BatchNormalization of (N, L, C) normalises L, which is not what the MatMul makes."""
    weights = weights_for(rng, w=(7, 5)) | norm_weights(rng, 4)
    before = model(with_norm(node("MatMul", "x w", "t"), "t"), {"x": (2, 4, 7)}, ["y"], weights)
    assert apply(fold_batch_norms, before)[0] == 0


def test_a_second_reader_of_the_convolution_keeps_it(rng):
    weights = weights_for(rng, w=(8, 6, 1, 1)) | norm_weights(rng, 8)
    nodes = [*with_norm(node("Conv", "x w", "t"), "t"), node("Relu", "t", "z")]
    assert apply(fold_batch_norms, model(nodes, {"x": (1, 6, 3, 3)}, ["y", "z"], weights))[0] == 0


def test_a_convolution_that_is_an_output_stays(rng):
    weights = weights_for(rng, w=(8, 6, 1, 1)) | norm_weights(rng, 8)
    nodes = with_norm(node("Conv", "x w", "t"), "t")
    assert apply(fold_batch_norms, model(nodes, {"x": (1, 6, 3, 3)}, ["y", "t"], weights))[0] == 0


def test_shared_weights_stay_for_the_other_convolution(rng):
    weights = weights_for(rng, w=(6, 6, 1, 1)) | norm_weights(rng, 6)
    nodes = [*with_norm(node("Conv", "x w", "t"), "t"), node("Conv", "y w", "z")]
    count, after = apply(fold_batch_norms, model(nodes, {"x": (1, 6, 3, 3)}, ["z"], weights))
    assert count == 1
    assert np.array_equal(weights["w"], _initializer(after, "w"))


def test_norm_without_a_linear_layer_before_it_stays(rng):
    nodes = with_norm(node("Relu", "x", "t"), "t")
    assert apply(fold_batch_norms, model(nodes, {"x": (1, 6, 3, 3)}, ["y"], norm_weights(rng, 6)))[0] == 0


def test_training_mode_stays(rng):
    from edgeseg.rewrites.graph import Graph

    weights = weights_for(rng, w=(8, 6, 1, 1)) | norm_weights(rng, 8)
    norm = node("BatchNormalization", f"t {NORM_INPUTS}", "y mean_out variance_out", training_mode=1)
    before = model([node("Conv", "x w", "t"), norm], {"x": (1, 6, 3, 3)}, ["y"], weights)
    assert fold_batch_norms(Graph(before)) == 0


@pytest.mark.parametrize("mode", ["linear", "nearest"])
def test_through_resizing(rng, mode):
    weights = weights_for(rng, w=(8, 6, 3, 3)) | norm_weights(rng, 8) | {"sizes": np.array([1, 8, 7, 5])}
    nodes = [node("Conv", "x w", "t"), *with_norm(node("Resize", "t - - sizes", "up", mode=mode), "up")]
    count, after = apply(fold_batch_norms, model(nodes, {"x": (1, 6, 5, 5)}, ["y"], weights))
    assert count == 1
    assert operators(after) == ["Conv", "Resize"]


def test_not_through_cubic_resizing(rng):
    weights = weights_for(rng, w=(8, 6, 3, 3)) | norm_weights(rng, 8) | {"sizes": np.array([1, 8, 7, 5])}
    nodes = [node("Conv", "x w", "t"), *with_norm(node("Resize", "t - - sizes", "up", mode="cubic"), "up")]
    assert apply(fold_batch_norms, model(nodes, {"x": (1, 6, 5, 5)}, ["y"], weights))[0] == 0


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("bias", [True, False])
def test_into_the_convolution_behind_it(rng, groups, bias):
    weights = weights_for(rng, w=(9, 6 // groups, 3, 2)) | norm_weights(rng, 6)
    weights |= weights_for(rng, b=(9,)) if bias else {}
    nodes = with_norm(node("Relu", "x", "r"), "r", "t")
    nodes.append(node("Conv", "t w b" if bias else "t w", "y", group=groups))
    count, after = apply(fold_batch_norms, model(nodes, {"x": (2, 6, 5, 4)}, ["y"], weights))
    assert count == 1
    assert operators(after) == ["Conv", "Relu"]


@pytest.mark.parametrize("attributes", [{"pads": [0, 0, 1, 0]}, {"auto_pad": "SAME_UPPER"}])
def test_not_into_a_padded_convolution(rng, attributes):
    """The zeros it reads beyond the border are not normalised."""
    weights = weights_for(rng, w=(8, 6, 3, 3)) | norm_weights(rng, 6)
    nodes = [*with_norm(node("Relu", "x", "r"), "r", "t"), node("Conv", "t w", "y", **attributes)]
    assert apply(fold_batch_norms, model(nodes, {"x": (1, 6, 5, 4)}, ["y"], weights))[0] == 0


def test_a_norm_that_is_also_read_elsewhere_stays(rng):
    weights = weights_for(rng, w=(8, 6, 1, 1)) | norm_weights(rng, 6)
    nodes = [*with_norm(node("Relu", "x", "r"), "r", "t"), node("Conv", "t w", "y"), node("Relu", "t", "z")]
    assert apply(fold_batch_norms, model(nodes, {"x": (1, 6, 5, 4)}, ["y", "z"], weights))[0] == 0


def test_names(rng):
    weights = {f"head.fuse.{name}": array for name, array in weights_for(rng, weight=(8, 6, 1, 1)).items()}
    nodes = with_norm(node("Conv", "x head.fuse.weight", "t"), "t")
    before = model(nodes, {"x": (1, 6, 3, 3)}, ["y"], weights | norm_weights(rng, 8))
    _, after = apply(fold_batch_norms, before)
    assert {item.name for item in after.graph.initializer} == {"head.fuse.weight", "head.fuse.bias"}
    assert [item.name for item in after.graph.node] == ["t_node"]


def _initializer(model, name):
    from onnx import numpy_helper

    return numpy_helper.to_array(next(item for item in model.graph.initializer if item.name == name))
