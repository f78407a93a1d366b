"""torch.ops.edgeseg.upsample_argmax: schema, fake, and what computes it on each device. Imports torch.

CPU and CUDA: libedgeseg_torch where it was built. Otherwise on CPU the kernel library on the tensor's address, and the
reference wherever neither is there.
"""

from __future__ import annotations

import torch
from torch import Tensor

from edgeseg import kernels
from edgeseg.ops.upsample_argmax import MAX_CLASSES, check_shape, run_kernel

_NAME = "edgeseg::upsample_argmax"
torch.library.define(
    _NAME,
    "(Tensor logits, SymInt height, SymInt width, bool align_corners=False, bool margin=False, int threads=0)"
    " -> (Tensor, Tensor)",
)


def upsample_argmax(
    logits: Tensor, height: int, width: int, align_corners: bool = False, margin: bool = False, threads: int = 0
) -> tuple[Tensor, Tensor]:
    """``edgeseg.ops.upsample_argmax`` for tensors, checked and dispatched to the operator: labels, and margins.

    Without `margin` the second tensor is empty.
    """
    check_shape(tuple(logits.shape), logits.dtype, logits.dtype in (torch.float32, torch.float16, torch.bfloat16))
    return torch.ops.edgeseg.upsample_argmax(logits, height, width, align_corners, margin, threads)


def _empty(logits: Tensor, height: int, width: int, margin: bool) -> tuple[Tensor, Tensor]:
    shape = (logits.shape[0], height, width)
    labels = logits.new_empty(shape, dtype=torch.uint8 if logits.shape[1] <= MAX_CLASSES else torch.int32)
    return labels, logits.new_empty(shape if margin else (0,), dtype=torch.float32)


@torch.library.register_fake(_NAME)
def _(
    logits: Tensor, height: int, width: int, align_corners: bool = False, margin: bool = False, threads: int = 0
) -> tuple[Tensor, Tensor]:
    torch._check(logits.dim() == 4, lambda: f"logits must be (N, C, h, w), got {tuple(logits.shape)}")
    return _empty(logits, height, width, margin)


def upsample_argmax_reference(
    logits: Tensor, height: int, width: int, align_corners: bool = False, margin: bool = False, threads: int = 0
) -> tuple[Tensor, Tensor]:
    """The definition itself, in float32, one image at a time."""
    labels, margins = _empty(logits, height, width, margin)
    for n, scores in enumerate(logits.float().split(1)):
        upsampled = torch.nn.functional.interpolate(
            scores, (height, width), mode="bilinear", align_corners=align_corners
        )[0]
        labels[n] = upsampled.argmax(0)
        if margin:
            lowest = upsampled.new_full((1, height, width), -torch.inf)  # topk needs two
            best, second = torch.cat((upsampled, lowest)).topk(2, dim=0).values
            margins[n] = best - second
    return labels, margins


torch.library.impl(_NAME, "CompositeExplicitAutograd", upsample_argmax_reference)


def _through_ctypes(
    logits: Tensor, height: int, width: int, align_corners: bool = False, margin: bool = False, threads: int = 0
) -> tuple[Tensor, Tensor]:
    source = logits.contiguous()
    labels, margins = _empty(logits, height, width, margin)
    run_kernel(
        source.data_ptr(),
        str(source.dtype).removeprefix("torch."),
        labels.data_ptr(),
        margins.data_ptr() if margin else None,
        tuple(source.shape),
        (height, width),
        align_corners,
        threads or torch.get_num_threads(),
    )
    return labels, margins


FAULT = kernels.load_torch_operators()
"""Why libedgeseg_torch is not in use; "" when it is."""

if FAULT and kernels.available():
    torch.library.impl(_NAME, "CPU", _through_ctypes)
