"""torch.ops.edgeseg.blend_labels and blend_labels_into: schemas, fakes, and what computes them. Imports torch.

CPU and CUDA: libedgeseg_torch where it was built. Otherwise on CPU the kernel library on the tensors' addresses, and
the reference wherever neither is there.
"""

from __future__ import annotations

import torch
from torch import Tensor

from edgeseg import kernels
from edgeseg.ops.blend_labels import check_shapes, run_kernel

_NAME, _INTO = "edgeseg::blend_labels", "edgeseg::blend_labels_into"
# image, out (N, H, W, 3), labels (N, H, W), palette (K, 3), all uint8; share in 1/256.
torch.library.define(_NAME, "(Tensor image, Tensor labels, Tensor palette, int share, int threads=0) -> Tensor")
torch.library.define(
    _INTO, "(Tensor image, Tensor labels, Tensor palette, int share, Tensor(a!) out, int threads=0) -> ()"
)


def blend_labels(
    image: Tensor, labels: Tensor, palette: Tensor, share: int, out: Tensor | None = None, threads: int = 0
) -> Tensor:
    """``edgeseg.ops.blend_labels`` for tensors, checked and dispatched to the operators."""
    named = {"image": image, "labels": labels, "palette": palette} | ({} if out is None else {"out": out})
    for name, tensor in named.items():
        if not isinstance(tensor, Tensor) or tensor.dtype != torch.uint8:
            raise TypeError(f"{name} must be a uint8 tensor, got {getattr(tensor, 'dtype', type(tensor).__name__)}")
        if tensor.device != image.device:
            raise ValueError(f"{name} must be on the image's device {image.device}, got {tensor.device}; use .to")
    check_shapes(image.shape, labels.shape, palette.shape, None if out is None else out.shape)
    one = image.dim() == 3
    images, label_maps = (image[None], labels[None]) if one else (image, labels)
    if out is None:
        blended = torch.ops.edgeseg.blend_labels(images, label_maps, palette, share, threads)
        return blended[0] if one else blended
    if out.stride(-1) != 1 or (out.shape[-2] > 1 and out.stride(-2) != 3):
        raise ValueError("out must have its pixels side by side within a row; make it with torch.empty")
    torch.ops.edgeseg.blend_labels_into(images, label_maps, palette, share, out[None] if one else out, threads)
    return out


def _check(image: Tensor, labels: Tensor, palette: Tensor) -> None:
    torch._check(image.dim() == 4 and image.shape[3] == 3, lambda: f"image must be (N, H, W, 3), got {image.shape}")
    torch._check(labels.shape == image.shape[:3], lambda: f"labels and image must have one size, got {labels.shape}")
    torch._check(palette.dim() == 2 and palette.shape[1] == 3, lambda: f"palette must be (K, 3), got {palette.shape}")


@torch.library.register_fake(_NAME)
def _(image: Tensor, labels: Tensor, palette: Tensor, share: int, threads: int = 0) -> Tensor:
    _check(image, labels, palette)
    return image.new_empty(image.shape)


@torch.library.register_fake(_INTO)
def _(image: Tensor, labels: Tensor, palette: Tensor, share: int, out: Tensor, threads: int = 0) -> None:
    _check(image, labels, palette)


def blend_labels_reference(image: Tensor, labels: Tensor, palette: Tensor, share: int, threads: int = 0) -> Tensor:
    """The definition itself, in 32-bit integers."""
    colours = image.new_zeros((256, 3))
    colours[: len(palette)] = palette
    ids = labels.long()
    blended = (image.int() * (256 - share) + colours[ids].int() * share + 128) >> 8
    return torch.where((ids < len(palette))[..., None], blended.to(torch.uint8), image).contiguous()


def _reference_into(image: Tensor, labels: Tensor, palette: Tensor, share: int, out: Tensor, threads: int = 0) -> None:
    out.copy_(blend_labels_reference(image, labels, palette, share))


torch.library.impl(_NAME, "CompositeExplicitAutograd", blend_labels_reference)
torch.library.impl(_INTO, "CompositeExplicitAutograd", _reference_into)


def _into_through_ctypes(
    image: Tensor, labels: Tensor, palette: Tensor, share: int, out: Tensor, threads: int = 0
) -> None:
    source = image.numpy() if image.stride()[2:] == (3, 1) else image.contiguous().numpy()
    ids = labels.numpy() if labels.stride(2) == 1 else labels.contiguous().numpy()
    run_kernel(source, ids, palette.contiguous().numpy(), share, out.numpy(), threads or torch.get_num_threads())


def _through_ctypes(image: Tensor, labels: Tensor, palette: Tensor, share: int, threads: int = 0) -> Tensor:
    out = image.new_empty(image.shape)
    _into_through_ctypes(image, labels, palette, share, out, threads)
    return out


FAULT = kernels.load_torch_operators()
"""Why libedgeseg_torch is not in use; "" when it is."""

if FAULT and kernels.available():
    torch.library.impl(_NAME, "CPU", _through_ctypes)
    torch.library.impl(_INTO, "CPU", _into_through_ctypes)
