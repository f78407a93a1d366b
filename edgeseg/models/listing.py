"""The table of `edgeseg models`."""

from __future__ import annotations

from typing import Any

from edgeseg.models import MODELS
from edgeseg.models.bundled import bundled_for


def list_models(size: tuple[int, int] | None = None, num_classes: int | None = None) -> list[dict[str, Any]]:
    """One row per model of the registry, counted at `size` (height, width) and `num_classes` (None: as published).

    Returns:
        Rows with name, encoder, params (int), gmacs {published, deployed} (1e9), height, width, num_classes, and
        weights: names of bundled checkpoints, then the checkpoint formats that fit, then "random".

    Raises:
        ValueError: for a size or class count that a network cannot take.
    """
    rows = []
    for entry in MODELS.values():
        height, width = entry.checked_size(size)
        rows.append(
            {
                "name": entry.name,
                "encoder": entry.encoder,
                "params": entry.params(num_classes),
                "gmacs": {
                    "published": entry.published_macs(size, num_classes) / 1e9,
                    "deployed": entry.deployed_macs(size, num_classes) / 1e9,
                },
                "height": height,
                "width": width,
                "num_classes": entry.checked_num_classes(num_classes),
                "weights": [*(checkpoint.name for checkpoint in bundled_for(entry.name)), *entry.formats, "random"],
            }
        )
    return rows
