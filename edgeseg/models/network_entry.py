"""What the catalogue's rows are: networks that are counted by building them."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from edgeseg.errors import BackendError
from edgeseg.models.entry import ModelEntry
from edgeseg.models.shipped_counts import ShippedCounts, shipped_counts

if TYPE_CHECKING:
    from torch import nn

    from edgeseg.counting import ModuleCount

COUNTED_AT = (((512, 512), 150), ((1024, 2048), 19))  # ADE20K and Cityscapes, as the SegFormer paper compares


@dataclass(frozen=True)
class NetworkEntry(ModelEntry):
    """A network whose counts are taken from itself: shipped for the published sizes, made with torch for others."""

    factory: str = ""  # "edgeseg.models.fcn:fcn_resnet101": a function of the number of classes
    auxiliary: tuple[int, int] = (0, 0)  # parameters of heads that only training uses: constant, and per class
    dead: tuple[str, ...] = ("auxiliary_head.",)  # beginnings of published names that inference never reads
    elastic: tuple[str, ...] = ()  # our names whose presence and shape the module itself takes from a checkpoint
    tables: tuple[tuple[str, str], ...] = ()  # format -> "module:TABLE" of its names, where they are not ours
    adapters: tuple[tuple[str, str], ...] = ()  # format -> "module:function" from (its name, tensor) to our values
    caffe: tuple[str, ...] = ()  # formats whose weights want images as `edgeseg.models.caffe` has them

    def build(self, num_classes: int | None = None, norm_eps: Any = None) -> nn.Module:
        classes = self.checked_num_classes(num_classes)
        if norm_eps is not None:
            raise ValueError(f"{self.name} takes no norm_eps: its sources agree on every epsilon; leave it out")
        module, _, function = self.factory.partition(":")
        return getattr(importlib.import_module(module), function)(classes)

    def auxiliary_params(self, num_classes: int | None = None) -> int:
        """Parameters of the published network that inference never reads, and that are not built here."""
        constant, per_class = self.auxiliary
        return constant + per_class * self.checked_num_classes(num_classes)

    def params(self, num_classes: int | None = None) -> int:
        classes = self.checked_num_classes(num_classes)
        rows = (row for (name, _, ours), row in shipped_counts().items() if (name, ours) == (self.name, classes))
        shipped = next(rows, None)  # at whatever size
        built = shipped.params if shipped else counted(self, None, classes).params
        return built + self.auxiliary_params(classes)

    def published_macs(self, size: tuple[int, int] | None = None, num_classes: int | None = None) -> int:
        size, classes = self.checked_size(size), self.checked_num_classes(num_classes)
        shipped = self._shipped(size, classes)
        return shipped.published_macs if shipped else counted(self, size, classes).macs

    def deployed_macs(self, size: tuple[int, int] | None = None, num_classes: int | None = None) -> int | None:
        """None at a size for which none are shipped: only the rewritten graph of a build can tell."""
        shipped = self._shipped(self.checked_size(size), self.checked_num_classes(num_classes))
        return shipped.deployed_macs if shipped else None

    @property
    def counted_at(self) -> list[tuple[tuple[int, int], int]]:
        """(height, width) and number of classes of the counts that ship."""
        return list(dict.fromkeys([(self.size, self.num_classes), *COUNTED_AT]))

    def shipped_sizes(self) -> str:
        """The sizes and class counts that need no torch, in words."""
        keys = [key for key in shipped_counts() if key[0] == self.name]
        return (
            ", ".join(f"{height}x{width} with {classes} classes" for _, (height, width), classes in keys) or "no size"
        )

    def _shipped(self, size: tuple[int, int], num_classes: int) -> ShippedCounts | None:
        return shipped_counts().get((self.name, size, num_classes))


@cache
def counted(entry: NetworkEntry, size: tuple[int, int] | None, num_classes: int) -> ModuleCount:
    """The network built on torch's meta device and counted there; without a size its parameters alone."""
    try:
        import torch
    except ImportError as error:
        raise BackendError(
            f"{entry.name} ships its counts for {entry.shipped_sizes()}; counting it otherwise "
            "needs torch: pip install 'edgeseg[build]'"
        ) from error
    from edgeseg.counting import ModuleCount, count_module, params_of_module

    if size:
        return count_module(lambda: entry.build(num_classes), size)
    with torch.device("meta"):
        return ModuleCount(params_of_module(entry.build(num_classes)), 0)
