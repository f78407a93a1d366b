"""ONNX operators in torch, differentiable: those that segmentation networks are made of after export and rewrites.

Each function takes the node's attributes and its inputs (None for one left out); it returns the output, or a tuple.
Integers that shape things (axes, sizes, pads) come as tensors on the CPU.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from edgeseg.errors import ExportError

Attributes = dict[str, Any]
Operator = Callable[..., Any]


def _conv(a: Attributes, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    x, padding = _padded(a, x, 0.0)
    strides, dilations = a.get("strides", [1, 1]), a.get("dilations", [1, 1])
    return functional.conv2d(x, weight, bias, strides, padding, dilations, a.get("group", 1))


def _conv_transpose(a: Attributes, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    top, left, bottom, right = a.get("pads", [0, 0, 0, 0])
    _only(a, "auto_pad", "NOTSET")
    if (top, left) != (bottom, right) or "output_shape" in a:
        raise ExportError("training knows no ConvTranspose with uneven pads or output_shape; export with even pads")
    return functional.conv_transpose2d(
        x,
        weight,
        bias,
        a.get("strides", [1, 1]),
        (top, left),
        a.get("output_padding", [0, 0]),
        a.get("group", 1),
        a.get("dilations", [1, 1]),
    )


def _gemm(a: Attributes, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    x = x.t() if a.get("transA", 0) else x
    product = a.get("alpha", 1.0) * (x @ (weight.t() if a.get("transB", 0) else weight))
    return product if bias is None else product + a.get("beta", 1.0) * bias


def _max_pool(a: Attributes, x: Tensor) -> Tensor:
    x, padding = _padded(a, x, -math.inf)
    kernel = a["kernel_shape"]
    strides, dilations = a.get("strides", [1, 1]), a.get("dilations", [1, 1])
    return functional.max_pool2d(x, kernel, strides, padding, dilations, bool(a.get("ceil_mode", 0)))


def _average_pool(a: Attributes, x: Tensor) -> Tensor:
    counts_pads = bool(a.get("count_include_pad", 0))
    if not counts_pads and a.get("pads", [0, 0])[:2] != a.get("pads", [0, 0])[len(a.get("pads", [0, 0])) // 2 :]:
        raise ExportError("training knows no AveragePool with uneven pads that do not count; export with even pads")
    x, padding = _padded(a, x, 0.0)
    strides = a.get("strides", [1, 1])
    return functional.avg_pool2d(x, a["kernel_shape"], strides, padding, bool(a.get("ceil_mode", 0)), counts_pads)


def _padded(a: Attributes, x: Tensor, value: float) -> tuple[Tensor, tuple[int, int]]:
    """The input with uneven pads applied, and the even ones that are left to the operator."""
    _only(a, "auto_pad", "NOTSET")
    top, left, bottom, right = a.get("pads", [0, 0, 0, 0])
    if (top, left) == (bottom, right) and value == 0.0:
        return x, (top, left)
    if (top, left) == (bottom, right) and all(2 * p <= k for p, k in zip((top, left), a["kernel_shape"], strict=True)):
        return x, (top, left)
    return functional.pad(x, (left, right, top, bottom), value=value), (0, 0)


def _batch_norm(a: Attributes, x: Tensor, gain: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    return functional.batch_norm(x, mean, variance, gain, bias, eps=a.get("epsilon", 1e-5))


def _instance_norm(a: Attributes, x: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
    return functional.instance_norm(x, weight=gain, bias=bias, eps=a.get("epsilon", 1e-5))


def _layer_norm(a: Attributes, x: Tensor, gain: Tensor, bias: Tensor | None = None) -> Tensor:
    axis = a.get("axis", -1) % x.ndim
    return functional.layer_norm(x, x.shape[axis:], gain, bias, a.get("epsilon", 1e-5))


def _reshape(a: Attributes, x: Tensor, shape: Tensor) -> Tensor:
    sizes = shape.tolist()
    if not a.get("allowzero", 0):
        sizes = [x.shape[i] if size == 0 else size for i, size in enumerate(sizes)]
    return x.reshape(sizes)


def _flatten(a: Attributes, x: Tensor) -> Tensor:
    axis = a.get("axis", 1)
    axis = axis + x.ndim if axis < 0 else axis
    return x.reshape(math.prod(x.shape[:axis]), -1)


def _squeeze(a: Attributes, x: Tensor, axes: Tensor | None = None) -> Tensor:
    return x.squeeze() if axes is None else x.squeeze(tuple(axes.tolist()))


def _unsqueeze(a: Attributes, x: Tensor, axes: Tensor) -> Tensor:
    ndim = x.ndim + axes.numel()
    for axis in sorted(axis % ndim for axis in axes.tolist()):
        x = x.unsqueeze(axis)
    return x


def _split(a: Attributes, x: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, ...]:
    axis = a.get("axis", 0)
    if sizes is not None:
        return torch.split(x, sizes.tolist(), axis)
    return torch.split(x, -(-x.shape[axis] // a["num_outputs"]), axis)


def _slice(a: Attributes, x: Tensor, starts: Tensor, ends: Tensor, axes: Tensor | None = None, steps=None) -> Tensor:
    wheres = range(starts.numel()) if axes is None else axes.tolist()
    strides = [1] * starts.numel() if steps is None else steps.tolist()
    for start, end, axis, step in zip(starts.tolist(), ends.tolist(), wheres, strides, strict=True):
        indices = range(x.shape[axis])[slice(start, None if step < 0 and end < -x.shape[axis] else end, step)]
        if step == 1:
            x = x.narrow(axis, indices.start if len(indices) else 0, len(indices))
        else:
            x = x.index_select(axis, torch.tensor(list(indices), dtype=torch.int64, device=x.device))
    return x


def _pad(a: Attributes, x: Tensor, pads: Tensor, value: Tensor | None = None, axes: Tensor | None = None) -> Tensor:
    numbers = pads.tolist()
    where = [axis % x.ndim for axis in axes.tolist()] if axes is not None else list(range(x.ndim))
    begins, ends = ([0] * x.ndim for _ in range(2))
    for axis, begin, end in zip(where, numbers[: len(where)], numbers[len(where) :], strict=True):
        begins[axis], ends[axis] = begin, end
    mode = {"constant": "constant", "reflect": "reflect", "edge": "replicate"}.get(a.get("mode", "constant"))
    if mode is None:
        raise ExportError(f"training knows no Pad of mode {a['mode']}; wanted constant, reflect or edge")
    first = 0 if mode == "constant" else 2  # torch reflects the two axes of a map
    flat = [number for axis in reversed(range(first, x.ndim)) for number in (begins[axis], ends[axis])]
    if mode != "constant":
        return functional.pad(x, flat, mode)
    return functional.pad(x, flat, value=0.0 if value is None else value.item())


def _resize(a: Attributes, x: Tensor, roi: Any = None, scales: Tensor | None = None, sizes=None) -> Tensor:
    """Bilinear or nearest, in the conventions that torch has too."""
    mode, convention = a.get("mode", "nearest"), a.get("coordinate_transformation_mode", "half_pixel")
    if sizes is not None and sizes.numel():
        size = sizes.tolist()[2:]
    else:
        assert scales is not None
        size = [math.floor(side * scale) for side, scale in zip(x.shape[2:], scales.tolist()[2:], strict=True)]
    if list(x.shape[2:]) == size:
        return x
    if mode == "linear" and convention in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        antialias = bool(a.get("antialias", 0))
        corners = convention == "align_corners"
        return functional.interpolate(x, size, mode="bilinear", align_corners=corners, antialias=antialias)
    if mode == "nearest" and convention == "asymmetric" and a.get("nearest_mode", "round_prefer_floor") == "floor":
        return functional.interpolate(x, size, mode="nearest")
    if mode == "nearest" and convention == "half_pixel":
        return functional.interpolate(x, size, mode="nearest-exact")
    raise ExportError(f"training knows no Resize of mode {mode} with {convention}; wanted bilinear, or nearest")


def _reduce(function: Callable[..., Tensor]) -> Operator:
    def reduce(a: Attributes, x: Tensor, axes: Tensor | None = None) -> Tensor:
        given = axes.tolist() if axes is not None and axes.numel() else a.get("axes", [])
        if not given and a.get("noop_with_empty_axes", 0):
            return x
        return function(x, tuple(given) or tuple(range(x.ndim)), keepdim=bool(a.get("keepdims", 1)))

    return reduce


def _clip(a: Attributes, x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    return x.clamp(None if low is None else low.item(), None if high is None else high.item())


def _sum(a: Attributes, *terms: Tensor) -> Tensor:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def _depth_to_space(a: Attributes, x: Tensor) -> Tensor:
    _only(a, "mode", "CRD", default="DCR")
    return functional.pixel_shuffle(x, a["blocksize"])


def _gather(a: Attributes, x: Tensor, indices: Tensor) -> Tensor:
    axis = a.get("axis", 0) % x.ndim
    flat = indices.flatten().to(x.device) % x.shape[axis]
    return x.index_select(axis, flat).reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])


def _only(a: Attributes, name: str, wanted: str, default: str | None = None) -> None:
    value = a.get(name, default or wanted)
    if value != wanted:
        raise ExportError(f"training knows no operator with {name} {value}, only {wanted}; export it that way")


OPERATORS: dict[str, Operator] = {
    "Abs": lambda a, x: x.abs(),
    "Add": lambda a, x, y: x + y,
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Clip": _clip,
    "Concat": lambda a, *x: torch.cat(x, a["axis"]),
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "DepthToSpace": _depth_to_space,
    "Div": lambda a, x, y: x / y,
    "Dropout": lambda a, x, *_: x,
    "Erf": lambda a, x: torch.erf(x),
    "Exp": lambda a, x: x.exp(),
    "Expand": lambda a, x, shape: x * torch.ones(shape.tolist(), dtype=x.dtype, device=x.device),
    "Flatten": _flatten,
    "Gather": _gather,
    "Gelu": lambda a, x: functional.gelu(x, approximate=a.get("approximate", "none")),
    "Gemm": _gemm,
    "GlobalAveragePool": lambda a, x: x.mean((2, 3), keepdim=True),
    "GlobalMaxPool": lambda a, x: x.amax((2, 3), keepdim=True),
    "HardSigmoid": lambda a, x: (a.get("alpha", 0.2) * x + a.get("beta", 0.5)).clamp(0, 1),
    "HardSwish": lambda a, x: functional.hardswish(x),
    "Identity": lambda a, x: x,
    "InstanceNormalization": _instance_norm,
    "LayerNormalization": _layer_norm,
    "LeakyRelu": lambda a, x: functional.leaky_relu(x, a.get("alpha", 0.01)),
    "MatMul": lambda a, x, y: x @ y,
    "Max": lambda a, x, y: torch.maximum(x, y),
    "MaxPool": _max_pool,
    "Min": lambda a, x, y: torch.minimum(x, y),
    "Mul": lambda a, x, y: x * y,
    "Neg": lambda a, x: -x,
    "PRelu": lambda a, x, slope: torch.where(x < 0, slope * x, x),
    "Pad": _pad,
    "Pow": lambda a, x, y: x**y,
    "ReduceMax": _reduce(torch.amax),
    "ReduceMean": _reduce(torch.mean),
    "ReduceSum": _reduce(torch.sum),
    "Relu": lambda a, x: x.relu(),
    "Reshape": _reshape,
    "Resize": _resize,
    "Sigmoid": lambda a, x: x.sigmoid(),
    "Slice": _slice,
    "Softmax": lambda a, x: x.softmax(a.get("axis", -1)),
    "Softplus": lambda a, x: functional.softplus(x),
    "Split": _split,
    "Sqrt": lambda a, x: x.sqrt(),
    "Squeeze": _squeeze,
    "Sub": lambda a, x, y: x - y,
    "Sum": _sum,
    "Tanh": lambda a, x: x.tanh(),
    "Transpose": lambda a, x: x.permute(a.get("perm", list(reversed(range(x.ndim))))),
    "Unsqueeze": _unsqueeze,
}
