"""CCNet: each pixel attends to its row and its column, twice, and so to the whole image.

Huang et al., "CCNet: Criss-Cross Attention for Semantic Segmentation". ICCV 2019. https://arxiv.org/abs/1811.11721
Modules are called as in mmsegmentation, whose checkpoints load.
"""

import torch
from torch import Tensor, nn

from edgeseg.models.encoders import Encoder
from edgeseg.models.encoders.resnet import DEPTHS, ResNet
from edgeseg.models.layers import ConvModule, initialise

# Added where a pixel would meet itself a second time. Published code adds -inf; its exponential is 0 all the same, and
# a number can be calibrated and cast to float16.
NEVER = -4e3


class CCNet(nn.Module):
    """(N, 3, H, W) -> logits (N, num_classes, h, w) at the size of the backbone's last map.

    Args:
        backbone: its last map goes in.
        channels: of the head, a multiple of 8.
        recurrence: passes through the one attention module; two reach every pixel from every pixel.
    """

    def __init__(self, backbone: Encoder, num_classes: int, channels: int = 512, recurrence: int = 2):
        super().__init__()
        self.backbone = backbone
        self.decode_head = CCHead(backbone.channels[-1], channels, recurrence, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.decode_head(self.backbone(images)[-1])


class CCHead(nn.Module):
    """Reduce, attend, then fuse beside the backbone's own map and classify: paper, figure 2."""

    def __init__(self, in_channels: int, channels: int, recurrence: int, num_classes: int):
        super().__init__()
        self.recurrence = recurrence
        self.convs = nn.ModuleList([ConvModule(in_channels, channels, 3), ConvModule(channels, channels, 3)])
        self.cca = CrissCrossAttention(channels)
        self.conv_cat = ConvModule(in_channels + channels, channels, 3)
        self.conv_seg = nn.Conv2d(channels, num_classes, 1)
        self.apply(initialise)

    def forward(self, x: Tensor) -> Tensor:
        reduce, expand = self.convs
        context = reduce(x)
        for _ in range(self.recurrence):
            context = self.cca(context)
        return self.conv_seg(self.conv_cat(torch.cat([x, expand(context)], dim=1)))


class CrissCrossAttention(nn.Module):
    """x + gamma sum_p softmax_p(q . k_p) v_p over the H + W - 1 pixels p of a pixel's column and row.

    Columns and rows are two batched matrix products each, the pixel itself counted with its row. Paper, section 3.2.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.query_conv = nn.Conv2d(channels, channels // 8, 1)
        self.key_conv = nn.Conv2d(channels, channels // 8, 1)
        self.value_conv = nn.Conv2d(channels, channels, 1)
        self.gamma = Scale()

    def forward(self, x: Tensor) -> Tensor:
        height = x.shape[2]
        query, key, value = self.query_conv(x), self.key_conv(x), self.value_conv(x)
        itself = torch.full((height,), NEVER, dtype=x.dtype, device=x.device).diag()
        columns = query.permute(0, 3, 2, 1) @ key.permute(0, 3, 1, 2) + itself  # (N, W, H, H)
        rows = query.permute(0, 2, 3, 1) @ key.permute(0, 2, 1, 3)  # (N, H, W, W)
        weights = torch.softmax(torch.cat([columns.transpose(1, 2), rows], dim=3), dim=3)  # (N, H, W, H + W)
        from_column = weights[..., :height].transpose(1, 2) @ value.permute(0, 3, 2, 1)  # (N, W, H, C)
        from_row = weights[..., height:] @ value.permute(0, 2, 3, 1)  # (N, H, W, C)
        return self.gamma((from_column.transpose(1, 2) + from_row).permute(0, 3, 1, 2)) + x


class Scale(nn.Module):
    """A learned number, 0 at first, so that attention starts as the identity."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


def ccnet_resnet50(num_classes: int) -> CCNet:
    return CCNet(ResNet(DEPTHS[50]), num_classes)


def ccnet_resnet101(num_classes: int) -> CCNet:
    """As published: 68.92 M parameters with 150 classes, the auxiliary head included."""
    return CCNet(ResNet(DEPTHS[101]), num_classes)
