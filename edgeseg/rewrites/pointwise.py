"""The per-pixel linear map that most rules are about: a 1x1 convolution, y[:, :, i, j] = W x[:, :, i, j] + b."""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgeseg.rewrites.graph import ONNX, Attribute, Graph, dims, floats_of, input_of, integer, ints, like, stem_of


@dataclass(frozen=True)
class Convolution:
    """A Conv node whose numbers are known: groups 1, weight (D, C, kh, kw), bias (D,), both float64."""

    node: ir.Node
    source: ir.Value
    weight: np.ndarray
    bias: np.ndarray

    @property
    def is_pointwise(self) -> bool:
        """1x1, stride 1, no padding: then every pixel of the output depends on the same pixel of the input alone."""
        strides, pads = ints(self.node, "strides"), ints(self.node, "pads")
        return self.weight.shape[2:] == (1, 1) and set(strides) <= {1} and set(pads) <= {0}

    @property
    def output(self) -> ir.Value:
        return self.node.outputs[0]

    @property
    def stem(self) -> str:
        return stem_of(self.node)


def convolution(node: ir.Node | None) -> Convolution | None:
    """The node as a 2-D convolution without groups and with constant float32 weights, or None."""
    if node is None or node.op_type != "Conv" or node.domain not in ONNX or integer(node, "group", 1) != 1:
        return None
    weight, bias = floats_of(input_of(node, 1)), floats_of(input_of(node, 2))
    source = node.inputs[0]
    if source is None or weight is None or weight.ndim != 4 or (bias is None and input_of(node, 2) is not None):
        return None
    return Convolution(node, source, weight, bias if bias is not None else np.zeros(weight.shape[0]))


def pointwise(node: ir.Node | None) -> Convolution | None:
    """The node as a 1x1 convolution, or None."""
    found = convolution(node)
    return found if found is not None and found.is_pointwise else None


def add_pointwise(
    graph: Graph, before: ir.Node, source: ir.Value, weight: np.ndarray, bias: np.ndarray | None, stem: str
) -> ir.Value:
    """A new 1x1 convolution of ``source`` in front of a node: weight (D, C) and bias (D,), named after ``stem``."""
    inputs: list[ir.Value | None] = [source, graph.constant(f"{stem}.weight", weight[:, :, None, None])]
    if bias is not None:
        inputs.append(graph.constant(f"{stem}.bias", bias))
    attributes: dict[str, Attribute] = {
        "kernel_shape": [1, 1],
        "strides": [1, 1],
        "pads": [0, 0, 0, 0],
        "dilations": [1, 1],
        "group": 1,
    }
    return graph.add(before, "Conv", inputs, attributes, like(source, {1: weight.shape[0]}), stem)


def pixels(value: ir.Value) -> int | None:
    """H * W of a (N, C, H, W) tensor, or None where they are not known."""
    shape = dims(value)
    if len(shape) != 4 or shape[2] is None or shape[3] is None:
        return None
    return shape[2] * shape[3]
