"""2x2 max pooling that remembers where each maximum was, and its inverse, in operators that every runtime has.

Equal to torch's max_pool2d(return_indices=True) and max_unpool2d, ties included. ONNX's MaxUnpool is missing from
TensorRT, and flat indices would need ScatterElements. But in a 2x2 window a position is two bits, found by comparing
the four phases x[0::2, 0::2], x[0::2, 1::2], x[1::2, 0::2] and x[1::2, 1::2] with each other:

    lower = max of the lower row > max of the upper row        right = right of that row > left of that row

Strictly greater: of equal maxima the first in reading order wins, as in torch. Unpooling sends each value to the phase
that the two bits name, zeros to the others, and interleaves the phases: DepthToSpace.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pixel_shuffle


class Switches(NamedTuple):
    """Where the maxima of 2x2 windows were; Noh et al. call them switch variables."""

    lower: Tensor  # (N, C, h, w) bool: in the window's lower row
    right: Tensor  # (N, C, h, w) bool: in its right column
    size: tuple[int, int]  # (H, W) of the map that was pooled


def max_pool_with_switches(x: Tensor) -> tuple[Tensor, Switches]:
    """(N, C, H, W) without NaN -> (N, C, ceil(H / 2), ceil(W / 2)) and the switches.

    Equals max_pool2d(x, 2, ceil_mode=True, return_indices=True), which is Caffe's rounding. An odd last row or column
    is doubled: its copy comes second, so it never wins.
    """
    height, width = x.shape[-2:]
    if height % 2:
        x = torch.cat([x, x[:, :, -1:]], 2)
    if width % 2:
        x = torch.cat([x, x[:, :, :, -1:]], 3)
    upper_left, upper_right = x[:, :, 0::2, 0::2], x[:, :, 0::2, 1::2]
    lower_left, lower_right = x[:, :, 1::2, 0::2], x[:, :, 1::2, 1::2]
    lower = torch.maximum(lower_left, lower_right) > torch.maximum(upper_left, upper_right)
    left = torch.where(lower, lower_left, upper_left)
    right = torch.where(lower, lower_right, upper_right)
    return torch.maximum(left, right), Switches(lower, right > left, (height, width))


def max_unpool(x: Tensor, switches: Switches) -> Tensor:
    """(N, C, h, w) -> (N, C, H, W): each value where its window's maximum was, 0 elsewhere; equals max_unpool2d."""
    height, width = switches.size
    lower = torch.where(switches.lower, x, 0.0)
    upper = torch.where(switches.lower, 0.0, x)
    phases = [
        torch.where(switches.right, 0.0, upper),
        torch.where(switches.right, upper, 0.0),
        torch.where(switches.right, 0.0, lower),
        torch.where(switches.right, lower, 0.0),
    ]
    unpooled = pixel_shuffle(torch.stack(phases, 2).flatten(1, 2), 2)
    return unpooled[:, :, :height, :width]
