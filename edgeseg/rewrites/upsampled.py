"""A convolution of an upsampled map is a product of small matrices.

Upsampling is up(p) = U_h p U_w^T (interpolation.py). A convolution is a sum over its taps (y, x), each of which mixes
channels, as a 1x1 convolution does, and picks rows and columns: S_y and S_x, which have a single 1 in each row, or none
where the tap falls into the zero padding. Mixing channels commutes with all that works on rows and columns, so

    conv(up(p)) = sum_yx S_y U_h (W_yx p) U_w^T S_x^T = A G B^T
    A = [S_0 U_h, S_1 U_h, ..]  (H', kh h)      B = [S_0 U_w, S_1 U_w, ..]  (W', kw w)

where G[o], (kh h, kw w) for each output channel o, has the blocks W_yx[o] p: one 1x1 convolution of the small map, to
kh kw D channels. A and B are constants: kernel size, stride, dilation, padding and interpolation are all in them.

In a convolution of a concatenation (PSPNet's and UPerNet's bottleneck, DeepLab's image pool and original decoder) the
weight is cut into the columns of each part, as in concat.py. The upsampled parts share A side by side, so that their
sum costs nothing, and the parts at full size stay one convolution. Others may read the concatenation too (in OCRNet
two convolutions do): then it stays for them.

    conv(concat(x, up(p_1), .., up(p_k))) + b = [A_1 .. A_k] [G_1 B_1^T; ..; G_k B_k^T] + (W_x * x + b)

G is a convolution and two reorderings, not a ConvTranspose of stride kh x kw, which is the same numbers in the order
(y, tap): in INT8, convolutions are what every runtime has good kernels for.

Done where the multiply-accumulates saved are worth more than the memory traffic added, at MACS_PER_ELEMENT.
"""

from dataclasses import dataclass
from math import prod

import numpy as np
import onnx_ir as ir

from edgeseg.rewrites.graph import ONNX, Graph, dims, input_of, integer, ints, like, reader_of, text
from edgeseg.rewrites.interpolation import upsampling_matrices
from edgeseg.rewrites.pointwise import Convolution, add_pointwise, convolution, pixels

# What a device does while it moves one element to or from memory. Estimated: 30 on a CPU, 100 to 250 on a GPU in FP16.
MACS_PER_ELEMENT = 128


@dataclass(frozen=True, eq=False)
class Part:
    """A share of the convolution's input channels."""

    value: ir.Value
    weight: np.ndarray  # (D, C, kh, kw)


@dataclass(frozen=True, eq=False)
class UpsampledPart(Part):
    """One that is an upsampled (N, C, h, w) map."""

    small: ir.Value
    rows: np.ndarray  # A (H', kh h)
    columns: np.ndarray  # B (W', kw w)
    vanishes: bool  # nothing else reads the upsampled map

    @property
    def saved(self) -> int:
        """Multiply-accumulates of one image."""
        outputs, channels, *_ = self.weight.shape
        (height, inner_rows), (width, inner_columns) = self.rows.shape, self.columns.shape
        before = height * width * prod(self.weight.shape[1:])
        after = inner_rows * inner_columns * channels + inner_rows * inner_columns * width + height * inner_rows * width
        return outputs * (before - after)

    @property
    def moved(self) -> int:
        """Elements read and written more than before, but for the sum of all parts."""
        outputs, channels, *_ = self.weight.shape
        (_, inner_rows), (width, inner_columns) = self.rows.shape, self.columns.shape
        blocks, strips = inner_rows * inner_columns, inner_rows * width  # of G and of G B^T, for each output channel
        upsampled = channels * (pixels(self.value) or 0) * self.vanishes  # was written, and read
        return outputs * (4 * blocks + 4 * strips) - 2 * upsampled  # written, reordered or concatenated, and read

    @property
    def gain(self) -> int:
        return self.saved - MACS_PER_ELEMENT * self.moved


def convolve_before_upsampling(graph: Graph) -> int:
    """Replaces each such convolution, where that pays; returns how many."""
    replaced = 0
    for node in graph.nodes("Conv"):
        conv = convolution(node)
        if conv is None or conv.is_pointwise or text(node, "auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
            continue  # 1x1 convolutions: concat.py and resize.py
        parts = [_upsampled(conv, part) or part for part in _parts(conv)]
        leaving = [part for part in parts if isinstance(part, UpsampledPart) and min(part.saved, part.gain) > 0]
        staying = [part for part in parts if part not in leaving]
        if leaving and sum(part.gain for part in leaving) > _cost_of_sum(conv, staying):
            graph.substitute(conv.output, _sum(graph, conv, parts, leaving, staying))
            replaced += 1
    return replaced


def _parts(conv: Convolution) -> list[Part]:
    """What is concatenated in front of the convolution, or its whole input."""
    concat = conv.source.producer()
    if concat is not None and (concat.op_type != "Concat" or concat.domain not in ONNX):
        concat = None
    values = [value for value in concat.inputs if value is not None] if concat is not None else []
    widths = [dims(value)[1] if len(dims(value)) == 4 else None for value in values]
    if concat is None or integer(concat, "axis", 1) % 4 != 1 or None in widths:
        return [Part(conv.source, conv.weight)]
    ends = np.cumsum(np.array(widths, dtype=np.int64))[:-1].tolist()
    weights = np.split(conv.weight, ends, axis=1)
    return [Part(value, weight) for value, weight in zip(values, weights, strict=True)]


def _upsampled(conv: Convolution, part: Part) -> UpsampledPart | None:
    found, shape = upsampling_matrices(part.value), dims(conv.output)
    if found is None or len(shape) != 4 or shape[2] is None or shape[3] is None:
        return None
    small, (vertical, horizontal) = found
    rows, columns = _tapped(conv, 0, vertical, shape[2]), _tapped(conv, 1, horizontal, shape[3])
    vanishes = all(reader_of(value) is not None for value in (conv.source, part.value))
    return UpsampledPart(part.value, part.weight, small, rows, columns, vanishes)


def _tapped(conv: Convolution, axis: int, interpolation: np.ndarray, outputs: int) -> np.ndarray:
    """[S_0 U, S_1 U, ..] along an axis (0: rows, 1: columns): output i reads pixel i stride + tap dilation - padding
    at each tap, and zeros beyond the border."""
    stride, dilation = ((ints(conv.node, name) or (1, 1))[axis] for name in ("strides", "dilations"))
    padding = (ints(conv.node, "pads") or (0, 0, 0, 0))[axis]
    blocks = []
    for tap in range(conv.weight.shape[2 + axis]):
        pixel = np.arange(outputs) * stride + tap * dilation - padding
        inside = (pixel >= 0) & (pixel < len(interpolation))
        blocks.append(np.where(inside[:, None], interpolation[pixel.clip(0, len(interpolation) - 1)], 0.0))
    return np.concatenate(blocks, axis=1)


def _cost_of_sum(conv: Convolution, staying: list[Part]) -> int:
    """The product with A is written and read, and so is the convolution it is added to, unless they are fused; and a
    concatenation that stays for others is made once more without the parts that leave."""
    elements = 4 * conv.weight.shape[0] * (pixels(conv.output) or 0)
    if reader_of(conv.source) is None and len(staying) > 1:
        elements += 2 * sum(part.weight.shape[1] for part in staying) * (pixels(conv.source) or 0)
    return MACS_PER_ELEMENT * elements


def _sum(
    graph: Graph, conv: Convolution, parts: list[Part], leaving: list[UpsampledPart], staying: list[Part]
) -> ir.Value:
    strips = [_strips(graph, conv, part, f"{conv.stem}.{parts.index(part)}") for part in leaving]
    before, shape, stem = conv.node, like(conv.output, {}), conv.stem
    stacked = strips[0]
    if len(strips) > 1:
        rows = sum(part.rows.shape[1] for part in leaving)
        stacked = graph.add(before, "Concat", strips, {"axis": 2}, like(conv.output, {2: rows}), f"{stem}.strips")
    matrix = graph.constant(f"{stem}.rows", np.concatenate([part.rows for part in leaving], axis=1))
    product = graph.add(before, "MatMul", [matrix, stacked], {}, shape, f"{stem}.upsampled")
    if staying:
        return graph.add(before, "Add", [product, _remaining(graph, conv, staying)], {}, shape, f"{stem}.sum")
    if input_of(before, 2) is None:
        return product
    bias = graph.constant(f"{stem}.bias", conv.bias.reshape(1, -1, 1, 1))
    return graph.add(before, "Add", [product, bias], {}, shape, f"{stem}.sum")


def _strips(graph: Graph, conv: Convolution, part: UpsampledPart, stem: str) -> ir.Value:
    """G B^T: (N, D, kh h, W')."""
    outputs, channels, *kernel = part.weight.shape
    (_, rows), (width, columns) = part.rows.shape, part.columns.shape
    height_in, width_in = rows // kernel[0], columns // kernel[1]
    before, batch = conv.node, like(conv.output, {})[0]
    weight = part.weight.transpose(0, 2, 3, 1).reshape(-1, channels)
    blocks = add_pointwise(graph, before, part.small, weight, None, f"{stem}.taps")
    if height_in * width_in > 1:  # (o y) x h w -> (o y) h x w
        spread = [outputs * kernel[0], kernel[1], height_in, width_in]
        blocks = _reshaped(graph, before, blocks, batch, spread, f"{stem}.taps_apart")
        swapped = [batch, spread[0], height_in, kernel[1], width_in]
        permutation = {"perm": [0, 1, 3, 2, 4]}
        blocks = graph.add(before, "Transpose", [blocks], permutation, swapped, f"{stem}.taps_by_row")
    blocks = _reshaped(graph, before, blocks, batch, [outputs, rows, columns], f"{stem}.blocks")
    matrix = graph.constant(f"{stem}.columns", part.columns.T)
    return graph.add(before, "MatMul", [blocks, matrix], {}, [batch, outputs, rows, width], f"{stem}.strips")


def _reshaped(
    graph: Graph, before: ir.Node, value: ir.Value, batch: int | str | None, shape: list[int], name: str
) -> ir.Value:
    target = graph.constant(f"{name}_shape", np.array([0, *shape], np.int64))  # 0: the batch, whatever it is
    return graph.add(before, "Reshape", [value, target], {}, [batch, *shape], name)


def _remaining(graph: Graph, conv: Convolution, staying: list[Part]) -> ir.Value:
    """The same convolution of the other parts, concatenated anew where they are more than one."""
    weight = np.concatenate([part.weight for part in staying], axis=1)
    source = staying[0].value
    if len(staying) > 1:
        values, shape = [part.value for part in staying], like(conv.source, {1: weight.shape[1]})
        source = graph.add(conv.node, "Concat", values, {"axis": 1}, shape, f"{conv.stem}.concat")
    inputs: list[ir.Value | None] = [source, graph.constant(f"{conv.stem}.weight", weight)]
    if input_of(conv.node, 2) is not None:
        inputs.append(graph.constant(f"{conv.stem}.bias", conv.bias))
    return graph.add(conv.node, "Conv", inputs, dict(conv.node.attributes.items()), like(conv.output, {}), conv.stem)
