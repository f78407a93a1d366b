"""Axial-DeepLab: Stand-Alone Axial-Attention for Panoptic Segmentation.

Wang, Zhu, Green, Adam, Yuille, Chen. ECCV 2020. https://arxiv.org/abs/2003.07853

The semantic half of the paper's network: Axial-ResNet with output stride 16, and Panoptic-DeepLab's semantic decoder,
whose ASPP is one 1x1 convolution as in the authors' configurations. The instance decoder is not built.

**What is counted.** The paper prints 173.0 M parameters and 2446.8 G multiply-accumulates for XL, 44.9 M and 687.4 G
for L, with both decoders, at 1025x2049. No code of those networks is public: the authors' PyTorch code has the encoder
for classification (its blocks and these give equal results), their TensorFlow code a later hybrid network (from it the
decoder's widths). This network plus that instance decoder, each attention counted with its 65 positions, comes to
170.37 M and 2519.0 G for XL (-1.5 %, +3.0 %), 43.61 M and 698.4 G for L (-2.9 %, +1.6 %). Attention over whole rows and
columns would make 2994 G, so the span is not what differs. Embeddings of its own for each head would add 3.4 M to XL,
of which 2.6 M are missing; halving between the two attentions, as in the TensorFlow code, would make 2438 G. Neither is
in the PyTorch code, and neither is here. The graph itself computes windows of 96 keys for blocks of 32 queries.
No checkpoint is public.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edgeseg.models.encoders.axial_resnet import LAYERS, SPAN, AxialResNet
from edgeseg.models.layers import ConvModule, DepthwiseSeparableConvModule, initialise, resize


def axial_deeplab_l(num_classes: int) -> AxialDeepLab:
    """The paper's L."""
    return AxialDeepLab(num_classes, 64)


def axial_deeplab_xl(num_classes: int) -> AxialDeepLab:
    """The paper's XL, the network of its comparisons."""
    return AxialDeepLab(num_classes, 128)


class AxialDeepLab(nn.Module):
    """(N, 3, H, W) normalised images -> logits (N, num_classes, ceil(H / 4), ceil(W / 4)).

    Args:
        width, layers, span: of the encoder.
        decoder_width: channels of the decoder, and of the projected coarsest map.
        fine_widths: channels taken from the maps at strides 8 and 4.
    """

    def __init__(
        self,
        num_classes: int,
        width: int,
        *,
        layers: Sequence[int] = LAYERS,
        span: int = SPAN,
        decoder_width: int = 256,
        fine_widths: tuple[int, int] = (64, 32),
    ):
        super().__init__()
        self.backbone = AxialResNet(width, layers, span)
        self.decode_head = SemanticDecoder(num_classes, 4 * width, decoder_width, fine_widths)
        self.apply(initialise)

    def forward(self, images: Tensor) -> Tensor:
        return self.decode_head(self.backbone(images))


class SemanticDecoder(nn.Module):
    """Panoptic-DeepLab's: the coarsest map, twice upsampled (align-corners) and fused with a finer one by a separable
    5x5 convolution; then one more of those, and the classifier."""

    def __init__(self, num_classes: int, fine_channels: int, width: int, fine_widths: tuple[int, int]):
        super().__init__()
        self.project = ConvModule(8 * fine_channels, width, 1)
        self.fine = nn.ModuleList(
            ConvModule(channels, fine_width, 1)
            for channels, fine_width in zip((2 * fine_channels, fine_channels), fine_widths, strict=True)
        )
        self.fuse = nn.ModuleList(DepthwiseSeparableConvModule(width + extra, width, 5) for extra in fine_widths)
        self.head = DepthwiseSeparableConvModule(width, width, 5)
        self.classifier = nn.Conv2d(width, num_classes, 1)

    def forward(self, features: list[Tensor]) -> Tensor:
        x = self.project(features[3])
        for project, fuse, feature in zip(self.fine, self.fuse, (features[1], features[0]), strict=True):
            x = fuse(torch.cat([resize(x, feature, align_corners=True), project(feature)], dim=1))
        return self.classifier(self.head(x))
