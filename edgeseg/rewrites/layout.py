"""A linear layer on tokens, between a map and a map, is a 1x1 convolution.

With x (N, C, H, W) flattened to tokens T[n, i W + j, :] = x[n, :, i, j],

    map_from_tokens(T W^T + b)[n, :, i, j] = W x[n, :, i, j] + b

so Reshape, Transpose, MatMul, Add, Transpose, Reshape become one Conv: the same multiply-accumulates, without moving
the wide result through memory twice more. Only done where it serves the other rules: where the map goes on, through
Resize and Concat, to a 1x1 convolution.

Whether a chain of reshapes and transposes is such a flattening is decided by following which axes of the map every axis
of a tensor runs over, so it does not matter how an exporter or a simplifier spells it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import onnx_ir as ir

from edgeseg.rewrites.graph import (
    ONNX,
    Dims,
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
)
from edgeseg.rewrites.pointwise import add_pointwise, pointwise

MOVES = ("Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze")  # these only rearrange
BATCH = 7919  # stands for a batch that is not known: a prime, so that no product of other dimensions equals it

Axes = list[list[str]]  # for each axis of a tensor, the axes of the map that it runs over, slowest first
Sizes = Mapping[str, int]  # of the map's axes n, c, h, w


@dataclass(frozen=True)
class Linear:
    """y = x W^T + b on the last axis: weight (D, C), bias (D,) or None."""

    source: ir.Value
    weight: np.ndarray
    bias: np.ndarray | None
    stem: str


def linears_to_convolutions(graph: Graph) -> int:
    """Replaces such layers; returns how many."""
    replaced = 0
    for node in graph.nodes("Reshape", "Transpose"):
        target = node.outputs[0]
        found = _linear_behind(target) if _leads_to_pointwise(target) else None
        if found is None:
            continue
        linear, axes, sizes = found
        origins = list(_origins(linear.source, axes, sizes))
        source = _find_map(origins, sizes) or _add_map(graph, node, origins, target, sizes)
        graph.substitute(target, add_pointwise(graph, node, source, linear.weight, linear.bias, linear.stem))
        replaced += 1
    return replaced


def _leads_to_pointwise(value: ir.Value) -> bool:
    """Whether a map's one reader is a 1x1 convolution, possibly behind a Resize and a Concat."""
    node = reader_of(value)
    for passed in ("Resize", "Concat"):
        if node is not None and node.op_type == passed:
            node = reader_of(node.outputs[0])
    return pointwise(node) is not None


def _linear_behind(target: ir.Value) -> tuple[Linear, Axes, Sizes] | None:
    """The linear layer whose result becomes this (N, D, H, W) map; how its input runs over the map, and its sizes."""
    shape = dims(target)
    if len(shape) != 4 or None in shape[1:]:
        return None
    sizes = {name: size or BATCH for name, size in zip("nchw", shape, strict=True)}
    value, axes = target, _axes("nchw", sizes)
    while (linear := _linear(value)) is None:
        node = value.producer()
        before = _axes_before(node, axes, sizes) if node is not None else None
        if node is None or before is None or node.inputs[0] is None or reader_of(node.inputs[0]) is None:
            return None
        value, axes = node.inputs[0], before
    channels_last = axes[-1:] == _axes("c", sizes) and linear.weight.shape[0] == sizes["c"]
    if not channels_last or _flat(axes[:-1]) != _flat(_axes("nhw", sizes)):
        return None
    sizes["c"] = linear.weight.shape[1]
    return linear, [*axes[:-1], *_axes("c", sizes)], sizes


def _linear(value: ir.Value) -> Linear | None:
    """The node that makes a value, as Gemm, MatMul, or MatMul + Add with constant weights."""
    node = value.producer()
    if node is None or node.op_type == "Gemm":
        return None if node is None else _gemm(node)
    if node.op_type == "MatMul":
        return _matmul(node, None, stem_of(node))
    if node.op_type != "Add" or len(dims(value)) == 0:
        return None
    for product, other in (node.inputs, node.inputs[::-1]):
        matmul, bias = maker_of(product, "MatMul"), floats_of(other)
        if matmul is not None and bias is not None and bias.size == dims(value)[-1] == bias.shape[-1]:
            return _matmul(matmul, bias.reshape(-1), stem_of(matmul if stem_of(node) == node.name else node))
    return None


def _matmul(node: ir.Node, bias: np.ndarray | None, stem: str) -> Linear | None:
    weight = floats_of(input_of(node, 1))
    if node.inputs[0] is None or weight is None or weight.ndim != 2:
        return None
    return Linear(node.inputs[0], weight.T, bias, stem)


def _gemm(node: ir.Node) -> Linear | None:
    weight, bias = floats_of(input_of(node, 1)), floats_of(input_of(node, 2))
    if node.inputs[0] is None or weight is None or weight.ndim != 2 or integer(node, "transA", 0):
        return None
    weight = number(node, "alpha", 1.0) * (weight if integer(node, "transB", 0) else weight.T)
    if bias is not None:
        if bias.size not in (1, weight.shape[0]) or (bias.ndim and bias.shape[-1] != bias.size):
            return None
        bias = number(node, "beta", 1.0) * np.broadcast_to(bias.reshape(-1), weight.shape[:1])
    elif input_of(node, 2) is not None:
        return None
    return Linear(node.inputs[0], weight, bias, stem_of(node))


def _origins(tokens: ir.Value, axes: Axes, sizes: Sizes) -> Iterator[tuple[ir.Value, Axes]]:
    """The tokens, and what they were before each rearrangement, as far back as rearrangements go."""
    value: ir.Value | None = tokens
    before: Axes | None = axes
    while value is not None and before is not None:
        yield value, before
        node = value.producer()
        before = _axes_before(node, before, sizes) if node is not None else None
        value = node.inputs[0] if node is not None else None


def _find_map(origins: Sequence[tuple[ir.Value, Axes]], sizes: Sizes) -> ir.Value | None:
    """The map that was flattened to these tokens, or one that another layer has unflattened from them."""
    for value, axes in origins:
        if _is_map(value, axes, sizes):
            return value
        for reader in value.consumers():
            found = _find_map_after(reader, value, axes, sizes)
            if found is not None:
                return found
    return None


def _find_map_after(node: ir.Node, source: ir.Value, axes: Axes, sizes: Sizes) -> ir.Value | None:
    if node.op_type not in MOVES or node.inputs[0] is not source:
        return None
    after = _axes_after(node, axes, sizes)
    if after is None:
        return None
    if _is_map(node.outputs[0], after, sizes):
        return node.outputs[0]
    found = (_find_map_after(reader, node.outputs[0], after, sizes) for reader in node.outputs[0].consumers())
    return next((value for value in found if value is not None), None)


def _add_map(
    graph: Graph, before: ir.Node, origins: Sequence[tuple[ir.Value, Axes]], target: ir.Value, sizes: Sizes
) -> ir.Value:
    """Unflattens the tokens: by a Reshape where their channels stood in front at some time, else by a Transpose too."""
    batch = dims(target)[0]
    leading = -1 if batch is None else batch
    height, width, channels = (sizes[axis] for axis in "hwc")
    nchw = like(target, {1: channels})
    for value, axes in origins:
        if _flat(axes) == _flat(_axes("nchw", sizes)):
            name = f"{value.name}.nchw"
            shape = graph.constant(f"{name}_shape", np.array([leading, channels, height, width], np.int64))
            return graph.add(before, "Reshape", [value, shape], {}, nchw, name)
    tokens, _ = origins[0]
    name = f"{tokens.name}.nhwc"
    shape = graph.constant(f"{name}_shape", np.array([leading, height, width, channels], np.int64))
    nhwc = like(target, {1: height, 2: width, 3: channels})
    spread = graph.add(before, "Reshape", [tokens, shape], {}, nhwc, name)
    return graph.add(before, "Transpose", [spread], {"perm": [0, 3, 1, 2]}, nchw, f"{tokens.name}.nchw")


def _flat(axes: Axes) -> list[str]:
    """The map's axes in the order in which the elements lie."""
    return [name for axis in axes for name in axis]


def _axes(names: str, sizes: Sizes) -> Axes:
    """Axes of one element are left out everywhere: they can stand anywhere."""
    return [[name] if sizes[name] > 1 else [] for name in names]


def _is_map(value: ir.Value, axes: Axes, sizes: Sizes) -> bool:
    return axes == _axes("nchw", sizes) and dims(value)[1:] == tuple(sizes[axis] for axis in "chw")


def _axes_before(node: ir.Node, axes: Axes, sizes: Sizes) -> Axes | None:
    """The axes of a node's input from those of its output; None where it does more than rearrange."""
    if node.op_type not in MOVES or node.domain not in ONNX:
        return None
    if node.op_type != "Transpose":
        return _regrouped(axes, dims(node.inputs[0]), sizes)
    perm = ints(node, "perm") or tuple(reversed(range(len(axes))))
    return [axes[perm.index(axis)] for axis in range(len(axes))]


def _axes_after(node: ir.Node, axes: Axes, sizes: Sizes) -> Axes | None:
    if node.op_type != "Transpose":
        return _regrouped(axes, dims(node.outputs[0]), sizes)
    return [axes[axis] for axis in ints(node, "perm") or reversed(range(len(axes)))]


def _regrouped(axes: Axes, shape: Dims, sizes: Sizes) -> Axes | None:
    """The same elements in the same order under another shape, one dimension of which may be unknown; None where a
    dimension of the new shape would run over a part of an axis only."""
    if not shape or shape.count(None) > 1:
        return None
    names = _flat(axes)
    unknown = prod(sizes[name] for name in names) // max(1, prod(dim for dim in shape if dim is not None))
    groups: Axes = []
    for dim in shape:
        extent = unknown if dim is None else dim
        group: list[str] = []
        while names and prod(sizes[name] for name in group) < extent:
            group.append(names.pop(0))
        if prod(sizes[name] for name in group) != extent:
            return None
        groups.append(group)
    return groups if not names else None
