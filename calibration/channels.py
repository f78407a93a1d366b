"""Which activations may be rescaled channel by channel without changing what a network computes.

Divide channel j of an activation by s_j: the layers before it take 1 / s_j into their output channels, the layers
behind it s_j into their input channels, and everything between must let a factor pass (ReLU, pooling, resizing,
additions). The activations that have to be rescaled together are a group; one obstacle (GELU, Softmax, a clip, a
product of two activations, the network's own input or output) spoils it. ReLU6 is a clip: its 6 would have to differ
from channel to channel, which ONNX's Clip cannot, so groups with one are left alone.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import onnx
from onnx import NodeProto, shape_inference

from edgeseg.onnx_shapes import without_weights
from edgeseg.precision.graph import DEFAULT_DOMAINS, Graph, attribute

PASSING = (  # f(x / s) = f(x) / s for every channel; the shape tells where the channels are afterwards
    *("Relu", "LeakyRelu", "Identity", "Dropout", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"),
    *("Resize", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Slice", "ReduceMean"),
)


@dataclass(frozen=True)
class Edit:
    """A constant that takes a group's factors in."""

    index: int  # of the node
    position: int  # of its input
    axis: int  # of the constant, along which the channels lie
    sign: Literal[1, -1]  # times s, or divided by s


@dataclass
class Group:
    """Activations that are rescaled together."""

    channels: int
    tensors: list[str] = field(default_factory=list)
    edits: list[Edit] = field(default_factory=list)
    behind_norm: bool = False  # a LayerNormalization is among the layers before it
    blocked: bool = False


def find_groups(model: onnx.ModelProto) -> tuple[list[Group], dict[str, tuple[int, int]]]:
    """The groups that nothing blocks, with layers before and behind; and channel axis and rank of the tensors."""
    finder = _Finder(model)
    finder.walk()
    groups = {id(group): group for group in map(finder.group_of, finder.axes) if not group.blocked}
    whole = [group for group in groups.values() if {edit.sign for edit in group.edits} == {1, -1}]
    return whole, {tensor: (axis, len(finder.shapes[tensor])) for tensor, axis in finder.axes.items()}


class _Finder:
    def __init__(self, model: onnx.ModelProto):
        self.graph = Graph(model)
        self.shapes = _shapes(model)
        self.axes: dict[str, int] = {}  # tensor -> its channel axis
        self._groups: dict[str, Group] = {}
        self._merged: dict[int, Group] = {}  # id of a group -> the one that took it in
        self._kept: list[Group] = []  # alive, so that ids stay theirs

    def group_of(self, tensor: str) -> Group:
        group = self._groups[tensor]
        while id(group) in self._merged:
            group = self._merged[id(group)]
        return group

    def walk(self) -> None:
        handlers: dict[str, Callable[[int, NodeProto], bool]] = {
            "Conv": self._conv,
            "MatMul": self._matmul,
            "Gemm": self._gemm,
            "LayerNormalization": self._layer_norm,
            "BatchNormalization": self._batch_norm,
            "Transpose": self._transpose,
            "Add": self._sum,
            "Sub": self._sum,
            "Mul": self._product,
            "Div": self._product,
        }
        for index in self.graph.order():
            node = self.graph.nodes[index]
            known = node.domain in DEFAULT_DOMAINS and all(name in self.shapes for name in node.output if name)
            handle = handlers.get(node.op_type, self._pass if node.op_type in PASSING else None)
            if not (known and handle is not None and handle(index, node)):
                self._block(*node.input, *node.output)
        self._block(*self.graph.outputs)

    def _block(self, *tensors: str) -> None:
        for tensor in tensors:
            if tensor in self.axes:
                self.group_of(tensor).blocked = True

    def _start(self, tensor: str, axis: int, edits: list[Edit], *, behind_norm: bool = False) -> bool:
        """A new group from a layer's output."""
        axis %= len(self.shapes[tensor])
        group = Group(self.shapes[tensor][axis], [tensor], edits, behind_norm)
        self._kept.append(group)
        self._groups[tensor], self.axes[tensor] = group, axis
        return True

    def _join(self, tensor: str, source: str, axis: int) -> bool:
        """A tensor of the same group as another."""
        group = self.group_of(source)
        if not 0 <= axis < len(self.shapes[tensor]) or self.shapes[tensor][axis] != group.channels:
            return False
        group.tensors.append(tensor)
        self._groups[tensor], self.axes[tensor] = group, axis
        return True

    def _consume(self, tensor: str, axis: int, edits: list[Edit]) -> None:
        """A layer takes the factors of its input in, if its input has any."""
        if tensor in self.axes:
            if self.axes[tensor] == axis % len(self.shapes[tensor]):
                self.group_of(tensor).edits += edits
            else:
                self._block(tensor)

    def _is_constant(self, name: str) -> bool:
        return self.graph.constant(name) is not None

    def _conv(self, index: int, node: NodeProto) -> bool:
        weight = self.graph.constant(node.input[1])
        if weight is None or weight.dtype != np.float32 or any(not self._is_constant(name) for name in node.input[2:]):
            return False
        groups = attribute(node, "group", 1)
        if groups == 1:
            self._consume(node.input[0], 1, [Edit(index, 1, 1, 1)])
        elif groups == len(weight) and weight.shape[1] == 1:  # depthwise, one filter a channel
            self._consume(node.input[0], 1, [Edit(index, 1, 0, 1)])
        else:
            self._block(node.input[0])
        return self._start(node.output[0], 1, [Edit(index, i, 0, -1) for i in range(1, len(node.input))])

    def _matmul(self, index: int, node: NodeProto) -> bool:
        weight = self.graph.constant(node.input[1])
        source = node.input[0]
        if weight is None or weight.dtype != np.float32 or weight.ndim != 2:
            other = node.input[1]  # a constant from the left mixes rows, which are no channels here
            axis = self.axes.get(other, -1)
            mixes = axis == len(self.shapes.get(other, ())) - 2
            return self._is_constant(source) and axis >= 0 and not mixes and self._join(node.output[0], other, axis)
        last = len(self.shapes[node.output[0]]) - 1
        if self.axes.get(source, last) != last:  # it mixes pixels, not channels: an interpolation
            return self._join(node.output[0], source, self.axes[source])
        self._consume(source, last, [Edit(index, 1, 0, 1)])
        return self._start(node.output[0], last, [Edit(index, 1, 1, -1)])

    def _gemm(self, index: int, node: NodeProto) -> bool:
        weight, turned = self.graph.constant(node.input[1]), attribute(node, "transB", 0)
        bias = self.graph.constant(node.input[2]) if len(node.input) > 2 else np.zeros(0)
        if weight is None or bias is None or weight.dtype != np.float32 or attribute(node, "transA", 0):
            return False
        if bias.ndim != 1 or (len(node.input) > 2 and len(bias) != self.shapes[node.output[0]][1]):
            return False
        self._consume(node.input[0], 1, [Edit(index, 1, 1 if turned else 0, 1)])
        made = [Edit(index, 1, 0 if turned else 1, -1)] + [Edit(index, i, 0, -1) for i in range(2, len(node.input))]
        return self._start(node.output[0], 1, made)

    def _layer_norm(self, index: int, node: NodeProto) -> bool:
        self._block(node.input[0])
        rank = len(self.shapes[node.output[0]])
        if attribute(node, "axis", -1) % rank != rank - 1 or not all(map(self._is_constant, node.input[1:])):
            return False
        edits = [Edit(index, i, 0, -1) for i in range(1, len(node.input))]
        return self._start(node.output[0], rank - 1, edits, behind_norm=True)

    def _batch_norm(self, index: int, node: NodeProto) -> bool:
        if not all(map(self._is_constant, node.input[1:])):
            return False
        # gain * (x - mean) / std: with x / s for x, mean / s and gain * s.
        self._consume(node.input[0], 1, [Edit(index, 1, 0, 1), Edit(index, 3, 0, -1)])
        return self._start(node.output[0], 1, [Edit(index, 1, 0, -1), Edit(index, 2, 0, -1)])

    def _transpose(self, index: int, node: NodeProto) -> bool:
        source = node.input[0]
        if source not in self.axes:
            return True
        perm = next((list(item.ints) for item in node.attribute if item.name == "perm"), None)
        order = perm or list(range(len(self.shapes[source])))[::-1]
        return self._join(node.output[0], source, order.index(self.axes[source]))

    def _sum(self, index: int, node: NodeProto) -> bool:
        output = node.output[0]
        constants = [self.graph.constant(name) for name in node.input]
        known = [name for name in node.input if name in self.axes]
        if constants[0] is None and constants[1] is None:
            axes = {len(self.shapes[output]) - len(self.shapes[name]) + self.axes[name] for name in known}
            if len(known) != 2 or len(axes) != 1:
                return False
            first, second = (self.group_of(name) for name in node.input)
            if first.channels != second.channels:
                return False
            self._merge(first, second)
            return self._join(output, node.input[0], axes.pop())
        if len(known) != 1 or len(self.shapes[known[0]]) != len(self.shapes[output]):
            return not known
        position = 1 if constants[0] is None else 0
        constant = constants[position]
        assert constant is not None
        axis = constant.ndim - (len(self.shapes[output]) - self.axes[known[0]])
        if axis < 0 or constant.shape[axis] != self.group_of(known[0]).channels:
            return False  # one number for all channels
        self.group_of(known[0]).edits.append(Edit(index, position, axis, -1))
        return self._join(output, known[0], self.axes[known[0]])

    def _product(self, index: int, node: NodeProto) -> bool:
        source, factor = node.input[0], node.input[1]
        if source not in self.axes and factor in self.axes and node.op_type == "Mul":
            source, factor = factor, source
        same = source in self.axes and len(self.shapes[source]) == len(self.shapes[node.output[0]])
        return same and self._is_constant(factor) and self._join(node.output[0], source, self.axes[source])

    def _pass(self, index: int, node: NodeProto) -> bool:
        source, output = node.input[0], node.output[0]
        if source not in self.axes:
            return True
        axis = _kept_axis(self.shapes[source], self.axes[source], self.shapes[output], node.op_type)
        return axis is not None and self._join(output, source, axis)

    def _merge(self, first: Group, second: Group) -> None:
        if first is second:
            return
        first.tensors += second.tensors
        first.edits += second.edits
        first.behind_norm |= second.behind_norm
        first.blocked |= second.blocked
        self._merged[id(second)] = first


def _kept_axis(before: tuple[int, ...], axis: int, after: tuple[int, ...], op_type: str) -> int | None:
    """Where an axis is after an operation, or None where it was split, joined, cut or averaged."""
    if op_type in ("Reshape", "Flatten", "Squeeze", "Unsqueeze"):
        ahead = np.prod(before[:axis], dtype=np.int64)
        fits = [i for i, n in enumerate(after) if n == before[axis] and np.prod(after[:i], dtype=np.int64) == ahead]
        return fits[-1] if fits else None
    same = len(before) == len(after) and before[axis] == after[axis]
    return axis if same and (axis == 1 or op_type in ("Relu", "LeakyRelu", "Identity", "Dropout")) else None


def _shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Of the tensors whose shape is known, one image in a batch."""
    fixed = without_weights(model)
    for value in fixed.graph.input[: len(model.graph.input)]:
        for dim in value.type.tensor_type.shape.dim[:1]:
            dim.dim_value = 1
    graph = shape_inference.infer_shapes(fixed, data_prop=True).graph
    shapes = {}
    for value in [*graph.input[: len(model.graph.input)], *graph.value_info, *graph.output]:
        dims = value.type.tensor_type.shape.dim
        if all(dim.HasField("dim_value") for dim in dims):
            shapes[value.name] = tuple(dim.dim_value for dim in dims)
    return shapes
