"""DeepLab: Semantic Image Segmentation with Deep Convolutional Nets, Atrous Convolution, and Fully Connected CRFs.

Chen, Papandreou, Kokkinos, Murphy, Yuille. TPAMI 2017. https://arxiv.org/abs/1606.00915

ResNet-101 at stride 8 (stages 4 and 5 have holes of 2 and 4 instead of strides) and atrous spatial pyramid pooling:
four 3x3 classifiers with holes of 6, 12, 18 and 24, summed. This is the Caffe ResNet: a 7x7 stem, strides in a
bottleneck's first 1x1 convolution, a pooling that rounds up. Names are those of kazuto1011/deeplab-pytorch, whose
checkpoints (converted from the authors', or trained on COCO-Stuff) load. The CRF behind it is `edgeseg.crf`; the
maximum over three scales, which the paper adds in testing, is no part of this network.

Parameters with 21 classes: 42 500 160 of ResNet-101 without its classifier, 1 548 372 of the four classifiers: 44.05 M.
A side of 8 k + 1 pixels, which the authors use (513), and one of 8 k both become k + 1.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import relu

from edgeseg.models.caffe import rgb_of_bgr
from edgeseg.models.layers import ConvModule, initialise

RESNET101_DEPTHS = (3, 4, 23, 3)
RATES = (6, 12, 18, 24)
EXPANSION = 4
DEEPLAB_PYTORCH = {"base.{rest}": "{rest}", "scale.{rest}": "{rest}"}  # its multi-scale wrapper, in older files too


class DeepLabV2(nn.Module):
    """(N, 3, H, W) normalised images -> logits (N, num_classes, h, w); h about H / 8 + 1."""

    def __init__(
        self,
        num_classes: int,
        *,
        width: int = 64,
        depths: tuple[int, int, int, int] = RESNET101_DEPTHS,
        rates: tuple[int, ...] = RATES,
    ):
        super().__init__()
        pool = nn.MaxPool2d(3, 2, 1, ceil_mode=True)
        self.layer1 = nn.Sequential()
        self.layer1.add_module("conv1", ConvModule(3, width, 7, stride=2))
        self.layer1.add_module("pool", pool)
        out = width * EXPANSION
        self.layer2 = residual_stage(depths[0], width, out, stride=1, dilation=1)
        self.layer3 = residual_stage(depths[1], out, 2 * out, stride=2, dilation=1)
        self.layer4 = residual_stage(depths[2], 2 * out, 4 * out, stride=1, dilation=2)
        self.layer5 = residual_stage(depths[3], 4 * out, 8 * out, stride=1, dilation=4)
        self.aspp = SummedASPP(8 * out, num_classes, rates)
        self.apply(initialise)

    def forward(self, images: Tensor) -> Tensor:
        x = self.layer3(self.layer2(self.layer1(images)))
        return self.aspp(self.layer5(self.layer4(x)))


def residual_stage(depth: int, in_channels: int, out_channels: int, *, stride: int, dilation: int) -> nn.Sequential:
    """`depth` bottlenecks; the first has the stride and a projection on its shortcut."""
    stage = nn.Sequential()
    stage.add_module("block1", Bottleneck(in_channels, out_channels, stride, dilation))
    for i in range(2, depth + 1):
        stage.add_module(f"block{i}", Bottleneck(out_channels, out_channels, 1, dilation, project=False))
    return stage


class Bottleneck(nn.Module):
    """1x1 with the stride, 3x3 with the holes, 1x1; added to the shortcut."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, dilation: int, *, project: bool = True):
        super().__init__()
        middle = out_channels // EXPANSION
        self.reduce = ConvModule(in_channels, middle, 1, stride=stride)
        self.conv3x3 = ConvModule(middle, middle, 3, dilation=dilation)
        self.increase = ConvModule(middle, out_channels, 1, activation=None)
        nn.init.constant_(self.increase.bn.weight, 0.25)  # 33 equal sums would overflow float16 untrained
        self.shortcut = (
            ConvModule(in_channels, out_channels, 1, stride=stride, activation=None) if project else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        return relu(self.increase(self.conv3x3(self.reduce(x))) + self.shortcut(x))


class SummedASPP(nn.Module):
    """3x3 convolutions c0, c1, ... with different holes on one map, summed."""

    def __init__(self, in_channels: int, out_channels: int, rates: tuple[int, ...]):
        super().__init__()
        for i, rate in enumerate(rates):
            self.add_module(f"c{i}", nn.Conv2d(in_channels, out_channels, 3, padding=rate, dilation=rate))

    def forward(self, x: Tensor) -> Tensor:
        first, *others = [branch(x) for branch in self.children()]
        for other in others:
            first = first + other
        return first


def deeplabv2_resnet101(num_classes: int) -> DeepLabV2:
    """The published widths, depths and rates."""
    return DeepLabV2(num_classes)


def adapt_deeplab_pytorch(name: str, tensor: Tensor) -> Tensor:
    """A tensor of a kazuto1011/deeplab-pytorch checkpoint as ours has it.

    It reads BGR images, we RGB: the first convolution's input channels are reversed. Images are to be normalised with
    `edgeseg.models.caffe.MEAN` and `STD`.
    """
    return rgb_of_bgr(tensor) if name.endswith("layer1.conv1.conv.weight") else tensor
