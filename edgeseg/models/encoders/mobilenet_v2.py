"""MobileNetV2 at output stride 8, as segmentation networks use it.

Sandler, Howard, Zhu, Zhmoginov, Chen. CVPR 2018. https://arxiv.org/abs/1801.04381
Names are mmsegmentation's, which leaves out the last 1x1 convolution of the classifier.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from edgeseg.models.encoders import Encoder
from edgeseg.models.layers import ConvModule, initialise

# Paper, table 2: expansion, channels, blocks of each stage. Stages 1 - 7 are called layer1 - layer7.
STAGES = ((1, 16, 1), (6, 24, 2), (6, 32, 3), (6, 64, 4), (6, 96, 3), (6, 160, 3), (6, 320, 1))
OUTPUTS = (1, 2, 4, 6)  # stages counted from 0: strides 4, 8, 8 (16 undilated), 8 (32 undilated)


class MobileNetV2(Encoder):
    """(N, 3, H, W) -> four maps of 24, 32, 96 and 320 channels (times `width`) at strides 4, 8, 8, 8."""

    def __init__(
        self,
        width: float = 1.0,
        strides: Sequence[int] = (1, 2, 2, 1, 1, 1, 1),
        dilations: Sequence[int] = (1, 1, 1, 2, 2, 4, 4),
    ):
        """
        Args:
            width: the paper's width multiplier; channels are rounded to multiples of 8.
            strides: of each stage's first block. The stem has stride 2.
            dilations: of each stage's first block, as mmsegmentation has it; the others are not dilated.
        """
        super().__init__()
        channels = _rounded(32 * width)
        self.conv1 = ConvModule(3, channels, 3, stride=2, activation=nn.ReLU6)
        widths = []
        for i, (expansion, base, blocks) in enumerate(STAGES):
            in_channels, channels = channels, _rounded(base * width)
            layer = [InvertedResidual(in_channels, channels, expansion, strides[i], dilations[i])]
            layer += [InvertedResidual(channels, channels, expansion, 1, 1) for _ in range(blocks - 1)]
            self.add_module(f"layer{i + 1}", nn.Sequential(*layer))
            widths.append(channels)
        self.channels = tuple(widths[i] for i in OUTPUTS)
        self.apply(_initialise)

    def forward(self, images: Tensor) -> list[Tensor]:
        x = self.conv1(images)
        maps = []
        for i in range(len(STAGES)):
            x = self.get_submodule(f"layer{i + 1}")(x)
            if i in OUTPUTS:
                maps.append(x)
        return maps


class InvertedResidual(nn.Module):
    """Expand 1x1 (ReLU6), depth-wise 3x3 (ReLU6), project 1x1 (linear); a shortcut where the shapes agree."""

    def __init__(self, in_channels: int, out_channels: int, expansion: int, stride: int, dilation: int):
        super().__init__()
        inner = in_channels * expansion
        expand = [ConvModule(in_channels, inner, 1, activation=nn.ReLU6)] if expansion > 1 else []
        self.conv = nn.Sequential(
            *expand,
            ConvModule(inner, inner, 3, stride=stride, dilation=dilation, groups=inner, activation=nn.ReLU6),
            ConvModule(inner, out_channels, 1, activation=None),
        )
        self.shortcut = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.shortcut else self.conv(x)


def _rounded(channels: float) -> int:
    """To the nearest multiple of 8, and up where that would take more than a tenth away."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def _initialise(module: nn.Module) -> None:
    """He, and a quarter of it where a branch joins a shortcut, as in `edgeseg.models.encoders.resnet`."""
    initialise(module)
    if isinstance(module, InvertedResidual) and module.shortcut:
        nn.init.constant_(module.get_parameter(f"conv.{len(module.conv) - 1}.bn.weight"), 0.25)
