"""The names and shapes that a network's checkpoint must have, from the network itself."""

from __future__ import annotations

from functools import lru_cache

import torch

from edgeseg.models import MODELS
from edgeseg.models.network_entry import NetworkEntry


@lru_cache(maxsize=256)
def expected_shapes(model: str, num_classes: int) -> dict[str, torch.Size]:
    """Name and shape of every tensor that a checkpoint must hold; built on the meta device, where nothing is filled."""
    with torch.device("meta"):
        network = MODELS[model].build(num_classes)
    free = (".num_batches_tracked", *elastic_tensors(model))
    return {name: t.shape for name, t in network.state_dict().items() if not name.endswith(free)}


def elastic_tensors(model: str) -> tuple[str, ...]:
    """Names that a checkpoint may or may not hold, in whatever shape: the module adapts to them."""
    entry = MODELS[model]
    return entry.elastic if isinstance(entry, NetworkEntry) else ()


def class_tensor(model: str) -> tuple[str, int]:
    """The first tensor whose shape depends on the number of classes, and the axis that is that number."""
    one, two = expected_shapes(model, 1), expected_shapes(model, 2)
    for name in one:
        for axis, (a, b) in enumerate(zip(one[name], two[name], strict=True)):
            if (a, b) == (1, 2):
                return name, axis
    raise ValueError(f"no tensor of {model} has as many entries as it has classes; its factory ignores num_classes")
