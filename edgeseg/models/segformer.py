"""SegFormer: Simple and Efficient Design for Semantic Segmentation with Transformers.

Xie, Wang, Yu, Anandkumar, Alvarez, Luo. NeurIPS 2021. https://arxiv.org/abs/2105.15203

Laid out as the paper's figure 2: a Mix Transformer encoder (four stages at strides 4, 8, 16, 32) and an all-MLP
decode head that ends at stride 4. Written from the paper; parameters and multiply-accumulates equal the published ones.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from edgeseg.models.segformer_config import (
    CONV_MODULE_WIDTH,
    EXPANSION,
    NUM_HEADS,
    PATCHES,
    REDUCTIONS,
    VARIANTS,
    MixTransformerConfig,
)

__all__ = ["VARIANTS", "ConvModuleHead", "MixTransformerConfig", "NormEps", "SegFormer", "SegFormerHead", "upsample"]


@dataclass(frozen=True)
class NormEps:
    """LayerNorm epsilons. Published checkpoints were trained under different ones, and the source decides which."""

    block: float = 1e-6  # the two norms of a block, and the norm that ends a stage
    embed: float = 1e-5  # the norm after a patch embedding, and the one after the spatial reduction


class SegFormer(nn.Module):
    """(N, 3, H, W) normalised images -> (N, num_classes, H / 4, W / 4) logits. Any H and W from 29
    (rounded up at each stride)."""

    def __init__(
        self,
        config: MixTransformerConfig,
        num_classes: int,
        norm_eps: NormEps = NormEps(),
        head: "type[SegFormerHead] | type[ConvModuleHead] | None" = None,
    ):
        super().__init__()
        self.encoder = MixTransformer(config, norm_eps)
        self.decode_head = (head or SegFormerHead)(config, num_classes)
        self.apply(_initialise)

    def forward(self, images: Tensor) -> Tensor:
        return self.decode_head(self.encoder(images))


class MixTransformer(nn.Module):
    """(N, 3, H, W) -> four maps (N, C_i, H / s_i, W / s_i), s = 4, 8, 16, 32."""

    def __init__(self, config: MixTransformerConfig, norm_eps: NormEps):
        super().__init__()
        in_widths = (3, *config.widths[:-1])
        self.stages = nn.ModuleList(
            Stage(in_widths[i], config.widths[i], config.depths[i], NUM_HEADS[i], REDUCTIONS[i], PATCHES[i], norm_eps)
            for i in range(4)
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        features = []
        x = images
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features


class Stage(nn.Module):
    """Overlapped patch embedding, then transformer blocks on its tokens, then a norm: map in, map out."""

    def __init__(
        self,
        in_width: int,
        width: int,
        depth: int,
        num_heads: int,
        reduction: int,
        patch: tuple[int, int],
        norm_eps: NormEps,
    ):
        super().__init__()
        self.patch_embed = PatchEmbed(in_width, width, *patch, norm_eps.embed)
        self.blocks = nn.ModuleList(Block(width, num_heads, reduction, norm_eps) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=norm_eps.block)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed.proj(x)
        height, width = x.shape[-2:]
        tokens = self.patch_embed.norm(tokens_from_map(x))
        for block in self.blocks:
            tokens = block(tokens, height, width)
        return map_from_tokens(self.norm(tokens), height, width)


class PatchEmbed(nn.Module):
    """The paper's overlapped patch merging: a strided convolution whose kernel is larger than its stride."""

    def __init__(self, in_width: int, width: int, kernel_size: int, stride: int, eps: float):
        super().__init__()
        self.proj = nn.Conv2d(in_width, width, kernel_size, stride, padding=kernel_size // 2)
        self.norm = nn.LayerNorm(width, eps=eps)


class Block(nn.Module):
    """Pre-norm transformer block: efficient self-attention, then Mix-FFN."""

    def __init__(self, width: int, num_heads: int, reduction: int, norm_eps: NormEps):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=norm_eps.block)
        self.attention = EfficientSelfAttention(width, num_heads, reduction, norm_eps.embed)
        self.norm2 = nn.LayerNorm(width, eps=norm_eps.block)
        self.ffn = MixFFN(width, EXPANSION * width)

    def forward(self, tokens: Tensor, height: int, width: int) -> Tensor:
        tokens = tokens + self.attention(self.norm1(tokens), height, width)
        return tokens + self.ffn(self.norm2(tokens), height, width)


class EfficientSelfAttention(nn.Module):
    """softmax(q k^T / sqrt(d)) v with keys and values taken from a map reduced R-fold in each direction."""

    def __init__(self, width: int, num_heads: int, reduction: int, eps: float):
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.reduce = nn.Conv2d(width, width, reduction, reduction) if reduction > 1 else None
        self.norm = nn.LayerNorm(width, eps=eps) if reduction > 1 else None

    def forward(self, tokens: Tensor, height: int, width: int) -> Tensor:
        context = tokens
        if self.reduce is not None and self.norm is not None:
            context = self.norm(tokens_from_map(self.reduce(map_from_tokens(tokens, height, width))))
        q = self._split_heads(self.query(tokens))
        k = self._split_heads(self.key(context))
        v = self._split_heads(self.value(context))
        weights = torch.softmax(q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5, dim=-1)
        return self.out((weights @ v).transpose(1, 2).flatten(2))

    def _split_heads(self, x: Tensor) -> Tensor:
        """(N, L, C) -> (N, heads, L, C / heads)."""
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


class MixFFN(nn.Module):
    """Linear, 3x3 depth-wise convolution (it carries the position), GELU, Linear: paper, equation 3."""

    def __init__(self, width: int, hidden_width: int):
        super().__init__()
        self.expand = nn.Linear(width, hidden_width)
        self.depthwise = nn.Conv2d(hidden_width, hidden_width, 3, padding=1, groups=hidden_width)
        self.activation = nn.GELU()
        self.project = nn.Linear(hidden_width, width)

    def forward(self, tokens: Tensor, height: int, width: int) -> Tensor:
        x = map_from_tokens(self.expand(tokens), height, width)
        return self.project(self.activation(tokens_from_map(self.depthwise(x))))


class SegFormerHead(nn.Module):
    """The all-MLP decoder: project each stage, upsample to stride 4, concatenate deepest first, fuse, classify."""

    def __init__(self, config: MixTransformerConfig, num_classes: int):
        super().__init__()
        width = config.decoder_width
        self.projections = nn.ModuleList(nn.Linear(stage_width, width) for stage_width in config.widths)
        self.fuse = nn.Conv2d(4 * width, width, 1, bias=False)
        self.fuse_norm = nn.BatchNorm2d(width)
        self.dropout = nn.Dropout2d(0.1)
        self.classifier = nn.Conv2d(width, num_classes, 1)

    def forward(self, features: list[Tensor]) -> Tensor:
        size = features[0].shape[-2:]
        maps = []
        for feature, projection in zip(features, self.projections, strict=True):
            projected = map_from_tokens(projection(tokens_from_map(feature)), *feature.shape[-2:])
            maps.append(upsample(projected, size))
        fused = torch.relu(self.fuse_norm(self.fuse(torch.cat(maps[::-1], dim=1))))
        return self.classifier(self.dropout(fused))


class ConvModuleHead(nn.Module):
    """The decoder of mmsegmentation's SegFormer, which is another network: 1x1 convolution + BN + ReLU for each stage,
    256 wide for every encoder, concatenated shallowest first."""

    def __init__(self, config: MixTransformerConfig, num_classes: int):
        super().__init__()
        self.projections = nn.ModuleList(ConvModule(stage_width, CONV_MODULE_WIDTH) for stage_width in config.widths)
        self.fuse = ConvModule(4 * CONV_MODULE_WIDTH, CONV_MODULE_WIDTH)
        self.dropout = nn.Dropout2d(0.1)
        self.classifier = nn.Conv2d(CONV_MODULE_WIDTH, num_classes, 1)

    def forward(self, features: list[Tensor]) -> Tensor:
        size = features[0].shape[-2:]
        maps = [upsample(project(x), size) for project, x in zip(self.projections, features, strict=True)]
        return self.classifier(self.dropout(self.fuse(torch.cat(maps, dim=1))))


class ConvModule(nn.Sequential):
    """1x1 convolution without bias, batch norm, ReLU."""

    def __init__(self, in_width: int, width: int):
        super().__init__()
        self.conv = nn.Conv2d(in_width, width, 1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.activation = nn.ReLU()


def tokens_from_map(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, H W, C)."""
    return x.flatten(2).transpose(1, 2)


def map_from_tokens(tokens: Tensor, height: int, width: int) -> Tensor:
    """(N, H W, C) -> (N, C, H, W)."""
    return tokens.transpose(1, 2).unflatten(2, (height, width))


def upsample(x: Tensor, size: torch.Size) -> Tensor:
    """Bilinear, half-pixel centres; the identity where the size is already right."""
    return x if x.shape[-2:] == size else interpolate(x, size=size, mode="bilinear", align_corners=False)


def _initialise(module: nn.Module) -> None:
    """Truncated normal for Linear, He (fan-out) for Conv2d, as the paper's training starts."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d):
        fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=(2.0 / fan_out) ** 0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
