"""Semantic Image Segmentation with Deep Convolutional Nets and Fully Connected CRFs: DeepLab-LargeFOV.

Chen, Papandreou, Kokkinos, Murphy, Yuille. ICLR 2015. https://arxiv.org/abs/1412.7062

VGG-16 at stride 8: the last two poolings keep the size, the fifth stage has holes of 2, and fc6 is a 3x3 convolution
with holes of 12, 1024 wide. As in the authors' Caffe model, whose names these are, poolings are 3x3 with padding 1 and
a 3x3 average pooling follows the fifth. The CRF behind it is `edgeseg.crf`.

Parameters with 21 classes: 14 714 688 of VGG-16, 4 719 616 + 1 049 600 of fc6 and fc7, 21 525 of the classifier:
20.5 M, as in the paper's table 1. Pooling rounds up, so that a side of 8 k + 1 pixels, which the authors use (513), and
one of 8 k both become k + 1. The published model upsamples with aligned corners.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, max_pool2d

from edgeseg.models.encoders.vgg import VGG, VGG16_WIDTHS
from edgeseg.models.layers import initialise


class DeepLabV1(VGG):
    """(N, 3, H, W) normalised images -> logits (N, num_classes, h, w); h about H / 8 + 1."""

    def __init__(self, num_classes: int, widths: tuple[int, ...] = VGG16_WIDTHS, hidden: int = 1024, rate: int = 12):
        super().__init__(widths, last_dilation=2)
        self.fc6 = nn.Conv2d(widths[-1], hidden, 3, padding=rate, dilation=rate)
        self.fc7 = nn.Conv2d(hidden, hidden, 1)
        self.fc8 = nn.Conv2d(hidden, num_classes, 1)
        self.apply(initialise)

    def forward(self, images: Tensor) -> Tensor:
        x = images
        for stage, stride in enumerate((2, 2, 2, 1, 1), 1):
            x = max_pool2d(self.stage(stage, x), 3, stride, padding=1, ceil_mode=True)
        x = avg_pool2d(x, 3, 1, padding=1)  # counts the padding, as Caffe does
        return self.fc8(self.run("fc7", self.run("fc6", x)))


def deeplabv1_vgg16(num_classes: int) -> DeepLabV1:
    """The published widths."""
    return DeepLabV1(num_classes)
