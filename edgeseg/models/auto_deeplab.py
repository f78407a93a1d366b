"""Auto-DeepLab: Hierarchical Neural Architecture Search for Semantic Image Segmentation.

Liu, Chen, Schroff, Adam, Hua, Yuille, Fei-Fei. CVPR 2019. https://arxiv.org/abs/1901.02985

The cell and the path through resolutions that the search found (the paper's figure 3; constants as in the authors'
TensorFlow code), with DeepLabV3+'s ASPP and decoder. Padding, align-corners resizing and epsilons are TensorFlow's. One
thing is ours: going back to a finer resolution, a map takes the size that the resolution had before, where TensorFlow
makes 2 n - 1 of n; at the sizes it is trained at (multiples of 32, plus 1) that is the same.

Parameters with 19 classes, in millions: 10.15 (F = 20), 21.62 (32), 44.42 (48), as in the paper. Multiply-accumulates
at 1025x2049 in 1e9: 320.45, 439.92, 662.42, where the paper prints 333.25, 460.93, 695.03. TensorFlow runs a dilated
convolution on a map padded to a multiple of its rate; counting what that computes gives 327.73, 451.98, 681.32. The
rest is not explained; the paper does not print the ASPP's rates, which are DeepLabV3+'s for stride 8 here.
No checkpoint is public.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from edgeseg.models.layers import adaptive_avg_pool, initialise, resize

# The cell: block i adds operation 2 i on state INPUTS[2 i] to operation 2 i + 1 on state INPUTS[2 i + 1], and makes
# state 2 + i. State 0 comes from the cell before, state 1 from the one before that; the five blocks are concatenated.
OPERATIONS = (
    *("atrous_5", "separable_3", "separable_3", "atrous_3", "separable_3"),
    *("separable_3", "separable_5", "separable_5", "separable_5", "atrous_5"),
)
INPUTS = (1, 0, 1, 0, 3, 1, 4, 2, 3, 5)
BLOCKS = len(INPUTS) // 2
LEVELS = (0, 0, 0, 1, 2, 1, 2, 2, 3, 3, 2, 1)  # of each cell; level k is stride 4 * 2**k
DECODER_CELL = 2  # its output is the decoder's fine map
RATES = (12, 24, 36)
CELL_EPS = 1e-3  # of the cells' batch norms; ASPP and decoder have 1e-5


def auto_deeplab_s(num_classes: int) -> AutoDeepLab:
    """F = 20: 10.15 M parameters."""
    return AutoDeepLab(num_classes, 20)


def auto_deeplab_m(num_classes: int) -> AutoDeepLab:
    """F = 32: 21.62 M parameters."""
    return AutoDeepLab(num_classes, 32)


def auto_deeplab_l(num_classes: int) -> AutoDeepLab:
    """F = 48, the network of the paper's comparisons: 44.42 M parameters."""
    return AutoDeepLab(num_classes, 48)


class AutoDeepLab(nn.Module):
    """(N, 3, H, W) normalised images -> logits (N, num_classes, ceil(H / 4), ceil(W / 4)).

    Args:
        filters: F, the channels of one block at stride 4; they double with each halving of the resolution.
        stem_width: channels of the stem's first two convolutions; its third has twice as many.
        width: channels of each ASPP branch and of the decoder.
        fine_width: channels taken from the fine map.
        levels: of each cell; cell DECODER_CELL is at the resolution of the logits.
    """

    def __init__(
        self,
        num_classes: int,
        filters: int,
        *,
        stem_width: int = 64,
        width: int = 256,
        fine_width: int = 48,
        levels: tuple[int, ...] = LEVELS,
    ):
        super().__init__()
        self.backbone = SearchedBackbone(filters, stem_width, levels)
        self.aspp = Aspp(BLOCKS * filters * 2 ** levels[-1], width)
        self.fine = conv_norm(BLOCKS * filters * 2 ** levels[DECODER_CELL], fine_width, 1)
        self.decoder = nn.Sequential(conv_norm(width + fine_width, width, 3), conv_norm(width, width, 3))
        self.classifier = nn.Conv2d(width, num_classes, 1)
        self.apply(initialise)

    def forward(self, images: Tensor) -> Tensor:
        fine, coarse = self.backbone(images)
        context = resize(self.aspp(coarse), fine, align_corners=True)
        return self.classifier(self.decoder(torch.cat([context, self.fine(fine)], dim=1)))


class SearchedBackbone(nn.Module):
    """(N, 3, H, W) -> (output of cell DECODER_CELL at stride 4, output of the last cell at stride 8)."""

    def __init__(self, filters: int, stem_width: int, levels: tuple[int, ...]):
        super().__init__()
        self.levels = levels
        widths = (3, stem_width, stem_width, 2 * stem_width)
        self.stem = nn.ModuleList(
            nn.Sequential(SameConv(widths[i], widths[i + 1], 3, stride), batch_norm(widths[i + 1]))
            for i, stride in enumerate((2, 1, 2))
        )
        self.cells = nn.ModuleList()
        before, current = widths[2], widths[3]
        for i, level in enumerate(levels):
            stride = 2 if i > 0 and level > levels[i - 1] else 1
            self.cells.append(Cell(current, before, filters * 2**level, stride))
            before, current = current, BLOCKS * filters * 2**level

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        first = self.stem[0](images)
        before = self.stem[1](torch.relu(first))
        current = self.stem[2](torch.relu(before))
        likes = {0: current}  # a map of each level, for its size
        fine = current
        for i, (cell, level) in enumerate(zip(self.cells, self.levels, strict=True)):
            if i > 0 and level < self.levels[i - 1]:
                current = resize(current, likes[level], align_corners=True)
            before, current = current, cell(current, before)
            likes.setdefault(level, current)
            if i == DECODER_CELL:
                fine = current
        return fine, torch.relu(current)


class Cell(nn.Module):
    """The cell of the paper's figure 3: the last map and the one before -> (N, 5 filters, H / stride, W / stride)."""

    def __init__(self, in_channels: int, channels_before: int, filters: int, stride: int):
        super().__init__()
        self.current = relu_conv_norm(in_channels, filters, 1)
        self.before = relu_conv_norm(channels_before, filters, 1) if channels_before != filters else nn.Identity()
        self.operations = nn.ModuleList(
            _operation(name, filters, stride if state < 2 else 1)
            for name, state in zip(OPERATIONS, INPUTS, strict=True)
        )

    def forward(self, current: Tensor, before: Tensor) -> Tensor:
        states = [self.current(current), self.before(resize(before, current, align_corners=True))]
        results = iter(self.operations)
        for i in range(BLOCKS):
            left, right = (next(results)(states[INPUTS[2 * i + side]]) for side in (0, 1))
            states.append(left + right)
        return torch.cat(states[2:], dim=1)


def _operation(name: str, filters: int, stride: int) -> nn.Module:
    kind, _, kernel = name.partition("_")
    return (Separable if kind == "separable" else Atrous)(filters, int(kernel), stride)


class Separable(nn.Sequential):
    """Twice: ReLU, depth-wise convolution, 1x1 convolution, batch norm. The first has the stride."""

    def __init__(self, filters: int, kernel_size: int, stride: int):
        super().__init__()
        for i in (0, 1):
            depthwise = SameConv(filters, filters, kernel_size, stride if i == 0 else 1, groups=filters)
            pointwise = nn.Conv2d(filters, filters, 1, bias=False)
            self.extend([nn.ReLU(), depthwise, pointwise, batch_norm(filters)])


class Atrous(nn.Module):
    """ReLU, convolution of dilation 2, batch norm. With stride 2 the map is halved first, and not dilated."""

    def __init__(self, filters: int, kernel_size: int, stride: int):
        super().__init__()
        self.stride = stride
        dilation = 2 if stride == 1 else 1
        padding = dilation * (kernel_size // 2)
        self.conv = nn.Conv2d(filters, filters, kernel_size, padding=padding, dilation=dilation, bias=False)
        self.norm = batch_norm(filters)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(x)
        if self.stride == 2:
            height, width = x.shape[-2:]
            x = resize(x, (-(-height // 2), -(-width // 2)), align_corners=True)
        return self.norm(self.conv(x))


class Aspp(nn.Module):
    """DeepLabV3's: image pool, 1x1 and three dilated 3x3 convolutions, concatenated in this order, and projected."""

    def __init__(self, in_channels: int, width: int):
        super().__init__()
        self.image_pool = conv_norm(in_channels, width, 1)
        self.branches = nn.ModuleList([conv_norm(in_channels, width, 1)])
        self.branches.extend(conv_norm(in_channels, width, 3, rate) for rate in RATES)
        self.project = conv_norm((2 + len(RATES)) * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = resize(self.image_pool(adaptive_avg_pool(x, 1)), x, align_corners=True)
        return self.project(torch.cat([pooled, *(branch(x) for branch in self.branches)], dim=1))


class SameConv(nn.Conv2d):
    """Convolution with TensorFlow's SAME padding: to ceil(size / stride), the odd pixel at the bottom and right."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int, groups: int = 1):
        padding = kernel_size // 2 if stride == 1 else 0
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.stride[0] == 1:
            return super().forward(x)
        stride, kernel = self.stride[0], self.kernel_size[0]
        sides = []
        for size in (x.shape[-1], x.shape[-2]):
            missing = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            sides += [missing // 2, missing - missing // 2]
        return super().forward(pad(x, sides))


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """As the cells have it."""
    return nn.BatchNorm2d(channels, eps=CELL_EPS)


def relu_conv_norm(in_channels: int, out_channels: int, kernel_size: int) -> nn.Sequential:
    """ReLU, convolution, batch norm: the cells' order."""
    return nn.Sequential(
        nn.ReLU(), nn.Conv2d(in_channels, out_channels, kernel_size, bias=False), batch_norm(out_channels)
    )


def conv_norm(in_channels: int, out_channels: int, kernel_size: int, dilation: int = 1) -> nn.Sequential:
    """Convolution, batch norm, ReLU: ASPP's and the decoder's order."""
    padding = dilation * (kernel_size // 2)
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding, dilation=dilation, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.ReLU())
