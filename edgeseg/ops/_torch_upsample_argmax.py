"""torch.ops.edgeseg.upsample_argmax: schema, fake, and what computes it on each device. Imports torch.

CPU: libedgeseg_torch where it was built, else the kernel library on the tensor's address, else the reference.
Other devices: the reference, until a kernel for them is loaded.
"""

from __future__ import annotations

import torch
from torch import Tensor

from edgeseg import kernels
from edgeseg.ops.upsample_argmax import check_shape, run_kernel

_NAME = "edgeseg::upsample_argmax"
torch.library.define(_NAME, "(Tensor logits, SymInt height, SymInt width, int threads=0) -> Tensor")


def upsample_argmax(logits: Tensor, height: int, width: int, threads: int = 0) -> Tensor:
    """``edgeseg.ops.upsample_argmax`` for tensors, checked and dispatched to the operator."""
    check_shape(tuple(logits.shape), logits.dtype, logits.dtype in (torch.float32, torch.float16, torch.bfloat16))
    return torch.ops.edgeseg.upsample_argmax(logits, height, width, threads)


@torch.library.register_fake(_NAME)
def _(logits: Tensor, height: int, width: int, threads: int = 0) -> Tensor:
    torch._check(logits.dim() == 4, lambda: f"logits must be (N, C, h, w), got {tuple(logits.shape)}")
    return logits.new_empty((logits.shape[0], height, width), dtype=torch.uint8)


def upsample_argmax_reference(logits: Tensor, height: int, width: int, threads: int = 0) -> Tensor:
    """The definition itself, in float32, one image at a time."""
    labels = logits.new_empty((logits.shape[0], height, width), dtype=torch.uint8)
    for scores, image_labels in zip(logits.float().split(1), labels.split(1), strict=True):
        upsampled = torch.nn.functional.interpolate(scores, (height, width), mode="bilinear", align_corners=False)
        image_labels.copy_(upsampled.argmax(1))
    return labels


torch.library.impl(_NAME, "CompositeExplicitAutograd", upsample_argmax_reference)


def _through_ctypes(logits: Tensor, height: int, width: int, threads: int = 0) -> Tensor:
    source = logits.to(torch.float32).contiguous()
    labels = logits.new_empty((logits.shape[0], height, width), dtype=torch.uint8)
    threads = threads or torch.get_num_threads()
    run_kernel(source.data_ptr(), labels.data_ptr(), tuple(source.shape), (height, width), threads)
    return labels


FAULT = kernels.load_torch_operators()
"""Why libedgeseg_torch is not in use; "" when it is."""

if FAULT and kernels.available():
    torch.library.impl(_NAME, "CPU", _through_ctypes)
