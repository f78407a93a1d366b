"""Bilinear upsampling fused with argmax over classes. The kernel and its reasoning: kernels/upsample_argmax/."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, overload

import numpy as np

from edgeseg import kernels

if TYPE_CHECKING:
    from torch import Tensor

MAX_CLASSES = 255
MAX_SIDE = 1 << 22


@overload
def upsample_argmax(logits: np.ndarray, size: tuple[int, int], *, threads: int | None = None) -> np.ndarray: ...
@overload
def upsample_argmax(logits: Tensor, size: tuple[int, int], *, threads: int | None = None) -> Tensor: ...
def upsample_argmax(logits, size, *, threads=None):
    """Class label of every output pixel.

    Equals ``interpolate(logits, size, mode="bilinear", align_corners=False).argmax(1)`` without ever making the
    (N, C, H, W) scores. Of equal scores the lowest class wins, NaN wins over numbers, the first NaN over later ones.
    Scores that differ by a few units in the last place of float32 may swap, as they do between torch's own versions.

    Args:
        logits: (N, C, h, w) class scores, float32 or float16 (torch: bfloat16 as well), 1 <= C <= 255; any strides.
            A numpy array is computed without torch.
        size: (height, width) of the labels, larger or smaller than (h, w).
        threads: CPU threads; None takes what the work deserves (a torch tensor: torch's own threads).

    Returns:
        (N, height, width) uint8 labels, an array for an array and a tensor for a tensor.

    Example:
        >>> logits = np.zeros((1, 19, 128, 256), np.float32)
        >>> upsample_argmax(logits, (512, 1024)).shape
        (1, 512, 1024)
    """
    height, width = checked_size(size)
    if threads is not None and operator.index(threads) < 1:
        raise ValueError(f"threads must be at least 1, got {threads}; leave it out to have it chosen")
    if isinstance(logits, np.ndarray):
        return _from_array(logits, height, width, threads or 0)
    if not type(logits).__module__.startswith("torch") and not hasattr(logits, "__torch_function__"):
        raise TypeError(f"logits must be a numpy array or a torch tensor, got {type(logits).__name__}")
    from edgeseg.ops import _torch_upsample_argmax

    return _torch_upsample_argmax.upsample_argmax(logits, height, width, threads or 0)


def checked_size(size: tuple[int, int]) -> tuple[int, int]:
    """``size`` as two ints in [1, 2^22]; ValueError or TypeError otherwise."""
    try:
        height, width = (operator.index(side) for side in size)
    except (TypeError, ValueError) as error:
        raise TypeError(f"size must be (height, width) as two integers, got {size!r}") from error
    if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
        raise ValueError(f"size must be (height, width), each in [1, {MAX_SIDE}], got {(height, width)}")
    return height, width


def check_shape(shape: tuple[int, ...], dtype: object, floating: bool) -> None:
    """ValueError or TypeError unless logits of this shape and kind can be labelled."""
    if not floating:
        raise TypeError(f"logits must be float32 or float16, got {dtype}; convert them with astype or .to")
    if len(shape) != 4:
        raise ValueError(
            f"logits must be (N, C, h, w), got {tuple(shape)}; add a batch dimension to one image's logits"
        )
    _, classes, height, width = shape
    if not 1 <= classes <= MAX_CLASSES:
        raise ValueError(
            f"logits must have 1 to {MAX_CLASSES} classes (labels are uint8), got {classes}: {tuple(shape)}"
        )
    if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
        raise ValueError(f"logits must have h and w in [1, {MAX_SIDE}], got {tuple(shape)}")


def _from_array(logits: np.ndarray, height: int, width: int, threads: int) -> np.ndarray:
    check_shape(logits.shape, logits.dtype, logits.dtype in (np.float32, np.float16))
    if not kernels.available():
        return upsample_argmax_reference(logits, (height, width))
    logits = np.ascontiguousarray(logits, dtype=np.float32)
    labels = np.empty((logits.shape[0], height, width), np.uint8)
    run_kernel(logits.ctypes.data, labels.ctypes.data, logits.shape, (height, width), threads)
    return labels


def run_kernel(
    logits: int,
    labels: int,
    shape: tuple[int, ...],
    size: tuple[int, int],
    threads: int = 0,
    instruction_set: str = "automatic",
) -> None:
    """The C function on two addresses: contiguous float32 (N, C, h, w) to contiguous uint8 (N, height, width).

    ``instruction_set`` is one of ``edgeseg.kernels.INSTRUCTION_SETS``; tests use it.
    """
    number = kernels.INSTRUCTION_SETS[instruction_set]
    code = kernels.load().edgeseg_upsample_argmax_f32(logits, labels, *shape, *size, threads, number)
    kernels.check(code, f"upsample_argmax on {tuple(shape)} to {size} with {instruction_set} instructions")


def upsample_argmax_reference(logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The same in plain numpy, one output row at a time; the fallback where no kernel library was built."""
    logits = np.asarray(logits, np.float32)
    _, _, h, w = logits.shape
    top, bottom, top_weight, bottom_weight = _taps(h, size[0])
    left, right, left_weight, right_weight = _taps(w, size[1])
    labels = np.empty((logits.shape[0], *size), np.uint8)
    with np.errstate(invalid="ignore", over="ignore"):
        for n, scores in enumerate(logits):  # (C, h, w)
            for y in range(size[0]):
                rows = (scores[:, top[y]], scores[:, bottom[y]])
                upper, lower = (row[:, left] * left_weight + row[:, right] * right_weight for row in rows)
                labels[n, y] = (upper * top_weight[y] + lower * bottom_weight[y]).argmax(0)
    return labels


def _taps(in_size: int, out_size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Low index, high index, low weight, high weight of every output pixel; pixel centres at +0.5."""
    out = np.arange(out_size)
    if in_size == out_size:
        return out, out, np.ones(out_size, np.float32), np.zeros(out_size, np.float32)
    scale = float(np.float32(in_size) / np.float32(out_size))
    source = np.maximum(scale * (out + 0.5) - 0.5, 0.0).astype(np.float32)
    low = np.minimum(source.astype(np.int64), in_size - 1)
    high_weight = np.minimum(source - low.astype(np.float32), np.float32(1))
    return low, np.minimum(low + 1, in_size - 1), np.float32(1) - high_weight, high_weight
