"""U-Net: down by max pooling, up again by 2x, each level joined by the map of its size from the way down.

Ronneberger, Fischer, Brox. "U-Net: Convolutional Networks for Biomedical Image Segmentation". MICCAI 2015.
https://arxiv.org/abs/1505.04597. Two forms: `UNet` is the paper's, with its convolutions padded so that the logits
cover the whole image; `UNetS5D16` is mmsegmentation's, whose checkpoints load. Both end at stride 1.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d, pad

from edgeseg.models.layers import ConvHead, ConvModule, initialise, resize


class UNet(nn.Module):
    """(N, 3, H, W) -> logits (N, num_classes, H, W); H and W from 16.

    Where a side is no multiple of 16, pooling drops its last row or column, and a zero takes its place on the way up.
    Parameters, from the paper's figure 1 with w = `channels` and K classes: 7574 w^2 weights (4599 down, 680 in the 2x2
    up-convolutions, 2295 after the concatenations), 27 w from RGB, 107 w biases, (w + 1) K in the classifier.

    Args:
        channels: of the first level; they double at each of the four levels below.
    """

    def __init__(self, num_classes: int, channels: int = 64):
        super().__init__()
        widths = [channels * 2**i for i in range(5)]
        self.down = nn.ModuleList(_two_convs(a, b) for a, b in zip([3, *widths[:-1]], widths, strict=True))
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * w, w, 2, 2) for w in widths[:-1])
        self.join = nn.ModuleList(_two_convs(2 * w, w) for w in widths[:-1])
        self.classifier = nn.Conv2d(channels, num_classes, 1)
        self.apply(initialise)

    def forward(self, images: Tensor) -> Tensor:
        skips = [self.down[0](images)]
        for level in list(self.down)[1:]:
            skips.append(level(max_pool2d(skips[-1], 2)))
        x = skips.pop()
        for up, join, skip in zip(reversed(self.up), reversed(self.join), reversed(skips), strict=True):
            x = join(torch.cat([skip, _padded(up(x), skip)], dim=1))
        return self.classifier(x)


def _two_convs(in_channels: int, channels: int) -> nn.Sequential:
    first, second = nn.Conv2d(in_channels, channels, 3, padding=1), nn.Conv2d(channels, channels, 3, padding=1)
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU())


def _padded(x: Tensor, like: Tensor) -> Tensor:
    """Zeros on the right and below, up to the size of `like`."""
    below, right = like.shape[-2] - x.shape[-2], like.shape[-1] - x.shape[-1]
    return pad(x, (0, right, 0, below)) if below or right else x


class UNetS5D16(nn.Module):
    """mmsegmentation's U-Net with an FCN head: batch norm everywhere, bilinear upsampling and a 1x1 convolution for
    the way up. (N, 3, H, W) -> logits (N, num_classes, H, W); H and W from 16."""

    def __init__(self, num_classes: int, channels: int = 64):
        super().__init__()
        self.backbone = InterpUNet(channels)
        self.decode_head = ConvHead(channels, channels, num_classes)
        self.apply(initialise)

    def forward(self, images: Tensor) -> Tensor:
        return self.decode_head(self.backbone(images))


class InterpUNet(nn.Module):
    """(N, 3, H, W) -> (N, channels, H, W)."""

    def __init__(self, channels: int):
        super().__init__()
        widths = [channels * 2**i for i in range(5)]
        self.encoder = nn.ModuleList([nn.Sequential(ConvPair(3, channels))])
        for w in widths[1:]:
            self.encoder.append(nn.Sequential(nn.MaxPool2d(2), ConvPair(w // 2, w)))
        self.decoder = nn.ModuleList(UpBlock(w) for w in widths[:-1])

    def forward(self, images: Tensor) -> Tensor:
        skips = []
        x = images
        for level in self.encoder:
            x = level(x)
            skips.append(x)
        for block, skip in zip(reversed(self.decoder), reversed(skips[:-1]), strict=True):
            x = block(skip, x)
        return x


class ConvPair(nn.Module):
    """Two 3x3 convolution modules under mmsegmentation's name for them."""

    def __init__(self, in_channels: int, channels: int):
        super().__init__()
        self.convs = nn.Sequential(ConvModule(in_channels, channels, 3), ConvModule(channels, channels, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.convs(x)


class UpBlock(nn.Module):
    """(N, w, H, W) from the way down and (N, 2 w, H / 2, W / 2) from below -> (N, w, H, W)."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv_block = ConvPair(2 * channels, channels)
        self.upsample = InterpConv(2 * channels, channels)

    def forward(self, skip: Tensor, x: Tensor) -> Tensor:
        return self.conv_block(torch.cat([skip, self.upsample(x, skip)], dim=1))


class InterpConv(nn.Module):
    """Bilinear upsampling to the size of another map, then a 1x1 convolution module."""

    def __init__(self, in_channels: int, channels: int):
        super().__init__()
        self.interp_upsample = nn.ModuleDict({"1": ConvModule(in_channels, channels, 1)})  # published: 0 upsamples

    def forward(self, x: Tensor, like: Tensor) -> Tensor:
        return self.interp_upsample["1"](resize(x, like))


def unet(num_classes: int) -> UNet:
    """The paper's network for RGB images: 31.03 M parameters with 2 classes."""
    return UNet(num_classes)


def unet_s5_d16(num_classes: int) -> UNetS5D16:
    """As published: 29.06 M parameters with 19 classes, the auxiliary head included."""
    return UNetS5D16(num_classes)
