"""All averages of a pooling pyramid from one read of the map. The kernel: kernels/pyramid_pooling/."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, overload

import numpy as np

from edgeseg import kernels

if TYPE_CHECKING:
    from torch import Tensor

PSPNET_BINS = (1, 2, 3, 6)
MOST_BINS = 16
MOST_BIN_ROWS = 64
MAX_SIDE = 1 << 22
ELEMENTS = {"float32": 0, "float16": 1, "bfloat16": 2}
"""Names and numbers of ``edgeseg_kernels.h``."""


@overload
def pyramid_pooling(
    x: np.ndarray, bins: Sequence[int] = PSPNET_BINS, *, threads: int | None = None
) -> list[np.ndarray]: ...
@overload
def pyramid_pooling(x: Tensor, bins: Sequence[int] = PSPNET_BINS, *, threads: int | None = None) -> list[Tensor]: ...
def pyramid_pooling(x, bins=PSPNET_BINS, *, threads=None):
    """``[adaptive_avg_pool2d(x, b) for b in bins]``, reading x once.

    Sums are float32 and rounded once to x's type, so results differ from torch's in the last places. No gradient.

    Args:
        x: (N, C, H, W) float32 or float16 (torch: bfloat16 as well). Both layouts are read where they lie, channels
            first and channels last (torch.channels_last; in numpy ``nhwc.transpose(0, 3, 1, 2)``); others are copied.
        bins: rows and columns of each average; 1 to 16 of them that add up to at most 64.
        threads: CPU threads; None takes what the work deserves (a torch tensor: torch's own threads).

    Returns:
        One (N, C, b, b) of x's type for each bin, arrays for an array and tensors for a tensor: views, in x's layout,
        of one (N, C, S) or (N, S, C), S the sum of b^2.

    Example:
        >>> [pooled.shape for pooled in pyramid_pooling(np.zeros((1, 8, 60, 60), np.float32), (1, 6))]
        [(1, 8, 1, 1), (1, 8, 6, 6)]
    """
    bins = checked_bins(bins)
    if threads is not None and operator.index(threads) < 1:
        raise ValueError(f"threads must be at least 1, got {threads}; leave it out to have it chosen")
    if isinstance(x, np.ndarray):
        return _from_array(x, bins, threads or 0)
    if not type(x).__module__.startswith("torch") and not hasattr(x, "__torch_function__"):
        raise TypeError(f"x must be a numpy array or a torch tensor, got {type(x).__name__}")
    from edgeseg.ops import _torch_pyramid_pooling

    return _torch_pyramid_pooling.pyramid_pooling(x, bins, threads or 0)


def pyramid_pooling_conv(x, weights, biases, bins=PSPNET_BINS, *, threads=None):
    """``[relu(conv2d(pooled, weight, bias)) for pooled in pyramid_pooling(x, bins)]``: PSPNet's branches.

    The convolutions are 1x1, BatchNorm folded into them. They see the S positions only (50 for PSPNet's bins), so they
    are matrix products that wait for their weights; numpy's and torch's own products do that.

    Args:
        x, bins, threads: as for :func:`pyramid_pooling`.
        weights: for each bin (O, C) or (O, C, 1, 1), of x's type and kind; O may differ from bin to bin.
        biases: for each bin (O,).

    Returns:
        One (N, O, b, b) of x's type for each bin.
    """
    bins = checked_bins(bins)
    if not len(weights) == len(biases) == len(bins):
        raise ValueError(
            f"each of the {len(bins)} bins needs one weight and one bias, got {len(weights)} and {len(biases)}"
        )
    branches = []
    for pooled, weight, bias in zip(pyramid_pooling(x, bins, threads=threads), weights, biases, strict=True):
        if weight.ndim not in (2, 4) or tuple(weight.shape) != (len(bias), x.shape[1], 1, 1)[: weight.ndim]:
            raise ValueError(
                f"a bin's weight must be (O, {x.shape[1]}) or (O, {x.shape[1]}, 1, 1) and its bias (O,), "
                f"got {tuple(weight.shape)} and {tuple(bias.shape)}"
            )
        n, channels, rows, _ = pooled.shape
        product = weight.reshape(-1, channels) @ pooled.reshape(n, channels, rows * rows)
        branches.append((product + bias[:, None]).clip(0).reshape(n, -1, rows, rows))
    return branches


def checked_bins(bins: Sequence[int]) -> tuple[int, ...]:
    """``bins`` as a tuple of ints that the kernel takes; ValueError or TypeError otherwise."""
    try:
        whole = tuple(operator.index(b) for b in bins)
    except TypeError as error:
        raise TypeError(f"bins must be a sequence of integers, got {bins!r}") from error
    if not 1 <= len(whole) <= MOST_BINS or min(whole) < 1 or sum(whole) > MOST_BIN_ROWS:
        raise ValueError(
            f"bins must be 1 to {MOST_BINS} numbers from 1 that add up to at most {MOST_BIN_ROWS}, got {whole}"
        )
    return whole


def check_shape(shape: tuple[int, ...], dtype: object, floating: bool) -> None:
    """ValueError or TypeError unless a map of this shape and kind can be pooled."""
    if not floating:
        raise TypeError(f"x must be float32 or float16, got {dtype}; convert it with astype or .to")
    if len(shape) != 4:
        raise ValueError(f"x must be (N, C, H, W), got {tuple(shape)}; add a batch dimension to one image's map")
    if not (1 <= shape[2] <= MAX_SIDE and 1 <= shape[3] <= MAX_SIDE):
        raise ValueError(f"x must have H and W in [1, {MAX_SIDE}], got {tuple(shape)}")


def _from_array(x: np.ndarray, bins: tuple[int, ...], threads: int) -> list[np.ndarray]:
    check_shape(x.shape, x.dtype, x.dtype in (np.float32, np.float16))
    if not kernels.available():
        return pyramid_pooling_reference(x, bins)
    n, channels, height, width = x.shape
    positions = sum(b * b for b in bins)
    nhwc = x.transpose(0, 2, 3, 1)
    channels_last = nhwc.flags.c_contiguous and not x.flags.c_contiguous
    source = nhwc if channels_last else np.ascontiguousarray(x)
    pooled = np.empty((n, positions, channels) if channels_last else (n, channels, positions), x.dtype)
    shape = (n, channels, height, width)
    run_kernel(source.ctypes.data, pooled.ctypes.data, x.dtype.name, shape, bins, channels_last, threads)
    by_channel = pooled.transpose(0, 2, 1) if channels_last else pooled
    parts = np.split(by_channel, np.cumsum([b * b for b in bins])[:-1], axis=2)
    return [part.reshape(n, channels, b, b) for part, b in zip(parts, bins, strict=True)]


def run_kernel(
    x: int,
    pooled: int,
    dtype: str,
    shape: tuple[int, ...],
    bins: tuple[int, ...],
    channels_last: bool,
    threads: int = 0,
    instruction_set: str = "automatic",
) -> None:
    """The C function on two addresses of contiguous memory; ``shape`` is (N, C, H, W) in either layout.

    ``instruction_set`` is one of ``edgeseg.kernels.INSTRUCTION_SETS``; tests use it.
    """
    rows = np.array(bins, np.int32)
    code = kernels.function("edgeseg_pyramid_pooling", "ppiqqqqpqiii")(
        x,
        pooled,
        ELEMENTS[dtype],
        *shape,
        rows.ctypes.data,
        len(bins),
        channels_last,
        threads,
        kernels.INSTRUCTION_SETS[instruction_set],
    )
    kernels.check(code, f"pyramid_pooling of {bins} on {shape} with {instruction_set} instructions")


def pyramid_pooling_reference(x: np.ndarray, bins: Sequence[int] = PSPNET_BINS) -> list[np.ndarray]:
    """The definition itself; the fallback where no kernel library was built."""
    _, _, height, width = x.shape
    pyramid = []
    for b in bins:
        pooled = np.empty((*x.shape[:2], b, b), x.dtype)
        for i in range(b):
            rows = x[:, :, i * height // b : -(-(i + 1) * height // b)]
            for j in range(b):
                window = rows[..., j * width // b : -(-(j + 1) * width // b)]
                pooled[:, :, i, j] = window.mean((2, 3), dtype=np.float32)
        pyramid.append(pooled)
    return pyramid
