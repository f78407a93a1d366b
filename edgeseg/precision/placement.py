"""Where Q/DQ pairs go, and what each place is called.

The rules are those NVIDIA gives for explicit quantization: the activation and the weight of every weighted operation,
not its output; the shortcut of a residual Add behind a convolution, so that the addition can join the convolution's
kernel; nothing else. Attention products, Softmax, LayerNormalization, GELU and Resize have no constant operand and
stay in floating point, and so do products with the constant matrices of an interpolation or a mean.

A place is named for what no exporter changes: operation, ordinal among the weighted operations in the order of
`Graph.order`, and weight shape: `Conv:3:64x32x3x3`. So scales survive another input size and other tensor names.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import NodeProto

from edgeseg.precision.graph import DEFAULT_DOMAINS, Graph, attribute

# What a runtime may move a Q/DQ pair across, on its way to the operation in front.
COMMUTES = (
    *(
        "Identity",
        "Dropout",
        "Relu",
        "LeakyRelu",
        "PRelu",
        "Clip",
        "BatchNormalization",
        "MaxPool",
        "AveragePool",
        "Pad",
    ),
    *("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Split", "DepthToSpace", "SpaceToDepth"),
)
MOST_TAPS = 32  # interpolation matrices that a rewrite puts side by side, or fewer
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")


@dataclass(frozen=True)
class WeightedOp:
    """A node with one constant operand, and which of its inputs is what."""

    key: str
    index: int  # of the node in model.graph.node
    activation: int  # input position of the activation
    weight: int  # input position of the weight
    axis: int  # of the weight: its output channels
    is_quantized: bool  # its weight comes from a DequantizeLinear already


@dataclass(frozen=True)
class Residual:
    """The shortcut input of an Add whose other input is a convolution's output."""

    key: str  # the convolution's key + ":residual"
    index: int  # of the Add
    shortcut: int  # input position


@dataclass(frozen=True)
class Placement:
    """All places of one graph, in topological order."""

    ops: tuple[WeightedOp, ...]
    residuals: tuple[Residual, ...]

    def tensors(self, model: onnx.ModelProto) -> dict[str, str]:
        """Key of every place -> name of the activation tensor that is to be quantized there."""
        nodes = model.graph.node
        places = {op.key: nodes[op.index].input[op.activation] for op in self.ops}
        return places | {place.key: nodes[place.index].input[place.shortcut] for place in self.residuals}

    @property
    def keys(self) -> tuple[str, ...]:
        return (*(op.key for op in self.ops), *(residual.key for residual in self.residuals))


def find_placement(model: onnx.ModelProto) -> Placement:
    """The places of a graph, quantized or not: quantizing a graph does not change its keys."""
    graph = Graph(model)
    ops: list[WeightedOp] = []
    order = graph.order()
    for index in order:
        op = _weighted_op(graph, index, len(ops))
        if op is not None:
            ops.append(op)
    by_output = {graph.nodes[op.index].output[0]: op for op in ops}
    depths = _depths(graph, order)
    found = [_residual(graph, index, by_output, depths) for index in order]
    return Placement(tuple(ops), tuple(place for place in found if place is not None))


def places_behind(model: onnx.ModelProto, placement: Placement, op_types: Sequence[str]) -> set[str]:
    """Keys of the weighted operations whose activation comes from one of these operations, perhaps through COMMUTES."""
    graph = Graph(model)
    behind: set[str] = set()
    for op in placement.ops:
        node = graph.made_by(graph.nodes[op.index].input[op.activation])
        while node is not None and node.op_type in (*COMMUTES, "QuantizeLinear", "DequantizeLinear"):
            node = graph.made_by(node.input[0])
        if node is not None and node.op_type in op_types:
            behind.add(op.key)
    return behind


def _weighted_op(graph: Graph, index: int, ordinal: int) -> WeightedOp | None:
    node = graph.nodes[index]
    if node.op_type not in WEIGHTED or node.domain not in DEFAULT_DOMAINS:
        return None
    constants = [_weight(graph, name) for name in node.input[:2]]
    if (constants[0] is None) == (constants[1] is None):
        return None  # a product of two activations, or something to be folded
    weight = 0 if constants[1] is None else 1
    if weight == 0 and node.op_type != "MatMul":
        return None
    value, is_quantized = constants[weight]  # type: ignore[misc]
    if value.ndim < 2:
        return None  # a matrix-vector product: memory bound, INT8 gains nothing
    if _resamples(graph, node):
        return None
    axis = {
        "Conv": 0,
        "ConvTranspose": 1,
        "Gemm": 0 if attribute(node, "transB", 0) else 1,
        "MatMul": value.ndim - 1 if weight == 1 else value.ndim - 2,
    }[node.op_type]
    shape = "x".join(str(size) for size in value.shape)
    return WeightedOp(f"{node.op_type}:{ordinal}:{shape}", index, 1 - weight, weight, axis, is_quantized)


def _resamples(graph: Graph, node: NodeProto) -> bool:
    """Whether a node is a product with a matrix that interpolates or averages: no weight is negative, and those of each
    result sum to 1, or to another small whole number where such matrices stand side by side (rewrites/upsampled.py). A
    layer's never do. Its size is the image's, so that scales would not survive another one."""
    if node.op_type != "MatMul":
        return False
    for position, name in enumerate(node.input[:2]):
        matrix = graph.constant(name)
        if matrix is not None and matrix.ndim >= 2 and matrix.dtype.kind == "f" and matrix.size and matrix.min() >= 0:
            sums = matrix.sum(axis=-1 if position == 0 else -2, dtype=np.float64)
            return bool(sums.max() <= MOST_TAPS and np.abs(sums - sums.round()).max() < 1e-2)
    return False


def _weight(graph: Graph, name: str) -> tuple[np.ndarray, bool] | None:
    """A float32 constant, or the INT8 one behind a DequantizeLinear (True); None for an activation."""
    node = graph.made_by(name)
    if node is not None and node.op_type == "DequantizeLinear":
        value = graph.constant(node.input[0])
        return None if value is None else (value, True)
    value = graph.constant(name)
    return None if value is None or value.dtype != np.float32 else (value, False)


def _depths(graph: Graph, order: list[int]) -> dict[int, int]:
    """Node index -> nodes on the longest way to it from an input."""
    depths: dict[int, int] = {}
    for index in order:
        makers = [graph.producer[name] for name in graph.nodes[index].input if name in graph.producer]
        depths[index] = 1 + max((depths[maker] for maker in makers if maker in depths), default=0)
    return depths


def _residual(graph: Graph, index: int, ops: dict[str, WeightedOp], depths: dict[int, int]) -> Residual | None:
    node = graph.nodes[index]
    if node.op_type != "Add" or node.domain not in DEFAULT_DOMAINS:
        return None
    convolutions = [_convolution_behind(graph, name, ops) for name in node.input]
    # With a convolution on both sides the longer branch is the block and the other one the shortcut.
    order = sorted((0, 1), key=lambda side: depths.get(graph.producer.get(node.input[side], -1), 0), reverse=True)
    for side in order:
        op = convolutions[side]
        other = node.input[1 - side]
        if op is not None and graph.constant(other) is None and not _comes_from_resize(graph, other):
            return Residual(f"{op.key}:residual", index, 1 - side)
    return None


def _convolution_behind(graph: Graph, name: str, ops: dict[str, WeightedOp]) -> WeightedOp | None:
    """The convolution whose output, perhaps through a batch norm, is this tensor and nothing else's input."""
    node = graph.made_by(name)
    if node is not None and node.op_type == "BatchNormalization" and graph.is_read_once(name):
        name = node.input[0]
        node = graph.made_by(name)
    if node is None or node.op_type not in ("Conv", "ConvTranspose") or not graph.is_read_once(name):
        return None
    return ops.get(name)


def _comes_from_resize(graph: Graph, name: str) -> bool:
    """Whether a sum holds an upsampled map: a Q/DQ pair behind Resize would pull the interpolation into INT8."""
    node = graph.made_by(name)
    if node is None:
        return False
    if node.op_type in ("Resize", "Upsample") or _resamples(graph, node):
        return True
    return node.op_type in ("Add", "Sum", "Relu") and any(_comes_from_resize(graph, item) for item in node.input)
