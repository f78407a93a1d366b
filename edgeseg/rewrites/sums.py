"""Sums of upsampled maps: a linear map goes in front of them, and what is upsampled alike is upsampled once.

Upsampling is linear and works on every channel alike (interpolation.py), so

    W (up_1(x_1) + .. + up_k(x_k)) + b = up_1(W x_1) + .. + up_k(W x_k) + b        (a 1x1 convolution W)
    up(x) + up(y) = up(x + y)
    x + up(p) = x + p, broadcast                                                   (p of a single pixel)

The first saves multiply-accumulates where the small maps have fewer pixels together than the large one: where no term
is at full size. The others save none, but a pass over the large map.
"""

import numpy as np
import onnx_ir as ir

from edgeseg.rewrites.graph import Graph, dims, input_of, like, maker_of, reader_of
from edgeseg.rewrites.interpolation import Matrices, upsampling_matrices
from edgeseg.rewrites.pointwise import Convolution, add_pointwise, pixels, pointwise
from edgeseg.rewrites.resize import upsampling_behind


def move_before_sums(graph: Graph) -> int:
    """Moves each 1x1 convolution of a sum of upsampled maps to its terms, where that saves; returns how many."""
    moved = 0
    for node in graph.nodes("Conv"):
        conv = pointwise(node)
        terms = _terms(conv.source) if conv is not None else []
        if conv is None or len(terms) < 2 or not _saves(conv, terms):
            continue
        bias = conv.bias if input_of(node, 2) is not None else None
        shape, total = like(conv.output, {}), None
        for index, term in enumerate(terms):
            is_first = index == 0
            mapped = add_pointwise(
                graph, node, term, conv.weight[:, :, 0, 0], bias if is_first else None, f"{conv.stem}.{index}"
            )
            total = mapped if total is None else graph.add(node, "Add", [total, mapped], {}, shape, f"{conv.stem}.sum")
        assert total is not None
        graph.substitute(conv.output, total)
        moved += 1
    return moved


def _terms(value: ir.Value) -> list[ir.Value]:
    """What is added up to a value, through sums that nothing else reads."""
    node = maker_of(value, "Add") or maker_of(value, "Sum")
    if node is None:
        return [value]
    return [term for item in node.inputs if item is not None for term in _terms(item)]


def _saves(conv: Convolution, terms: list[ir.Value]) -> bool:
    makers = [upsampling_behind(term) for term in terms]
    small = [pixels(maker.inputs[0]) for maker in makers if maker is not None and maker.inputs[0] is not None]
    if len(small) < len(terms) or any(dims(term) != dims(conv.source) for term in terms):
        return False
    return sum(count or 0 for count in small) < (pixels(conv.output) or 0)


def add_before_upsampling(graph: Graph) -> int:
    """Upsamples once where two maps are upsampled in the same way and added; returns how many times."""
    joined = 0
    for node in graph.nodes("Add"):
        left, right = (_upsampled(value) for value in node.inputs)
        if left is None or right is None or dims(left[0]) != dims(right[0]):
            continue
        if not all(map(np.array_equal, left[1], right[1])):
            continue
        resize = node.inputs[0].producer() if node.inputs[0] is not None else None
        assert resize is not None
        name = node.name or "sum"
        total = graph.add(node, "Add", [left[0], right[0]], {}, like(left[0], {}), f"{name}.small")
        attributes, shape = dict(resize.attributes.items()), like(node.outputs[0], {})
        inputs = [total, *resize.inputs[1:]]
        graph.substitute(node.outputs[0], graph.add(node, resize.op_type, inputs, attributes, shape, name))
        joined += 1
    return joined


def broadcast_single_pixels(graph: Graph) -> int:
    """Adds a map of one pixel as it is, not upsampled first; returns how many."""
    dropped = 0
    for node in graph.nodes("Add"):
        for value, other in (node.inputs, node.inputs[::-1]):
            found = _upsampled(value)
            if value is None or found is None or pixels(found[0]) != 1 or dims(other) != dims(node.outputs[0]):
                continue
            graph.bypass(value, found[0])
            dropped += 1
            break
    return dropped


def _upsampled(value: ir.Value | None) -> tuple[ir.Value, Matrices] | None:
    """The map behind an upsampled one that nothing else reads, and its matrices."""
    return upsampling_matrices(value) if value is not None and reader_of(value) is not None else None
