"""Very Deep Convolutional Networks for Large-Scale Image Recognition: VGG-16 without its classifier.

Simonyan, Zisserman. ICLR 2015. https://arxiv.org/abs/1409.1556

The networks of 2015 are VGG-16 with something behind it, and their published weights keep Caffe's flat names (conv1_1,
..., conv5_3, fc6). They therefore derive from this class instead of holding it. How a stage is pooled is theirs.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import relu

VGG16_WIDTHS = (64, 128, 256, 512, 512)
VGG16_DEPTHS = (2, 2, 3, 3, 3)  # convolutions of each stage; the paper's configuration D


class VGG(nn.Module):
    """Thirteen 3x3 convolutions in five stages, each followed by ReLU; with `batch_norm`, by batch norm and ReLU."""

    def __init__(
        self,
        widths: tuple[int, ...] = VGG16_WIDTHS,
        *,
        batch_norm: bool = False,
        first_padding: int = 1,
        last_dilation: int = 1,
    ):
        """`first_padding` is of conv1_1, `last_dilation` of the fifth stage. Width i is that of stage i + 1."""
        super().__init__()
        self.batch_norm = batch_norm
        channels = 3
        for stage, (width, depth) in enumerate(zip(widths, VGG16_DEPTHS, strict=True), 1):
            dilation = last_dilation if stage == len(widths) else 1
            for i in range(1, depth + 1):
                padding = first_padding if (stage, i) == (1, 1) else dilation
                self.add(f"conv{stage}_{i}", nn.Conv2d(channels, width, 3, padding=padding, dilation=dilation))
                channels = width

    def add(self, name: str, layer: nn.Conv2d | nn.ConvTranspose2d) -> None:
        """Makes `layer` the child `name`, with the batch norm `<name>_bn` where this network has them."""
        self.add_module(name, layer)
        if self.batch_norm:
            self.add_module(f"{name}_bn", nn.BatchNorm2d(layer.out_channels))

    def run(self, name: str, x: Tensor) -> Tensor:
        """The layer that `add` made, its batch norm if any, ReLU."""
        x = self.get_submodule(name)(x)
        return relu(self.get_submodule(f"{name}_bn")(x) if self.batch_norm else x)

    def stage(self, number: int, x: Tensor) -> Tensor:
        """The convolutions of stage 1 to 5; the size stays (but for `first_padding`)."""
        for i in range(1, VGG16_DEPTHS[number - 1] + 1):
            x = self.run(f"conv{number}_{i}", x)
        return x
