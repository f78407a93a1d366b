"""Fake quantisation: what QuantizeLinear and DequantizeLinear compute, with gradients that training can use."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

from edgeseg.calibration.scales import LEVELS

LOWEST, HIGHEST = -128, 127  # what ONNX's signed INT8 saturates at


class _FakeQuantize(Function):
    """y = s clamp(round(x / s), -128, 127). x: straight through where nothing was clamped; s: LSQ (Esser et al. 2020,
    equation 3), scaled by 1 / sqrt(127 elements)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(x, scale)
        return torch.round(x / scale).clamp_(LOWEST, HIGHEST).mul_(scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, scale = ctx.saved_tensors
        (gradient,) = gradients
        level = x / scale
        rounded = torch.round(level)
        inside = (rounded >= LOWEST) & (rounded <= HIGHEST)
        of_x = gradient * inside if ctx.needs_input_grad[0] else None
        of_scale = None
        if ctx.needs_input_grad[1]:
            slope = torch.where(inside, rounded - level, rounded.clamp(LOWEST, HIGHEST))
            of_scale = (gradient * slope).sum() / math.sqrt(HIGHEST * max(x.numel(), 1))
        return of_x, of_scale


class ActivationQuantizer(nn.Module):
    """One Q/DQ pair on an activation: a scale for the whole tensor, zero point 0. The scale is learned."""

    initial: Tensor
    log_initial: Tensor

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))  # so that a step changes it by a share of itself
        self.register_buffer("initial", torch.tensor(scale, dtype=torch.float32))
        self.register_buffer("log_initial", self.log_scale.detach().clone())

    @property
    def scale(self) -> Tensor:
        """() float32; before the first step the very scale that was given, which exp(log(s)) need not be."""
        return self.initial * torch.exp(self.log_scale - self.log_initial)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = _FakeQuantize.apply(x, self.scale)
        return result


def fake_quantized_weight(weight: Tensor, axis: int, levels: int = LEVELS) -> Tensor:
    """A weight as `edgeseg.precision.int8.quantized_weight` stores it and DequantizeLinear returns it.

    One scale for each index of `axis`: max |w| / levels. The gradient goes straight through; the scale follows the
    weight and has none.
    """
    with torch.no_grad():
        others = [i for i in range(weight.ndim) if i != axis]
        amax = weight.abs().amax(others, keepdim=True).double()
        scale = torch.where(amax > 0, amax, 1.0) / levels
        scale = scale.clamp(min=torch.finfo(torch.float32).tiny).float()
        integers = torch.round(weight.double() / scale.double()).clamp_(-levels, levels).float()
        rounded = integers * scale
    return weight + (rounded - weight).detach() if weight.requires_grad else rounded
