"""OCRNet: each pixel is described by the object regions that it belongs to.

Yuan, Chen, Wang. "Object-Contextual Representations for Semantic Segmentation". ECCV 2020.
https://arxiv.org/abs/1909.11065. Modules are called as in mmsegmentation, whose checkpoints load: a cascade of two
heads, of which the first gives the soft object regions and the second the logits.
"""

import torch
from torch import Tensor, nn

from edgeseg.models.encoders import Encoder
from edgeseg.models.encoders.hrnet import W18, W48, HRNet
from edgeseg.models.layers import ConvHead, ConvModule, initialise, resize


class OCRNet(nn.Module):
    """(N, 3, H, W) -> logits (N, num_classes, h, w) at the size of the backbone's first map.

    Args:
        backbone: all its maps are resized to the first and concatenated.
        channels: of the pixel representation.
        key_channels: in which pixels and regions are compared.
    """

    def __init__(self, backbone: Encoder, num_classes: int, channels: int = 512, key_channels: int = 256):
        super().__init__()
        self.backbone = backbone
        total = sum(backbone.channels)
        regions = ConvHead(total, total, num_classes, kernel_size=1)
        self.decode_head = nn.ModuleList([regions, OCRHead(total, channels, key_channels, num_classes)])

    def forward(self, images: Tensor) -> Tensor:
        maps = self.backbone(images)
        x = torch.cat([resize(feature, maps[0]) for feature in maps], dim=1)
        regions, pixels = self.decode_head
        return pixels(x, regions(x))


class OCRHead(nn.Module):
    """Pixels gathered into regions (paper, equation 2), then regions given back to the pixels."""

    def __init__(self, in_channels: int, channels: int, key_channels: int, num_classes: int):
        super().__init__()
        self.bottleneck = ConvModule(in_channels, channels, 3)
        self.object_context_block = ObjectContext(channels, key_channels)
        self.conv_seg = nn.Conv2d(channels, num_classes, 1)
        self.apply(initialise)

    def forward(self, x: Tensor, scores: Tensor) -> Tensor:
        """(N, in_channels, h, w) and the regions' scores (N, K, h, w) -> logits (N, K, h, w)."""
        pixels = self.bottleneck(x)
        shares = torch.softmax(scores.flatten(2), dim=-1)  # of each region, over the pixels
        regions = shares @ pixels.flatten(2).transpose(1, 2)  # (N, K, channels)
        return self.conv_seg(self.object_context_block(pixels, regions.transpose(1, 2).unsqueeze(-1)))


class ObjectContext(nn.Module):
    """softmax(query(pixel) . key(region) / sqrt(d)) value(region), beside the pixel: paper, equations 3 to 5."""

    def __init__(self, channels: int, inner: int):
        super().__init__()
        self.query_project = nn.Sequential(ConvModule(channels, inner, 1), ConvModule(inner, inner, 1))
        self.key_project = nn.Sequential(ConvModule(channels, inner, 1), ConvModule(inner, inner, 1))
        self.value_project = ConvModule(channels, inner, 1)
        self.out_project = ConvModule(inner, channels, 1)
        self.bottleneck = ConvModule(2 * channels, channels, 1)

    def forward(self, pixels: Tensor, regions: Tensor) -> Tensor:
        """pixels (N, channels, h, w), regions (N, channels, K, 1) -> (N, channels, h, w)."""
        query = self.query_project(pixels).flatten(2).transpose(1, 2)
        key = self.key_project(regions).flatten(2)
        value = self.value_project(regions).flatten(2).transpose(1, 2)
        weights = torch.softmax(query @ key * key.shape[1] ** -0.5, dim=-1)
        context = (weights @ value).transpose(1, 2).unflatten(2, tuple(pixels.shape[-2:]))
        return self.bottleneck(torch.cat([self.out_project(context), pixels], dim=1))


def ocrnet_hrnetw18(num_classes: int) -> OCRNet:
    """As published: 12.18 M parameters with 150 classes, the first head included."""
    return OCRNet(HRNet(W18), num_classes)


def ocrnet_hrnetw48(num_classes: int) -> OCRNet:
    """As published: 70.53 M parameters with 150 classes, the first head included."""
    return OCRNet(HRNet(W48), num_classes)
