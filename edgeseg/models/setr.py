"""Rethinking Semantic Segmentation from a Sequence-to-Sequence Perspective with Transformers.

Zheng, Lu, Zhao, Zhu, Luo, Wang, Fu, Feng, Xiang, Torr, Zhang. CVPR 2021. https://arxiv.org/abs/2012.15840

A ViT-Large with one of three heads (the paper's section 3.2): naive (logits at stride 4), progressive upsampling (PUP,
stride 1) and multi-level feature aggregation (MLA, stride 4). Names are mmsegmentation's, whose checkpoints load
strictly once ``auxiliary_head.*`` is dropped. Its configurations for ADE20K and Cityscapes differ in the size of the
position embedding (`grid`), in the classes, and, for the naive head, in the auxiliary heads.

Parameters in millions, with 150 classes and grid 32x32: 304.450, 308.318, 309.415 without auxiliary heads; 305.558,
317.290, 309.569 with them. The 318.3 of SegFormer's table is SETR-PUP in the authors' own code: four auxiliary heads
instead of three, and an unused `conv_seg`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from edgeseg.models.encoders.vit import NORM_EPS, VIT_LARGE, VisionTransformer
from edgeseg.models.layers import ConvModule, initialise, resize

ADE20K_GRID = (32, 32)  # 512x512 crops
CITYSCAPES_GRID = (48, 48)  # 768x768 crops


class Setr(nn.Module):
    """(N, 3, H, W) normalised images -> logits (N, num_classes, h, w); h = ceil(H / 16) * 16 over the head's stride."""

    def __init__(self, backbone: nn.Module, neck: nn.Module | None, decode_head: nn.Module):
        super().__init__()
        self.backbone = backbone
        self.neck = neck
        self.decode_head = decode_head
        self.apply(initialise)

    def forward(self, images: Tensor) -> Tensor:
        features = self.backbone(images)
        return self.decode_head(features if self.neck is None else self.neck(features))


def setr_naive(num_classes: int, **options: Any) -> Setr:
    """SETR-Naïve: `kernel_size` 1, one convolution, upsampled fourfold. Options as for `_upsampling`."""
    return _upsampling(num_classes, num_convs=1, scale=4, kernel_size=1, **options)


def setr_pup(num_classes: int, **options: Any) -> Setr:
    """SETR-PUP: four 3x3 convolutions, each upsampled twofold. Options as for `_upsampling`."""
    return _upsampling(num_classes, num_convs=4, scale=2, kernel_size=3, **options)


def _upsampling(
    num_classes: int,
    *,
    num_convs: int,
    scale: int,
    kernel_size: int,
    grid: tuple[int, int] = ADE20K_GRID,
    encoder: dict[str, Any] = VIT_LARGE,
    channels: int = 256,
) -> Setr:
    backbone = VisionTransformer(grid, out_indices=(encoder["depth"] - 1,), **encoder)
    head = UpsamplingHead(encoder["width"], channels, num_classes, num_convs, scale, kernel_size)
    return Setr(backbone, None, head)


def setr_mla(
    num_classes: int,
    *,
    grid: tuple[int, int] = ADE20K_GRID,
    encoder: dict[str, Any] = VIT_LARGE,
    channels: int = 256,
    mla_channels: int = 128,
) -> Setr:
    """SETR-MLA: layers 6, 12, 18 and 24 (each quarter of the depth), aggregated from the deepest."""
    quarter = encoder["depth"] // 4
    indices = tuple(quarter * i - 1 for i in (1, 2, 3, 4))
    backbone = VisionTransformer(grid, out_indices=indices, attend_class_token=False, **encoder)
    return Setr(backbone, MlaNeck(encoder["width"], channels), MlaHead(channels, mla_channels, num_classes))


class UpsamplingHead(nn.Module):
    """LayerNorm, then (convolution, BN, ReLU, bilinear upsampling) `num_convs` times, then the classifier."""

    def __init__(self, in_channels: int, channels: int, num_classes: int, num_convs: int, scale: int, kernel_size: int):
        super().__init__()
        self.norm = nn.LayerNorm(in_channels, eps=NORM_EPS)
        widths = [in_channels] + [channels] * num_convs
        self.up_convs = nn.ModuleList(
            nn.Sequential(ConvModule(widths[i], channels, kernel_size), Upsample(scale)) for i in range(num_convs)
        )
        self.conv_seg = nn.Conv2d(channels, num_classes, 1)

    def forward(self, features: list[Tensor]) -> Tensor:
        x = norm_of_map(self.norm, features[-1])
        for up_conv in self.up_convs:
            x = up_conv(x)
        return self.conv_seg(x)


class MlaNeck(nn.Module):
    """Four maps -> four maps of `channels`: normalised and projected, summed up from the deepest, then 3x3 each."""

    def __init__(self, in_channels: int, channels: int):
        super().__init__()
        self.norm = nn.ModuleList(nn.LayerNorm(in_channels, eps=NORM_EPS) for _ in range(4))
        self.mla = nn.Module()
        self.mla.channel_proj = nn.ModuleList(ConvModule(in_channels, channels, 1) for _ in range(4))
        self.mla.feat_extract = nn.ModuleList(ConvModule(channels, channels, 3) for _ in range(4))

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        mla: Any = self.mla
        projected = [
            project(norm_of_map(norm, x))
            for project, norm, x in zip(mla.channel_proj, self.norm, features, strict=True)
        ]
        outputs: list[Tensor] = []
        total = projected[-1]
        for index, extract in enumerate(mla.feat_extract):  # deepest first, as the checkpoints have them
            total = total if index == 0 else total + projected[-1 - index]
            outputs.append(extract(total))
        return outputs


class MlaHead(nn.Module):
    """Two 3x3 convolutions and fourfold upsampling for each of four maps, concatenated and classified."""

    def __init__(self, channels: int, mla_channels: int, num_classes: int):
        super().__init__()
        self.up_convs = nn.ModuleList(
            nn.Sequential(ConvModule(channels, mla_channels, 3), ConvModule(mla_channels, mla_channels, 3), Upsample(4))
            for _ in range(4)
        )
        self.conv_seg = nn.Conv2d(4 * mla_channels, num_classes, 1)

    def forward(self, features: list[Tensor]) -> Tensor:
        maps = [up_conv(x) for up_conv, x in zip(self.up_convs, features, strict=True)]
        return self.conv_seg(torch.cat(maps, dim=1))


class Upsample(nn.Module):
    """Bilinear by a whole factor, half-pixel centres."""

    def __init__(self, scale: int):
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        return resize(x, (self.scale * height, self.scale * width), align_corners=False)


def norm_of_map(norm: nn.Module, x: Tensor) -> Tensor:
    """LayerNorm over the channels of (N, C, H, W)."""
    return norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def auxiliary_params(name: str, num_classes: int, *, num_convs: int = 2, in_channels: int = 1024) -> int:
    """Parameters of the auxiliary heads of mmsegmentation's configurations, which serve only in training.

    Args:
        name: "setr-naive", "setr-pup" or "setr-mla".
        num_convs: of the naive head's three; 2 on ADE20K, 1 on Cityscapes. PUP's have 2 on both.
    """
    classifier = 256 * num_classes + num_classes
    if name == "setr-mla":
        return 4 * classifier
    area = 1 if name == "setr-naive" else 9
    convs = sum((in_channels if i == 0 else 256) * 256 * area + 2 * 256 for i in range(num_convs))
    return 3 * (2 * in_channels + convs + classifier)
