"""What weights trained in Caffe expect: BGR images, 0..255 minus a mean, and deconvolutions that interpolate."""

from __future__ import annotations

import torch
from torch import Tensor

# Of R, G, B, for `edgeseg.preprocess.Preprocess`: (x / 255 - MEAN) / STD is x minus ImageNet's mean in grey levels.
MEAN = (122.675 / 255, 116.669 / 255, 104.008 / 255)
STD = (1 / 255, 1 / 255, 1 / 255)


def rgb_of_bgr(weight: Tensor) -> Tensor:
    """The first convolution's weight (out, 3, k, k) for images with the channels the other way round."""
    return weight.flip(1)


def bilinear_deconvolution(channels: int, factor: int) -> Tensor:
    """(channels, channels, 2 factor, 2 factor) float32: the deconvolution of stride `factor` that interpolates each
    channel bilinearly. Tap t weighs 1 - |t - (factor - 1/2)| / factor, rows times columns.
    """
    taps = 1 - (torch.arange(2 * factor) - (factor - 0.5)).abs() / factor
    return torch.einsum("ab,k,l->abkl", torch.eye(channels), taps, taps)
