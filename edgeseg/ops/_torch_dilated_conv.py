"""torch.ops.edgeseg.dilated_conv, and what it shares with aspp. Imports torch.

On CUDA libedgeseg_torch. On CPU int8 goes there too; floats go through torch's own convolution in channels_last, where
oneDNN skips taps in the padding as well and is the faster one (benchmarks/ops/bench_dilated_conv.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from edgeseg import kernels
from edgeseg.ops.dilated_conv import BOUNDS, Branch, run_kernel

_NAME = "edgeseg::dilated_conv"
# x (N, H, W, C), weight (k, k, C, O) and on CUDA (k, k, O, C), to (N, H, W, O).
torch.library.define(
    _NAME,
    "(Tensor x, Tensor weight, Tensor? bias, Tensor? scale, int dilation, float low, float high, ScalarType dtype,"
    " int threads=0) -> Tensor",
)

_FAST = {
    torch.float32: True,
    torch.bfloat16: bool(getattr(torch.cpu, "_is_avx512_bf16_supported", bool)()),
    torch.float16: bool(getattr(torch.cpu, "_is_amx_fp16_supported", bool)()),
}
"""Whether this CPU multiplies the type as such; otherwise float32 is faster, and more exact."""


def convolve(
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor] | None,
    scales: Sequence[Tensor] | None,
    dilations: Sequence[int],
    pool: bool,
    low: float,
    high: float,
    out_dtype: str,
    threads: int,
) -> Tensor:
    """``edgeseg.ops.dilated_conv.convolve`` for tensors, arguments checked."""
    dtype = getattr(torch, out_dtype)
    channels_last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    if x.dtype != torch.int8 and (x.device.type == "cpu" or dtype == torch.bfloat16):
        y = _through_conv2d(x, weights, biases, dilations, pool, low, high)
    else:
        nhwc = x.permute(0, 2, 3, 1).contiguous()
        packed = [_packed(weight) for weight in weights]
        given = [[] if v is None else [vector.float().contiguous() for vector in v] for v in (biases, scales)]
        # Of int8 on CPU the kernel makes float32.
        made = torch.float32 if x.device.type == "cpu" else dtype
        if len(weights) == 1 and not pool:
            bias, scale = (vectors[0] if vectors else None for vectors in given)
            y = torch.ops.edgeseg.dilated_conv(nhwc, packed[0], bias, scale, dilations[0], low, high, made, threads)
        else:
            from edgeseg.ops import _torch_aspp  # noqa: F401  declares the operator

            y = torch.ops.edgeseg.aspp(nhwc, packed, *given, list(dilations), pool, low, high, made, threads)
        y = y.to(dtype).permute(0, 3, 1, 2)
    return y if channels_last else y.contiguous()


def pack_weight(weight: Tensor) -> Tensor:
    """``edgeseg.ops.dilated_conv.pack_weight`` for tensors."""
    if weight.dtype != torch.int8 and not weight.is_cuda:
        return weight.contiguous(memory_format=torch.channels_last)
    return _packed(weight).permute((2, 3, 0, 1) if weight.is_cuda else (3, 2, 0, 1))


def _packed(weight: Tensor) -> Tensor:
    return weight.permute((2, 3, 0, 1) if weight.is_cuda else (2, 3, 1, 0)).contiguous()


def _through_conv2d(
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor] | None,
    dilations: Sequence[int],
    pool: bool,
    low: float,
    high: float,
) -> Tensor:
    """torch's own convolutions, each into its channels of one channels_last result."""
    work = x.dtype if x.is_cuda or _FAST[x.dtype] else torch.float32
    source = x.to(work).contiguous(memory_format=torch.channels_last)
    parts = []
    for i, weight in enumerate(weights):
        bias = None if biases is None else biases[i].to(work)
        if pool and i == len(weights) - 1:
            mean = source.mean((2, 3), keepdim=True, dtype=torch.float32)
            part = conv2d(mean, weight.float(), None if bias is None else bias.float())
        else:
            reach = dilations[i] * (weight.shape[2] // 2)
            part = conv2d(source, weight.to(work), bias, padding=reach, dilation=dilations[i])
        parts.append(part if (low, high) == BOUNDS["none"] else part.clamp_(low, high))
    if len(parts) == 1:
        return parts[0].to(x.dtype)
    outputs = weights[0].shape[0]
    y = torch.empty(
        (x.shape[0], len(parts) * outputs, *x.shape[2:]),
        dtype=x.dtype,
        device=x.device,
        memory_format=torch.channels_last,
    )
    for i, part in enumerate(parts):
        y[:, i * outputs : (i + 1) * outputs] = part
    return y


def empty_result(x: Tensor, weights: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """What the operators return, not filled; checks the shapes that matter to it."""
    torch._check(x.dim() == 4, lambda: f"x must be (N, H, W, C), got {tuple(x.shape)}")
    outputs = weights[0].shape[2 if x.device.type == "cuda" else 3]
    return x.new_empty((*x.shape[:3], len(weights) * outputs), dtype=dtype)


def reference(
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    scales: Sequence[Tensor],
    dilations: Sequence[int],
    pool: bool,
    low: float,
    high: float,
    dtype: torch.dtype,
) -> Tensor:
    """The definition in torch's own operations, of int8 in float64: exact."""
    work = torch.float64 if x.dtype == torch.int8 else x.dtype
    source = x.permute(0, 3, 1, 2).to(work)
    y = empty_result(x, weights, dtype)
    outputs = y.shape[3] // len(weights)
    for i, weight in enumerate(weights):
        kernel = weight.permute((2, 3, 0, 1) if x.is_cuda else (3, 2, 0, 1)).to(work)
        if pool and i == len(weights) - 1:
            part = conv2d(source.mean((2, 3), keepdim=True), kernel)
        else:
            part = conv2d(source, kernel, padding=dilations[i] * (kernel.shape[2] // 2), dilation=dilations[i])
        part = part.permute(0, 2, 3, 1).float()
        if scales:
            part = part * scales[i]
        if biases:
            part = part + biases[i]
        y[..., i * outputs : (i + 1) * outputs] = part.clamp(low, high)
    return y


def through_ctypes(
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    scales: Sequence[Tensor],
    dilations: Sequence[int],
    pool: bool,
    low: float,
    high: float,
    dtype: torch.dtype,
    threads: int,
) -> Tensor:
    """The kernel library on the tensors' addresses; float32 and int8 on CPU, to float32."""
    kept = [x.contiguous(), *(weight.contiguous() for weight in weights)]
    y = empty_result(x, weights, dtype)
    shape = (*x.shape, y.shape[3] // len(weights))
    branches = [
        Branch(weight.data_ptr(), *(v[i].data_ptr() if v else None for v in (biases, scales)), weight.shape[0], d)
        for i, (weight, d) in enumerate(zip(kept[1:], [*dilations, 1][: len(weights)], strict=True))
    ]
    last = branches.pop() if pool else None
    name = str(x.dtype).removeprefix("torch.")
    threads = threads or torch.get_num_threads()
    run_kernel(kept[0].data_ptr(), name, branches, last, y.data_ptr(), shape, (low, high), threads)
    return y


@torch.library.register_fake(_NAME)
def _(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    scale: Tensor | None,
    dilation: int,
    low: float,
    high: float,
    dtype: torch.dtype,
    threads: int = 0,
) -> Tensor:
    return empty_result(x, [weight], dtype)


def _listed(tensor: Tensor | None) -> list[Tensor]:
    return [] if tensor is None else [tensor]


@torch.library.impl(_NAME, "CompositeExplicitAutograd")
def _(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    scale: Tensor | None,
    dilation: int,
    low: float,
    high: float,
    dtype: torch.dtype,
    threads: int = 0,
) -> Tensor:
    return reference(x, [weight], _listed(bias), _listed(scale), [dilation], False, low, high, dtype)


def _through_ctypes(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    scale: Tensor | None,
    dilation: int,
    low: float,
    high: float,
    dtype: torch.dtype,
    threads: int = 0,
) -> Tensor:
    return through_ctypes(x, [weight], _listed(bias), _listed(scale), [dilation], False, low, high, dtype, threads)


FAULT = kernels.load_torch_operators()
"""Why libedgeseg_torch is not in use; "" when it is."""

if FAULT and kernels.available():
    torch.library.impl(_NAME, "CPU", _through_ctypes)
