"""Weights and images that any program can make again from names and sizes: what the stored logits were computed with.

Needs numpy and torch only, so that the scripts under ``oracle/`` can use it beside the reference implementation.
"""

from math import prod, sqrt
from zlib import crc32

import numpy as np
import torch
from torch import Tensor, nn


def fill_(module: nn.Module) -> nn.Module:
    """Every parameter and statistic from a generator seeded with its name; in evaluation mode; returns the module.

    Matrices and kernels keep the variance of their input (He et al., 2015), vectors are near 0.5 where they scale and
    near 0 where they shift, and batch norm's statistics differ from the values that they start with.
    """
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(torch.from_numpy(values(name, tuple(tensor.shape))))
    return module.eval()


def values(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """float32 values for the tensor called ``name``."""
    random = np.random.RandomState(crc32(name.encode()))
    noise = random.standard_normal(shape)
    if len(shape) > 1:
        result = noise * sqrt(2 / prod(shape[1:]))
    elif name.endswith("running_var"):
        result = 0.5 + np.abs(noise)
    elif name.endswith("encoding.0.scale"):  # EncNet's smoothing factors are negative: the nearest code word wins
        result = -0.1 * np.abs(noise)
    elif name.endswith(("bias", "running_mean")):
        result = 0.2 * noise
    else:
        result = 0.5 + 0.1 * noise
    return np.asarray(result, np.float32)


def images(*shape: int) -> Tensor:
    """(N, 3, H, W) float32, normally distributed as normalised images are."""
    return torch.from_numpy(values(f"images{shape}", shape) * np.float32(sqrt(prod(shape[1:]) / 2)))
