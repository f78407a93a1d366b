"""Axial-ResNet, the encoder of Axial-DeepLab: Stand-Alone Axial-Attention for Panoptic Segmentation.

Wang, Zhu, Green, Adam, Yuille, Chen. ECCV 2020. https://arxiv.org/abs/2003.07853

A ResNet-50 whose 3x3 convolutions are two position-sensitive attentions (the paper's equation 4), one along each column
and one along each row. Names and layout are those of the authors' PyTorch code, but for its 7x7 stem, in whose place
stands DeepLab's of three 3x3 convolutions; its attention is global, which is a span of 2 n - 1 here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, pad

from edgeseg.models.layers import ConvModule

LAYERS = (3, 4, 6, 3)
STRIDES = (1, 2, 2, 1)  # output stride 16, as in the paper's segmentation networks
HEADS = 8
SPAN = 65  # positions that a query sees: 32 to either side
BLOCK = 32  # queries that share one window of keys
FAR = -1e4  # added to the similarity with a position out of sight: softmax makes it 0, and float16 holds it


class AxialResNet(nn.Module):
    """(N, 3, H, W) -> four maps at strides 4, 8, 16, 16 (rounded up), `width` times 4, 8, 16, 32 wide.

    Args:
        width: 64 for the paper's L, 128 for XL; a multiple of 8 (there are 8 heads).
        layers: residual blocks of the four stages.
        span: odd; how many positions of its row or column a pixel attends to.
    """

    def __init__(self, width: int = 64, layers: Sequence[int] = LAYERS, span: int = SPAN):
        super().__init__()
        self.stem = nn.Sequential(
            ConvModule(3, width, 3, stride=2), ConvModule(width, width, 3), ConvModule(width, 2 * width, 3)
        )
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        in_channels = 2 * width
        for i, depth in enumerate(layers):
            planes = 2 * width * 2**i
            blocks = [AxialBlock(in_channels, planes, STRIDES[i], span)]
            blocks += [AxialBlock(2 * planes, planes, 1, span) for _ in range(depth - 1)]
            self.add_module(f"layer{i + 1}", nn.Sequential(*blocks))
            in_channels = 2 * planes
            for block in blocks:  # without training, the branches of all blocks together add what the first map holds
                nn.init.constant_(block.bn2.weight, sum(layers) ** -0.5)

    def forward(self, images: Tensor) -> list[Tensor]:
        x = self.maxpool(self.stem(images))
        features = []
        for i in range(4):
            x = self.get_submodule(f"layer{i + 1}")(x)
            features.append(x)
        return features


class AxialBlock(nn.Module):
    """Residual block: 1x1 convolution, attention along columns, then along rows (and halving), 1x1 convolution."""

    def __init__(self, in_channels: int, planes: int, stride: int, span: int):
        super().__init__()
        self.stride = stride
        self.conv_down = nn.Conv2d(in_channels, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.hight_block = AxialAttention(planes, span, along_rows=False)  # so spelt in the published names
        self.width_block = AxialAttention(planes, span, along_rows=True)
        self.conv_up = nn.Conv2d(planes, 2 * planes, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(2 * planes)
        reshapes = stride != 1 or in_channels != 2 * planes
        self.downsample = (
            nn.Sequential(nn.Conv2d(in_channels, 2 * planes, 1, stride, bias=False), nn.BatchNorm2d(2 * planes))
            if reshapes
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn1(self.conv_down(x)))
        y = self.width_block(self.hight_block(y))
        if self.stride == 2:
            y = _halve(y)
        y = self.bn2(self.conv_up(torch.relu(y)))
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


class AxialAttention(nn.Module):
    """Position-sensitive attention of each pixel to `span` pixels of its row or column: (N, C, H, W) -> the same.

    With a query q_i, key k_j and value v_j of a head, and an embedding r of the offset j - i for each of them:
    softmax_j(q_i k_j + q_i r^q_(j-i) + k_j r^k_(j-i)) weighs v_j + r^v_(j-i). A batch norm stands on each of the three
    terms (an affine map for each head, whose shift softmax cancels) and on each of the two sums. The maps are those of
    the running statistics: this layer is for inference, and for fine-tuning with frozen norms.
    """

    def __init__(self, channels: int, span: int, *, along_rows: bool):
        super().__init__()
        self.along_rows = along_rows
        self.span = span
        self.depth = channels // HEADS  # of a value; keys and queries are half as deep
        self.qkv_transform = nn.Conv2d(channels, 2 * channels, 1, bias=False)
        self.bn_qkv = nn.BatchNorm2d(2 * channels)
        self.bn_similarity = nn.BatchNorm2d(3 * HEADS)
        nn.init.constant_(self.bn_similarity.weight, self.depth**-0.5)  # as of a dot product, until it is trained
        self.bn_output = nn.BatchNorm1d(2 * channels)
        self.relative = nn.Parameter(torch.randn(2 * self.depth, span) * self.depth**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.bn_qkv(self.qkv_transform(x)).unflatten(1, (HEADS, 2 * self.depth))
        qkv = qkv.permute(0, 3, 1, 4, 2) if self.along_rows else qkv.permute(0, 4, 1, 3, 2)
        y = self._attend(qkv.flatten(0, 1)).unflatten(0, (-1, qkv.shape[1]))  # (N, lines, heads, positions, depth)
        y = y.permute(0, 2, 4, 1, 3) if self.along_rows else y.permute(0, 2, 4, 3, 1)
        return y.flatten(1, 2)

    def _attend(self, qkv: Tensor) -> Tensor:
        """(lines, heads, positions, 2 depth) -> (lines, heads, positions, depth).

        BLOCK queries share a window of keys, the positions that any of them sees. Offsets are counted from 0 for the
        farthest position before a query; positions of the line are counted from `radius` zeros in front of it.
        """
        length, half, radius, span = qkv.shape[2], self.depth // 2, self.span // 2, self.span
        block = min(BLOCK, length)
        blocks, window = -(-length // block), block + 2 * radius
        padded = pad(qkv, (0, 0, radius, blocks * block - length + radius))
        queries = padded[:, :, radius : radius + blocks * block, :half].unflatten(2, (blocks, block))
        all_keys, all_values = padded[..., half : 2 * half], padded[..., 2 * half :]
        scale, output_scale, output_shift = self._affine_maps()
        query_table, key_table, value_table = self.relative.split((half, half, self.depth))  # (depth, offsets)

        number = torch.arange(blocks, device=qkv.device).reshape(-1, 1, 1)
        query = torch.arange(block, device=qkv.device).reshape(-1, 1)
        key = torch.arange(window, device=qkv.device)
        offset = torch.arange(span, device=qkv.device)
        position, distance = number * block + key, key - query  # of a window's key: in the line, from a query
        hidden = (distance < 0) | (distance >= span) | (position < radius) | (position >= radius + length)
        distance = distance.clamp(0, span - 1)

        windows = position.flatten()
        keys = all_keys.index_select(2, windows).unflatten(2, (blocks, window))
        values = (all_values * output_scale[0]).index_select(2, windows)
        content = (queries * scale[0]) @ keys.transpose(-2, -1)
        by_query = (queries * scale[1]) @ query_table.flip(1)  # (lines, heads, blocks, block, offsets)
        by_query = _pick(by_query, query * span + distance)
        by_key = (all_keys * scale[2].squeeze(1)) @ key_table  # (lines, heads, positions, offsets)
        by_key = _pick(by_key, position * span + distance)
        similarity = content + by_query + by_key + FAR * hidden.to(qkv.dtype)
        weights = torch.softmax(similarity, dim=-1)
        by_offset = _pick(weights, query * window + query + offset) @ value_table.flip(1).T
        attended = weights @ values.unflatten(2, (blocks, window)) + by_offset * output_scale[1].unsqueeze(1)
        return attended.flatten(2, 3)[:, :, :length] + output_shift

    def _affine_maps(self) -> tuple[Tensor, Tensor, Tensor]:
        """Of the norms: scales (3, heads, 1, 1, 1), scales (2, heads, 1, depth) and the shift (heads, 1, depth)."""
        norms: Any = (self.bn_similarity, self.bn_output)
        scales = [norm.weight * torch.rsqrt(norm.running_var + norm.eps) for norm in norms]
        shift = self.bn_output.bias - self.bn_output.running_mean * scales[1]  # type: ignore[operator]
        shift = shift.reshape(HEADS, 1, self.depth, 2).sum(-1)
        by_term = scales[1].reshape(HEADS, 1, self.depth, 2).permute(3, 0, 1, 2)
        return scales[0].reshape(3, HEADS, 1, 1, 1), by_term, shift


def _pick(x: Tensor, index: Tensor) -> Tensor:
    """Elements of the last two dimensions of `x`, taken as one, in the shape of `index`."""
    return x.flatten(-2).index_select(-1, index.flatten()).unflatten(-1, tuple(index.shape))


def _halve(x: Tensor) -> Tensor:
    """Means of 2x2 pixels; at an odd border of those that are there."""
    for axis in (2, 3):
        if x.shape[axis] % 2:
            x = torch.cat([x, x.narrow(axis, x.shape[axis] - 1, 1)], dim=axis)
    return avg_pool2d(x, 2)
