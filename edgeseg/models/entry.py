"""What every network of the registry answers: its name, its published sizes, how to build it and what it costs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if (
    TYPE_CHECKING
):  # names, sizes and counts are asked for by `edgeseg models` and by shell completion: no torch for those
    from torch import nn

MAX_CLASSES = 255  # labels are uint8, and 255 means "ignored"


@dataclass(frozen=True)
class PublishedResult:
    """What a publication prints about a network on one data set, at one input size."""

    dataset: str  # a key of edgeseg.labels.LABEL_SETS
    size: tuple[int, int]  # (height, width)
    miou: float | None = None  # percent, single scale
    gflops: float | None = None  # 1e9 multiply-accumulates, by the publication's own convention
    fps: float | None = None  # images/s
    source: str = ""  # where it is printed, and on what the speed was measured


@dataclass(frozen=True)
class ModelEntry(ABC):
    """One network under one name; `MODELS` holds them all."""

    name: str
    family: str  # the file under edgeseg/models that holds the network
    encoder: str  # as the paper's table names it: "MiT-B0"
    formats: tuple[str, ...]  # checkpoint formats that fit, its own first
    size: tuple[int, int] = (512, 512)  # (height, width) of the published figures
    num_classes: int = 150
    min_size: int = 1  # smallest height, and width, in pixels
    results: tuple[PublishedResult, ...] = ()

    @abstractmethod
    def build(self, num_classes: int | None = None, norm_eps: Any = None) -> nn.Module:
        """The network with freshly initialised weights. `norm_eps` is the family's own type (None: the paper's)."""

    @abstractmethod
    def params(self, num_classes: int | None = None) -> int:
        """Number of parameters as published, auxiliary heads included."""

    @abstractmethod
    def published_macs(self, size: tuple[int, int] | None = None, num_classes: int | None = None) -> int:
        """Multiply-accumulates of convolutions, linear layers and matrix products, for one image, as published."""

    @abstractmethod
    def deployed_macs(self, size: tuple[int, int] | None = None, num_classes: int | None = None) -> int | None:
        """The same after the exact graph rewrites; None where only a build can tell."""

    def checked_size(self, size: tuple[int, int] | None) -> tuple[int, int]:
        """`size`, or the published one; ValueError for one that the network cannot take."""
        height, width = size or self.size
        if min(height, width) < self.min_size:
            raise ValueError(
                f"{self.name} cannot take an input of {height}x{width}: "
                f"its deepest stages would be empty; use at least {self.min_size}x{self.min_size}"
            )
        return height, width

    def checked_num_classes(self, num_classes: int | None) -> int:
        """`num_classes`, or the published one; ValueError outside 1 to 255."""
        classes = self.num_classes if num_classes is None else num_classes
        if not 1 <= classes <= MAX_CLASSES:
            raise ValueError(
                f"num_classes must be from 1 to {MAX_CLASSES} (labels are uint8, 255 is void), got {classes}"
            )
        return classes
