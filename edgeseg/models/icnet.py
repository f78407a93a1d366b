"""ICNet: a deep network on a quarter of the resolution, a shallow one on half of it, three convolutions on all of it.

Zhao, Qi, Shen, Shi, Jia. "ICNet for Real-Time Semantic Segmentation on High-Resolution Images". ECCV 2018.
https://arxiv.org/abs/1704.08545. Modules are called as in mmsegmentation, whose checkpoints load. The paper compresses
a pruned PSPNet-50, so ResNet-50 is the depth of `icnet`; mmsegmentation's ResNet-101 goes by its own name.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from edgeseg.models.encoders.resnet import DEPTHS, ResNet
from edgeseg.models.layers import AdaptiveAvgPool, ConvHead, ConvModule, initialise, resize


class ICNet(nn.Module):
    """(N, 3, H, W) -> logits (N, num_classes, ceil(H / 8), ceil(W / 8)).

    Args:
        resnet: with `stem`, `layer1` to `layer4`, the last two dilated.
        light_channels: of the branch that sees the whole image, before its last convolution.
        pool_channels: of the pyramid pooling, and of what follows it.
        channels: of the three branches' ends, full resolution first.
        fuse_channels: in which the branches meet.
    """

    def __init__(
        self,
        resnet: ResNet,
        num_classes: int,
        light_channels: int = 32,
        pool_channels: int = 512,
        channels: tuple[int, int, int] = (64, 256, 256),
        fuse_channels: int = 128,
    ):
        super().__init__()
        self.backbone = ThreeBranches(resnet, light_channels, pool_channels, channels)
        self.neck = CascadeFusion(channels, fuse_channels)
        self.decode_head = ConvHead(fuse_channels, fuse_channels, num_classes)
        self.apply(initialise)

    def forward(self, images: Tensor) -> Tensor:
        return self.decode_head(self.neck(self.backbone(images)))


class ThreeBranches(nn.Module):
    """(N, 3, H, W) -> maps at strides 8, 16 and 32. The two deeper ones share the layers up to stride 16."""

    def __init__(
        self,
        resnet: ResNet,
        light_channels: int,
        pool_channels: int,
        channels: Sequence[int],
        bins: Sequence[int] = (1, 2, 3, 6),
    ):
        super().__init__()
        self.backbone = resnet
        _, shallow, _, deep = resnet.channels
        self.psp_modules = nn.ModuleList(
            nn.Sequential(AdaptiveAvgPool(b), ConvModule(deep, pool_channels, 1)) for b in bins
        )
        self.psp_bottleneck = ConvModule(deep + len(bins) * pool_channels, pool_channels, 3)
        self.conv_sub1 = nn.Sequential(
            ConvModule(3, light_channels, 3, stride=2),
            ConvModule(light_channels, light_channels, 3, stride=2),
            ConvModule(light_channels, channels[0], 3, stride=2),
        )
        self.conv_sub2 = ConvModule(shallow, channels[1], 1)
        self.conv_sub4 = ConvModule(pool_channels, channels[2], 1)
        # ceil_mode keeps the last row and column of an even map: mmsegmentation trained with it
        self.maxpool = nn.MaxPool2d(3, 2, padding=1, ceil_mode=True)

    def forward(self, images: Tensor) -> list[Tensor]:
        layer1, layer2, layer3, layer4 = (self.backbone.get_submodule(f"layer{i}") for i in range(1, 5))
        # bilinear resizing by exactly one half is the mean of each 2x2 block
        x = self.maxpool(self.backbone.stem(avg_pool2d(images, 2)))
        half = layer2(layer1(x))
        quarter = layer4(layer3(avg_pool2d(half, 2)))
        pooled = [resize(module(quarter), quarter) for module in self.psp_modules]
        deep = self.psp_bottleneck(torch.cat([*pooled, quarter], dim=1))
        return [self.conv_sub1(images), self.conv_sub2(half), self.conv_sub4(deep)]


class CascadeFusion(nn.Module):
    """The paper's two cascade feature fusion units: quarter into half, and the result into the whole resolution."""

    def __init__(self, channels: Sequence[int], fuse_channels: int):
        super().__init__()
        self.cff_24 = FusionUnit(channels[2], channels[1], fuse_channels)
        self.cff_12 = FusionUnit(fuse_channels, channels[0], fuse_channels)

    def forward(self, maps: list[Tensor]) -> Tensor:
        whole, half, quarter = maps
        return self.cff_12(self.cff_24(quarter, half), whole)


class FusionUnit(nn.Module):
    """relu(dilated 3x3 of the upsampled low map + 1x1 of the high one): paper, figure 4; both parts have their ReLU."""

    def __init__(self, low_channels: int, high_channels: int, channels: int):
        super().__init__()
        self.conv_low = ConvModule(low_channels, channels, 3, dilation=2)
        self.conv_high = ConvModule(high_channels, channels, 1)

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        return torch.relu(self.conv_low(resize(low, high)) + self.conv_high(high))


def icnet(num_classes: int) -> ICNet:
    """With ResNet-50, as published: 47.83 M parameters with 19 classes, the auxiliary heads included."""
    return ICNet(ResNet(DEPTHS[50]), num_classes)


def icnet_resnet101(num_classes: int) -> ICNet:
    """With ResNet-101, as published: 66.82 M parameters with 19 classes, the auxiliary heads included."""
    return ICNet(ResNet(DEPTHS[101]), num_classes)
