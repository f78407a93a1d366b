"""ResNet as segmentation networks use it: bottlenecks, dilated instead of strided in the last stages.

He, Zhang, Ren, Sun. CVPR 2016. https://arxiv.org/abs/1512.03385
Names are those of mmsegmentation's ResNetV1c (``stem``) and of torchvision's ResNet (``conv1``, ``bn1``).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edgeseg.models.encoders import Encoder
from edgeseg.models.layers import initialise

DEPTHS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
EXPANSION = 4  # a bottleneck's output over its inner width


class ResNet(Encoder):
    """(N, 3, H, W) -> four maps of 4, 8, 16 and 32 times `width` channels, each size rounded up at every stride."""

    def __init__(
        self,
        depths: Sequence[int] = DEPTHS[101],
        width: int = 64,
        *,
        strides: Sequence[int] = (1, 2, 1, 1),
        dilations: Sequence[int] = (1, 1, 2, 4),
        deep_stem: bool = True,
    ):
        """
        Args:
            depths: blocks of each stage.
            width: inner width of the first stage's bottlenecks; it doubles with each stage.
            strides: of each stage's first block. The stem has stride 4.
            dilations: of each stage; its first block has half of it where the stage before had less ("contracted").
            deep_stem: three 3x3 convolutions (ResNet v1c) instead of one 7x7 (v1).
        """
        super().__init__()
        self.deep_stem = deep_stem
        if deep_stem:
            half = width // 2
            self.stem = nn.Sequential(
                *(nn.Conv2d(3, half, 3, 2, 1, bias=False), nn.BatchNorm2d(half), nn.ReLU()),
                *(nn.Conv2d(half, half, 3, 1, 1, bias=False), nn.BatchNorm2d(half), nn.ReLU()),
                *(nn.Conv2d(half, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()),
            )
        else:
            self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
            self.bn1 = nn.BatchNorm2d(width)
            self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        in_channels = width
        for i, (depth, stride, dilation) in enumerate(zip(depths, strides, dilations, strict=True)):
            inner = width * 2**i
            first = dilation // 2 if dilation > 1 else 1
            blocks = [Bottleneck(in_channels, inner, stride, first, shortcut=True)]
            in_channels = EXPANSION * inner
            blocks += [Bottleneck(in_channels, inner, 1, dilation) for _ in range(depth - 1)]
            self.add_module(f"layer{i + 1}", nn.Sequential(*blocks))
        self.channels = tuple(EXPANSION * width * 2**i for i in range(len(depths)))
        self.apply(_initialise)

    def forward(self, images: Tensor) -> list[Tensor]:
        x = self.stem(images) if self.deep_stem else self.relu(self.bn1(self.conv1(images)))
        x = self.maxpool(x)
        maps = []
        for i in range(len(self.channels)):
            x = self.get_submodule(f"layer{i + 1}")(x)
            maps.append(x)
        return maps


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride and the dilation), 1x1, each with batch norm, added to the shortcut."""

    def __init__(self, in_channels: int, inner: int, stride: int, dilation: int, shortcut: bool = False):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, dilation, dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, EXPANSION * inner, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(EXPANSION * inner)
        self.relu = nn.ReLU()
        self.downsample = None
        if shortcut:
            convolution = nn.Conv2d(in_channels, EXPANSION * inner, 1, stride, bias=False)
            self.downsample = nn.Sequential(convolution, nn.BatchNorm2d(EXPANSION * inner))

    def forward(self, x: Tensor) -> Tensor:
        residual = self.relu(self.bn1(self.conv1(x)))
        residual = self.relu(self.bn2(self.conv2(residual)))
        residual = self.bn3(self.conv3(residual))
        return self.relu(residual + (x if self.downsample is None else self.downsample(x)))


def _initialise(module: nn.Module) -> None:
    """He, and a quarter of it where a branch joins the shortcut: 33 equal sums would overflow float16 untrained."""
    initialise(module)
    if isinstance(module, Bottleneck):
        torch.nn.init.constant_(module.bn3.weight, 0.25)
