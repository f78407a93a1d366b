"""DeepLabV3+: DeepLabV3 with separable convolutions and a decoder at stride 4.

Chen, Zhu, Papandreou, Schroff, Adam. ECCV 2018. https://arxiv.org/abs/1802.02611
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edgeseg.models.deeplabv3 import RATES, ASPPHead
from edgeseg.models.encoders import Encoder
from edgeseg.models.encoders.mobilenet_v2 import MobileNetV2
from edgeseg.models.encoders.resnet import DEPTHS, ResNet
from edgeseg.models.layers import ConvModule, DepthwiseSeparableConvModule, initialise, resize


class DeepLabV3Plus(nn.Module):
    """(N, 3, H, W) normalised images -> (N, num_classes, H / 4, W / 4) logits, rounded up at each stride."""

    def __init__(
        self,
        backbone: Encoder,
        num_classes: int,
        channels: int = 512,
        c1_channels: int = 48,
        rates: Sequence[int] = RATES,
    ):
        super().__init__()
        self.backbone = backbone
        first, last = backbone.channels[0], backbone.channels[-1]
        self.decode_head = DepthwiseSeparableASPPHead(first, last, channels, c1_channels, num_classes, rates)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.backbone(images)
        return self.decode_head(maps[0], maps[-1])


class DepthwiseSeparableASPPHead(ASPPHead):
    """The pyramid upsampled to the first stage's size beside that stage, two separable 3x3, a classifier."""

    def __init__(
        self,
        c1_in_channels: int,
        in_channels: int,
        channels: int,
        c1_channels: int,
        num_classes: int,
        rates: Sequence[int] = RATES,
    ):
        super().__init__(in_channels, channels, num_classes, rates)
        self.c1_bottleneck = ConvModule(c1_in_channels, c1_channels, 1)
        self.sep_bottleneck = nn.Sequential(
            DepthwiseSeparableConvModule(channels + c1_channels, channels, 3),
            DepthwiseSeparableConvModule(channels, channels, 3),
        )
        self.apply(initialise)

    def branch(self, in_channels: int, channels: int, rate: int) -> nn.Module:
        """1x1 at rate 1, else a separable 3x3 at that rate."""
        if rate == 1:
            return ConvModule(in_channels, channels, 1)
        return DepthwiseSeparableConvModule(in_channels, channels, 3, dilation=rate)

    def forward(self, c1: Tensor, x: Tensor) -> Tensor:  # type: ignore[override]  # the decoder's two inputs
        c1 = self.c1_bottleneck(c1)
        return self.conv_seg(self.sep_bottleneck(torch.cat([resize(self.pyramid(x), c1), c1], dim=1)))


def deeplabv3plus_mobilenetv2(num_classes: int) -> DeepLabV3Plus:
    return DeepLabV3Plus(MobileNetV2(), num_classes)


def deeplabv3plus_resnet50(num_classes: int) -> DeepLabV3Plus:
    return DeepLabV3Plus(ResNet(DEPTHS[50]), num_classes)


def deeplabv3plus_resnet101(num_classes: int) -> DeepLabV3Plus:
    return DeepLabV3Plus(ResNet(DEPTHS[101]), num_classes)
