"""Gated-SCNN: Gated Shape CNNs for Semantic Segmentation.

Takikawa, Acuna, Jampani, Fidler. ICCV 2019. https://arxiv.org/abs/1907.05740

A dilated WideResNet38 (the regular stream), a narrow stream at full resolution that sees only boundaries (the shape
stream), and an ASPP that fuses the two. Names are those of the authors' code, whose checkpoint loads strictly once
``module.`` and the unused ``dsn1`` are dropped and ``mod`` is put under ``backbone.``.

**Image gradients.** The authors compute Canny edges of the image on the host between two layers. Here they are part of
the graph (`canny`), of the very bytes that the authors' code hands to OpenCV: it casts the *normalised* image to uint8,
so that a pixel becomes 0, 1, 2, 254 or 255 and the edges are where a channel crosses its mean. `canny` equals
``cv2.Canny(image, 10, 100)`` but for one thing: OpenCV follows weak edge pixels from a strong one without end, and
here they are followed for `HYSTERESIS_STEPS` pixels, because a graph for TensorRT has no loop. Such bytes have hardly
any weak edges: on two photographs (1024x512) one of 74 644 edge pixels needed one step, and none more.

Parameters: 137 278 125 with 19 classes, as in the authors' code without `dsn1`, whose 65 inference never reads; the
paper prints no count. Multiply-accumulates equal those of the authors' code, 755.2 G at 512x512.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, max_pool2d, pad

from edgeseg.models.encoders.wide_resnet38 import BLOCKS, WIDTHS, WideResNet38, norm_relu
from edgeseg.models.layers import adaptive_avg_pool, initialise, resize

RATES = (12, 24, 36)
LOW, HIGH = 10, 100  # thresholds of the gradient's magnitude
HYSTERESIS_STEPS = 4
PUBLISHED_NAMES = {"mod{rest}": "backbone.mod{rest}", "{rest}": "{rest}"}
TAN_22_5 = 13573 / 32768  # OpenCV's fixed-point constant, exact in float32


def gscnn_wideresnet38(num_classes: int) -> Gscnn:
    """The network of the paper's tables: WideResNet38, output stride 8."""
    return Gscnn(num_classes)


class Gscnn(nn.Module):
    """(N, 3, H, W) images normalised by ImageNet's statistics -> (N, num_classes, ceil(H / 2), ceil(W / 2)) logits.

    Args:
        stem_width: channels of the encoder's first module, and of the shape stream's first block.
        widths: channels of the encoder's other modules.
        blocks: residual blocks of each of those.
        shape_widths: channels of the shape stream after each of its three blocks.
        aspp_width: channels of each ASPP branch and of the decoder.
        fine_width: channels taken from the encoder's second module.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        stem_width: int = 64,
        widths: Sequence[tuple[int, ...]] = WIDTHS,
        blocks: Sequence[int] = BLOCKS,
        shape_widths: tuple[int, int, int] = (32, 16, 8),
        aspp_width: int = 256,
        fine_width: int = 48,
    ):
        super().__init__()
        self.backbone = WideResNet38(stem_width, widths, blocks)
        for number, channels in ((3, widths[1][-1]), (4, widths[2][-1]), (7, widths[5][-1])):
            self.add_module(f"dsn{number}", nn.Conv2d(channels, 1, 1))
        in_widths = (stem_width, *shape_widths[:2])
        for i, (in_width, width) in enumerate(zip(in_widths, shape_widths, strict=True), start=1):
            self.add_module(f"res{i}", BasicBlock(in_width))
            self.add_module(f"d{i}", nn.Conv2d(in_width, width, 1))
            self.add_module(f"gate{i}", GatedConv(width))
        self.fuse = nn.Conv2d(shape_widths[2], 1, 1, bias=False)
        self.cw = nn.Conv2d(2, 1, 1, bias=False)
        self.aspp = Aspp(widths[5][-1], aspp_width)
        self.bot_fine = nn.Conv2d(widths[0][-1], fine_width, 1, bias=False)
        self.bot_aspp = nn.Conv2d((3 + len(RATES)) * aspp_width, aspp_width, 1, bias=False)
        self.final_seg = nn.Sequential(
            nn.Conv2d(aspp_width + fine_width, aspp_width, 3, padding=1, bias=False),
            *norm_relu(aspp_width),
            nn.Conv2d(aspp_width, aspp_width, 3, padding=1, bias=False),
            *norm_relu(aspp_width),
            nn.Conv2d(aspp_width, num_classes, 1, bias=False),
        )
        self.apply(initialise)

    def forward(self, images: Tensor) -> Tensor:
        features = self.backbone(images)
        fine = features[1]
        context = self.bot_aspp(self.aspp(features[6], self._boundaries(images, features)))
        context = resize(context, fine, align_corners=True)
        return self.final_seg(torch.cat([self.bot_fine(fine), context], dim=1))

    def _boundaries(self, images: Tensor, features: list[Tensor]) -> Tensor:
        """The shape stream: (N, 1, H, W), how much of a boundary each pixel is."""
        x = features[0]
        for i, source in enumerate((3, 4, 7), start=1):
            seen = self.get_submodule(f"dsn{source}")(features[source - 1])
            x = self.get_submodule(f"d{i}")(self.get_submodule(f"res{i}")(x))
            x = self.get_submodule(f"gate{i}")(x, resize(seen, images, align_corners=True))
        edges = canny(wrapped_bytes(images))
        # The authors' edges are 0 and 255. With 255 in the weight instead, both channels lie in [0, 1], and 8 bits
        # serve both.
        weight = self.cw.weight * self.cw.weight.new_tensor([1.0, 255.0]).reshape(1, 2, 1, 1)
        return torch.sigmoid(conv2d(torch.cat([torch.sigmoid(self.fuse(x)), edges], dim=1), weight))


class GatedConv(nn.Module):
    """1x1 convolution of the shape stream, scaled by 1 + what the regular stream lets through (paper, section 3.2)."""

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, channels, 1, 1))
        self._gate_conv = nn.Sequential(
            nn.BatchNorm2d(channels + 1),
            nn.Conv2d(channels + 1, channels + 1, 1),
            nn.ReLU(),
            nn.Conv2d(channels + 1, 1, 1),
            nn.BatchNorm2d(1),
            nn.Sigmoid(),
        )
        nn.init.xavier_normal_(self.weight)

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        gate = self._gate_conv(torch.cat([x, seen], dim=1))
        return conv2d(x * (gate + 1), self.weight)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch norm and a shortcut, ReLU after the sum."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        residual = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(residual + x)


class Aspp(nn.Module):
    """Image pool, boundaries, 1x1 and three dilated 3x3 convolutions, concatenated in this order."""

    def __init__(self, in_channels: int, width: int):
        super().__init__()
        self.features = nn.ModuleList(
            [nn.Sequential(nn.Conv2d(in_channels, width, 1, bias=False), *norm_relu(width))]
            + [
                nn.Sequential(nn.Conv2d(in_channels, width, 3, 1, rate, rate, bias=False), *norm_relu(width))
                for rate in RATES
            ]
        )
        self.img_conv = nn.Sequential(nn.Conv2d(in_channels, width, 1, bias=False), *norm_relu(width))
        self.edge_conv = nn.Sequential(nn.Conv2d(1, width, 1, bias=False), *norm_relu(width))

    def forward(self, x: Tensor, boundaries: Tensor) -> Tensor:
        pooled = resize(self.img_conv(adaptive_avg_pool(x, 1)), x, align_corners=True)
        shape = self.edge_conv(resize(boundaries, x, align_corners=True))
        return torch.cat([pooled, shape, *(feature(x) for feature in self.features)], dim=1)


def wrapped_bytes(x: Tensor) -> Tensor:
    """A cast of floats above -256 and below 256 to uint8 as x86 does it (towards zero, modulo 256), kept in float."""
    whole = x.abs().floor()
    return torch.where(x <= -1, 256 - whole, whole)


def canny(images: Tensor) -> Tensor:
    """Canny edges: (N, 3, H, W) whole numbers from 0 to 255 -> (N, 1, H, W) of 0 and 1.

    Sobel 3x3 on the image with its border repeated; of the three channels the one with the largest |dx| + |dy|, the
    first of equals; local maxima along one of four directions; those above HIGH, and those above LOW that reach one
    through at most HYSTERESIS_STEPS neighbours.
    """
    dx, dy = _sobel(images)
    magnitude = dx.abs() + dy.abs()
    largest, x, y = magnitude[:, :1], dx[:, :1], dy[:, :1]
    for channel in (1, 2):
        better = magnitude[:, channel : channel + 1] > largest
        x = torch.where(better, dx[:, channel : channel + 1], x)
        y = torch.where(better, dy[:, channel : channel + 1], y)
        largest = torch.where(better, magnitude[:, channel : channel + 1], largest)
    weak = _is_peak(largest, x, y) & (largest > LOW)
    candidates = weak.to(images.dtype)
    edges = (weak & (largest > HIGH)).to(images.dtype)
    for _ in range(HYSTERESIS_STEPS):
        edges = max_pool2d(edges, 3, stride=1, padding=1) * candidates
    return edges


def _sobel(images: Tensor) -> tuple[Tensor, Tensor]:
    """Horizontal and vertical derivatives, in slices and sums rather than a convolution that INT8 would round."""
    x = torch.cat([images[:, :, :1], images, images[:, :, -1:]], dim=2)
    x = torch.cat([x[..., :1], x, x[..., -1:]], dim=3)
    difference = x[..., 2:] - x[..., :-2]
    smooth = x[..., :-2] + 2 * x[..., 1:-1] + x[..., 2:]
    dx = difference[:, :, :-2] + 2 * difference[:, :, 1:-1] + difference[:, :, 2:]
    return dx, smooth[:, :, 2:] - smooth[:, :, :-2]


def _is_peak(magnitude: Tensor, dx: Tensor, dy: Tensor) -> Tensor:
    """Where the magnitude is a maximum across the edge; outside the image it is 0."""
    height, width = magnitude.shape[-2:]
    padded = pad(magnitude, (1, 1, 1, 1))

    def neighbour(down: int, right: int) -> Tensor:
        return padded[..., 1 + down : 1 + down + height, 1 + right : 1 + right + width]

    x, y = dx.abs(), dy.abs()
    flat, steep = y < x * TAN_22_5, y - 2 * x > x * TAN_22_5  # below 22.5 degrees, above 67.5
    across = (magnitude > neighbour(0, -1)) & (magnitude >= neighbour(0, 1))
    along = (magnitude > neighbour(-1, 0)) & (magnitude >= neighbour(1, 0))
    falling = (magnitude > neighbour(-1, -1)) & (magnitude > neighbour(1, 1))
    rising = (magnitude > neighbour(-1, 1)) & (magnitude > neighbour(1, -1))
    diagonal = _choose(dx * dy < 0, rising, falling)
    return _choose(flat, across, _choose(steep, along, diagonal))


def _choose(condition: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    """torch.where of booleans, which ONNX Runtime has no kernel for."""
    return (condition & yes) | (~condition & no)
