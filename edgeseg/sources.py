"""Where a network comes from: a name of the zoo, an ONNX file, or anyone's torch module. Each becomes one ONNX."""

import hashlib
import importlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgeseg.bundle import sha256_of_file
from edgeseg.errors import CheckpointError, ExportError, InputError
from edgeseg.labels import LABEL_SETS, LabelSet, generic_label_set, voc_colour
from edgeseg.preprocess import Preprocess

if TYPE_CHECKING:
    import onnx
    from torch import nn

    from edgeseg.models.bundled import BundledCheckpoint

Batch = int | tuple[int, int, int]  # static, or (smallest, usual, largest)


@dataclass(frozen=True)
class Network:
    """A network ready to be rewritten and quantised."""

    name: str
    onnx: "onnx.ModelProto"  # FP32, as published, one input and one output
    label_set: LabelSet
    preprocess: Preprocess
    params: int
    weights: str  # where they came from, in words
    source_sha256: str  # of the weights file or the ONNX file
    module: "nn.Module | None" = None  # of the zoo's networks: the torch backend runs it
    module_recipe: dict | None = None  # arguments of `create_model` that rebuild the module
    bundled: "BundledCheckpoint | None" = None  # a checkpoint of the package brings its INT8 scales
    notes: tuple[str, ...] = ()


def network_from_name(
    name: str, weights: str | None, dataset: str | None, size: tuple[int, int] | None, batch: Batch
) -> Network:
    """A network of the zoo with a checkpoint; by default the one that ships with the package.

    Raises:
        CheckpointError: the weights do not fit.
        InputError: the network has no shipped checkpoint and none was given.
    """
    from edgeseg.export import onnx_from_module
    from edgeseg.models import caffe, model_entry
    from edgeseg.models.bundled import BUNDLED, DEFAULT_CHECKPOINTS
    from edgeseg.models.weights import load_weights, network_from_weights

    entry = model_entry(name)
    weights = weights or DEFAULT_CHECKPOINTS.get(name)
    if weights is None:
        raise InputError(
            f"{name} has no checkpoint in the package; pass --weights FILE (.safetensors, or .pth as published), "
            f"--weights hf:ORG/NAME, or --weights random to measure speed alone"
        )
    bundled = BUNDLED.get(weights)
    given = LABEL_SETS[dataset] if dataset else None
    loaded = load_weights(weights, name, given.num_classes if given else None)
    module = network_from_weights(loaded)
    known = given or (LABEL_SETS[bundled.label_set] if bundled else None)
    label_set, notes = _label_set(known, loaded.num_classes, loaded.class_names, loaded.palette)
    size = entry.checked_size(size or (bundled.size if bundled else None))
    if weights == "random":
        notes += ("random weights: good for timing, its masks mean nothing",)
    norm_eps = asdict(loaded.norm_eps) if loaded.norm_eps else None
    wants_caffe = loaded.format in getattr(model_entry(loaded.model), "caffe", ())
    return Network(
        name=loaded.model,
        onnx=onnx_from_module(module, size, batch=batch),
        label_set=label_set,
        preprocess=Preprocess(size, caffe.MEAN, caffe.STD) if wants_caffe else Preprocess(size),
        params=sum(p.numel() for p in module.parameters()),
        weights=weights,
        source_sha256=loaded.sha256,
        module=module,
        module_recipe={"name": loaded.model, "num_classes": loaded.num_classes, "norm_eps": norm_eps},
        bundled=bundled,
        notes=notes,
    )


def network_from_onnx(
    path: Path, dataset: str | None, size: tuple[int, int] | None, batch: Batch, output: str | None = None
) -> Network:
    """Anyone's ONNX: (N, 3, H, W) input normalised by ImageNet's mean and std, logits (N, C, h, w) at any stride."""
    from edgeseg.counting import params_of_onnx
    from edgeseg.export import load_onnx

    if not path.is_file():
        raise InputError(f"{path} does not exist; --onnx takes an ONNX file")
    model = load_onnx(path, size, batch=batch, output=output)
    dims = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    num_classes = model.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    label_set, notes = _label_set(LABEL_SETS[dataset] if dataset else None, num_classes)
    return Network(
        name=path.stem,
        onnx=model,
        label_set=label_set,
        preprocess=Preprocess((dims[2], dims[3])),
        params=params_of_onnx(model),
        weights=path.name,
        source_sha256=sha256_of_file(path),
        notes=notes,
    )


def network_from_module(
    spec: str, weights: str | None, dataset: str | None, size: tuple[int, int] | None, batch: Batch
) -> Network:
    """Anyone's torch module: `pkg:factory` is imported and called without arguments; `weights` is a state dict."""
    from edgeseg.export import onnx_from_module

    module = _import_factory(spec)()
    if weights:
        _load_state_dict(module, Path(weights))
    size = size or (512, 512)
    model = onnx_from_module(module, size, batch=batch)
    num_classes = model.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    label_set, notes = _label_set(LABEL_SETS[dataset] if dataset else None, num_classes)
    return Network(
        name=spec.split(":")[1],
        onnx=model,
        label_set=label_set,
        preprocess=Preprocess(size),
        params=sum(p.numel() for p in module.parameters()),
        weights=weights or spec,
        source_sha256=_sha256_of_weights(module),
        notes=notes,
    )


def _label_set(
    known: LabelSet | None,
    num_classes: int,
    names: tuple[str, ...] | None = None,
    palette: tuple[tuple[int, int, int], ...] | None = None,
) -> tuple[LabelSet, tuple[str, ...]]:
    """The label set given, or the one that the checkpoint names, or the one with as many classes, which is then said.

    Transformers writes LABEL_0, LABEL_1, ... where nobody named the classes.
    """
    if known:
        if known.num_classes != num_classes:
            raise InputError(
                f"the network has {num_classes} classes and the data set {known.name} {known.num_classes}; "
                f"pass the --dataset it was trained on, or leave it out"
            )
        return known, ()
    matching = [s for s in LABEL_SETS.values() if s.num_classes == num_classes]
    if names and len(set(names)) == num_classes and names != tuple(f"LABEL_{i}" for i in range(num_classes)):
        same = [s for s in matching if _share_in_common(s.classes, names) > 0.5]  # "bed " and "bed", "sofa" and "couch"
        colours = palette or tuple(map(voc_colour, range(num_classes)))
        return (same[0] if same else LabelSet("checkpoint", names, colours)), ()
    if matching:
        guess = matching[0]
        return guess, (f"{num_classes} classes: taken to be those of {guess.name}; --dataset says otherwise",)
    return generic_label_set(num_classes), (f"{num_classes} classes: unknown, so they are numbered",)


def _share_in_common(ours: tuple[str, ...], theirs: tuple[str, ...]) -> float:
    return sum(a.lower() == b.strip().lower() for a, b in zip(ours, theirs, strict=True)) / len(ours)


def _import_factory(spec: str) -> "Callable[[], nn.Module]":
    from torch import nn

    module_name, _, attribute = spec.partition(":")
    if not module_name or not attribute:
        raise ValueError(f"--module takes PACKAGE:FACTORY such as my_package.models:my_network, got {spec!r}")
    try:
        factory = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise InputError(f"cannot import {spec}: {error}; is it on PYTHONPATH?") from error
    if isinstance(factory, nn.Module):
        instance = factory
        return lambda: instance
    if not callable(factory):
        raise InputError(
            f"{spec} is a {type(factory).__name__}; wanted a function or class that returns a torch module"
        )

    def create() -> nn.Module:
        module = factory()
        if not isinstance(module, nn.Module):
            raise ExportError(f"{spec}() returned a {type(module).__name__}; wanted a torch.nn.Module")
        return module

    return create


def _load_state_dict(module: "nn.Module", path: Path) -> None:
    from edgeseg.models.weight_files import read_weight_file

    try:
        module.load_state_dict(read_weight_file(path).tensors)
    except RuntimeError as error:
        raise CheckpointError(f"{path} does not fit {type(module).__name__}: {error}") from error


def _sha256_of_weights(module: "nn.Module") -> str:
    """Of names and values, whatever the input size: what scales are checked against."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode() + tensor.detach().cpu().double().numpy().tobytes())
    return digest.hexdigest()
