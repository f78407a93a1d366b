"""Which network a checkpoint holds, and whether every one of its tensors fits.

Shapes and names decide, never the name of the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from edgeseg.errors import CheckpointError
from edgeseg.models import MODELS, catalog_checkpoints, segformer_checkpoints
from edgeseg.models.checkpoints import Checkpoint, translate
from edgeseg.models.network_entry import NetworkEntry
from edgeseg.models.segformer_checkpoints import FORMATS
from edgeseg.models.shapes import class_tensor, elastic_tensors, expected_shapes

SHOWN = 4  # names listed of each kind of mismatch


@dataclass(frozen=True)
class Recognised:
    """A checkpoint in our names, and what it was found to be."""

    checkpoint: Checkpoint
    model: str | None  # None: no network has exactly these sizes
    nearest: str | None = None  # the network that it is not exactly
    looks_like: str = ""  # for error messages


def recognise(path: Path, tensors: Mapping[str, Tensor], model: str | None) -> Recognised:
    """Detects the source by its names and gives the tensors ours. `model` is what the file was asked to be.

    Raises:
        CheckpointError: for names of none of the formats, and for a backbone without a decode head.
    """
    format = max(FORMATS.values(), key=lambda format: segformer_checkpoints.known_tensors(format, tensors))
    if segformer_checkpoints.known_tensors(format, tensors):
        checkpoint = translate(path, tensors, format)
        if not any(name.startswith("decode_head.") for name in checkpoint.tensors):
            raise CheckpointError(_no_head(path, f"in {format.title} format"))
        found = segformer_checkpoints.recognise(checkpoint.tensors)
        return Recognised(checkpoint, found, looks_like=segformer_checkpoints.describe(checkpoint.tensors))
    exact = catalog_checkpoints.recognise(tensors, model)
    if exact:
        return Recognised(translate(path, tensors, exact[1]), exact[0].name)
    asked = MODELS.get(model or "")
    if isinstance(asked, NetworkEntry):
        if catalog_checkpoints.is_backbone(asked, tensors):
            raise CheckpointError(_no_head(path, f"of a {asked.name}"))
        format, alike = catalog_checkpoints.best_format(asked, tensors)
        if alike >= catalog_checkpoints.ALIKE:
            return Recognised(translate(path, tensors, format), None, asked.name)
    for format in FORMATS.values():
        for prefix in ("backbone.", "segformer."):  # a backbone alone is saved without the whole network's prefix
            if segformer_checkpoints.known_tensors(format, tensors, prefix):
                raise CheckpointError(_no_head(path, f"in {format.title} format"))
    near = catalog_checkpoints.nearest(tensors)
    if near is None:
        raise CheckpointError(_unknown_names(path, tensors))
    return Recognised(translate(path, tensors, near[1]), None, near[0].name)


def settle(recognised: Recognised, model: str | None, num_classes: int | None) -> tuple[str, int]:
    """The model and the class count that the checkpoint is for, and that were asked for (None: any).

    Raises:
        CheckpointError: where the two differ, or any tensor is missing, surplus or misshapen.
    """
    checkpoint, found = recognised.checkpoint, recognised.model
    name = model or found or recognised.nearest
    if model and found and found != model:
        raise CheckpointError(f"{_holds(checkpoint, found)}, not a {model}; pass --model {found}")
    if name is None:
        raise CheckpointError(
            f"{checkpoint.path} holds {recognised.looks_like} in {checkpoint.format.title} format, which is none of "
            f"edgeseg's: {', '.join(MODELS)}"
        )
    _check_names(recognised, name)
    classes = _num_classes(checkpoint, name)
    if found and num_classes is not None and classes != num_classes:
        raise CheckpointError(
            f"{_holds(checkpoint, found)}, not {num_classes}; leave --dataset out to take the file's, "
            f"or give weights that were trained for {num_classes}"
        )
    if classes is None:
        raise CheckpointError(_no_class_count(checkpoint, name))
    try:
        MODELS[name].checked_num_classes(classes)
    except ValueError as error:
        raise CheckpointError(f"{_holds(checkpoint, name)}: {error}") from error
    _check_shapes(recognised, name, classes)
    return name, classes


def _holds(checkpoint: Checkpoint, model: str) -> str:
    classes = _num_classes(checkpoint, model)
    return f"{checkpoint.path} holds a {model} with {classes} classes in {checkpoint.format.title} format"


def _num_classes(checkpoint: Checkpoint, model: str) -> int | None:
    """From the shape of the classifier; None where it is missing or has another rank."""
    name, axis = class_tensor(model)
    tensor = checkpoint.tensors.get(name)
    return tensor.shape[axis] if tensor is not None and tensor.ndim == len(expected_shapes(model, 1)[name]) else None


def _no_class_count(checkpoint: Checkpoint, model: str) -> str:
    name, axis = class_tensor(model)
    wanted = [str(side) for side in expected_shapes(model, 1)[name]]
    wanted[axis] = "classes"
    return (
        f"{checkpoint.path}: {checkpoint.format.source(name)} is {_shape(checkpoint, name)}; "
        f"wanted ({', '.join(wanted)})"
    )


def _check_names(recognised: Recognised, model: str) -> None:
    checkpoint = recognised.checkpoint
    expected = expected_shapes(model, 1)
    missing = [checkpoint.format.source(name) for name in expected if name not in checkpoint.tensors]
    # A block too many is known to the format, and still not to this network.
    known = {*expected, *elastic_tensors(model)}
    beyond = [checkpoint.format.source(name) for name in checkpoint.tensors if name not in known]
    surplus = [*checkpoint.surplus, *beyond]
    if missing or surplus or checkpoint.doubled:
        kinds = (("missing", _unique(missing)), ("surplus", _unique(surplus)), ("doubled", list(checkpoint.doubled)))
        raise CheckpointError(
            f"{checkpoint.path} ({checkpoint.format.title} format) is not exactly a {model}: "
            + "; ".join(f"{_listed(names)} {kind}" for kind, names in kinds if names)
            + _it("looks like", recognised, model)
        )


def _check_shapes(recognised: Recognised, model: str, num_classes: int) -> None:
    checkpoint = recognised.checkpoint
    misshapen = [
        f"{checkpoint.format.source(name)} is {_shape(checkpoint, name)}, wanted {tuple(shape)}"
        for name, shape in expected_shapes(model, num_classes).items()
        if checkpoint.tensors[name].shape != shape
    ]
    if misshapen:
        raise CheckpointError(
            f"{checkpoint.path} ({checkpoint.format.title} format) does not fit a {model} with {num_classes} classes: "
            f"{_listed(misshapen)} misshapen" + _it("holds", recognised, model)
        )


def _it(verb: str, recognised: Recognised, model: str) -> str:
    """What else can be said about the file, as the end of a message."""
    near = f"a {recognised.nearest}" if recognised.nearest not in (None, model) else ""
    return f"; it {verb} {recognised.looks_like or near}" if recognised.looks_like or near else ""


def _shape(checkpoint: Checkpoint, name: str) -> tuple[int, ...]:
    return tuple(checkpoint.tensors[name].shape)


def _unknown_names(path: Path, tensors: Mapping[str, Tensor]) -> str:
    first = ", ".join(list(tensors)[:SHOWN]) or "nothing"
    return (
        f"{path} is no SegFormer checkpoint: none of its {len(tensors)} tensors has a name that "
        f"{', '.join(format.title for format in FORMATS.values())} give (first: {first}), nor do they look like "
        "another network of `edgeseg models`; one that is not there goes in as ONNX (--onnx) or as code (--module)"
    )


def _no_head(path: Path, what: str) -> str:
    return (
        f"{path} holds a backbone {what} without a decode head, as ImageNet pre-training leaves it; "
        "wanted the weights of the whole segmentation network"
    )


def _unique(names: list[str]) -> list[str]:
    """In order, once each: several of our tensors can come from one of theirs."""
    return list(dict.fromkeys(names))


def _listed(names: list[str]) -> str:
    more = f", and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{len(names)} tensor{'s' * (len(names) != 1)} ({'; '.join(names[:SHOWN])}{more})"
