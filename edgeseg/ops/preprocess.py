"""uint8 images to a network's input: resize, normalisation and layout in one pass. The kernel: kernels/preprocess/."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from edgeseg import kernels
from edgeseg.ops.upsample_argmax import MAX_SIDE, checked_size

if TYPE_CHECKING:
    from torch import Tensor

MODES = {"antialias": 0, "bilinear": 1}
"""How to resize, by the numbers of ``edgeseg_kernels.h``."""
ORDERS = {"RGB": 0, "BGR": 1}
"""Order of an image's channels, by the numbers of ``edgeseg_kernels.h``."""
DTYPES = {"float32": 0, "float16": 1}
"""Element types of the result, by the numbers of ``edgeseg_kernels.h``."""


@overload
def preprocess(
    image: np.ndarray | Sequence[np.ndarray],
    size: tuple[int, int],
    mean: Sequence[float],
    std: Sequence[float],
    *,
    mode: str = "antialias",
    order: str = "RGB",
    dtype: Any = "float32",
    threads: int | None = None,
) -> np.ndarray: ...
@overload
def preprocess(
    image: Tensor | Sequence[Tensor],
    size: tuple[int, int],
    mean: Sequence[float],
    std: Sequence[float],
    *,
    mode: str = "antialias",
    order: str = "RGB",
    dtype: Any = "float32",
    threads: int | None = None,
) -> Tensor: ...
def preprocess(image, size, mean, std, *, mode="antialias", order="RGB", dtype="float32", threads=None):
    """``(resized / 255 - mean) / std`` with the channels first, in the order R, G, B.

    mode "antialias" is Pillow's ``Image.resize(..., BILINEAR)`` to the last bit of its uint8 result: columns, then
    rows. (Pillow 13 begins with the rows where ``H - height > max(0, 2 * (W - width))``, a level from this at places.)
    torchvision's ``antialias=True`` on uint8 is the same to within a level. The normalisation is computed in float64
    and rounded once. Hence one result on every machine and device. Where the size is right already it is kept.

    mode "bilinear" is torch's ``interpolate(image.float(), size, mode="bilinear", align_corners=False)``: two taps an
    axis also when shrinking, not rounded to integers, to a few units in the last place of float32. OpenCV's
    ``INTER_LINEAR`` has the same taps but rounds the weights to 11 bits and the result to uint8: within 0.8 of a level.

    Args:
        image: (H, W, 3) or (N, H, W, 3) uint8, or a list of (H, W, 3) of any sizes; numpy arrays or torch tensors. Rows
            and images may lie any distance apart, reversed too; pixels that do not lie side by side are copied first.
        size: (height, width) of the result.
        mean, std: of R, G, B in 0..1; no std is 0.
        mode: "antialias" or "bilinear".
        order: of the image's channels, "RGB" or "BGR".
        dtype: of the result, float32 or float16: a name, or numpy's or torch's type. float16 is the float32 rounded.
        threads: CPU threads; None takes what the work deserves (a torch tensor: torch's own threads).

    Returns:
        (N, 3, height, width), contiguous, an array for arrays and a tensor for tensors.

    Example:
        >>> preprocess(np.zeros((40, 60, 3), np.uint8), (4, 6), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)).shape
        (1, 3, 4, 6)
    """
    size = checked_size(size)
    mean, std = _checked_statistics(mean, std)
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")
    if order not in ORDERS:
        raise ValueError(f"order must be one of {', '.join(ORDERS)}, got {order!r}")
    dtype = _dtype_name(dtype)
    if threads is not None and operator.index(threads) < 1:
        raise ValueError(f"threads must be at least 1, got {threads}; leave it out to have it chosen")
    options = (size, mean, std, mode, order, dtype, threads or 0)
    if isinstance(image, list | tuple) and all(isinstance(one, np.ndarray) for one in image):
        return _from_arrays(image, *options)
    if isinstance(image, np.ndarray):
        return _from_array(checked_batch(image), *options)
    if not all(_is_tensor(one) for one in (image if isinstance(image, list | tuple) else [image])):
        raise TypeError(f"image must be a uint8 numpy array or torch tensor, or a list of them, got {_name(image)}")
    from edgeseg.ops import _torch_preprocess

    return _torch_preprocess.preprocess(image, *options)


def checked_batch(image):
    """An array or tensor as (N, H, W, 3); ValueError or TypeError where it is no uint8 image or batch."""
    if str(image.dtype).removeprefix("torch.") != "uint8":
        raise TypeError(f"image must be uint8, got {image.dtype}")
    if image.ndim not in (3, 4) or image.shape[-1] != 3:
        raise ValueError(f"image must be (H, W, 3) or (N, H, W, 3), got {tuple(image.shape)}")
    batch = image if image.ndim == 4 else image[None]
    if not all(1 <= side <= MAX_SIDE for side in batch.shape[1:3]):
        raise ValueError(f"image must have H and W in [1, {MAX_SIDE}], got {tuple(image.shape)}")
    return batch


def _checked_statistics(mean: Sequence[float], std: Sequence[float]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    mean, std = tuple(float(value) for value in mean), tuple(float(value) for value in std)
    if len(mean) != 3 or len(std) != 3:
        raise ValueError(f"mean and std must have three numbers each (R, G, B), got {mean} and {std}")
    if not all(math.isfinite(value) for value in mean + std) or 0 in std:
        raise ValueError(f"mean and std must be finite and no std 0, got mean {mean}, std {std}")
    return mean, std


def _dtype_name(dtype: object) -> str:
    name = str(getattr(dtype, "__name__", dtype)).removeprefix("torch.")
    if name not in DTYPES:
        raise ValueError(f"dtype must be float32 or float16, got {dtype}")
    return name


def _is_tensor(image: object) -> bool:
    return type(image).__module__.startswith("torch") or hasattr(image, "__torch_function__")


def _name(image: object) -> str:
    if isinstance(image, list | tuple):
        return f"{type(image).__name__} of {', '.join(sorted({type(one).__name__ for one in image}))}"
    return type(image).__name__


def _from_arrays(images: Sequence[np.ndarray], size: tuple[int, int], *options: Any) -> np.ndarray:
    if any(image.ndim != 3 for image in images):
        raise ValueError(f"a list must hold (H, W, 3) images, got {[image.shape for image in images]}")
    if not images:
        raise ValueError("image must hold at least one image, got an empty list")
    tensors = [_from_array(checked_batch(image), size, *options) for image in images]
    return tensors[0] if len(tensors) == 1 else np.concatenate(tensors)


def _from_array(
    images: np.ndarray,
    size: tuple[int, int],
    mean: tuple[float, ...],
    std: tuple[float, ...],
    mode: str,
    order: str,
    dtype: str,
    threads: int,
) -> np.ndarray:
    if not kernels.available():
        return preprocess_reference(images, size, mean, std, mode, order, dtype)
    if images.strides[3] != 1 or (images.strides[2] != 3 and images.shape[2] > 1):
        images = np.ascontiguousarray(images)
    tensor = np.empty((images.shape[0], 3, *size), dtype)
    where = (images.ctypes.data, images.strides[0], images.strides[1])
    run_kernel(where, tensor.ctypes.data, images.shape, size, mean, std, mode, order, dtype, threads)
    return tensor


def _doubles(values: Sequence[float]) -> np.ndarray:
    return np.array(values, np.float64)


def run_kernel(
    images: tuple[int, int, int],
    tensor: int,
    shape: tuple[int, ...],
    size: tuple[int, int],
    mean: Sequence[float],
    std: Sequence[float],
    mode: str = "antialias",
    order: str = "RGB",
    dtype: str = "float32",
    threads: int = 0,
    instruction_set: str = "automatic",
) -> None:
    """The C function: ``images`` are an address and the bytes from one image and one row to the next.

    ``instruction_set`` is one of ``edgeseg.kernels.INSTRUCTION_SETS``; tests use it.
    """
    means, stds = _doubles(mean), _doubles(std)
    numbers = (MODES[mode], ORDERS[order], DTYPES[dtype], threads, kernels.INSTRUCTION_SETS[instruction_set])
    code = kernels.function("edgeseg_preprocess_u8", "pqqppp" + "q" * 5 + "i" * 5)(
        *images, means.ctypes.data, stds.ctypes.data, tensor, *shape[:3], *size, *numbers
    )
    kernels.check(code, f"preprocess on {tuple(shape)} to {size} with {instruction_set} instructions")


def cuda_plan(
    shape: tuple[int, ...],
    size: tuple[int, int],
    mean: Sequence[float],
    std: Sequence[float],
    mode: str = "antialias",
    order: str = "RGB",
) -> np.ndarray:
    """What :func:`run_cuda_kernel` wants in device memory: weights and tables, uint32."""
    means, stds, words = _doubles(mean), _doubles(std), np.zeros(1, np.int64)
    make = kernels.function("edgeseg_preprocess_plan", "pp" + "q" * 4 + "iipp")
    arguments = (means.ctypes.data, stds.ctypes.data, *shape[1:3], *size, MODES[mode], ORDERS[order])
    kernels.check(make(*arguments, None, words.ctypes.data), f"the plan of {tuple(shape)} to {size}")
    plan = np.empty(int(words[0]), np.uint32)
    kernels.check(make(*arguments, plan.ctypes.data, words.ctypes.data), f"the plan of {tuple(shape)} to {size}")
    return plan


def run_cuda_kernel(
    images: tuple[int, int, int],
    plan: int,
    tensor: int,
    shape: tuple[int, ...],
    size: tuple[int, int],
    mode: str = "antialias",
    order: str = "RGB",
    dtype: str = "float32",
    stream: int | None = None,
    library: str = "edgeseg_kernels",
) -> None:
    """The same on device memory, started on a CUDA stream (None: the default one) of the current device."""
    code = kernels.function("edgeseg_preprocess_u8_cuda", "pqqpp" + "q" * 5 + "iiip", library)(
        *images, plan, tensor, *shape[:3], *size, MODES[mode], ORDERS[order], DTYPES[dtype], stream
    )
    kernels.check(code, f"preprocess on {tuple(shape)} to {size} on CUDA")


def preprocess_reference(
    images: np.ndarray,
    size: tuple[int, int],
    mean: Sequence[float],
    std: Sequence[float],
    mode: str = "antialias",
    order: str = "RGB",
    dtype: str = "float32",
) -> np.ndarray:
    """The same with Pillow or plain numpy; the fallback where no kernel library was built."""
    table = normalization_table(tuple(mean), tuple(std))
    tensor = np.empty((images.shape[0], 3, *size), dtype)
    with np.errstate(over="ignore"):  # float16 has its infinity for what it cannot hold
        for image, planes in zip(images if order == "RGB" else images[..., ::-1], tensor, strict=True):
            if mode == "bilinear" and image.shape[:2] != size:
                scale = np.float32(1 / (255 * _doubles(std)))
                planes[:] = (_interpolated(image, size) * scale + np.float32(-_doubles(mean) / std)).transpose(2, 0, 1)
            else:
                resized = _resized_by_pillow(image, size)
                for channel in range(3):
                    planes[channel] = table[channel].take(resized[:, :, channel])
    return tensor


def _resized_by_pillow(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Columns first, always: one axis at a time, since Pillow 13 sometimes begins with the rows."""
    from PIL import Image

    if image.shape[:2] == size:
        return image
    picture = Image.fromarray(np.ascontiguousarray(image))
    for sides in ((size[1], image.shape[0]), (size[1], size[0])):
        picture = picture.resize(sides, Image.Resampling.BILINEAR)
    return np.asarray(picture)


def _interpolated(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) uint8 to (height, width, 3) float32 by two taps an axis; pixel centres at +0.5."""
    values = image.astype(np.float32)
    for axis in (1, 0):
        source = values.shape[axis], size[axis]
        position = np.maximum((np.arange(source[1]) + 0.5) * float(np.float32(source[0] / source[1])) - 0.5, 0)
        position = position.astype(np.float32)
        low = np.minimum(position.astype(np.int64), source[0] - 1)
        high_weight = np.minimum(position - low.astype(np.float32), np.float32(1))
        if source[0] == source[1]:
            continue
        weight = np.expand_dims(high_weight, (1 - axis, 2))
        below, above = values.take(low, axis), values.take(np.minimum(low + 1, source[0] - 1), axis)
        values = below * (1 - weight) + above * weight
    return values


@functools.lru_cache(maxsize=8)
def normalization_table(mean: tuple[float, ...], std: tuple[float, ...]) -> np.ndarray:
    """(3, 256) float32, read-only: what each byte becomes in each channel."""
    levels = np.arange(256, dtype=np.float64)[None] / 255
    table = ((levels - _doubles(mean)[:, None]) / _doubles(std)[:, None]).astype(np.float32)
    table.flags.writeable = False
    return table
