"""Learning Deconvolution Network for Semantic Segmentation.

Noh, Hong, Han. ICCV 2015. https://arxiv.org/abs/1505.04366

The paper's table 3: VGG-16 with batch norm and its two fully connected layers as 7x7 and 1x1 convolutions, a 7x7
deconvolution back, and the mirror image of the encoder: unpooling with the encoder's switches, then deconvolutions.

A deconvolution of stride 1 is a convolution with the kernel turned round and its two channel axes exchanged
(`convolution_of_deconvolution`). The 3x3 ones are stored and run as convolutions, for which every runtime has its best
kernels; fc6_deconv, which meets few pixels and spreads each over 7x7, stays a deconvolution.

The paper's input is 224x224, where fc6 sees one pixel. Other sizes from 193 on work the same way, convolutionally.
Parameters with 21 classes: 14 723 136 of VGG-16 with batch norm, 102 772 736 + 16 789 504 of fc6 and fc7, 102 761 984
of fc6_deconv, 14 756 928 of the decoder's convolutions, 1 365 of the classifier: 251.8 M ("252 M"). Logits are at the
image's size.
"""

from __future__ import annotations

from torch import Tensor, nn

from edgeseg.models.encoders.vgg import VGG, VGG16_DEPTHS, VGG16_WIDTHS
from edgeseg.models.layers import initialise
from edgeseg.models.unpooling import max_pool_with_switches, max_unpool

MIN_SIZE = 193  # five poolings, each rounding up, leave the 7 pixels that fc6 needs


class DeconvNet(VGG):
    """(N, 3, H, W) normalised images, H and W at least 193 -> logits (N, num_classes, H, W)."""

    discontinuous = True  # where a pooling window has two near maxima, rounding decides where its value returns

    def __init__(self, num_classes: int, widths: tuple[int, ...] = VGG16_WIDTHS, hidden: int = 4096):
        super().__init__(widths, batch_norm=True)
        self.add("fc6", nn.Conv2d(widths[-1], hidden, 7))
        self.add("fc7", nn.Conv2d(hidden, hidden, 1))
        self.add("fc6_deconv", nn.ConvTranspose2d(hidden, widths[-1], 7))
        for stage in (5, 4, 3, 2, 1):
            channels, depth = widths[stage - 1], VGG16_DEPTHS[stage - 1]
            for i in range(1, depth + 1):
                out_channels = widths[max(stage - 2, 0)] if i == depth else channels
                self.add(f"deconv{stage}_{i}", nn.Conv2d(channels, out_channels, 3, padding=1))
        self.score = nn.Conv2d(widths[0], num_classes, 1)
        self.apply(initialise)

    def forward(self, images: Tensor) -> Tensor:
        x, switches = images, []
        for stage in (1, 2, 3, 4, 5):
            x, switched = max_pool_with_switches(self.stage(stage, x))
            switches.append(switched)
        for name in ("fc6", "fc7", "fc6_deconv"):
            x = self.run(name, x)
        for stage in (5, 4, 3, 2, 1):
            x = max_unpool(x, switches[stage - 1])
            for i in range(1, VGG16_DEPTHS[stage - 1] + 1):
                x = self.run(f"deconv{stage}_{i}", x)
        return self.score(x)


def deconvnet(num_classes: int) -> DeconvNet:
    """The published widths."""
    return DeconvNet(num_classes)


def convolution_of_deconvolution(weight: Tensor) -> Tensor:
    """(in, out, k, k) of a ConvTranspose2d of stride 1 and padding p -> (out, in, k, k) of the Conv2d that equals it.

    The convolution's padding is k - 1 - p.
    """
    return weight.flip(2, 3).transpose(0, 1).contiguous()
