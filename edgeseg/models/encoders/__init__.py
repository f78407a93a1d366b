"""Backbones: images in, the maps of their stages out."""

from torch import Tensor, nn


class Encoder(nn.Module):
    """(N, 3, H, W) normalised images -> one map of each stage, the finest first."""

    channels: tuple[int, ...]
    """Of each map."""

    def forward(self, images: Tensor) -> list[Tensor]:
        raise NotImplementedError
