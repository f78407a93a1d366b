"""The networks by name. Importing this needs no torch; building one does."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from edgeseg.models.catalog import CATALOG
from edgeseg.models.entry import ModelEntry
from edgeseg.models.segformer_config import SEGFORMERS

if TYPE_CHECKING:
    from torch import nn

__all__ = ["MODELS", "ModelEntry", "create_model", "model_entry"]

MODELS: dict[str, ModelEntry] = {entry.name: entry for entry in (*SEGFORMERS, *CATALOG)}


def model_entry(name: str) -> ModelEntry:
    """The entry of `name`; ValueError that lists what there is."""
    if name in MODELS:
        return MODELS[name]
    close = get_close_matches(name.lower().replace("_", "-"), MODELS, n=3)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    raise ValueError(f"unknown model {name!r}; {hint}edgeseg has {', '.join(MODELS)}")


def create_model(name: str, num_classes: int | None = None, *, norm_eps: Any = None) -> nn.Module:
    """The network with freshly initialised weights, in training mode as torch makes it.

    Args:
        name: a key of `MODELS`.
        num_classes: 1 to 255; None is the published number.
        norm_eps: the family's own type (`edgeseg.models.segformer.NormEps`); None is the paper's.

    Raises:
        ValueError: for an unknown name, or a class count that uint8 labels cannot hold.
    """
    return model_entry(name).build(num_classes, norm_eps)
