"""Fully convolutional networks on dilated backbones, as mmsegmentation and torchvision publish them.

Long, Shelhamer, Darrell. CVPR 2015. https://arxiv.org/abs/1411.4038
The paper's own VGG networks with skip connections are another file.
"""

import torch
from torch import Tensor, nn

from edgeseg.models.encoders import Encoder
from edgeseg.models.encoders.mobilenet_v2 import MobileNetV2
from edgeseg.models.encoders.resnet import DEPTHS, ResNet
from edgeseg.models.layers import ConvModule, initialise


class FCN(nn.Module):
    """(N, 3, H, W) normalised images -> (N, num_classes, H / 8, W / 8) logits, rounded up at each stride."""

    def __init__(self, backbone: Encoder, num_classes: int, channels: int = 512):
        super().__init__()
        self.backbone = backbone
        self.decode_head = FCNHead(backbone.channels[-1], channels, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.decode_head(self.backbone(images)[-1])


class FCNHead(nn.Module):
    """Two 3x3 convolutions, a third one on their output beside their input, a classifier: map in, logits out."""

    def __init__(self, in_channels: int, channels: int, num_classes: int):
        super().__init__()
        self.convs = nn.Sequential(ConvModule(in_channels, channels, 3), ConvModule(channels, channels, 3))
        self.conv_cat = ConvModule(in_channels + channels, channels, 3)
        self.conv_seg = nn.Conv2d(channels, num_classes, 1)
        self.apply(initialise)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_seg(self.conv_cat(torch.cat([x, self.convs(x)], dim=1)))


class TorchvisionFCN(nn.Module):
    """torchvision's ``fcn_resnet101``: a 7x7 stem and one 3x3 convolution, a quarter as wide as the backbone's map."""

    def __init__(self, backbone: ResNet, num_classes: int):
        super().__init__()
        self.backbone = backbone
        channels = backbone.channels[-1]
        self.classifier = nn.Sequential(
            nn.Conv2d(channels, channels // 4, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels // 4),
            nn.ReLU(),
            nn.Identity(),  # dropout there: it keeps the published numbers of the names
            nn.Conv2d(channels // 4, num_classes, 1),
        )
        self.classifier.apply(initialise)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.backbone(images)[-1])


def fcn_mobilenetv2(num_classes: int) -> FCN:
    return FCN(MobileNetV2(), num_classes)


def fcn_resnet50(num_classes: int) -> FCN:
    return FCN(ResNet(DEPTHS[50]), num_classes)


def fcn_resnet101(num_classes: int) -> FCN:
    return FCN(ResNet(DEPTHS[101]), num_classes)


def fcn_resnet50_torchvision(num_classes: int) -> TorchvisionFCN:
    return TorchvisionFCN(ResNet(DEPTHS[50], deep_stem=False), num_classes)


def fcn_resnet101_torchvision(num_classes: int) -> TorchvisionFCN:
    return TorchvisionFCN(ResNet(DEPTHS[101], deep_stem=False), num_classes)
