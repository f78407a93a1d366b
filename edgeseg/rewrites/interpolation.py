"""Upsampling as a product with constant matrices.

Resize and Expand work on rows and columns alike and one after the other, so for every image and channel of a map

    up(x) = U_h x U_w^T        U_h (H, h), U_w (W, w)

where row i of U_h holds the weights of the input rows in output row i: two weights that sum to one for ``linear``, a
single one for ``nearest`` and for Expand. The formulas are those of ONNX's Resize, in float64.
"""

import numpy as np
import onnx_ir as ir

from edgeseg.rewrites.graph import ONNX, array_of, dims, input_of, integer, ints, text

Matrices = tuple[np.ndarray, np.ndarray]


def upsampling_matrices(value: ir.Value) -> tuple[ir.Value, Matrices] | None:
    """The map behind an upsampled one, and (U_h, U_w); None where they are not known, as for ``cubic``, or where the
    map does not get more pixels."""
    node = value.producer()
    if node is None or node.op_type not in ("Resize", "Expand") or node.domain not in ONNX:
        return None
    before, after = dims(node.inputs[0]), dims(value)
    if len(before) != 4 or len(after) != 4 or before[:2] != after[:2]:
        return None
    sides = [(small, large) for small, large in zip(before[2:], after[2:], strict=True) if small and large]
    if len(sides) != 2 or any(small > large for small, large in sides) or sides[0][0] * sides[1][0] == _area(value):
        return None
    matrices = [
        _resized(node, axis, *side) if node.op_type == "Resize" else _repeated(*side)
        for axis, side in enumerate(sides, 2)
    ]
    source, (rows, columns) = node.inputs[0], matrices
    return None if source is None or rows is None or columns is None else (source, (rows, columns))


def _area(value: ir.Value) -> int:
    _, _, height, width = dims(value)
    return (height or 0) * (width or 0)


def _repeated(small: int, large: int) -> np.ndarray:
    """Expand: one pixel is repeated, and more than one stay what they are."""
    return np.ones((large, 1)) if small == 1 else np.eye(large)


def _resized(node: ir.Node, axis: int, small: int, large: int) -> np.ndarray | None:
    """The matrix (large, small) of Resize along one axis."""
    mode = text(node, "mode", "nearest")
    scale = _scale(node, axis, small, large)
    unusual = integer(node, "antialias", 0) or text(node, "keep_aspect_ratio_policy", "stretch") != "stretch"
    if mode not in ("linear", "nearest") or scale is None or unusual:
        return None
    position = _positions(text(node, "coordinate_transformation_mode", "half_pixel"), small, large, scale)
    if position is None:
        return None
    if mode == "nearest":
        if small > 1 and scale != large // small:  # a tie, or nearly one, that runtimes may break differently
            return None
        nearest = _rounded(position, text(node, "nearest_mode", "round_prefer_floor"))
        return np.eye(small)[np.clip(nearest, 0, small - 1).astype(int)]
    position = np.clip(position, 0, small - 1)
    return np.maximum(0, 1 - np.abs(position[:, None] - np.arange(small)))


def _scale(node: ir.Node, axis: int, small: int, large: int) -> float | None:
    """Output pixels per input pixel: as given, or the ratio of the sizes where those were asked for."""
    if input_of(node, 3) is not None:
        return large / small
    scales = array_of(input_of(node, 2))
    axes = [item % 4 for item in ints(node, "axes")] or list(range(4))
    if scales is None or scales.size != len(axes):
        return None
    return float(scales[axes.index(axis)]) if axis in axes else 1.0


def _positions(mode: str, small: int, large: int, scale: float) -> np.ndarray | None:
    """Where each output pixel lies in the input, in input pixels from the first one's centre."""
    index = np.arange(large)
    if mode == "half_pixel" or (mode == "pytorch_half_pixel" and large > 1):
        return (index + 0.5) / scale - 0.5
    if mode == "pytorch_half_pixel":
        return np.zeros(1)
    if mode == "align_corners":
        return index * (small - 1) / max(1, large - 1)
    return index / scale if mode == "asymmetric" else None


def _rounded(position: np.ndarray, mode: str) -> np.ndarray:
    if mode == "floor":
        return np.floor(position)
    if mode == "ceil":
        return np.ceil(position)
    return np.ceil(position - 0.5) if mode == "round_prefer_floor" else np.floor(position + 0.5)
