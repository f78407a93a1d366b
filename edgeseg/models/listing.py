"""The table of `edgeseg models`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from edgeseg.models import MODELS
from edgeseg.models.bundled import bundled_for
from edgeseg.models.published import LICENCES


def list_models(size: tuple[int, int] | None = None, num_classes: int | None = None) -> list[dict[str, Any]]:
    """One row per model of the registry, counted at `size` (height, width) and `num_classes` (None: as published).

    Returns:
        Rows with name, family, encoder, params (int), gmacs {published, deployed} (1e9; deployed is None where only a
        build can tell), height, width, num_classes; results: what is printed about the network, each with its source;
        weights: names of bundled checkpoints, then the checkpoint formats that fit, then "random"; licences of the
        published checkpoints, by format.

    Raises:
        ValueError: for a size or class count that a network cannot take.
        BackendError: for a size or class count whose counts do not ship, where torch is not installed.
    """
    rows = []
    for entry in MODELS.values():
        height, width = entry.checked_size(size)
        deployed = entry.deployed_macs(size, num_classes)
        rows.append(
            {
                "name": entry.name,
                "family": entry.family,
                "encoder": entry.encoder,
                "params": entry.params(num_classes),
                "gmacs": {
                    "published": entry.published_macs(size, num_classes) / 1e9,
                    "deployed": None if deployed is None else deployed / 1e9,
                },
                "height": height,
                "width": width,
                "num_classes": entry.checked_num_classes(num_classes),
                "results": [asdict(result) for result in entry.results],
                "weights": [*(checkpoint.name for checkpoint in bundled_for(entry.name)), *entry.formats, "random"],
                "licences": {format: LICENCES[format] for format in entry.formats if format in LICENCES},
            }
        )
    return rows
