"""Convolution with dilation, folded batch norm and activation. The kernel and its reasoning: kernels/dilated_conv/."""

from __future__ import annotations

import ctypes
import math
import operator
from collections.abc import Sequence
from typing import Any, Literal, TypeVar

import numpy as np

from edgeseg import kernels

Array = TypeVar("Array")
"""numpy.ndarray or torch.Tensor; all arrays of one call are of one kind."""
Activation = Literal["none", "relu", "relu6"]
OutDtype = Literal["float32", "float16"]

BOUNDS = {"none": (-math.inf, math.inf), "relu": (0.0, math.inf), "relu6": (0.0, 6.0)}
"""What an activation clamps to."""
ELEMENTS = {"float32": 0, "float16": 1, "bfloat16": 2, "int8": 3}
"""Element types by their number in ``edgeseg_kernels.h``."""
KERNEL_SIZES = (1, 3, 5, 7)


def dilated_conv(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    dilation: int = 1,
    activation: Activation = "none",
    scale: Array | None = None,
    out_dtype: OutDtype | None = None,
    threads: int | None = None,
) -> Array:
    """``activation(conv2d(x, weight, bias, padding=dilation * (k // 2), dilation=dilation))``, the size kept.

    Taps that fall into the padding are never computed: at a dilation of half the map's side that is half of the work.
    No gradient.

    Args:
        x: (N, C, H, W) float32, float16, int8 (torch: bfloat16 as well). Channels last is read where it lies
            (torch.channels_last; in numpy ``nhwc.transpose(0, 3, 1, 2)``); other layouts cost a copy there and back.
        weight: (O, C, k, k) of x's type, k 1, 3, 5 or 7; batch norm folded in by :func:`fold_batch_norm`. As
            :func:`pack_weight` gives it, it is not copied.
        bias: (O,), float32 best.
        dilation: at least 1.
        activation: "none", "relu" or "relu6".
        scale: (O,) float32, with int8 and only there: scale of x times scale of ``weight[o]``. Sums are exact in int32;
            the result is ``activation(sum * scale + bias)``.
        out_dtype: with int8, of the result: "float32", the default, or "float16".
        threads: CPU threads; None takes what the work deserves (a torch tensor: torch's own threads).

    Returns:
        (N, O, H, W) of x's type (of `out_dtype`), in x's layout: channels last or contiguous.

    Example:
        >>> x, weight = np.ones((1, 8, 5, 5), np.float32), np.ones((4, 8, 3, 3), np.float32)
        >>> dilated_conv(x, weight, dilation=2)[0, 0, 0]  # a corner sees 4 of the 9 taps
        array([32., 32., 48., 32., 32.], dtype=float32)
    """
    return convolve(
        x,
        [weight],
        None if bias is None else [bias],
        [dilation],
        False,
        activation,
        None if scale is None else [scale],
        out_dtype,
        threads,
    )


def fold_batch_norm(
    weight: Array, bias: Array | None, mean: Array, variance: Array, gamma: Array, beta: Array, eps: float = 1e-5
) -> tuple[Array, Array]:
    """Weight and bias of the one convolution that equals convolution, then batch norm in inference.

    Args:
        weight, bias: (O, C, k, k) and (O,) or None, numpy or torch. Fold in float32 or float64, then convert.
        mean, variance, gamma, beta, eps: of the batch norm, (O,) each: running_mean, running_var, weight, bias, eps.

    Returns:
        ``weight * gamma / sqrt(variance + eps)`` and ``beta + (bias - mean) * gamma / sqrt(variance + eps)``.
    """
    w: Any = weight
    m: Any = mean
    v: Any = variance
    factor = gamma * (v + eps) ** -0.5
    return w * factor[:, None, None, None], beta + ((0 if bias is None else bias) - m) * factor


def quantize_weight(weight: Array) -> tuple[Array, Array]:
    """(O, C, k, k) floats as int8 and a float32 scale for each output: ``weight[o] ~ int8[o] * scale[o]``.

    Symmetric, rounded half to even, the largest magnitude of an output at 127; an output of zeros gets scale 1.
    """
    w: Any = weight
    if isinstance(w, np.ndarray):
        largest = np.abs(w).reshape(len(w), -1).max(1).astype(np.float32)
        scale = np.where(largest > 0, largest / np.float32(127), np.float32(1))
        return np.rint(w / scale[:, None, None, None]).clip(-127, 127).astype(np.int8), scale  # type: ignore
    largest = w.abs().flatten(1).amax(1).float()
    scale = (largest / 127).where(largest > 0, largest.new_ones(()))
    return (w / scale[:, None, None, None]).round().clamp(-127, 127).char(), scale


def pack_weight(weight: Array) -> Array:
    """The same (O, C, k, k) numbers, laid out in memory as the kernels read them: then no call needs to copy them.

    That is as (k, k, O, C) on CUDA and as (k, k, C, O) on CPU, except that float tensors on CPU become channels_last,
    for torch's own convolution. Move a tensor to its device first.
    """
    if isinstance(weight, np.ndarray):
        return packed(weight).transpose(3, 2, 0, 1)  # type: ignore[return-value]
    from edgeseg.ops import _torch_dilated_conv

    return _torch_dilated_conv.pack_weight(weight)  # type: ignore[arg-type, return-value]


def convolve(
    x: Any,
    weights: Sequence[Any],
    biases: Sequence[Any] | None,
    dilations: Sequence[int],
    pool: bool,
    activation: str,
    scales: Sequence[Any] | None,
    out_dtype: str | None,
    threads: int | None,
) -> Any:
    """Checks the arguments of one or several convolutions beside each other, and computes them.

    The last weight is that of the pooled branch where `pool`; see :func:`edgeseg.ops.aspp`.
    """
    if threads is not None and operator.index(threads) < 1:
        raise ValueError(f"threads must be at least 1, got {threads}; leave it out to have it chosen")
    if activation not in BOUNDS:
        raise ValueError(f"activation must be one of {', '.join(BOUNDS)}, got {activation!r}")
    is_array = isinstance(x, np.ndarray)
    if not is_array and not type(x).__module__.startswith("torch") and not hasattr(x, "__torch_function__"):
        raise TypeError(f"x must be a numpy array or a torch tensor, got {type(x).__name__}")
    dilations = [operator.index(dilation) for dilation in dilations]
    dtype = _name(x.dtype)
    out_dtype = _checked_out_dtype(dtype, out_dtype, scales is not None)
    _check_shapes(x, weights, biases, scales, dilations, pool)
    low, high = BOUNDS[activation]
    arguments = (x, weights, biases, scales, dilations, pool, low, high, out_dtype, threads or 0)
    if is_array:
        return _from_arrays(*arguments)
    from edgeseg.ops import _torch_dilated_conv

    return _torch_dilated_conv.convolve(*arguments)


def _name(dtype: object) -> str:
    return str(dtype).removeprefix("torch.")


def _checked_out_dtype(dtype: str, out_dtype: str | None, scaled: bool) -> str:
    if dtype not in ELEMENTS:
        raise TypeError(f"x must be float32, float16 or int8, got {dtype}; convert it with astype or .to")
    if scaled != (dtype == "int8"):
        raise ValueError(
            "int8 needs scale, (O,) float32: scale of x times scale of weight[o]"
            if dtype == "int8"
            else f"scale belongs to int8, got x of {dtype}; leave it out"
        )
    if out_dtype is None:
        return "float32" if dtype == "int8" else dtype
    if out_dtype not in (("float32", "float16") if dtype == "int8" else (dtype,)):
        raise ValueError(f"out_dtype can be float32 or float16, and only of int8, got {out_dtype!r} with x of {dtype}")
    return out_dtype


def _check_shapes(
    x: Any,
    weights: Sequence[Any],
    biases: Sequence[Any] | None,
    scales: Sequence[Any] | None,
    dilations: Sequence[int],
    pool: bool,
) -> None:
    if len(x.shape) != 4 or 0 in x.shape[1:]:
        raise ValueError(f"x must be (N, C, H, W) with C, H and W at least 1, got {tuple(x.shape)}")
    outputs, channels = weights[0].shape[0], x.shape[1]
    for i, weight in enumerate(weights):
        size = weight.shape[-1]
        if tuple(weight.shape) != (outputs, channels, size, size) or size not in KERNEL_SIZES or outputs == 0:
            raise ValueError(
                f"weight must be (O, {channels}, k, k) with k 1, 3, 5 or 7 and one O for all, got {tuple(weight.shape)}"
            )
        if pool and i == len(weights) - 1 and size != 1:
            raise ValueError(f"the pooled branch's weight must be (O, {channels}, 1, 1), got {tuple(weight.shape)}")
        if weight.dtype != x.dtype:
            raise TypeError(f"weight must be of x's type, {_name(x.dtype)}, got {_name(weight.dtype)}; convert one")
        if _name(x.dtype) == "int8" and size * size * channels >= 1 << 17:
            raise ValueError(f"int8 takes fewer than 2^17 products a sum, got {size} * {size} * {channels}")
    for name, vectors in (("bias", biases), ("scale", scales)):
        if vectors is not None and any(tuple(vector.shape) != (outputs,) for vector in vectors):
            raise ValueError(f"{name} must be ({outputs},), got {[tuple(vector.shape) for vector in vectors]}")
    if min(dilations) < 1 or max(dilations) > 1 << 22:
        raise ValueError(f"dilation must be in [1, 2^22], got {dilations[0] if len(dilations) == 1 else dilations}")


def packed(weight: np.ndarray) -> np.ndarray:
    """(O, C, k, k) as contiguous (k, k, C, O)."""
    return np.ascontiguousarray(weight.transpose(2, 3, 1, 0))


class Branch(ctypes.Structure):
    """``edgeseg_conv_branch`` of ``edgeseg_kernels.h``."""

    _fields_ = (
        ("weight", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("scale", ctypes.c_void_p),
        ("kernel", ctypes.c_int32),
        ("dilation", ctypes.c_int32),
    )


def run_kernel(
    x: int,
    dtype: str,
    branches: Sequence[Branch],
    pool: Branch | None,
    y: int,
    shape: tuple[int, int, int, int, int],
    bounds: tuple[float, float],
    threads: int = 0,
    instruction_set: str = "automatic",
) -> None:
    """The C function on addresses of contiguous memory: x (N, H, W, C) and y (N, H, W, parts * O) float32.

    Args:
        dtype: of x and the weights: float32 or int8.
        shape: (N, H, W, C, O).
        bounds: what the activation clamps to.
        instruction_set: one of ``edgeseg.kernels.INSTRUCTION_SETS``; tests use it.
    """
    one = len(branches) == 1 and pool is None
    parts = len(branches) + (pool is not None)
    listed = (Branch * len(branches))(*branches)
    which: list[int | None] = [ctypes.addressof(listed)]
    if not one:
        which += [len(branches), None if pool is None else ctypes.addressof(pool)]
    function = kernels.function(
        "edgeseg_dilated_conv" if one else "edgeseg_aspp", f"pi{'p' if one else 'pip'}pqqqqqqqffii"
    )
    pitches = shape[3], parts * shape[4]
    number = kernels.INSTRUCTION_SETS[instruction_set]
    code = function(x, ELEMENTS[dtype], *which, y, *shape, *pitches, *bounds, threads, number)
    kernels.check(code, f"convolutions of (N, H, W, C, O) = {tuple(shape)} with {instruction_set} instructions")


def _from_arrays(
    x: np.ndarray,
    weights: Sequence[np.ndarray],
    biases: Sequence[np.ndarray] | None,
    scales: Sequence[np.ndarray] | None,
    dilations: Sequence[int],
    pool: bool,
    low: float,
    high: float,
    out_dtype: str,
    threads: int,
) -> np.ndarray:
    kind = np.int8 if x.dtype == np.int8 else np.float32
    nhwc = x.transpose(0, 2, 3, 1)
    channels_last = nhwc.flags.c_contiguous and not x.flags.c_contiguous
    source = np.ascontiguousarray(nhwc, kind)
    kept = [packed(weight).astype(kind, copy=False) for weight in weights]
    shifts, factors = (
        None if given is None else [np.ascontiguousarray(vector, np.float32) for vector in given]
        for given in (biases, scales)
    )
    if kernels.available():
        shape = (*source.shape, weights[0].shape[0])
        y = np.empty((*source.shape[:3], len(weights) * shape[-1]), np.float32)
        branches = [
            Branch(
                w.ctypes.data,
                *(None if v is None else v[i].ctypes.data for v in (shifts, factors)),
                w.shape[0],
                dilation,
            )
            for i, (w, dilation) in enumerate(zip(kept, [*dilations, 1][: len(kept)], strict=True))
        ]
        last = branches.pop() if pool else None
        run_kernel(source.ctypes.data, source.dtype.name, branches, last, y.ctypes.data, shape, (low, high), threads)
    else:
        y = convolve_reference(source, kept, shifts, factors, dilations, pool).clip(low, high)
    result = y.astype(out_dtype, copy=False).transpose(0, 3, 1, 2)
    return result if channels_last else np.ascontiguousarray(result)


def convolve_reference(
    x: np.ndarray,
    weights: Sequence[np.ndarray],
    biases: Sequence[np.ndarray] | None,
    scales: Sequence[np.ndarray] | None,
    dilations: Sequence[int],
    pool: bool,
) -> np.ndarray:
    """The same in plain numpy, a matrix product for each tap; the fallback where no kernel library was built.

    x (N, H, W, C), weights (k, k, C, O); the result (N, H, W, parts * O) float32, before the activation.
    """
    exact = np.float64 if x.dtype == np.int8 else np.float32  # int8's sums stay below 2^31
    x = x.astype(exact, copy=False)
    n, height, width, _ = x.shape
    outputs = weights[0].shape[3]
    y = np.zeros((n, height, width, len(weights) * outputs), exact)
    for i, weight in enumerate(weights):
        part = y[..., i * outputs : (i + 1) * outputs]
        if pool and i == len(weights) - 1:
            part += x.mean((1, 2), keepdims=True) @ weight[0, 0].astype(exact)
        else:
            radius = weight.shape[0] // 2
            for (v, u), tap in zip(np.ndindex(weight.shape[:2]), weight.reshape(-1, *weight.shape[2:]), strict=True):
                rows, columns = (dilations[i] * (t - radius) for t in (v, u))
                if abs(rows) < height and abs(columns) < width:
                    inside = x[:, max(0, rows) : height + min(0, rows), max(0, columns) : width + min(0, columns)]
                    part[:, max(0, -rows) : height - max(0, rows), max(0, -columns) : width - max(0, columns)] += (
                        inside @ tap.astype(exact)
                    )
        if scales is not None:
            part *= scales[i]
        if biases is not None:
            part += biases[i]
    return y.astype(np.float32, copy=False)
