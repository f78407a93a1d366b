"""Two linear maps in a row, with nothing between them, are one.

For a convolution A (any kernel, stride, padding and dilation; mid channels) and a 1x1 convolution B after it,

    W_B (W_A * x + b_A) + b_B = (W_B W_A) * x + (W_B b_A + b_B)

where W_B W_A mixes A's output channels at every tap. A's padding comes before both and is not touched. Per output
pixel A and B cost mid * C * kh * kw + D * mid multiply-accumulates and the merged one D * C * kh * kw, so it is done
where that is less. The product is taken in float64 and stored as float32.
"""

from collections.abc import Sequence
from math import prod

import numpy as np

from edgeseg.rewrites.graph import Graph, like, maker_of
from edgeseg.rewrites.pointwise import Convolution, convolution, pointwise


def merge_convolutions(graph: Graph) -> int:
    """Merges each 1x1 convolution into the one before it, where nothing else reads that; returns how many."""
    merged = 0
    for node in graph.nodes("Conv"):
        second = pointwise(node)
        first = convolution(maker_of(second.source, "Conv")) if second is not None else None
        if first is not None and second is not None and merging_saves(first.weight.shape, second.weight.shape[0]):
            _merge(graph, first, second)
            merged += 1
    return merged


def merging_saves(first_weight: Sequence[int], outputs: int) -> bool:
    """Whether a 1x1 convolution to this many outputs costs less merged into one of weight (mid, C, kh, kw)."""
    mid, taps = first_weight[0], prod(first_weight[1:])
    return outputs * taps < mid * taps + outputs * mid


def _merge(graph: Graph, first: Convolution, second: Convolution) -> None:
    matrix = second.weight[:, :, 0, 0]
    stem = f"{first.stem}.merged"
    weight = graph.constant(f"{stem}.weight", np.einsum("dm,mcyx->dcyx", matrix, first.weight))
    bias = graph.constant(f"{stem}.bias", matrix @ first.bias + second.bias)
    attributes = dict(first.node.attributes.items())
    shape = like(second.output, {})
    output = graph.add(second.node, "Conv", [first.source, weight, bias], attributes, shape, stem)
    graph.substitute(second.output, output)
