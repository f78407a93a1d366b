"""A per-pixel linear map commutes with resizing.

Every output pixel of Resize is a weighted sum of input pixels, up(x)[p] = sum_q a[p, q] x[q], with the same weights for
all channels. So for a 1x1 convolution, which mixes channels within a pixel,

    W up(x)[p] + b = sum_q a[p, q] W x[q] + b = up(W x)[p] + b = up(W x + b)[p]

where the last step needs sum_q a[p, q] = 1. That holds for ``linear`` (at the border its pixels are clamped, not cut)
and for ``nearest`` (one weight of 1), with every coordinate transformation but ``tf_crop_and_resize``, which fills what
lies outside with a number. ``cubic`` is left alone: its weights sum to one as well, but runtimes differ in how, and no
decode head uses it. Expand, which repeats a single pixel (DeepLab's image pool), is a resizing in this sense too. Moved
before an upsampling, the convolution runs on fewer pixels.
"""

import numpy as np
import onnx_ir as ir

from edgeseg.rewrites.graph import Graph, dims, input_of, ints, like, maker_of, text
from edgeseg.rewrites.pointwise import Convolution, add_pointwise, pixels, pointwise


def move_before_upsampling(graph: Graph) -> int:
    """Moves each 1x1 convolution behind an upsampling that nothing else reads in front of it; returns how many."""
    moved = 0
    for node in graph.nodes("Conv"):
        conv = pointwise(node)
        resize = upsampling_behind(conv.source) if conv is not None else None
        if conv is not None and resize is not None:
            _swap(graph, conv, resize)
            moved += 1
    return moved


def drop_identity_resizes(graph: Graph) -> int:
    """Removes each Resize to the size that the map has already: its coordinates are the pixels themselves."""
    dropped = 0
    for node in graph.nodes("Resize"):
        source, output = node.inputs[0], node.outputs[0]
        if source is None or not commutes(node) or pixels(output) is None or dims(source)[2:] != dims(output)[2:]:
            continue
        if output.is_graph_output():
            continue  # its name and place would need an Identity in its stead
        graph.bypass(output, source)
        dropped += 1
    return dropped


def upsampling_behind(value: ir.Value) -> ir.Node | None:
    """The commuting Resize or Expand to more pixels that makes a value which nothing else reads, or None."""
    node = maker_of(value, "Resize") or maker_of(value, "Expand")
    if node is None or node.inputs[0] is None or not commutes(node):
        return None
    before, after = pixels(node.inputs[0]), pixels(value)
    return node if before is not None and after is not None and before < after else None


def commutes(resize: ir.Node) -> bool:
    """Whether a Resize or Expand of (N, C, H, W) leaves N and C alone and makes weighted means of pixels; see above."""
    before, after = dims(resize.inputs[0]), dims(resize.outputs[0])
    if resize.op_type == "Expand":
        return len(before) == len(after) == 4 and before[1] is not None and before[:2] == after[:2]
    axes = {axis % 4 for axis in ints(resize, "axes")} if "axes" in resize.attributes else {2, 3}
    return (
        len(before) == len(after) == 4
        and before[1] is not None
        and before[:2] == after[:2]
        and axes <= {2, 3}
        and text(resize, "mode", "nearest") in ("linear", "nearest")
        and text(resize, "coordinate_transformation_mode", "half_pixel") != "tf_crop_and_resize"
        and text(resize, "keep_aspect_ratio_policy", "stretch") == "stretch"
    )


def _swap(graph: Graph, conv: Convolution, resize: ir.Node) -> None:
    source = resize.inputs[0]
    assert source is not None
    bias = conv.bias if input_of(conv.node, 2) is not None else None
    mapped = add_pointwise(graph, conv.node, source, conv.weight[:, :, 0, 0], bias, conv.stem)
    inputs = [mapped, *resize.inputs[1:]]
    if resize.op_type == "Expand":  # 1 keeps the batch and the channels, whatever they are
        sides = [side or 1 for side in dims(conv.output)[2:]]
        inputs[1] = graph.constant(f"{conv.stem}.upsampled.shape", np.array([1, 1, *sides], np.int64))
    elif input_of(resize, 3) is not None and "axes" not in resize.attributes:  # sizes: they name the channels too
        inputs[3] = _sizes(graph, conv, mapped)
    attributes = dict(resize.attributes.items())
    shape, name = like(conv.output, {}), f"{conv.stem}.upsampled"
    graph.substitute(conv.output, graph.add(conv.node, resize.op_type, inputs, attributes, shape, name))


def _sizes(graph: Graph, conv: Convolution, mapped: ir.Value) -> ir.Value:
    """(N, D, H, W) as a tensor. A batch that is not known before the run is read from the map."""
    batch, *rest = dims(conv.output)
    if batch is not None:
        return graph.constant(f"{conv.stem}.upsampled.sizes", np.array([batch, *rest], np.int64))
    name = f"{conv.stem}.upsampled.sizes"
    sides = graph.constant(f"{name}.sides", np.array(rest[1:], np.int64))
    leading = graph.add(
        conv.node, "Shape", [mapped], {"start": 0, "end": 2}, [2], f"{name}.batch_and_channels", ir.DataType.INT64
    )
    return graph.add(conv.node, "Concat", [leading, sides], {"axis": 0}, [4], name, ir.DataType.INT64)
