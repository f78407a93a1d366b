"""DeepLabV3: atrous spatial pyramid pooling, as mmsegmentation and torchvision publish it.

Chen, Papandreou, Schroff, Adam. 2017. https://arxiv.org/abs/1706.05587
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edgeseg.models.encoders import Encoder
from edgeseg.models.encoders.mobilenet_v2 import MobileNetV2
from edgeseg.models.encoders.resnet import DEPTHS, ResNet
from edgeseg.models.layers import AdaptiveAvgPool, ConvModule, initialise, resize

RATES = (1, 12, 24, 36)  # at output stride 8 (paper, section 4.1: twice those of stride 16)


class DeepLabV3(nn.Module):
    """(N, 3, H, W) normalised images -> (N, num_classes, H / 8, W / 8) logits, rounded up at each stride."""

    def __init__(
        self,
        backbone: Encoder,
        num_classes: int,
        channels: int = 512,
        rates: Sequence[int] = RATES,
    ):
        super().__init__()
        self.backbone = backbone
        self.decode_head = ASPPHead(backbone.channels[-1], channels, num_classes, rates)

    def forward(self, images: Tensor) -> Tensor:
        return self.decode_head(self.backbone(images)[-1])


class ASPPHead(nn.Module):
    """The map's average and its convolutions at several rates side by side, a 3x3 bottleneck, a classifier."""

    def __init__(self, in_channels: int, channels: int, num_classes: int, rates: Sequence[int] = RATES):
        super().__init__()
        self.image_pool = nn.Sequential(AdaptiveAvgPool(1), ConvModule(in_channels, channels, 1))
        self.aspp_modules = nn.ModuleList(self.branch(in_channels, channels, rate) for rate in rates)
        self.bottleneck = ConvModule((len(rates) + 1) * channels, channels, 3)
        self.conv_seg = nn.Conv2d(channels, num_classes, 1)
        self.apply(initialise)

    def branch(self, in_channels: int, channels: int, rate: int) -> nn.Module:
        """1x1 at rate 1, else 3x3 at that rate."""
        return ConvModule(in_channels, channels, 1 if rate == 1 else 3, dilation=rate)

    def pyramid(self, x: Tensor) -> Tensor:
        """(N, in, h, w) -> (N, channels, h, w), before the classifier."""
        branches = [branch(x) for branch in self.aspp_modules]
        return self.bottleneck(torch.cat([resize(self.image_pool(x), x), *branches], dim=1))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_seg(self.pyramid(x))


class TorchvisionDeepLabV3(nn.Module):
    """torchvision's ``deeplabv3_resnet101``: a 7x7 stem, and a head 256 wide with a 1x1 before its 3x3."""

    def __init__(self, backbone: ResNet, num_classes: int, channels: int = 256):
        super().__init__()
        self.backbone = backbone
        self.classifier = nn.Sequential(
            TorchvisionASPP(backbone.channels[-1], channels),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, num_classes, 1),
        )
        self.classifier.apply(initialise)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.backbone(images)[-1])


class TorchvisionASPP(nn.Module):
    """The same pyramid with torchvision's names: the average comes last, and a 1x1 convolution fuses."""

    def __init__(self, in_channels: int, channels: int, rates: Sequence[int] = RATES):
        super().__init__()
        branches = [_convolution(in_channels, channels, rate) for rate in rates]
        self.convs = nn.ModuleList(
            [*branches, nn.Sequential(AdaptiveAvgPool(1), *_convolution(in_channels, channels, 1))]
        )
        self.project = _convolution((len(rates) + 1) * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.project(torch.cat([resize(branch(x), x) for branch in self.convs], dim=1))


def _convolution(in_channels: int, channels: int, rate: int) -> nn.Sequential:
    """1x1 at rate 1, else 3x3 at that rate, with batch norm and ReLU."""
    kernel, padding = (1, 0) if rate == 1 else (3, rate)
    convolution = nn.Conv2d(in_channels, channels, kernel, padding=padding, dilation=rate, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(channels), nn.ReLU())


def deeplabv3_mobilenetv2(num_classes: int) -> DeepLabV3:
    return DeepLabV3(MobileNetV2(), num_classes)


def deeplabv3_resnet50(num_classes: int) -> DeepLabV3:
    return DeepLabV3(ResNet(DEPTHS[50]), num_classes)


def deeplabv3_resnet101(num_classes: int) -> DeepLabV3:
    return DeepLabV3(ResNet(DEPTHS[101]), num_classes)


def deeplabv3_resnet50_torchvision(num_classes: int) -> TorchvisionDeepLabV3:
    return TorchvisionDeepLabV3(ResNet(DEPTHS[50], deep_stem=False), num_classes)


def deeplabv3_resnet101_torchvision(num_classes: int) -> TorchvisionDeepLabV3:
    return TorchvisionDeepLabV3(ResNet(DEPTHS[101], deep_stem=False), num_classes)
