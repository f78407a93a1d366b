"""A 1x1 convolution over a concatenation is a sum of 1x1 convolutions.

With the weight cut into the columns that belong to each part, W = [W_1 ... W_k],

    W concat(x_1, .., x_k) + b = W_1 x_1 + ... + W_k x_k + b

The multiply-accumulates are the same, so it is done only for parts where another rule can go on and save some: where
the part was upsampled (resize.py), or is itself a linear map that merges with its W_i (merge.py). All other parts stay
together.
"""

import numpy as np
import onnx_ir as ir

from edgeseg.rewrites.graph import Graph, dims, input_of, integer, like, maker_of
from edgeseg.rewrites.merge import merging_saves
from edgeseg.rewrites.pointwise import Convolution, add_pointwise, convolution, pixels, pointwise
from edgeseg.rewrites.resize import upsampling_behind


def split_over_concat(graph: Graph) -> int:
    """Splits each such convolution; returns how many."""
    split = 0
    for node in graph.nodes("Conv"):
        conv = pointwise(node)
        concat = maker_of(conv.source, "Concat") if conv is not None else None
        if conv is not None and concat is not None and _split(graph, conv, concat):
            split += 1
    return split


def _split(graph: Graph, conv: Convolution, concat: ir.Node) -> bool:
    parts = [part for part in concat.inputs if part is not None]
    widths = [dims(part)[1] if len(dims(part)) == 4 else None for part in parts]
    if integer(concat, "axis", 1) % 4 != 1 or None in widths:
        return False
    ends = np.cumsum(np.array(widths, dtype=np.int64))
    weights = np.split(conv.weight[:, :, 0, 0], ends[:-1].tolist(), axis=1)
    leaving = [_saves_alone(part, weight) for part, weight in zip(parts, weights, strict=True)]
    if not any(leaving):
        return False
    terms = []
    for index, (part, weight) in enumerate(zip(parts, weights, strict=True)):
        if leaving[index]:
            terms.append((part, weight, f"{conv.stem}.{index}"))
    if not all(leaving):
        terms.append(_remaining(graph, conv, concat, parts, weights, leaving))
    terms.sort(key=lambda term: _order(term[0]))
    bias = conv.bias if input_of(conv.node, 2) is not None else None
    total = None
    for index, (part, weight, stem) in enumerate(terms):
        last = index == len(terms) - 1
        term = add_pointwise(graph, conv.node, part, weight, bias if last else None, stem)
        if total is not None:
            term = graph.add(conv.node, "Add", [total, term], {}, like(conv.output, {}), f"{conv.stem}.sum_{index}")
        total = term
    assert total is not None
    graph.substitute(conv.output, total)
    return True


def _saves_alone(part: ir.Value, weight: np.ndarray) -> bool:
    if upsampling_behind(part) is not None:
        return True
    before = convolution(maker_of(part, "Conv"))
    return before is not None and merging_saves(before.weight.shape, weight.shape[0])


def _order(part: ir.Value) -> int:
    """Upsampled maps from large to small, so that those of one size are neighbours (sums.py); the convolution at full
    resolution comes last: convolution + addition + ReLU is what runtimes fuse."""
    resize = upsampling_behind(part)
    small = None if resize is None or resize.inputs[0] is None else pixels(resize.inputs[0])
    return 1 if small is None else -small


def _remaining(
    graph: Graph,
    conv: Convolution,
    concat: ir.Node,
    parts: list[ir.Value],
    weights: list[np.ndarray],
    leaving: list[bool],
) -> tuple[ir.Value, np.ndarray, str]:
    """The parts that stay together, concatenated anew where they are more than one."""
    indices = [index for index, leaves in enumerate(leaving) if not leaves]
    weight = np.concatenate([weights[index] for index in indices], axis=1)
    stem = ".".join([conv.stem, "_".join(map(str, indices))])
    if len(indices) == 1:
        return parts[indices[0]], weight, stem
    shape = like(conv.source, {1: weight.shape[1]})
    kept = [parts[index] for index in indices]
    return graph.add(conv.node, "Concat", kept, {"axis": 1}, shape, f"{stem}.concat"), weight, stem
