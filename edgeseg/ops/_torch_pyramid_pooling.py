"""torch.ops.edgeseg.pyramid_pooling: schema, fake, and what computes it on each device. Imports torch.

CPU and CUDA: libedgeseg_torch where it was built. Otherwise on CPU the kernel library on the tensor's address, and the
reference wherever neither is there.
"""

from __future__ import annotations

import torch
from torch import Tensor

from edgeseg import kernels
from edgeseg.ops.pyramid_pooling import check_shape, run_kernel

_NAME = "edgeseg::pyramid_pooling"
# x (N, C, H, W) to (N, C, S); with channels_last x (N, H, W, C) to (N, S, C); S = sum of b^2.
torch.library.define(_NAME, "(Tensor x, int[] bins, bool channels_last=False, int threads=0) -> Tensor")


def pyramid_pooling(x: Tensor, bins: tuple[int, ...], threads: int = 0) -> list[Tensor]:
    """``edgeseg.ops.pyramid_pooling`` for tensors, checked and dispatched to the operator."""
    check_shape(tuple(x.shape), x.dtype, x.dtype in (torch.float32, torch.float16, torch.bfloat16))
    channels_last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    source = x.permute(0, 2, 3, 1) if channels_last else x
    pooled = torch.ops.edgeseg.pyramid_pooling(source, bins, channels_last, threads)
    parts = (pooled.mT if channels_last else pooled).split([b * b for b in bins], 2)
    return [part.unflatten(2, (b, b)) for part, b in zip(parts, bins, strict=True)]


@torch.library.register_fake(_NAME)
def _(x: Tensor, bins: list[int], channels_last: bool = False, threads: int = 0) -> Tensor:
    torch._check(x.dim() == 4, lambda: f"x must have 4 dimensions, got {tuple(x.shape)}")
    positions = sum(b * b for b in bins)
    return x.new_empty((x.shape[0], positions, x.shape[3]) if channels_last else (*x.shape[:2], positions))


def pyramid_pooling_reference(x: Tensor, bins: list[int], channels_last: bool = False, threads: int = 0) -> Tensor:
    """The definition itself: torch's poolings of the float32 map, packed."""
    planes = (x.permute(0, 3, 1, 2) if channels_last else x).float().contiguous()
    pooled = torch.cat([torch.nn.functional.adaptive_avg_pool2d(planes, b).flatten(2) for b in bins], 2).to(x.dtype)
    return pooled.mT.contiguous() if channels_last else pooled


torch.library.impl(_NAME, "CompositeExplicitAutograd", pyramid_pooling_reference)


def _through_ctypes(x: Tensor, bins: list[int], channels_last: bool = False, threads: int = 0) -> Tensor:
    x = x.contiguous()
    positions = sum(b * b for b in bins)
    n, channels, height, width = x.permute(0, 3, 1, 2).shape if channels_last else x.shape
    pooled = x.new_empty((n, positions, channels) if channels_last else (n, channels, positions))
    shape, dtype = (n, channels, height, width), str(x.dtype).removeprefix("torch.")
    threads = threads or torch.get_num_threads()
    run_kernel(x.data_ptr(), pooled.data_ptr(), dtype, shape, tuple(bins), channels_last, threads)
    return pooled


FAULT = kernels.load_torch_operators()
"""Why libedgeseg_torch is not in use; "" when it is."""

if FAULT and kernels.available():
    torch.library.impl(_NAME, "CPU", _through_ctypes)
