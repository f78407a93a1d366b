"""Blocks that two or more networks share, named inside as mmsegmentation names them, so that its checkpoints fit."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate

Activation = type[nn.Module] | None


class ConvModule(nn.Module):
    """Convolution without bias, batch norm, activation (None: none). Maps (N, in, H, W) to (N, out, H', W')."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        *,
        stride: int = 1,
        padding: int | tuple[int, int] | None = None,
        dilation: int = 1,
        groups: int = 1,
        activation: Activation = nn.ReLU,
    ):
        """`padding` None keeps the size at stride 1, for odd kernels."""
        super().__init__()
        kernel = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
        if padding is None:
            padding = (dilation * (kernel[0] - 1) // 2, dilation * (kernel[1] - 1) // 2)
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding, dilation, groups, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)
        self.activation = activation() if activation else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.bn(self.conv(x)))


class DepthwiseSeparableConvModule(nn.Module):
    """A depth-wise `ConvModule`, then a 1x1 one; the activation stands after both."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: int | None = None,
        dilation: int = 1,
        activation: Activation = nn.ReLU,
    ):
        super().__init__()
        self.depthwise_conv = ConvModule(
            in_channels,
            in_channels,
            kernel_size,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=in_channels,
            activation=activation,
        )
        self.pointwise_conv = ConvModule(in_channels, out_channels, 1, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise_conv(self.depthwise_conv(x))


class AdaptiveAvgPool(nn.Module):
    """`adaptive_avg_pool` to (bins, bins) as a module, where published names count it."""

    def __init__(self, bins: int):
        super().__init__()
        self.bins = bins

    def forward(self, x: Tensor) -> Tensor:
        return adaptive_avg_pool(x, self.bins)


class ConvHead(nn.Module):
    """mmsegmentation's FCN head of one convolution with nothing concatenated: map in, logits out."""

    def __init__(self, in_channels: int, channels: int, num_classes: int, kernel_size: int = 3):
        super().__init__()
        self.convs = nn.Sequential(ConvModule(in_channels, channels, kernel_size))
        self.conv_seg = nn.Conv2d(channels, num_classes, 1)
        self.apply(initialise)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_seg(self.convs(x))


def adaptive_avg_pool(x: Tensor, bins: int) -> Tensor:
    """(N, C, H, W) -> (N, C, bins, bins); equals torch.nn.functional.adaptive_avg_pool2d.

    Written so that every size exports to ReduceMean, AveragePool, Slice and Concat: bin i spans the rows from
    floor(i H / bins) to ceil((i + 1) H / bins), and averaging rows and columns one after the other is the same.
    """
    height, width = x.shape[-2:]
    if bins == 1:
        return x.mean((2, 3), keepdim=True)
    if height % bins == 0 and width % bins == 0:
        return avg_pool2d(x, (height // bins, width // bins))
    for axis, length in ((2, height), (3, width)):
        bounds = [(i * length // bins, -(-(i + 1) * length // bins)) for i in range(bins)]
        x = torch.cat([x.narrow(axis, a, b - a).mean(axis, keepdim=True) for a, b in bounds], axis)
    return x


def resize(x: Tensor, size_or_like: tuple[int, int] | Tensor, align_corners: bool = False) -> Tensor:
    """Bilinear to (height, width), or to the size of another map; the identity where the size is already right."""
    size = tuple(size_or_like.shape[-2:] if isinstance(size_or_like, Tensor) else size_or_like)
    if tuple(x.shape[-2:]) == size:
        return x
    return interpolate(x, size=size, mode="bilinear", align_corners=align_corners)


def initialise(module: nn.Module) -> None:
    """He initialisation (fan-in) of convolutions, for ``network.apply``: signals keep their size through any depth."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
