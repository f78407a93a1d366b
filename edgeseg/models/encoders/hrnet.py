"""HRNetV2: branches at strides 4, 8, 16 and 32 side by side, exchanging what they see after every module.

Wang et al., "Deep High-Resolution Representation Learning for Visual Recognition", 2019.
https://arxiv.org/abs/1908.07919
"""

from collections.abc import Sequence

from torch import Tensor, nn

from edgeseg.models.encoders import Encoder
from edgeseg.models.encoders.resnet import Bottleneck
from edgeseg.models.layers import initialise, resize

W18 = (18, 36, 72, 144)
W48 = (48, 96, 192, 384)


class HRNet(Encoder):
    """(N, 3, H, W) -> four maps (N, channels[i], ceil(H / s), ceil(W / s)), s = 4, 8, 16, 32.

    Args:
        channels: of the four branches; W48 or W18 as published.
        modules: exchange modules in the stages with two, three and four branches.
        depth: residual blocks of each branch of each module, and bottlenecks of the first stage.
        stem_width: channels of the stem; the first stage ends at four times that.
    """

    def __init__(
        self,
        channels: Sequence[int] = W48,
        modules: tuple[int, int, int] = (1, 4, 3),
        depth: int = 4,
        stem_width: int = 64,
    ):
        super().__init__()
        self.channels = widths = tuple(channels)
        self.conv1 = nn.Conv2d(3, stem_width, 3, 2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem_width)
        self.conv2 = nn.Conv2d(stem_width, stem_width, 3, 2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(stem_width)
        self.relu = nn.ReLU()
        first = 4 * stem_width
        self.layer1 = nn.Sequential(
            Bottleneck(stem_width, stem_width, 1, 1, shortcut=True),
            *(Bottleneck(first, stem_width, 1, 1) for _ in range(depth - 1)),
        )
        self.transition1 = nn.ModuleList([_conv_bn_relu(first, widths[0]), _down(first, widths[1])])
        self.stage2 = nn.Sequential(*(ExchangeModule(widths[:2], depth) for _ in range(modules[0])))
        self.transition2 = nn.ModuleList([nn.Identity(), nn.Identity(), _down(widths[1], widths[2])])
        self.stage3 = nn.Sequential(*(ExchangeModule(widths[:3], depth) for _ in range(modules[1])))
        self.transition3 = nn.ModuleList([nn.Identity()] * 3 + [_down(widths[2], widths[3])])
        self.stage4 = nn.Sequential(*(ExchangeModule(widths, depth) for _ in range(modules[2])))
        self.apply(_initialise)

    def forward(self, images: Tensor) -> list[Tensor]:
        x = self.relu(self.bn1(self.conv1(images)))
        x = self.relu(self.bn2(self.conv2(x)))
        maps = [self.layer1(x)] * 2
        for transition, stage in (
            (self.transition1, self.stage2),
            (self.transition2, self.stage3),
            (self.transition3, self.stage4),
        ):
            maps += [maps[-1]] * (len(transition) - len(maps))  # a new branch starts from the deepest one
            maps = stage([start(x) for start, x in zip(transition, maps, strict=True)])
        return maps


class ExchangeModule(nn.Module):
    """Residual blocks on every branch, then each branch becomes the sum of all, brought to its width and size."""

    def __init__(self, widths: Sequence[int], depth: int):
        super().__init__()
        self.branches = nn.ModuleList(nn.Sequential(*(BasicBlock(width) for _ in range(depth))) for width in widths)
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(_exchange(widths, source, target) for source in range(len(widths)))
            for target in range(len(widths))
        )
        self.relu = nn.ReLU()

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        maps = [branch(x) for branch, x in zip(self.branches, maps, strict=True)]
        fused = []
        for target, own in enumerate(maps):
            layers = self.fuse_layers.get_submodule(str(target)).children()
            terms = [resize(layer(x), own) for layer, x in zip(layers, maps, strict=True)]
            fused.append(self.relu(sum(terms[1:], terms[0])))
        return fused


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a skip: He et al., 2016, figure 5 left."""

    def __init__(self, width: int):
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)) + x)


def _initialise(module: nn.Module) -> None:
    """He, and a quarter of it in what joins a sum: untrained, the many sums would outgrow float16."""
    initialise(module)
    if isinstance(module, Bottleneck):
        nn.init.constant_(module.bn3.weight, 0.25)
    elif isinstance(module, BasicBlock):
        nn.init.constant_(module.bn2.weight, 0.25)
    elif isinstance(module, ExchangeModule):
        for part in module.fuse_layers.modules():
            if isinstance(part, nn.BatchNorm2d):
                nn.init.constant_(part.weight, 0.25)


def _exchange(widths: Sequence[int], source: int, target: int) -> nn.Module:
    """From one branch to another: 1x1 and upsampling, nothing, or one strided 3x3 a halving.

    As published, the upsampling is by a whole factor; `ExchangeModule` resizes what an odd size leaves over.
    """
    if source == target:
        return nn.Identity()
    if source > target:
        grow = nn.Upsample(scale_factor=2 ** (source - target), mode="bilinear", align_corners=False)
        return _conv_bn(widths[source], widths[target], 1).append(grow)
    halvings = target - source - 1  # before the last, which changes the width and has no ReLU
    return nn.Sequential(
        *(_conv_bn_relu(widths[source], widths[source], stride=2) for _ in range(halvings)),
        _conv_bn(widths[source], widths[target], 3, stride=2),
    )


def _down(width: int, out_width: int) -> nn.Sequential:
    return nn.Sequential(_conv_bn_relu(width, out_width, stride=2))


def _conv_bn(width: int, out_width: int, kernel_size: int, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(width, out_width, kernel_size, stride, padding=kernel_size // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_width))


def _conv_bn_relu(width: int, out_width: int, stride: int = 1) -> nn.Sequential:
    return _conv_bn(width, out_width, 3, stride).append(nn.ReLU())
