"""A uint8 image to a network's normalised float32 input. The kernel: kernels/normalize_image/."""

from __future__ import annotations

import functools
import operator

import numpy as np

from edgeseg import kernels


def normalize_image(
    image: np.ndarray,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    *,
    threads: int | None = None,
) -> np.ndarray:
    """``(image / 255 - mean) / std`` with the channels moved to the front.

    Computed in float64 and rounded once to float32, through the 256 values that a byte can have; with or without the
    kernel library the result is the same to the last bit.

    Args:
        image: (H, W, 3) uint8, H and W at least 1, any strides.
        mean, std: of R, G, B in 0..1; no std is 0.
        threads: CPU threads; None takes what the work deserves.

    Returns:
        (1, 3, H, W) float32, contiguous.

    Example:
        >>> normalize_image(np.zeros((4, 6, 3), np.uint8), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)).shape
        (1, 3, 4, 6)
    """
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        raise TypeError(f"image must be a uint8 numpy array, got {getattr(image, 'dtype', type(image).__name__)}")
    if image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ValueError(f"image must be (H, W, 3) RGB with H and W at least 1, got {image.shape}")
    if threads is not None and operator.index(threads) < 1:
        raise ValueError(f"threads must be at least 1, got {threads}; leave it out to have it chosen")
    table = normalization_table(tuple(mean), tuple(std))
    height, width, _ = image.shape
    if not kernels.available():
        return np.stack([table[c].take(image[:, :, c]) for c in range(3)])[None]
    image = np.ascontiguousarray(image)
    tensor = np.empty((1, 3, height, width), np.float32)
    code = kernels.load().edgeseg_normalize_image_u8(
        image.ctypes.data, table.ctypes.data, tensor.ctypes.data, height, width, threads or 0
    )
    kernels.check(code, f"normalize_image on {image.shape}")
    return tensor


@functools.lru_cache(maxsize=8)
def normalization_table(mean: tuple[float, ...], std: tuple[float, ...]) -> np.ndarray:
    """(3, 256) float32, read-only: what each byte becomes in each channel."""
    if len(mean) != 3 or len(std) != 3:
        raise ValueError(f"mean and std must have three numbers each (R, G, B), got {mean} and {std}")
    if not (np.isfinite(mean).all() and np.isfinite(std).all() and np.all(std)):
        raise ValueError(f"mean and std must be finite and no std 0, got mean {mean}, std {std}")
    levels = np.arange(256, dtype=np.float64)[None] / 255
    table = ((levels - np.array(mean)[:, None]) / np.array(std)[:, None]).astype(np.float32)
    table.flags.writeable = False
    return table
