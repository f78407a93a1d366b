"""torch.ops.edgeseg.aspp: schema, fake, and what computes it on each device. Imports torch.

CUDA, and int8 on CPU: libedgeseg_torch where it was built. How floats go on CPU is in _torch_dilated_conv.py.
"""

from __future__ import annotations

import torch
from torch import Tensor

from edgeseg import kernels
from edgeseg.ops import _torch_dilated_conv as shared

_NAME = "edgeseg::aspp"
# x (N, H, W, C), weights (k, k, C, O) and on CUDA (k, k, O, C), to (N, H, W, len(weights) * O); [] for no scales.
torch.library.define(
    _NAME,
    "(Tensor x, Tensor[] weights, Tensor[] biases, Tensor[] scales, int[] dilations, bool pool, float low, float high,"
    " ScalarType dtype, int threads=0) -> Tensor",
)


@torch.library.register_fake(_NAME)
def _(
    x: Tensor,
    weights: list[Tensor],
    biases: list[Tensor],
    scales: list[Tensor],
    dilations: list[int],
    pool: bool,
    low: float,
    high: float,
    dtype: torch.dtype,
    threads: int = 0,
) -> Tensor:
    return shared.empty_result(x, weights, dtype)


def aspp_reference(
    x: Tensor,
    weights: list[Tensor],
    biases: list[Tensor],
    scales: list[Tensor],
    dilations: list[int],
    pool: bool,
    low: float,
    high: float,
    dtype: torch.dtype,
    threads: int = 0,
) -> Tensor:
    """The definition in torch's own operations."""
    return shared.reference(x, weights, biases, scales, dilations, pool, low, high, dtype)


torch.library.impl(_NAME, "CompositeExplicitAutograd", aspp_reference)

if shared.FAULT and kernels.available():
    torch.library.impl(_NAME, "CPU", shared.through_ctypes)
