"""Learning Dynamic Routing for Semantic Segmentation.

Li, Song, Chen, Li, Zhang, Wang, Sun. CVPR 2020. https://arxiv.org/abs/2003.10401

A grid of cells, one for each layer and stride (4, 8, 16, 32). A gate in each cell looks at the cell's input and weighs
its three ways on: to the finer stride, straight on, to the coarser one (the paper's figure 2). Here every way is
computed and weighted, so that the graph is static; the logits equal those of the authors' code, which skips ways of
weight 0. Names are those of that code, whose L16 and L33 checkpoints load strictly.

Multiply-accumulates at 1024x2048 with 19 classes, in 1e9: L16 117.91, L33 241.37, L33-PSP 265.54. In the authors' way
of counting, which adds norms and ReLU, and with all ways open: 119.21 and 245.75 for the first two; the paper prints
averages over the images, 119.5 and 242.3. Parameters: 17.785 M, 38.872 M, 51.722 M.

**L33-PSP** is not in the public code. The block here is PSPNet's on the map of stride 32, its branches as wide as the
map: chosen because it makes 269.93 in the authors' way of counting with all ways open, where the paper prints an
average of 270.0. Branches of a quarter of that width, as PSPNet has them, would make 255.4. Nothing proves the choice.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgeseg.models.layers import AdaptiveAvgPool, initialise, resize

CLOSED = 1e-4  # gates that add up to less than this let the cell's input pass unchanged
BINS = (1, 2, 3, 6)


def dynamic_l16(num_classes: int) -> DynamicRouting:
    """The paper's Dynamic-Raw with 16 layers."""
    return DynamicRouting(num_classes, 16)


def dynamic_l33(num_classes: int) -> DynamicRouting:
    """The paper's Dynamic-Raw with 33 layers."""
    return DynamicRouting(num_classes, 33)


def dynamic_l33_psp(num_classes: int) -> DynamicRouting:
    """The network of the paper's comparisons: 33 layers and pyramid pooling."""
    return DynamicRouting(num_classes, 33, pyramid_pooling=True)


class DynamicRouting(nn.Module):
    """(N, 3, H, W) normalised images -> logits (N, num_classes, h, w) at stride 4; H and W at least 3.

    h = ceil(H / 4) where H is a multiple of 4; in general ceil(((H - 3) // 2 + 1) / 2): the first convolution is not
    padded, as in the authors' code, which pads images to multiples of 32.

    Args:
        layers: of cells, 3 or more.
        width: channels at stride 4; they double with the stride.
        stem_width: channels of the stem's first two convolutions.
    """

    def __init__(
        self,
        num_classes: int,
        layers: int,
        *,
        width: int = 64,
        stem_width: int = 64,
        pyramid_pooling: bool = False,
    ):
        super().__init__()
        self.backbone = RoutedBackbone(layers, width, stem_width)
        self.sem_seg_head = DecoderHead(num_classes, width, pyramid_pooling=pyramid_pooling)
        self.apply(initialise)
        for name, module in self.named_modules():
            if name.endswith("gate_conv_beta.2") and isinstance(module, nn.Conv2d):
                nn.init.constant_(module.bias, 1.5)  # type: ignore[arg-type]  # open at first, as the authors train

    def forward(self, images: Tensor) -> Tensor:
        return self.sem_seg_head(self.backbone(images))


@dataclass
class Ways:
    """What leaves a cell: its output at the finer stride, at its own, and at the coarser one.

    `arrives` and `leaves` are (N, 1, 1, 1) of 0 and 1: whether anything came in (None: always), and whether the finer
    and the coarser way carry anything.
    """

    finer: Tensor | None
    same: Tensor
    coarser: Tensor | None
    arrives: Tensor | None
    leaves: Tensor


class RoutedBackbone(nn.Module):
    """(N, 3, H, W) -> four maps at strides 4, 8, 16, 32, `width` times 1, 2, 4, 8 wide."""

    def __init__(self, layers: int, width: int, stem_width: int):
        super().__init__()
        self.stem = nn.Module()
        self.stem.stem_1 = NormedConv(3, stem_width, 3, stride=2)
        self.stem.stem_2 = separable(stem_width, stem_width)
        self.stem.stem_3 = separable(stem_width, width, stride=2)
        self.init_layer = Cell(width, finer=False, coarser=True)
        self.all_cell_list = nn.ModuleList()
        for layer in range(layers):
            last = layer == layers - 1
            strides = range(min(layer + 2, 4))
            cells = (Cell(width * 2**k, finer=k > 0 and not last, coarser=k < 3 and not last) for k in strides)
            self.all_cell_list.append(nn.ModuleList(cells))

    def forward(self, images: Tensor) -> list[Tensor]:
        x = self.stem.stem_3(self.stem.stem_2(self.stem.stem_1(images)))  # type: ignore[operator]
        before = [self.init_layer(x, None)]
        cells: nn.ModuleList
        for cells in self.all_cell_list:  # type: ignore[assignment]
            before = [cell(*_arriving(before, k)) for k, cell in enumerate(cells)]
        return [ways.same for ways in before]


def _arriving(before: list[Ways], k: int) -> tuple[Tensor, Tensor | None]:
    """The sum of the ways that lead to stride k of the next layer, and whether anything comes along them."""
    ways: list[tuple[Tensor, Tensor | None]] = []
    if k > 0 and (coarser := before[k - 1].coarser) is not None:
        ways.append((coarser, before[k - 1].leaves))
    if k < len(before):
        ways.append((before[k].same, before[k].arrives))
    if k + 1 < len(before) and (finer := before[k + 1].finer) is not None:
        ways.append((resize(finer, before[k].same), before[k + 1].leaves))
    total, arrives = ways[0]
    for x, arrives_too in ways[1:]:
        total = total + x
        arrives = None if arrives is None or arrives_too is None else torch.maximum(arrives, arrives_too)
    return total, arrives


class Cell(nn.Module):
    """Two separable convolutions with a shortcut, and the gated ways on (paper, equations 1 to 5)."""

    def __init__(self, width: int, *, finer: bool, coarser: bool):
        super().__init__()
        self.cell_ops = MixedOperation(width)
        self.res_up = nn.Sequential(nn.ReLU(), NormedConv(width, width // 2, 1)) if finer else None
        self.res_down = nn.Sequential(nn.ReLU(), NormedConv(width, 2 * width, 1, stride=2)) if coarser else None
        self.gate_conv_beta = nn.Sequential(
            NormedConv(width, width // 2, 1), AdaptiveAvgPool(1), nn.Conv2d(width // 2, 1 + finer + coarser, 1)
        )

    def forward(self, x: Tensor, arrives: Tensor | None) -> Ways:
        gates = torch.relu(torch.tanh(self.gate_conv_beta(x)))
        closed = (gates.sum(dim=1, keepdim=True) < CLOSED).to(x.dtype)
        leaves = 1 - closed if arrives is None else (1 - closed) * arrives
        gates = gates * leaves
        transformed = self.cell_ops(x)
        return Ways(
            finer=None if self.res_up is None else gates[:, 1:2] * self.res_up(transformed),
            same=closed * x + gates[:, :1] * torch.relu(transformed),
            coarser=None if self.res_down is None else gates[:, -1:] * self.res_down(transformed),
            arrives=arrives,
            leaves=leaves,
        )


class MixedOperation(nn.Module):
    """The sum of the cell's two operations: separable convolutions, and the identity."""

    def __init__(self, width: int):
        super().__init__()
        convolutions = nn.Module()
        convolutions.op = nn.Sequential(*separable(width, width), *separable(width, width, activation=False))
        self._ops = nn.ModuleList([convolutions])

    def forward(self, x: Tensor) -> Tensor:
        return self._ops[0].op(x) + x  # type: ignore[operator]


class DecoderHead(nn.Module):
    """From the coarsest map to the finest: 1x1 convolution, upsample, add; then a 3x3 classifier."""

    def __init__(self, num_classes: int, width: int, *, pyramid_pooling: bool):
        super().__init__()
        self.pyramid_pooling = PyramidPooling(8 * width) if pyramid_pooling else None
        self.layer_decoder_list = nn.ModuleList(
            NormedConv(width * 2**k, width * 2 ** max(k - 1, 0), 1) for k in range(4)
        )
        self.predictor = nn.Conv2d(width, num_classes, 3, padding=1)

    def forward(self, features: list[Tensor]) -> Tensor:
        x = features[3] if self.pyramid_pooling is None else self.pyramid_pooling(features[3])
        x = self.layer_decoder_list[3](x)
        for k in (2, 1, 0):
            x = self.layer_decoder_list[k](resize(x, features[k]) + features[k])
        return self.predictor(x)


class PyramidPooling(nn.Module):
    """PSPNet's block (https://arxiv.org/abs/1612.01105), each branch as wide as the map: (N, C, H, W) -> the same."""

    def __init__(self, width: int):
        super().__init__()
        self.branches = nn.ModuleList(nn.Sequential(AdaptiveAvgPool(b), NormedConv(width, width, 1)) for b in BINS)
        self.bottleneck = NormedConv((1 + len(BINS)) * width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.bottleneck(torch.cat([x, *(resize(branch(x), x) for branch in self.branches)], dim=1))


class NormedConv(nn.Conv2d):
    """Convolution without bias, batch norm, ReLU, with the norm's tensors under "norm"."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: int = 0,
        activation: bool = True,
    ):
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)
        self.activation = nn.ReLU() if activation else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.norm(super().forward(x)))


def separable(in_channels: int, out_channels: int, *, stride: int = 1, activation: bool = True) -> nn.Sequential:
    """3x3 depth-wise convolution, then a 1x1 one with batch norm and ReLU."""
    depthwise = nn.Conv2d(in_channels, in_channels, 3, stride, 1, groups=in_channels, bias=False)
    return nn.Sequential(depthwise, NormedConv(in_channels, out_channels, 1, activation=activation))
