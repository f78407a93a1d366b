"""torch.ops.edgeseg.confusion_matrix: schema, fake, and what computes it on each device. Imports torch.

CPU and CUDA: libedgeseg_torch where it was built. Otherwise on CPU the kernel library on the tensors' addresses, and
the reference wherever neither is there.
"""

from __future__ import annotations

import torch
from torch import Tensor

from edgeseg import kernels
from edgeseg.ops.confusion_matrix import check_shapes, raise_strange_ids, run_kernel

_NAME = "edgeseg::confusion_matrix"
# labels, target both uint8 or both int32; (K + 1, K + 1) int64, index K for ids that are no class.
torch.library.define(
    _NAME, "(Tensor labels, Tensor target, int num_classes, int ignore_index=255, int threads=0) -> Tensor"
)


def confusion_matrix(
    labels: Tensor, target: Tensor, num_classes: int, ignore_index: int, strict: bool, threads: int = 0
) -> Tensor:
    """``edgeseg.ops.confusion_matrix`` for tensors, checked and dispatched to the operator."""
    if not isinstance(target, Tensor):
        raise TypeError(f"target must be a tensor as labels are, got {type(target).__name__}")
    check_shapes(labels.shape, target.shape)
    if labels.device != target.device:
        raise ValueError(f"labels and target must be on one device, got {labels.device} and {target.device}; use .to")
    for ids, name in ((labels, "labels"), (target, "target")):
        if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
            raise ValueError(f"{name} must be integer class ids, got {ids.dtype}")
    predicted, true = labels, target
    if not labels.dtype == target.dtype == torch.uint8:  # what lies beyond a byte is no class, whatever it is
        predicted, true = (ids.long().clamp(-1, 256).int() for ids in (labels, target))
    counts = torch.ops.edgeseg.confusion_matrix(predicted, true, num_classes, ignore_index, threads)
    if strict and bool(counts[-1].any() or counts[:, -1].any()):
        raise_strange_ids(labels, target, num_classes, ignore_index)
    return counts[:-1, :-1].contiguous()


@torch.library.register_fake(_NAME)
def _(labels: Tensor, target: Tensor, num_classes: int, ignore_index: int = 255, threads: int = 0) -> Tensor:
    torch._check(labels.shape == target.shape, lambda: f"one shape is wanted, got {labels.shape} and {target.shape}")
    return labels.new_empty((num_classes + 1, num_classes + 1), dtype=torch.int64)


def confusion_matrix_reference(
    labels: Tensor, target: Tensor, num_classes: int, ignore_index: int = 255, threads: int = 0
) -> Tensor:
    """The definition itself."""
    side = num_classes + 1
    counted = target != ignore_index
    true, predicted = (ids[counted].long() for ids in (target, labels))
    true, predicted = (torch.where((ids >= 0) & (ids < num_classes), ids, num_classes) for ids in (true, predicted))
    return torch.bincount(true * side + predicted, minlength=side * side).reshape(side, side)


torch.library.impl(_NAME, "CompositeExplicitAutograd", confusion_matrix_reference)


def _through_ctypes(
    labels: Tensor, target: Tensor, num_classes: int, ignore_index: int = 255, threads: int = 0
) -> Tensor:
    arrays = labels.contiguous().numpy(), target.contiguous().numpy()
    return torch.from_numpy(run_kernel(*arrays, num_classes, ignore_index, threads or torch.get_num_threads()))


FAULT = kernels.load_torch_operators()
"""Why libedgeseg_torch is not in use; "" when it is."""

if FAULT and kernels.available():
    torch.library.impl(_NAME, "CPU", _through_ctypes)
