"""Wider or Deeper: Revisiting the ResNet Model for Visual Recognition (the network with 38 convolutions in depth).

Wu, Shen, van den Hengel. Pattern Recognition 2019. https://arxiv.org/abs/1611.10080

The dilated variant with output stride 8 that GSCNN stands on, with the names of its published checkpoint.
"""

from collections.abc import Sequence

from torch import Tensor, nn

BLOCKS = (3, 3, 6, 3, 1, 1)  # of the modules 2 to 7
WIDTHS = ((128, 128), (256, 256), (512, 512), (512, 1024), (512, 1024, 2048), (1024, 2048, 4096))
STRIDES = (1, 1, 2, 1, 1, 1)  # of a module's first block; modules 2 and 3 begin with a pooling of stride 2
DILATIONS = (1, 1, 1, 2, 4, 4)


class WideResNet38(nn.Module):
    """(N, 3, H, W) -> the maps of the modules 1 to 7, at strides 1, 2, 4, 8, 8, 8, 8 (rounded up at each).

    Args:
        stem_width: channels of module 1.
        widths: for each module from 2 to 7 the channels of a block's convolutions: two 3x3, or three as a bottleneck.
        blocks: residual blocks of each of those modules.
    """

    def __init__(
        self, stem_width: int = 64, widths: Sequence[tuple[int, ...]] = WIDTHS, blocks: Sequence[int] = BLOCKS
    ):
        super().__init__()
        self.mod1 = nn.Sequential()
        self.mod1.add_module("conv1", nn.Conv2d(3, stem_width, 3, padding=1, bias=False))
        in_channels = stem_width
        for index, (channels, depth) in enumerate(zip(widths, blocks, strict=True)):
            module = nn.Sequential()
            for i in range(depth):
                stride = STRIDES[index] if i == 0 else 1
                module.add_module(f"block{i + 1}", Block(in_channels, channels, stride, DILATIONS[index]))
                in_channels = channels[-1]
            self.add_module(f"mod{index + 2}", module)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)

    def forward(self, images: Tensor) -> list[Tensor]:
        features = [self.mod1(images)]
        for number in range(2, 8):
            x = self.pool(features[-1]) if number < 4 else features[-1]
            features.append(self.get_submodule(f"mod{number}")(x))
        return features


class Block(nn.Module):
    """Pre-activation residual block: norm, ReLU, then convolutions with norm and ReLU between them."""

    def __init__(self, in_channels: int, channels: tuple[int, ...], stride: int, dilation: int):
        super().__init__()
        kernels = (3, 3) if len(channels) == 2 else (1, 3, 1)
        self.bn1 = norm_relu(in_channels)
        self.convs = nn.Sequential()
        width = in_channels
        for i, (kernel, out_channels) in enumerate(zip(kernels, channels, strict=True)):
            spread = dilation if kernel == 3 else 1
            first_stride = stride if i == 0 else 1
            conv = nn.Conv2d(width, out_channels, kernel, first_stride, spread * (kernel // 2), spread, bias=False)
            if i > 0:
                self.convs.add_module(f"bn{i + 1}", norm_relu(width))
            self.convs.add_module(f"conv{i + 1}", conv)
            width = out_channels
        # where the shape changes, the shortcut starts behind the first norm
        projects = stride != 1 or in_channels != width
        self.proj_conv = nn.Conv2d(in_channels, width, 1, stride, bias=False) if projects else None

    def forward(self, x: Tensor) -> Tensor:
        activated = self.bn1(x)
        shortcut = x if self.proj_conv is None else self.proj_conv(activated)
        return self.convs(activated) + shortcut


def norm_relu(channels: int) -> nn.Sequential:
    """Batch norm and ReLU, the norm under the name "0"."""
    return nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU())
