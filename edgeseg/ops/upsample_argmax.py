"""Bilinear upsampling fused with argmax over classes. The kernel and its reasoning: kernels/upsample_argmax/."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from edgeseg import kernels

MAX_CLASSES = 255
"""Of uint8 labels; more classes than these get int32 labels."""
MAX_WIDE_CLASSES = 65535
MAX_SIDE = 1 << 22
ELEMENTS = {"float32": 0, "float16": 1, "bfloat16": 2}
"""Element types by their number in ``edgeseg_kernels.h``."""


def upsample_argmax(
    logits: Any,
    size: tuple[int, int],
    *,
    align_corners: bool = False,
    margin: bool = False,
    threads: int | None = None,
) -> Any:
    """Class label of every output pixel, and on request how clear the decision was.

    Equals ``interpolate(logits.float(), size, mode="bilinear", align_corners=align_corners).argmax(1)`` without ever
    making the (N, C, H, W) scores. Of equal scores the lowest class wins, NaN wins over numbers, the first NaN over
    later ones. Scores that differ by a few units in the last place of float32 may swap, as they do between torch's own
    versions.

    Args:
        logits: (N, C, h, w) class scores, float32 or float16 (torch: bfloat16 as well), 1 <= C <= 65535; any strides.
            A numpy array is computed without torch.
        size: (height, width) of the labels, larger or smaller than (h, w).
        align_corners: as in torch's ``interpolate``.
        margin: also return the best class's score minus the second best's, in the units of the logits. It costs the
            pruning: several times slower, still without the (N, C, H, W) scores.
        threads: CPU threads; None takes what the work deserves (a torch tensor: torch's own threads).

    Returns:
        (N, height, width) labels, an array for an array and a tensor for a tensor: uint8 for at most 255 classes,
        int32 for more. With `margin` a pair of those and (N, height, width) float32 margins: 0 at a tie, NaN where a
        NaN won, infinite for one class.

    Example:
        >>> logits = np.zeros((1, 19, 128, 256), np.float32)
        >>> upsample_argmax(logits, (512, 1024)).shape
        (1, 512, 1024)
    """
    height, width = checked_size(size)
    if threads is not None and operator.index(threads) < 1:
        raise ValueError(f"threads must be at least 1, got {threads}; leave it out to have it chosen")
    labels: Any
    margins: Any
    if isinstance(logits, np.ndarray):
        labels, margins = _from_array(logits, height, width, bool(align_corners), bool(margin), threads or 0)
    elif type(logits).__module__.startswith("torch") or hasattr(logits, "__torch_function__"):
        from edgeseg.ops import _torch_upsample_argmax

        labels, margins = _torch_upsample_argmax.upsample_argmax(
            logits, height, width, bool(align_corners), bool(margin), threads or 0
        )
    else:
        raise TypeError(f"logits must be a numpy array or a torch tensor, got {type(logits).__name__}")
    return (labels, margins) if margin else labels


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
    if not 1 <= classes <= MAX_WIDE_CLASSES:
        raise ValueError(f"logits must have 1 to {MAX_WIDE_CLASSES} classes, got {classes}: {tuple(shape)}")
    if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
        raise ValueError(f"logits must have h and w in [1, {MAX_SIDE}], got {tuple(shape)}")


def _from_array(
    logits: np.ndarray, height: int, width: int, align_corners: bool, margin: bool, threads: int
) -> tuple[np.ndarray, np.ndarray | None]:
    check_shape(logits.shape, logits.dtype, logits.dtype in (np.float32, np.float16))
    if not kernels.available():
        return upsample_argmax_reference(logits, (height, width), align_corners, margin)
    logits = np.ascontiguousarray(logits)
    labels = np.empty((logits.shape[0], height, width), np.uint8 if logits.shape[1] <= MAX_CLASSES else np.int32)
    margins = np.empty(labels.shape, np.float32) if margin else None
    run_kernel(
        logits.ctypes.data,
        str(logits.dtype),
        labels.ctypes.data,
        None if margins is None else margins.ctypes.data,
        logits.shape,
        (height, width),
        align_corners,
        threads,
    )
    return labels, margins


def run_kernel(
    logits: int,
    dtype: str,
    labels: int,
    margins: int | None,
    shape: tuple[int, ...],
    size: tuple[int, int],
    align_corners: bool = False,
    threads: int = 0,
    instruction_set: str = "automatic",
) -> None:
    """The C function on addresses of contiguous logits, labels and, or None, margins.

    ``dtype`` is a key of `ELEMENTS`, ``instruction_set`` one of ``edgeseg.kernels.INSTRUCTION_SETS``; tests use that.
    """
    number = kernels.INSTRUCTION_SETS[instruction_set]
    code = kernels.function("edgeseg_upsample_argmax", "pippqqqqqqiii")(
        logits, ELEMENTS[dtype], labels, margins, *shape, *size, align_corners, threads, number
    )
    kernels.check(code, f"upsample_argmax on {tuple(shape)} to {size} with {instruction_set} instructions")


def run_cuda_kernel(
    logits: int,
    dtype: str,
    labels: int,
    margins: int | None,
    shape: tuple[int, ...],
    size: tuple[int, int],
    align_corners: bool = False,
    stream: int | None = None,
    library: str = "edgeseg_kernels",
) -> None:
    """The same on device memory, started on a CUDA stream (None: the default one) of the current device."""
    code = kernels.function("edgeseg_upsample_argmax_cuda", "pippqqqqqqip", library)(
        logits, ELEMENTS[dtype], labels, margins, *shape, *size, align_corners, stream
    )
    kernels.check(code, f"upsample_argmax on {tuple(shape)} to {size} on CUDA")


def upsample_argmax_reference(
    logits: np.ndarray, size: tuple[int, int], align_corners: bool = False, margin: bool = False
) -> tuple[np.ndarray, np.ndarray | None]:
    """The same in plain numpy, one output row at a time; the fallback where no kernel library was built."""
    logits = np.asarray(logits, np.float32)
    images, classes, h, w = logits.shape
    top, bottom, top_weight, bottom_weight = _taps(h, size[0], align_corners)
    left, right, left_weight, right_weight = _taps(w, size[1], align_corners)
    labels = np.empty((images, *size), np.uint8 if classes <= MAX_CLASSES else np.int32)
    margins = np.empty(labels.shape, np.float32) if margin else None
    with np.errstate(invalid="ignore", over="ignore"):
        for n, scores in enumerate(logits):  # (C, h, w)
            for y in range(size[0]):
                rows = (scores[:, top[y]], scores[:, bottom[y]])
                upper, lower = (row[:, left] * left_weight + row[:, right] * right_weight for row in rows)
                values = upper * top_weight[y] + lower * bottom_weight[y]  # (C, W)
                labels[n, y] = values.argmax(0)
                if margins is not None:
                    ranked = np.sort(values, axis=0)  # NaN last, which is where the best is
                    margins[n, y] = ranked[-1] - (ranked[-2] if classes > 1 else np.float32(-np.inf))
    return labels, margins


def _taps(in_size: int, out_size: int, align_corners: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Low index, high index, low weight, high weight of every output pixel."""
    out = np.arange(out_size)
    if in_size == out_size:
        return out, out, np.ones(out_size, np.float32), np.zeros(out_size, np.float32)
    if align_corners:
        scale = np.float32(in_size - 1) / np.float32(out_size - 1) if out_size > 1 else np.float32(0)
        source = scale * out.astype(np.float32)
    else:
        ratio = float(np.float32(in_size) / np.float32(out_size))
        source = np.maximum(ratio * (out + 0.5) - 0.5, 0.0).astype(np.float32)
    low = np.minimum(source.astype(np.int64), in_size - 1)
    high_weight = np.minimum(source - low.astype(np.float32), np.float32(1))
    return low, np.minimum(low + 1, in_size - 1), np.float32(1) - high_weight, high_weight
