"""Pyramid Scene Parsing Network.

Zhao, Shi, Qi, Wang, Jia. CVPR 2017. https://arxiv.org/abs/1612.01105
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edgeseg.models.encoders import Encoder
from edgeseg.models.encoders.mobilenet_v2 import MobileNetV2
from edgeseg.models.encoders.resnet import DEPTHS, ResNet
from edgeseg.models.layers import AdaptiveAvgPool, ConvModule, initialise, resize

BINS = (1, 2, 3, 6)  # the pyramid's levels (paper, section 3.2)


class PSPNet(nn.Module):
    """(N, 3, H, W) normalised images -> (N, num_classes, H / 8, W / 8) logits, rounded up at each stride."""

    def __init__(
        self,
        backbone: Encoder,
        num_classes: int,
        channels: int = 512,
        bins: Sequence[int] = BINS,
    ):
        super().__init__()
        self.backbone = backbone
        self.decode_head = PSPHead(backbone.channels[-1], channels, num_classes, bins)

    def forward(self, images: Tensor) -> Tensor:
        return self.decode_head(self.backbone(images)[-1])


class PSPHead(nn.Module):
    """The map beside its own averages over b x b bins, b in `bins`, each projected and upsampled; 3x3; classifier."""

    def __init__(self, in_channels: int, channels: int, num_classes: int, bins: Sequence[int] = BINS):
        super().__init__()
        self.psp_modules = nn.ModuleList(
            nn.Sequential(AdaptiveAvgPool(b), ConvModule(in_channels, channels, 1)) for b in bins
        )
        self.bottleneck = ConvModule(in_channels + len(bins) * channels, channels, 3)
        self.conv_seg = nn.Conv2d(channels, num_classes, 1)
        self.apply(initialise)

    def forward(self, x: Tensor) -> Tensor:
        levels = [resize(level(x), x) for level in self.psp_modules]
        return self.conv_seg(self.bottleneck(torch.cat([x, *levels], dim=1)))


def pspnet_mobilenetv2(num_classes: int) -> PSPNet:
    return PSPNet(MobileNetV2(), num_classes)


def pspnet_resnet50(num_classes: int) -> PSPNet:
    return PSPNet(ResNet(DEPTHS[50]), num_classes)


def pspnet_resnet101(num_classes: int) -> PSPNet:
    return PSPNet(ResNet(DEPTHS[101]), num_classes)
