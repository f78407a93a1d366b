"""An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale.

Dosovitskiy, Beyer, Kolesnikov, Weissenborn, Zhai, et al. ICLR 2021. https://arxiv.org/abs/2010.11929

Names and epsilons are mmsegmentation's, whose SETR checkpoints fit. There is no final norm: each head brings its own.
The patch embedding has no bias in mmsegmentation 1.2.2's configurations and had one in the release that its checkpoints
were trained with; here it exists once a checkpoint brings it.
"""

from __future__ import annotations

from math import isqrt
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, linear, pad

NORM_EPS = 1e-6
VIT_LARGE = {"width": 1024, "depth": 24, "num_heads": 16}


class VisionTransformer(nn.Module):
    """(N, 3, H, W) -> one map (N, width, ceil(H / patch_size), ceil(W / patch_size)) for each of `out_indices`.

    Args:
        grid: (rows, columns) of the learned position embedding: the training crop over the patch size. For an image
            with another grid it is resized bilinearly (half-pixel centres). A checkpoint brings its own square grid.
        width: channels, a multiple of `num_heads`.
        depth: number of transformer layers.
        out_indices: the layers, counted from 0, whose outputs are returned, in ascending order.
        attend_class_token: False drops the class token after the position embedding, as SETR-MLA does; the
            parameter stays, because its checkpoints have it.
    """

    def __init__(
        self,
        grid: tuple[int, int] = (32, 32),
        *,
        width: int = 1024,
        depth: int = 24,
        num_heads: int = 16,
        patch_size: int = 16,
        out_indices: tuple[int, ...] = (23,),
        attend_class_token: bool = True,
    ):
        super().__init__()
        self.grid = grid
        self.patch_size = patch_size
        self.out_indices = out_indices
        self.attend_class_token = attend_class_token
        self.patch_embed = nn.ModuleDict({"projection": nn.Conv2d(3, width, patch_size, patch_size, bias=False)})
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + grid[0] * grid[1], width))
        self.layers = nn.ModuleList(TransformerLayer(width, num_heads) for _ in range(depth))
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def forward(self, images: Tensor) -> list[Tensor]:
        height, width = images.shape[-2:]
        images = pad(images, (0, -width % self.patch_size, 0, -height % self.patch_size))
        patches = self.patch_embed["projection"](images)
        rows, columns = patches.shape[-2:]
        tokens = patches.flatten(2).transpose(1, 2) + self._positions(rows, columns)
        if self.attend_class_token:
            class_token = (self.cls_token + self.pos_embed[:, :1]).expand(len(tokens), -1, -1)
            tokens = torch.cat([class_token, tokens], dim=1)
        features = []
        for index, layer in enumerate(self.layers):
            tokens = layer(tokens)
            if index in self.out_indices:
                of_patches = tokens[:, 1:] if self.attend_class_token else tokens
                features.append(of_patches.transpose(1, 2).unflatten(2, (rows, columns)))
        return features

    def _positions(self, rows: int, columns: int) -> Tensor:
        """(1, rows * columns, width). mmsegmentation resizes where the *number* of patches differs; here it is the
        grid, so that a 16x64 grid does not get a 32x32 one read row by row."""
        positions = self.pos_embed[:, 1:]
        if (rows, columns) == self.grid:
            return positions
        grid = positions.transpose(1, 2).unflatten(2, self.grid)
        resized = interpolate(grid, size=(rows, columns), mode="bilinear", align_corners=False)
        return resized.flatten(2).transpose(1, 2)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Takes over what checkpoints differ in: the grid (32x32 for crops of 512x512, 48x48 for 768x768), the bias."""
        projection = self.patch_embed["projection"]
        if projection.bias is None and f"{prefix}patch_embed.projection.bias" in state_dict:
            projection.bias = nn.Parameter(projection.weight.new_zeros(projection.out_channels))
        given = state_dict.get(f"{prefix}pos_embed")
        if given is not None and given.ndim == 3 and given.shape != self.pos_embed.shape:
            side = isqrt(given.shape[1] - 1)
            if side**2 == given.shape[1] - 1 and given.shape[2] == self.pos_embed.shape[2]:
                self.grid = (side, side)
                self.pos_embed = nn.Parameter(self.pos_embed.new_empty(given.shape))
        super()._load_from_state_dict(state_dict, prefix, *args)


class TransformerLayer(nn.Module):
    """Pre-norm: x + attention(norm(x)), then x + mlp(norm(x)), the hidden layer four times as wide."""

    def __init__(self, width: int, num_heads: int):
        super().__init__()
        self.ln1 = nn.LayerNorm(width, eps=NORM_EPS)
        self.attn = nn.ModuleDict({"attn": SelfAttention(width, num_heads)})
        self.ln2 = nn.LayerNorm(width, eps=NORM_EPS)
        hidden = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU())
        self.ffn = nn.ModuleDict({"layers": nn.Sequential(hidden, nn.Linear(4 * width, width))})

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attn["attn"](self.ln1(tokens))
        return tokens + self.ffn["layers"](self.ln2(tokens))


class SelfAttention(nn.Module):
    """softmax(q k^T / sqrt(d)) v with parameters named as in `torch.nn.MultiheadAttention`, whose result it equals."""

    def __init__(self, width: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def forward(self, tokens: Tensor) -> Tensor:
        projected = linear(tokens, self.in_proj_weight, self.in_proj_bias)
        q, k, v = (x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for x in projected.chunk(3, dim=-1))
        weights = torch.softmax((q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1), dim=-1)
        return self.out_proj((weights @ v).transpose(1, 2).flatten(2))
