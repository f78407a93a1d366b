"""Fully Convolutional Networks for Semantic Segmentation: FCN-32s, -16s and -8s.

Long, Shelhamer, Darrell. CVPR 2015. https://arxiv.org/abs/1411.4038

VGG-16 with its fully connected layers as convolutions (fc6: 7x7, fc7: 1x1, 4096 wide) gives scores at stride 32; 16s
and 8s add scores of pool4 and pool3 on the way up (the paper's figure 3). Names are those of the authors' Caffe model
and of wkentaro/pytorch-fcn, which holds its weights (`adapt_pytorch_fcn`).

The published network pads the image by 100 pixels, so that fc6 finds seven pixels whatever the image's size, and crops
every map that it adds. That is kept, because the weights were trained with it and because the crops are not whole
strides: the image's pixel 0 lies 23.5 / 8 pixels into the last map of FCN-8s, where a network with "same" padding has
-3.5 / 8. No map at stride 8 could say that to whoever upsamples it, so that **logits are at the image's size**.

The upsampling's deconvolutions hold bilinear kernels that the authors' training leaves as they are. By default they
are computed as what they are, bilinear interpolation (`interpolate_as_deconvolution`, the same numbers); with
`learned`, they are dense deconvolutions with weights, initialised to bilinear.

Parameters with 21 classes: 14 714 688 of VGG-16, 102 764 544 of fc6, 16 781 312 of fc7 and 86 037 of the scores at
stride 32: 134.35 M ("134M" in the paper's table 1); pool4's scores add 10 773, pool3's 5 397. `learned` adds
c^2 k^2 for every deconvolution of c classes and k x k pixels.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, max_pool2d, pad

from edgeseg.errors import CheckpointError
from edgeseg.models.caffe import bilinear_deconvolution, rgb_of_bgr
from edgeseg.models.encoders.vgg import VGG, VGG16_WIDTHS
from edgeseg.models.layers import initialise

# Deconvolutions of each network, in order of use: name and factor. What pool4 and pool3 add stands between them.
UPSAMPLING: dict[int, tuple[tuple[str, int], ...]] = {
    32: (("upscore", 32),),
    16: (("upscore2", 2), ("upscore16", 16)),
    8: (("upscore2", 2), ("upscore_pool4", 2), ("upscore8", 8)),
}
CROPS = {32: 19, 16: 27, 8: 31}  # where the image begins in the last deconvolution's output; follows from the padding
SKIPS = (("score_pool4", 3, 5), ("score_pool3", 2, 9))  # name, index of the width, where the cropped map begins


class FCN(VGG):
    """(N, 3, H, W) normalised images -> logits (N, num_classes, H, W)."""

    def __init__(
        self,
        num_classes: int,
        stride: Literal[8, 16, 32],
        *,
        widths: tuple[int, ...] = VGG16_WIDTHS,
        hidden: int = 4096,
        learned: bool = False,
    ):
        super().__init__(widths, first_padding=100)
        self.learned = learned
        self.upsampling = UPSAMPLING[stride]
        self.first_pixel = CROPS[stride]
        self.skips = SKIPS[: len(self.upsampling) - 1]
        self.fc6 = nn.Conv2d(widths[-1], hidden, 7)
        self.fc7 = nn.Conv2d(hidden, hidden, 1)
        self.score_fr = nn.Conv2d(hidden, num_classes, 1)
        for name, level, _ in self.skips:
            self.add_module(name, nn.Conv2d(widths[level], num_classes, 1))
        self.apply(initialise)
        for name, factor in self.upsampling if learned else ():
            deconvolution = nn.ConvTranspose2d(num_classes, num_classes, 2 * factor, factor, bias=False)
            with torch.no_grad():
                deconvolution.weight.copy_(bilinear_deconvolution(num_classes, factor))
            self.add_module(name, deconvolution)

    def forward(self, images: Tensor) -> Tensor:
        pooled, x = [], images
        for stage in (1, 2, 3, 4, 5):
            x = max_pool2d(self.stage(stage, x), 2, ceil_mode=True)
            pooled.append(x)
        scores = self.score_fr(self.run("fc7", self.run("fc6", x)))
        for (upscore, factor), (name, level, begin) in zip(self.upsampling, self.skips, strict=False):
            height, width = (factor * (side + 1) for side in scores.shape[-2:])
            skip = pooled[level][:, :, begin : begin + height, begin : begin + width]
            scores = self._upsampled(upscore, factor, scores, 0, (height, width)) + self.get_submodule(name)(skip)
        upscore, factor = self.upsampling[-1]
        height, width = images.shape[-2:]
        return self._upsampled(upscore, factor, scores, self.first_pixel, (height, width))

    def _upsampled(self, name: str, factor: int, x: Tensor, begin: int, size: tuple[int, int]) -> Tensor:
        if not self.learned:
            return interpolate_as_deconvolution(x, factor, begin, size)
        height, width = size
        return self.get_submodule(name)(x)[:, :, begin : begin + height, begin : begin + width]


def interpolate_as_deconvolution(x: Tensor, factor: int, begin: int, size: tuple[int, int]) -> Tensor:
    """What a bilinear deconvolution (kernel 2 factor, stride factor, no padding) makes of each channel, cropped.

    The deconvolution's output, factor * (n + 1) long, interpolates between the map's pixels with a zero pixel on each
    side; its pixel i is pixel i + factor / 2 of that padded map's bilinear upsampling with half-pixel centres. Only the
    pixels that the crop needs are upsampled.

    Args:
        x: (N, C, h, w).
        begin: first row, and column, of the crop.
        size: (height, width) of the crop.
    """
    x = pad(x, (1, 1, 1, 1))
    starts = []
    for axis, length in zip((2, 3), size, strict=True):
        first, last = begin + factor // 2, begin + factor // 2 + length - 1  # of the upsampled padded map
        low = (2 * first + 1 - factor) // (2 * factor)  # source = (pixel + 1/2) / factor - 1/2
        high = (2 * last + 1 - factor) // (2 * factor) + 1
        x = x.narrow(axis, low, high - low + 1)
        starts.append(first - factor * low)
    rows, columns = starts
    x = interpolate(x, scale_factor=float(factor), mode="bilinear", align_corners=False)
    return x[:, :, rows : rows + size[0], columns : columns + size[1]]


def fcn32s_vgg16(num_classes: int) -> FCN:
    """The published widths."""
    return FCN(num_classes, 32)


def fcn16s_vgg16(num_classes: int) -> FCN:
    """The published widths."""
    return FCN(num_classes, 16)


def fcn8s_vgg16(num_classes: int) -> FCN:
    """The published widths."""
    return FCN(num_classes, 8)


def adapt_pytorch_fcn(name: str, tensor: Tensor) -> Tensor:
    """A tensor of a wkentaro/pytorch-fcn checkpoint as ours has it; names are the same.

    It reads BGR images, we RGB: conv1_1's input channels are reversed. Images are to be normalised with
    `edgeseg.models.caffe.MEAN` and `STD`.

    Raises:
        CheckpointError: for a deconvolution that does not interpolate: leaving it out would change the labels.
    """
    if name == "conv1_1.weight":
        return rgb_of_bgr(tensor)
    if name.startswith("upscore") and not tensor.is_meta:
        classes, factor = tensor.shape[0], tensor.shape[-1] // 2
        bilinear = bilinear_deconvolution(classes, factor)
        if tensor.shape != bilinear.shape or (tensor.float() - bilinear).abs().max() > 1e-3:
            raise CheckpointError(
                f"{name} is no bilinear interpolation: these deconvolutions were trained, and this network has none; "
                "edgeseg.models.fcn_vgg.FCN(..., learned=True) has them: pass it with --module"
            )
    return tensor
