"""A picture tinted by class in one pass. The kernel and its reasoning: kernels/blend_labels/."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, overload

import numpy as np

from edgeseg import kernels

if TYPE_CHECKING:
    from torch import Tensor

MAX_COLOURS = 255
MAX_SIDE = 1 << 22
_ROWS = 16  # the reference takes so many at a time, for the cache


@overload
def blend_labels(
    image: np.ndarray,
    labels: np.ndarray,
    palette: np.ndarray,
    alpha: float = 0.5,
    *,
    out: np.ndarray | None = None,
    threads: int | None = None,
) -> np.ndarray: ...
@overload
def blend_labels(
    image: Tensor,
    labels: Tensor,
    palette: Tensor,
    alpha: float = 0.5,
    *,
    out: Tensor | None = None,
    threads: int | None = None,
) -> Tensor: ...
def blend_labels(image, labels, palette, alpha=0.5, *, out=None, threads=None):
    """``(image * (256 - share) + palette[labels] * share + 128) >> 8`` with ``share = round(alpha * 256)``.

    The weighted mean to the nearest, halves up, in integers: the same bytes with and without the kernel library, on
    every instruction set and on CUDA. A label that has no colour (from K on, and 255, which is void) leaves its pixel
    as it is.

    Args:
        image: (H, W, 3) or (N, H, W, 3) uint8. Any strides; pixels that lie side by side within a row (a view of some
            rows and columns) are read where they are.
        labels: (H, W) or (N, H, W) uint8, any strides.
        palette: (K, 3) uint8, K at most 255.
        alpha: share of the colour, 0 (the image) to 1 (the colours), taken in steps of 1/256.
        out: where to write: of the image's shape, uint8, pixels side by side within a row. It may be the image itself;
            otherwise it shares no memory with image and labels.
        threads: CPU threads; None takes what the work deserves (a torch tensor: torch's own threads).

    Returns:
        `out`, or a new array or tensor of the image's shape.

    Example:
        >>> image, palette = np.full((1, 2, 3), 100, np.uint8), np.array([[200, 0, 100]], np.uint8)
        >>> blend_labels(image, np.array([[0, 255]], np.uint8), palette, 0.5).tolist()
        [[[150, 50, 100], [100, 100, 100]]]
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must lie between 0 and 1, got {alpha}")
    if threads is not None and operator.index(threads) < 1:
        raise ValueError(f"threads must be at least 1, got {threads}; leave it out to have it chosen")
    share = round(alpha * 256)
    if isinstance(image, np.ndarray):
        _check_arrays(image, labels, palette, out)
        return _from_arrays(image, labels, palette, share, out, threads or 0)
    if not type(image).__module__.startswith("torch") and not hasattr(image, "__torch_function__"):
        raise TypeError(f"image must be a numpy array or a torch tensor, got {type(image).__name__}")
    from edgeseg.ops import _torch_blend_labels

    return _torch_blend_labels.blend_labels(image, labels, palette, share, out, threads or 0)


def check_shapes(
    image: tuple[int, ...], labels: tuple[int, ...], palette: tuple[int, ...], out: tuple[int, ...] | None
) -> None:
    """ValueError unless arrays of these shapes can be blended."""
    if len(image) not in (3, 4) or image[-1] != 3:
        raise ValueError(f"image must be (H, W, 3) or (N, H, W, 3), got {tuple(image)}")
    if max(image[-3:-1]) > MAX_SIDE:
        raise ValueError(f"image must have H and W of at most {MAX_SIDE}, got {tuple(image)}")
    if tuple(labels) != tuple(image[:-1]):
        raise ValueError(f"labels and image must have one size, got {tuple(labels)} and {tuple(image)}")
    if len(palette) != 2 or palette[1] != 3 or palette[0] > MAX_COLOURS:
        raise ValueError(f"palette must be (K, 3) with K at most {MAX_COLOURS}, got {tuple(palette)}")
    if out is not None and tuple(out) != tuple(image):
        raise ValueError(f"out must have the image's shape {tuple(image)}, got {tuple(out)}")


def _check_arrays(image: np.ndarray, labels: np.ndarray, palette: np.ndarray, out: np.ndarray | None) -> None:
    named = {"image": image, "labels": labels, "palette": palette} | ({} if out is None else {"out": out})
    for name, array in named.items():
        if not isinstance(array, np.ndarray) or array.dtype != np.uint8:
            raise TypeError(f"{name} must be a uint8 numpy array, got {getattr(array, 'dtype', type(array).__name__)}")
    check_shapes(image.shape, labels.shape, palette.shape, None if out is None else out.shape)
    if out is None:
        return
    if not out.flags.writeable or not _is_dense(out):
        raise ValueError("out must be writeable and have its pixels side by side within a row; make it with np.empty")
    same = out.ctypes.data == image.ctypes.data and out.strides == image.strides
    if (not same and np.shares_memory(out, image)) or np.shares_memory(out, labels):
        raise ValueError("out shares memory with image or labels without being the image; give it memory of its own")


def _is_dense(image: np.ndarray) -> bool:
    return image.strides[-1] == 1 and (image.shape[-2] <= 1 or image.strides[-2] == 3)


def _from_arrays(
    image: np.ndarray, labels: np.ndarray, palette: np.ndarray, share: int, out: np.ndarray | None, threads: int
) -> np.ndarray:
    if not kernels.available():
        return blend_labels_reference(image, labels, palette, share, out)
    if out is None:
        out = np.empty(image.shape, np.uint8)
    if not _is_dense(image):
        image = np.ascontiguousarray(image)
    if labels.strides[-1] != 1 and labels.shape[-1] > 1:
        labels = np.ascontiguousarray(labels)
    run_kernel(image, labels, np.ascontiguousarray(palette), share, out, threads)
    return out


def run_kernel(
    image: np.ndarray,
    labels: np.ndarray,
    palette: np.ndarray,
    share: int,
    out: np.ndarray,
    threads: int = 0,
    instruction_set: str = "automatic",
) -> None:
    """The C function on arrays whose pixels lie side by side within a row, into `out`.

    ``instruction_set`` is one of ``edgeseg.kernels.INSTRUCTION_SETS``; tests use it.
    """
    number = kernels.INSTRUCTION_SETS[instruction_set]
    code = kernels.function("edgeseg_blend_labels_u8", "pqqpqqpqipqqqqqii")(
        *arguments(image, labels, palette, share, out), threads, number
    )
    kernels.check(code, f"blend_labels on {image.shape} with {instruction_set} instructions")


def arguments(image: np.ndarray, labels: np.ndarray, palette: np.ndarray, share: int, out: np.ndarray) -> list[int]:
    """The C functions' arguments up to W."""

    def pitched(array: np.ndarray, row_axis: int) -> list[int]:
        return [array.ctypes.data, array.strides[row_axis], array.strides[0] if image.ndim == 4 else 0]

    size = image.shape[:3] if image.ndim == 4 else (1, *image.shape[:2])
    return [
        *pitched(image, -3),
        *pitched(labels, -2),
        palette.ctypes.data,
        len(palette),
        share,
        *pitched(out, -3),
        *size,
    ]


def blend_labels_reference(
    image: np.ndarray, labels: np.ndarray, palette: np.ndarray, share: int, out: np.ndarray | None = None
) -> np.ndarray:
    """The same in plain numpy; the fallback where no kernel library was built. `share` is in 1/256."""
    blended = np.empty(image.shape, np.uint8) if out is None else out
    if image.ndim == 4:
        for n in range(len(image)):
            blend_labels_reference(image[n], labels[n], palette, share, blended[n])
        return blended
    tint = np.zeros((256, 3), np.uint16)
    tint[: len(palette)] = palette.astype(np.uint16) * np.uint16(share) + np.uint16(128)
    for first in range(0, len(image), _ROWS):
        rows = slice(first, first + _ROWS)
        sums = image[rows].astype(np.uint16)
        sums *= np.uint16(256 - share)  # at most 255 * 256 + 128 in the end: fits
        sums += tint.take(labels[rows], axis=0)
        sums >>= 8
        void = labels[rows] >= len(palette)
        if void.any():
            sums[void] = image[rows][void]
        blended[rows] = sums
    return blended
