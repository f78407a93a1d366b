"""torch.ops.edgeseg.preprocess: schema, fake, and what computes it on each device. Imports torch.

CPU and CUDA: libedgeseg_torch where it was built. Otherwise on CPU the kernel library on the tensor's address, and the
reference wherever neither is there.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from edgeseg import kernels
from edgeseg.ops.preprocess import checked_batch, preprocess_reference, run_kernel

_NAME = "edgeseg::preprocess"
torch.library.define(
    _NAME,
    "(Tensor images, SymInt height, SymInt width, float[] mean, float[] std, str mode, str order, ScalarType dtype,"
    " int threads=0) -> Tensor",
)


def preprocess(
    image: Tensor | Sequence[Tensor],
    size: tuple[int, int],
    mean: Sequence[float],
    std: Sequence[float],
    mode: str,
    order: str,
    dtype: str,
    threads: int,
) -> Tensor:
    """``edgeseg.ops.preprocess`` for tensors, checked and dispatched to the operator."""
    if isinstance(image, list | tuple):
        if any(one.ndim != 3 for one in image):
            raise ValueError(f"a list must hold (H, W, 3) images, got {[tuple(one.shape) for one in image]}")
        return torch.cat([preprocess(one, size, mean, std, mode, order, dtype, threads) for one in image])
    return torch.ops.edgeseg.preprocess(
        checked_batch(image), *size, mean, std, mode, order, getattr(torch, dtype), threads
    )


@torch.library.register_fake(_NAME)
def _(
    images: Tensor,
    height: int,
    width: int,
    mean: Sequence[float],
    std: Sequence[float],
    mode: str,
    order: str,
    dtype: torch.dtype,
    threads: int = 0,
) -> Tensor:
    torch._check(images.dim() == 4, lambda: f"images must be (N, H, W, 3), got {tuple(images.shape)}")
    return images.new_empty((images.shape[0], 3, height, width), dtype=dtype)


def reference(
    images: Tensor,
    height: int,
    width: int,
    mean: Sequence[float],
    std: Sequence[float],
    mode: str,
    order: str,
    dtype: torch.dtype,
    threads: int = 0,
) -> Tensor:
    """The definition: Pillow's resize, on the CPU, or torch's; then the table or the formula."""
    if mode == "antialias" or images.shape[1:3] == (height, width):
        name = str(dtype).removeprefix("torch.")
        tensor = preprocess_reference(images.numpy(force=True), (height, width), mean, std, "antialias", order, name)
        return torch.from_numpy(tensor).to(images.device)
    channels_first = images.permute(0, 3, 1, 2).float()
    channels_first = channels_first if order == "RGB" else channels_first.flip(1)
    resized = torch.nn.functional.interpolate(channels_first, (height, width), mode="bilinear", align_corners=False)
    statistics = torch.tensor([mean, std], dtype=torch.float64, device=images.device).view(2, 1, 3, 1, 1)
    scale, bias = (1 / (255 * statistics[1])).float(), (-statistics[0] / statistics[1]).float()
    return torch.addcmul(bias, resized, scale).to(dtype)


torch.library.impl(_NAME, "CompositeExplicitAutograd", reference)


def _through_ctypes(
    images: Tensor,
    height: int,
    width: int,
    mean: Sequence[float],
    std: Sequence[float],
    mode: str,
    order: str,
    dtype: torch.dtype,
    threads: int = 0,
) -> Tensor:
    if images.stride(3) != 1 or (images.stride(2) != 3 and images.shape[2] > 1):
        images = images.contiguous()
    tensor = images.new_empty((images.shape[0], 3, height, width), dtype=dtype)
    run_kernel(
        (images.data_ptr(), images.stride(0), images.stride(1)),
        tensor.data_ptr(),
        tuple(images.shape),
        (height, width),
        mean,
        std,
        mode,
        order,
        str(dtype).removeprefix("torch."),
        threads or torch.get_num_threads(),
    )
    return tensor


FAULT = kernels.load_torch_operators()
"""Why libedgeseg_torch is not in use; "" when it is."""

if FAULT and kernels.available():
    torch.library.impl(_NAME, "CPU", _through_ctypes)
