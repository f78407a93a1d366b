"""What the tests of dilated_conv and aspp share: every path to the C functions, and the definition in float64."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d

from edgeseg import kernels
from edgeseg.ops.dilated_conv import BOUNDS, ELEMENTS, Branch, run_kernel
from tests.ops.ways import needs_emulation

INSTRUCTION_SETS = [
    name
    for name, number in kernels.INSTRUCTION_SETS.items()
    if kernels.available() and kernels.load().edgeseg_can_run(number)
]
WAYS = [  # a path, the type of x, the type of the result
    *((name, dtype, "float32") for name in INSTRUCTION_SETS for dtype in ("float32", "int8")),
    *(
        pytest.param("emulated", *types, marks=needs_emulation)
        for types in (("float16", "float16"), ("float32", "float32"), ("int8", "float32"), ("int8", "float16"))
    ),
]
# Of the largest value of a result. float32: sums of up to some thousand products; float16: one rounding.
TOLERANCE = {"float32": 4e-6, "float16": 6e-4, "bfloat16": 5e-3}


class Part(NamedTuple):
    """One convolution of a job; the pooled one has dilation 0."""

    weight: Tensor  # (O, C, k, k)
    bias: Tensor  # (O,) float32
    scale: Tensor | None
    dilation: int


def random_tensor(shape: Sequence[int], dtype: str, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed + sum(shape))
    if dtype == "int8":
        return torch.randint(-128, 128, tuple(shape), generator=generator, dtype=torch.int8)
    return torch.randn(tuple(shape), generator=generator).to(getattr(torch, dtype))


def random_part(outputs: int, channels: int, size: int, dilation: int, dtype: str, seed: int = 1) -> Part:
    scale = None
    if dtype == "int8":  # so that results are about 1 and their differences show
        scale = (random_tensor((outputs,), "float32", seed).abs() + 0.1) / (5000 * size * channels**0.5)
    weight = random_tensor((outputs, channels, size, size), dtype, seed)
    return Part(weight, random_tensor((outputs,), "float32", seed + 1), scale, dilation)


def expected(x: Tensor, parts: Sequence[Part], activation: str = "none") -> Tensor:
    """(N, parts * O, H, W) float64, by torch's convolution."""
    made = []
    for weight, bias, scale, dilation in parts:
        if dilation == 0:
            part = conv2d(x.double().mean((2, 3), keepdim=True), weight.double()).expand(-1, -1, *x.shape[2:])
        else:
            reach = dilation * (weight.shape[2] // 2)
            part = conv2d(x.double(), weight.double(), padding=reach, dilation=dilation)
        factor = 1 if scale is None else scale.double()[:, None, None]
        made.append(part * factor + bias.double()[:, None, None])
    return torch.cat(made, 1).clamp(*BOUNDS[activation])


def assert_near(y: Tensor, wanted: Tensor) -> None:
    assert y.shape == wanted.shape
    bound = TOLERANCE[str(y.dtype).removeprefix("torch.")] * max(1.0, wanted.abs().max().item() if y.numel() else 0.0)
    torch.testing.assert_close(y.double().cpu(), wanted.cpu(), rtol=0, atol=bound)


def run(path: str, x: Tensor, parts: Sequence[Part], out: str, activation: str = "none", threads: int = 1) -> Tensor:
    """(N, parts * O, H, W) through a C function; NaN where nobody wrote."""
    n, channels, height, width = x.shape
    outputs = parts[0].weight.shape[0]
    source = x.permute(0, 2, 3, 1).contiguous()
    order = (2, 3, 0, 1) if path == "emulated" else (2, 3, 1, 0)
    kept = [(p.weight.permute(order).contiguous(), p.bias, p.scale, p.dilation) for p in parts]
    branches = [
        Branch(weight.data_ptr(), bias.data_ptr(), None if scale is None else scale.data_ptr(), weight.shape[0], d or 1)
        for weight, bias, scale, d in kept
    ]
    pool = branches.pop() if parts[-1].dilation == 0 else None
    y = torch.full((n, height, width, len(parts) * outputs), math.nan, dtype=getattr(torch, out))
    shape, dtype = (n, height, width, channels, outputs), str(x.dtype).removeprefix("torch.")
    if path == "emulated":
        run_emulated(source, dtype, branches, pool, y, shape, BOUNDS[activation])
    else:
        run_kernel(source.data_ptr(), dtype, branches, pool, y.data_ptr(), shape, BOUNDS[activation], threads, path)
    return y.permute(0, 3, 1, 2)


def run_emulated(
    x: Tensor,
    dtype: str,
    branches: Sequence[Branch],
    pool: Branch | None,
    y: Tensor,
    shape: tuple[int, ...],
    bounds: tuple[float, float],
) -> int:
    """The CUDA kernel's code on this CPU; returns the bytes of its workspace, which begins as garbage."""
    one = len(branches) == 1 and pool is None
    name, letters = ("dilated_conv", "p") if one else ("aspp", "pip")
    listed = (Branch * len(branches))(*branches)
    which = [ctypes.addressof(listed)]
    if not one:
        which += [len(branches), None if pool is None else ctypes.addressof(pool)]
    elements = ELEMENTS[dtype], ELEMENTS[str(y.dtype).removeprefix("torch.")]
    size = np.zeros(1, np.int64)
    wanted = kernels.function(f"edgeseg_{name}_cuda_workspace", f"i{letters}iqqqqqp", "edgeseg_emulated")
    kernels.check(wanted(elements[0], *which, elements[1], *shape, size.ctypes.data), "workspace")
    workspace = np.full(int(size[0]), 0xAB, np.uint8)
    function = kernels.function(f"edgeseg_{name}_cuda", f"pi{letters}piqqqqqqqffpp", "edgeseg_emulated")
    pitches = shape[3], y.shape[3]
    code = function(
        x.data_ptr(), elements[0], *which, y.data_ptr(), elements[1], *shape, *pitches, *bounds,
        workspace.ctypes.data if size[0] else None, None,
    )  # fmt: skip
    kernels.check(code, name)
    return int(size[0])
