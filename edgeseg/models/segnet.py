"""SegNet: A Deep Convolutional Encoder-Decoder Architecture for Image Segmentation.

Badrinarayanan, Kendall, Cipolla. TPAMI 2017. https://arxiv.org/abs/1511.00561

The paper's figure 2: VGG-16 with batch norm, and its mirror image, whose maps are unpooled with the encoder's
max-pooling indices instead of learned or bilinear upsampling. Layers have the names of the authors' Caffe model
(conv5_3_D is the decoder's twin of conv5_3); odd sizes are pooled with Caffe's rounding, up.

Parameters with 12 classes: 14 723 136 in the encoder (13 convolutions with bias, batch norms), 14 726 796 in the
decoder: 29.45 M, as the literature has it. Logits are at the image's size.
"""

from __future__ import annotations

from torch import Tensor, nn

from edgeseg.models.encoders.vgg import VGG, VGG16_DEPTHS, VGG16_WIDTHS
from edgeseg.models.layers import initialise
from edgeseg.models.unpooling import max_pool_with_switches, max_unpool


class SegNet(VGG):
    """(N, 3, H, W) normalised images -> logits (N, num_classes, H, W)."""

    discontinuous = True  # where a pooling window has two near maxima, rounding decides where its value returns

    def __init__(self, num_classes: int, widths: tuple[int, ...] = VGG16_WIDTHS):
        super().__init__(widths, batch_norm=True)
        for stage in (5, 4, 3, 2, 1):
            channels = widths[stage - 1]
            for i in range(VGG16_DEPTHS[stage - 1], 0, -1):
                if (stage, i) == (1, 1):
                    self.conv1_1_D = nn.Conv2d(channels, num_classes, 3, padding=1)  # the scores: nothing behind it
                else:
                    out_channels = widths[stage - 2] if i == 1 else channels
                    self.add(f"conv{stage}_{i}_D", nn.Conv2d(channels, out_channels, 3, padding=1))
        self.apply(initialise)

    def forward(self, images: Tensor) -> Tensor:
        x, switches = images, []
        for stage in (1, 2, 3, 4, 5):
            x, switched = max_pool_with_switches(self.stage(stage, x))
            switches.append(switched)
        for stage in (5, 4, 3, 2, 1):
            x = max_unpool(x, switches[stage - 1])
            for i in range(VGG16_DEPTHS[stage - 1], 0, -1):
                x = self.conv1_1_D(x) if (stage, i) == (1, 1) else self.run(f"conv{stage}_{i}_D", x)
        return x


def segnet(num_classes: int) -> SegNet:
    """The published widths."""
    return SegNet(num_classes)
