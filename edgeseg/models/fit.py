"""Which network a checkpoint holds, and whether every one of its tensors fits.

Shapes and names decide, never the name of the file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from edgeseg.errors import CheckpointError
from edgeseg.models import MODELS
from edgeseg.models.checkpoints import FORMATS, CheckpointFormat
from edgeseg.models.segformer_config import SegFormerEntry

SHOWN = 4  # names listed of each kind of mismatch
CLASSIFIER = "decode_head.classifier.weight"


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a file in our names. Nothing is known yet about their shapes."""

    path: Path
    format: CheckpointFormat
    tensors: dict[str, Tensor]  # our name -> tensor
    surplus: tuple[str, ...]  # their names that mean nothing to us
    doubled: tuple[str, ...]  # their names for tensors that were there already


def translate(path: Path, tensors: Mapping[str, Tensor]) -> Checkpoint:
    """Detects the source by its names and gives the tensors ours.

    Raises:
        CheckpointError: for names of none of the formats, and for a backbone without a decode head.
    """
    format = max(FORMATS.values(), key=lambda format: _matches(format, tensors))
    if not _matches(format, tensors):
        raise CheckpointError(_unknown_names(path, tensors))
    ours: dict[str, Tensor] = {}
    surplus, doubled = [], []
    for name, tensor in tensors.items():
        if format.is_dead(name):
            continue
        translated = format.translate(name, tensor)
        if not translated:
            surplus.append(name)
        elif translated.keys() & ours.keys():
            doubled.append(name)
        ours |= translated
    if not any(name.startswith("decode_head.") for name in ours):
        raise CheckpointError(_no_head(path, format.title))
    return Checkpoint(path, format, ours, tuple(surplus), tuple(doubled))


def settle(checkpoint: Checkpoint, model: str | None, num_classes: int | None) -> tuple[str, int]:
    """The model and the class count that the checkpoint is for, and that were asked for (None: any).

    Raises:
        CheckpointError: where the two differ, or any tensor is missing, surplus or misshapen.
    """
    found, classes = recognise(checkpoint.tensors)
    format = checkpoint.format.title
    holds = f"{checkpoint.path} holds a {found or 'SegFormer'} with {classes} classes in {format} format"
    if model and found and found != model:
        raise CheckpointError(f"{holds}, not a {model}; pass --model {found}")
    name = model or found
    if name is None:
        raise CheckpointError(
            f"{checkpoint.path} holds {_describe(checkpoint.tensors)} in {format} format, which is none of edgeseg's: "
            f"{', '.join(MODELS)}"
        )
    _check_names(checkpoint, name)
    if found and num_classes is not None and classes != num_classes:
        raise CheckpointError(
            f"{holds}, not {num_classes}; leave --dataset out to take the file's, "
            f"or give weights that were trained for {num_classes}"
        )
    if classes is None:
        raise CheckpointError(
            f"{checkpoint.path}: {checkpoint.format.source(CLASSIFIER)} is {_shape(checkpoint, CLASSIFIER)}; "
            "wanted (classes, width, 1, 1)"
        )
    try:
        MODELS[name].checked_num_classes(classes)
    except ValueError as error:
        raise CheckpointError(f"{holds}: {error}") from error
    _check_shapes(checkpoint, name, classes)
    return name, classes


def recognise(tensors: Mapping[str, Tensor]) -> tuple[str | None, int | None]:
    """The model that has these widths, depths and head (None: no such one), and the number of classes."""
    classifier = tensors.get(CLASSIFIER)
    classes = classifier.shape[0] if classifier is not None and classifier.ndim == 4 else None
    sizes = _sizes(tensors)
    for entry in MODELS.values():
        if isinstance(entry, SegFormerEntry):
            config = entry.config
            if sizes == (config.widths, config.depths, entry.decoder_width, entry.head):
                return entry.name, classes
    return None, classes


def _sizes(tensors: Mapping[str, Tensor]) -> tuple:
    """Widths, depths, decoder width and head, from the shapes alone; 0 where a tensor is missing."""

    def first_axis(name: str) -> int:
        return tensors[name].shape[0] if name in tensors and tensors[name].ndim else 0

    widths = tuple(first_axis(f"encoder.stages.{i}.patch_embed.proj.weight") for i in range(4))
    depths = [0, 0, 0, 0]
    for name in tensors:
        if match := re.match(r"encoder\.stages\.(\d)\.blocks\.(\d+)\.", name):
            stage, block = int(match[1]), int(match[2])
            depths[stage] = max(depths[stage], block + 1)
    conv_modules = any(re.match(r"decode_head\.(projections\.\d|fuse)\.conv\.", name) for name in tensors)
    head = "conv_module" if conv_modules else "mlp"
    return widths, tuple(depths), first_axis(f"decode_head.fuse.{'conv.' * conv_modules}weight"), head


def _describe(tensors: Mapping[str, Tensor]) -> str:
    widths, depths, decoder_width, _ = _sizes(tensors)
    return f"a SegFormer of widths {widths}, depths {depths} and decoder width {decoder_width} (0: missing)"


def _check_names(checkpoint: Checkpoint, model: str) -> None:
    expected = _expected(model, 1)
    missing = [checkpoint.format.source(name) for name in expected if name not in checkpoint.tensors]
    # A block too many is known to the format, and still not to this network.
    beyond = [checkpoint.format.source(name) for name in checkpoint.tensors if name not in expected]
    surplus = [*checkpoint.surplus, *beyond]
    if missing or surplus or checkpoint.doubled:
        kinds = (("missing", _unique(missing)), ("surplus", _unique(surplus)), ("doubled", list(checkpoint.doubled)))
        raise CheckpointError(
            f"{checkpoint.path} ({checkpoint.format.title} format) is not exactly a {model}: "
            + "; ".join(f"{_listed(names)} {kind}" for kind, names in kinds if names)
            + f"; it looks like {_describe(checkpoint.tensors)}"
        )


def _check_shapes(checkpoint: Checkpoint, model: str, num_classes: int) -> None:
    misshapen = [
        f"{checkpoint.format.source(name)} is {_shape(checkpoint, name)}, wanted {tuple(shape)}"
        for name, shape in _expected(model, num_classes).items()
        if checkpoint.tensors[name].shape != shape
    ]
    if misshapen:
        raise CheckpointError(
            f"{checkpoint.path} ({checkpoint.format.title} format) does not fit a {model} with {num_classes} classes: "
            f"{_listed(misshapen)} misshapen; it holds {_describe(checkpoint.tensors)}"
        )


def _expected(model: str, num_classes: int) -> dict[str, torch.Size]:
    """Name and shape of every tensor that a checkpoint must hold."""
    with torch.device("meta"):
        network = MODELS[model].build(num_classes)
    return {name: t.shape for name, t in network.state_dict().items() if not name.endswith(".num_batches_tracked")}


def _shape(checkpoint: Checkpoint, name: str) -> tuple[int, ...]:
    return tuple(checkpoint.tensors[name].shape)


def _matches(format: CheckpointFormat, tensors: Mapping[str, Tensor], prefix: str = "") -> int:
    """How many tensors of the encoder the format knows; the heads of two formats share names."""
    return sum(any(name.startswith("encoder.") for name in format.targets(prefix + name)) for name in tensors)


def _unknown_names(path: Path, tensors: Mapping[str, Tensor]) -> str:
    for format in FORMATS.values():
        for prefix in ("backbone.", "segformer."):  # a backbone alone is saved without the whole network's prefix
            if _matches(format, tensors, prefix):
                return _no_head(path, format.title)
    first = ", ".join(list(tensors)[:SHOWN]) or "nothing"
    return (
        f"{path} is no SegFormer checkpoint: none of its {len(tensors)} tensors has a name that "
        f"{', '.join(format.title for format in FORMATS.values())} give (first: {first}); "
        "another network goes in as ONNX (--onnx) or as code (--module)"
    )


def _no_head(path: Path, title: str) -> str:
    return (
        f"{path} holds a backbone in {title} format without a decode head, as ImageNet pre-training leaves it; "
        "wanted the weights of the whole segmentation network"
    )


def _unique(names: list[str]) -> list[str]:
    """In order, once each: several of our tensors can come from one of theirs."""
    return list(dict.fromkeys(names))


def _listed(names: list[str]) -> str:
    more = f", and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{len(names)} tensor{'s' * (len(names) != 1)} ({'; '.join(names[:SHOWN])}{more})"
