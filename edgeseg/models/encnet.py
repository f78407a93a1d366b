"""EncNet: what the whole scene holds, as residuals to learned code words, decides which channels count.

Zhang et al., "Context Encoding for Semantic Segmentation". CVPR 2018. https://arxiv.org/abs/1803.08904
Modules are called as in mmsegmentation, whose checkpoints load. The semantic encoding loss's layer is not built.
"""

import torch
from torch import Tensor, nn

from edgeseg.models.encoders import Encoder
from edgeseg.models.encoders.resnet import DEPTHS, ResNet
from edgeseg.models.layers import ConvModule, initialise


class EncNet(nn.Module):
    """(N, 3, H, W) -> logits (N, num_classes, h, w) at the size of the backbone's last map.

    Args:
        backbone: its last map goes in.
        channels: of the head.
        num_codes: code words.
    """

    def __init__(self, backbone: Encoder, num_classes: int, channels: int = 512, num_codes: int = 32):
        super().__init__()
        self.backbone = backbone
        self.decode_head = EncHead(backbone.channels[-1], channels, num_codes, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.decode_head(self.backbone(images)[-1])


class EncHead(nn.Module):
    """Bottleneck, channel attention from the encoded context, classifier."""

    def __init__(self, in_channels: int, channels: int, num_codes: int, num_classes: int):
        super().__init__()
        self.bottleneck = ConvModule(in_channels, channels, 3)
        self.enc_module = ContextEncoding(channels, num_codes)
        self.conv_seg = nn.Conv2d(channels, num_classes, 1)
        self.apply(initialise)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_seg(self.enc_module(self.bottleneck(x)))


class ContextEncoding(nn.Module):
    """x -> relu(x + x * gate), one gate a channel from the mean of the encoded code words: paper, figure 2."""

    def __init__(self, channels: int, num_codes: int):
        super().__init__()
        self.encoding_project = ConvModule(channels, channels, 1)
        self.encoding = nn.Sequential(Encoding(channels, num_codes), nn.BatchNorm1d(num_codes), nn.ReLU())
        self.fc = nn.Sequential(nn.Linear(channels, channels), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        context = self.encoding(self.encoding_project(x)).mean(dim=1)
        return torch.relu(x + x * self.fc(context)[:, :, None, None])


class Encoding(nn.Module):
    """(N, C, h, w) -> (N, K, C): e_k = sum_i a_ik (x_i - c_k), a_i = softmax_k(s_k |x_i - c_k|^2). Paper, equation 1.

    The residuals of all pixels to all code words, (N, hw, K, C), would be 256 MiB for an image of 512x512. Two matrix
    products do the same: |x - c|^2 = |x|^2 - 2 x.c + |c|^2, and e_k = (sum_i a_ik x_i) - (sum_i a_ik) c_k.
    The published network has no product here, so the published operation counts leave these two out.
    """

    published_macs = 0  # read by edgeseg.counting

    def __init__(self, channels: int, num_codes: int):
        super().__init__()
        self.codewords = nn.Parameter(torch.empty(num_codes, channels).uniform_(-1, 1) * (num_codes * channels) ** -0.5)
        self.scale = nn.Parameter(torch.empty(num_codes).uniform_(-1, 0))

    def forward(self, x: Tensor) -> Tensor:
        pixels = x.flatten(2).transpose(1, 2)  # (N, hw, C)
        codes = self.codewords
        squares = pixels.square().sum(2, keepdim=True) + codes.square().sum(1)
        weights = torch.softmax(self.scale * (squares - 2 * (pixels @ codes.t())), dim=2)  # (N, hw, K)
        return weights.transpose(1, 2) @ pixels - weights.sum(1).unsqueeze(2) * codes


def encnet_resnet50(num_classes: int) -> EncNet:
    return EncNet(ResNet(DEPTHS[50]), num_classes)


def encnet_resnet101(num_classes: int) -> EncNet:
    """As published: 55.05 M parameters with 150 classes, those of the two losses of training included."""
    return EncNet(ResNet(DEPTHS[101]), num_classes)
