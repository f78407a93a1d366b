"""Batch normalisation folds into the linear layer in front of it, or behind it.

At inference BN is a fixed scale and shift per channel: with s = gamma / sqrt(var + eps) and t = beta - s * mean,

    BN(W x + b) = s * (W x + b) + t = (s W) x + (s b + t)

for any linear layer whose output channels are BN's: Conv, ConvTranspose (with groups), Gemm and MatMul on rows. Padding
makes no difference, since BN comes after the sum over the window. Resizing in between makes none either: its pixels are
weighted means, and BN(sum a x) = sum a BN(x) where sum a = 1 (resize.py). Where there is no such layer in front,

    W BN(x) + b = (W s) x + (W t + b)

for a Conv without padding, whose zeros BN would have to leave alone. In float64, stored as float32.
"""

import numpy as np
import onnx_ir as ir

from edgeseg.rewrites.graph import (
    ONNX,
    Graph,
    dims,
    floats_of,
    input_of,
    integer,
    ints,
    like,
    maker_of,
    number,
    reader_of,
    stem_of,
    text,
)
from edgeseg.rewrites.resize import commutes


def fold_batch_norms(graph: Graph) -> int:
    """Folds each BatchNormalization into a layer that nothing else reads, or that it is read by alone; returns how
    many."""
    return sum(_fold_back(graph, norm) or _fold_forward(graph, norm) for norm in graph.nodes("BatchNormalization"))


def _fold_back(graph: Graph, norm: ir.Node) -> bool:
    source, scale_shift = norm.inputs[0], _scale_shift(norm)
    if source is None or scale_shift is None:
        return False
    value: ir.Value | None = source
    while (resize := maker_of(value, "Resize")) is not None and commutes(resize):
        value = resize.inputs[0]
    layer = value.producer() if value is not None else None
    if value is None or layer is None or reader_of(value) is None or layer.domain not in ONNX:
        return False
    if layer.op_type in ("Conv", "ConvTranspose"):
        output = _fold_into_convolution(graph, layer, *scale_shift)
    elif layer.op_type in ("Gemm", "MatMul") and len(dims(source)) == 2:
        output = _fold_into_matrix(graph, layer, *scale_shift)
    else:
        return False
    if output is None:
        return False
    if value is source:
        graph.substitute(norm.outputs[0], output)
    else:
        graph.substitute(value, output)
        graph.substitute(norm.outputs[0], source)
    return True


def _fold_forward(graph: Graph, norm: ir.Node) -> bool:
    source, scale_shift = norm.inputs[0], _scale_shift(norm)
    conv = reader_of(norm.outputs[0])
    if source is None or scale_shift is None or conv is None or conv.op_type != "Conv" or conv.domain not in ONNX:
        return False
    weight, bias = floats_of(input_of(conv, 1)), floats_of(input_of(conv, 2))
    is_padded = any(ints(conv, "pads")) or text(conv, "auto_pad", "NOTSET") not in ("NOTSET", "VALID")
    if weight is None or is_padded or (bias is None and input_of(conv, 2) is not None):
        return False
    groups = integer(conv, "group", 1)
    grouped = weight.reshape(groups, -1, *weight.shape[1:])  # (groups, D / groups, C / groups, *kernel)
    scale, shift = (item.reshape(groups, 1, -1, *[1] * (weight.ndim - 2)) for item in scale_shift)
    added = (grouped * shift).sum(axis=tuple(range(2, grouped.ndim))).reshape(-1)
    bias = added if bias is None else bias + added
    attributes = dict(conv.attributes.items())
    scaled = (grouped * scale).reshape(weight.shape)
    graph.substitute(conv.outputs[0], _rebuilt(graph, conv, "Conv", scaled, bias, attributes, source))
    return True


def _scale_shift(norm: ir.Node) -> tuple[np.ndarray, np.ndarray] | None:
    """(s, t) of the formula above; None in training mode or where a parameter is not a float32 constant."""
    if integer(norm, "training_mode", 0) or any(output.uses() for output in norm.outputs[1:]):
        return None
    gamma, beta, mean, variance = (floats_of(input_of(norm, index)) for index in (1, 2, 3, 4))
    if gamma is None or beta is None or mean is None or variance is None:
        return None
    scale = gamma / np.sqrt(variance + number(norm, "epsilon", 1e-5))
    return scale, beta - scale * mean


def _fold_into_convolution(graph: Graph, layer: ir.Node, scale: np.ndarray, shift: np.ndarray) -> ir.Value | None:
    weight, bias = floats_of(input_of(layer, 1)), floats_of(input_of(layer, 2))
    if weight is None or (bias is None and input_of(layer, 2) is not None):
        return None
    if layer.op_type == "Conv":
        weight = weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
    else:  # (C_in, C_out / groups, *kernel): output channel j of group g is number g * C_out / groups + j
        groups = integer(layer, "group", 1)
        grouped = weight.reshape(groups, -1, *weight.shape[1:])
        weight = (grouped * scale.reshape(groups, 1, -1, *[1] * (weight.ndim - 2))).reshape(weight.shape)
    bias = shift if bias is None else scale * bias + shift
    return _rebuilt(graph, layer, layer.op_type, weight, bias, dict(layer.attributes.items()))


def _fold_into_matrix(graph: Graph, layer: ir.Node, scale: np.ndarray, shift: np.ndarray) -> ir.Value | None:
    """Gemm: alpha A B + beta C. MatMul becomes a Gemm, since the shift needs a bias."""
    weight, bias = floats_of(input_of(layer, 1)), floats_of(input_of(layer, 2))
    if weight is None or weight.ndim != 2 or (bias is None and input_of(layer, 2) is not None):
        return None
    if integer(layer, "transB", 0):
        weight = weight.T
    weight = number(layer, "alpha", 1.0) * weight * scale
    if bias is not None:
        if bias.ndim > 1 and bias.shape[0] != 1:  # differs from row to row
            return None
        shift = shift + number(layer, "beta", 1.0) * scale * bias.reshape(-1)
    return _rebuilt(graph, layer, "Gemm", weight, shift, {"transA": integer(layer, "transA", 0)})


def _rebuilt(
    graph: Graph,
    layer: ir.Node,
    op_type: str,
    weight: np.ndarray,
    bias: np.ndarray,
    attributes: dict,
    source: ir.Value | None = None,
) -> ir.Value:
    stem = stem_of(layer)
    inputs = [source or layer.inputs[0], graph.constant(f"{stem}.weight", weight), graph.constant(f"{stem}.bias", bias)]
    return graph.add(layer, op_type, inputs, attributes, like(layer.outputs[0], {}), layer.name or stem)
