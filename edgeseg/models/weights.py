"""Loads published and own checkpoints into our networks, strictly: every tensor fits, or the error says what would.

weights = load_weights("segformer.b2.1024x1024.city.160k.pth")
network = network_from_weights(weights)             # nn.Module in eval mode
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgeseg.errors import CheckpointError, InputError
from edgeseg.models import create_model, model_entry
from edgeseg.models.bundled import BUNDLED
from edgeseg.models.checkpoints import Checkpoint
from edgeseg.models.fit import recognise, settle
from edgeseg.models.hub import WEIGHT_FILES, download_from_hub
from edgeseg.models.segformer_config import NUM_HEADS, PATCHES
from edgeseg.models.weight_files import WeightFile, read_weight_file

RANDOM = "random"
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
# What a Hugging Face configuration can change without changing a shape: our network has these, as published.
CONFIG = {
    "num_attention_heads": list(NUM_HEADS),
    "strides": [stride for _, stride in PATCHES],
    "hidden_act": "gelu",
    "model_type": "segformer",
}


@dataclass(frozen=True)
class LoadedWeights:
    """A checkpoint in our names, ready for ``load_state_dict(strict=True)``, and where it came from."""

    state_dict: dict[str, Tensor]  # float32
    model: str  # a key of MODELS
    num_classes: int
    format: str  # one of the model's formats, or "random"
    norm_eps: Any  # of the family's own type, where sources train with different ones; None: as published
    sha256: str  # of the file; of nothing for "random"
    path: Path | None  # None for "random"
    class_names: tuple[str, ...] | None = None  # where the checkpoint tells
    palette: tuple[tuple[int, int, int], ...] | None = None  # RGB, likewise


def load_weights(source: str | Path, model: str | None = None, num_classes: int | None = None) -> LoadedWeights:
    """Weights by file, folder or name.

    Args:
        source: a file (safetensors, .pth, .bin; in the names of any of the model's formats), a Hugging Face folder,
            ``hf:ORG/NAME``, the name of a bundled checkpoint, or ``random`` (seeded, for timing only).
        model: a key of `MODELS`; None takes it from the tensors' names and shapes.
        num_classes: None takes it from the classifier's shape.

    Raises:
        CheckpointError: for weights that do not fit, or a file that cannot be read safely.
        InputError: for a source that is not there.
        ValueError: for an unknown model.
    """
    if model is not None:
        model_entry(model)
    if str(source) == RANDOM:
        return _random_weights(model, num_classes)
    path = _locate(str(source))
    file = read_weight_file(path)
    recognised = recognise(path, file.tensors, model)
    name, classes = settle(recognised, model, num_classes)
    checkpoint = recognised.checkpoint
    class_names, palette = _classes(file, checkpoint, classes)
    return LoadedWeights(
        state_dict=_state_dict(checkpoint),
        model=name,
        num_classes=classes,
        format=checkpoint.format.name,
        norm_eps=checkpoint.format.norm_eps,
        sha256=file.sha256,
        path=path,
        class_names=class_names,
        palette=palette,
    )


def network_from_weights(weights: LoadedWeights) -> nn.Module:
    """The network with these weights, in eval mode."""
    with torch.device("meta"):  # nothing is initialised only to be overwritten, and the caller's seed stays
        network = create_model(weights.model, weights.num_classes, norm_eps=weights.norm_eps)
    network.to_empty(device="cpu").load_state_dict(weights.state_dict, strict=True)
    return network.eval()


def _random_weights(model: str | None, num_classes: int | None) -> LoadedWeights:
    """The same numbers on every call, so that two builds of a random network are the same build."""
    if model is None:
        raise ValueError("random weights need a model; pass --model NAME")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = create_model(model, num_classes)
    classes = model_entry(model).checked_num_classes(num_classes)
    return LoadedWeights(network.state_dict(), model, classes, RANDOM, None, sha256(b"").hexdigest(), None)


def _locate(source: str) -> Path:
    """The file that a name, a folder or a path stands for."""
    if source in BUNDLED:
        return BUNDLED[source].path
    if source.startswith("hf:"):
        return download_from_hub(source.removeprefix("hf:"))
    path = Path(source).expanduser()
    if path.is_dir():
        return _file_in_folder(path)
    if not path.exists():
        siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        close = get_close_matches(path.name, [*BUNDLED, *siblings], n=3)
        raise InputError(
            f"there are no weights at {path}; "
            + (f"did you mean {' or '.join(close)}? " if close else "")
            + f"wanted a file, a folder, hf:ORG/NAME, {RANDOM}, or a bundled checkpoint: {', '.join(BUNDLED)}"
        )
    return path


def _file_in_folder(folder: Path) -> Path:
    for name in WEIGHT_FILES:
        if (folder / name).is_file():
            return folder / name
        if (folder / f"{name}.index.json").is_file():
            raise CheckpointError(f"{folder} holds sharded weights; save them as one file: max_shard_size='100GB'")
    inside = ", ".join(sorted(entry.name for entry in folder.iterdir())[:6]) or "nothing"
    raise CheckpointError(f"{folder} holds {inside}; wanted {' or '.join(WEIGHT_FILES)}, or give the file itself")


def _state_dict(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """float32 and contiguous, with the counter that torch's BatchNorm keeps and inference never reads."""
    state_dict = {}
    for name, tensor in checkpoint.tensors.items():
        theirs = checkpoint.format.source(name)
        if tensor.dtype not in FLOATS:
            raise CheckpointError(
                f"{checkpoint.path}: {theirs} is {str(tensor.dtype).removeprefix('torch.')}; wanted float weights: "
                "quantisation is done by edgeseg itself, from float"
            )
        value = tensor.to(torch.float32).contiguous()
        if not value.isfinite().all():
            raise CheckpointError(
                f"{checkpoint.path}: {theirs} has NaN or infinite values; the training diverged, or the file was "
                "cast to a narrower type: take an earlier checkpoint"
            )
        state_dict[name] = value
        if name.endswith(".running_var"):
            state_dict[name.replace(".running_var", ".num_batches_tracked")] = torch.tensor(0)
    return state_dict


Classes = tuple[tuple[str, ...] | None, tuple[tuple[int, int, int], ...] | None]


def _classes(file: WeightFile, checkpoint: Checkpoint, num_classes: int) -> Classes:
    """Names and colours of the classes, where the source tells; otherwise None."""
    config = checkpoint.path.parent / "config.json"
    if checkpoint.format.name == "huggingface" and config.is_file():
        return _classes_from_config(config, num_classes), None
    meta = file.meta.get("dataset_meta") or file.meta  # mmengine's place, and mmcv's
    found = {str(key).lower(): value for key, value in meta.items()} if isinstance(meta, Mapping) else {}
    names, palette = (found.get(key) for key in ("classes", "palette"))
    if not isinstance(names, list | tuple) or len(names) != num_classes:
        return None, None
    return tuple(map(str, names)), _colours(palette, num_classes)


def _colours(palette: Any, num_classes: int) -> tuple[tuple[int, int, int], ...] | None:
    """A palette as a tuple, or None for anything else."""
    if not isinstance(palette, list | tuple) or len(palette) != num_classes or not all(map(_is_colour, palette)):
        return None
    return tuple((red, green, blue) for red, green, blue in palette)


def _is_colour(value: Any) -> bool:
    return (
        isinstance(value, list | tuple) and len(value) == 3 and all(isinstance(v, int) and 0 <= v < 256 for v in value)
    )


def _classes_from_config(path: Path, num_classes: int) -> tuple[str, ...] | None:
    """Class names of a Hugging Face configuration; refuses one that shapes cannot show to be another network."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        names = {int(key): str(value) for key, value in config.get("id2label", {}).items()}
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path}, beside the weights, cannot be read ({error}); repair or remove it") from error
    for key, wanted in CONFIG.items():
        if config.get(key, wanted) != wanted:
            raise CheckpointError(f"{path} has {key} {config[key]}; edgeseg's SegFormer has {wanted}, as published")
    if not names or all(re.fullmatch(r"LABEL_\d+", name) for name in names.values()):
        return None
    if sorted(names) != list(range(num_classes)):
        raise CheckpointError(
            f"{path} names {len(names)} classes, and the weights beside it have {num_classes}; "
            "they belong to different networks: repair or remove config.json"
        )
    return tuple(names[i] for i in range(num_classes))
