"""Torch module -> ONNX, checked against the module. (ONNX file -> ONNX: see onnx_file.py.)"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING

import numpy as np

from edgeseg.errors import ExportError
from edgeseg.onnx_checks import (
    check_domains,
    check_logits,
    check_not_random,
    random_images,
    root_cause,
    run_once,
    shape_of,
    simplify,
)
from edgeseg.onnx_file import load_onnx

if TYPE_CHECKING:
    import onnx
    import onnx_ir
    import torch
    from torch import nn

__all__ = ["load_onnx", "onnx_from_module"]

OPSETS = range(17, 24)  # 17 has LayerNormalization as one operator, without which FP16 overflows
RELATIVE_TOLERANCE = 1e-4  # of ONNX Runtime against torch, as a share of the largest logit
LABELS_OF_DISCONTINUOUS = 0.99  # share of labels that must be the same, see _check_equal
PREFIX = "network."  # where the wrapper below keeps the module


def onnx_from_module(
    module: nn.Module, size: tuple[int, int], *, batch: int | tuple[int, int, int] = 1, opset: int = 18
) -> onnx.ModelProto:
    """Exports a segmentation network in evaluation mode and proves that ONNX Runtime computes the same.

    Args:
        module: takes (N, 3, H, W) float32; returns logits (N, C, h, w) at any stride, or a dict, object or sequence
            that holds them as "out" (torchvision), "logits" (transformers) or as its only tensor. It is left as it is.
        size: (height, width) of the images.
        batch: N, or (smallest, usual, largest) for a dynamic batch.
        opset: 17 or later.

    Returns:
        A model with one input ``images`` and one output ``logits``, weights inside, the same bytes for the same module.

    Raises:
        ValueError: wrong arguments.
        ExportError: the module fails, cannot be exported, is random, or differs from its ONNX.
    """
    _check_arguments(module, size, batch, opset)
    smallest, usual, largest = (batch, batch, batch) if isinstance(batch, int) else batch
    wrapper = _images_to_logits(module)
    with _in_eval_mode(module), _quiet():
        wrapper.eval()
        expected = _run_module(wrapper, (smallest, 3, *size), seed=0)  # its own errors come first, as they are
        sample = min(max(usual, 2), largest)  # one image would make torch fix the batch at 1
        model = _export(wrapper, (sample, 3, *size), (smallest, largest), opset)
        check_not_random(model)
        check_domains(model)
        _check_interface(model, size, None if smallest != largest else smallest)
        discontinuous = getattr(module, "discontinuous", False)
        _check_equal(model, (smallest, 3, *size), 0, expected, discontinuous)
        another = (min(largest, smallest + 1), 3, *size)
        _check_equal(model, another, 1, _run_module(wrapper, another, seed=1), discontinuous)
    return model


def _check_arguments(module: nn.Module, size: tuple[int, int], batch: int | tuple[int, int, int], opset: int) -> None:
    import torch

    if len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
        raise ValueError(f"size must be (height, width) in whole pixels above 0, got {size}")
    counts = [batch] if isinstance(batch, int) else list(batch)
    if len(counts) not in (1, 3) or counts[0] < 1 or counts != sorted(counts):
        raise ValueError(f"batch must be a number above 0 or (smallest, usual, largest) in this order, got {batch}")
    if opset not in OPSETS:
        raise ValueError(f"opset must be {OPSETS.start} to {OPSETS.stop - 1}, got {opset}")
    types = {parameter.dtype for parameter in module.parameters() if parameter.is_floating_point()}
    if types - {torch.float32}:
        found = ", ".join(sorted(map(str, types)))
        raise ExportError(f"the module has {found} parameters; wanted float32: call .float(), precision comes later")


def _images_to_logits(module: nn.Module) -> nn.Module:
    """A module from images to the one tensor that is the logits."""
    from torch import nn

    class ImagesToLogits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = module

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return logits_of(self.network(images))

    return ImagesToLogits()


def logits_of(result: object) -> torch.Tensor:
    """The logits in what a segmentation module returns.

    Raises:
        ExportError: there is no tensor under "out" or "logits", and not exactly one tensor either.
    """
    import torch

    if isinstance(result, torch.Tensor):
        return result
    if isinstance(result, Mapping):
        named = dict(result)
    elif hasattr(result, "_asdict"):  # a namedtuple
        named = result._asdict()
    elif isinstance(result, Sequence):
        named = {str(index): item for index, item in enumerate(result)}
    else:
        named = dict(vars(result)) if hasattr(result, "__dict__") else {}
    tensors = {name: item for name, item in named.items() if isinstance(item, torch.Tensor)}
    for name in ("out", "logits"):
        if name in tensors:
            return tensors[name]
    if len(tensors) == 1:
        return next(iter(tensors.values()))
    found = ", ".join(f"{name} {tuple(item.shape)}" for name, item in tensors.items()) or "no tensor"
    raise ExportError(
        f"the module returns a {type(result).__name__} with {found}; wanted one tensor of logits (N, C, h, w), "
        f'or one named "out" or "logits": wrap the module so that it returns that'
    )


@contextmanager
def _in_eval_mode(module: nn.Module) -> Iterator[None]:
    """Every submodule in evaluation mode, then each back in the mode in which it was."""
    modes = {part: part.training for part in module.modules()}
    try:
        yield
    finally:
        for part, training in modes.items():
            part.training = training


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter's warnings and log lines are not for the user; what a module prints goes to stderr."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(sys.stderr):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def _run_module(wrapper: nn.Module, shape: tuple[int, ...], seed: int) -> np.ndarray:
    import torch

    parameter = next(wrapper.parameters(), None)
    images = torch.from_numpy(random_images(shape, seed)).to(parameter.device if parameter is not None else "cpu")
    try:
        with torch.no_grad():
            logits: np.ndarray = wrapper(images).cpu().numpy()
    except ExportError:
        raise
    except Exception as error:  # it is the user's code
        raise ExportError(f"the module fails on a {shape} float32 image batch: {root_cause(error)}") from error
    check_logits(logits, shape[0])
    return logits


def _export(wrapper: nn.Module, shape: tuple[int, ...], batches: tuple[int, int], opset: int) -> onnx.ModelProto:
    import torch

    parameter = next(wrapper.parameters(), None)
    images = torch.zeros(shape, device=parameter.device if parameter is not None else "cpu")
    smallest, largest = batches
    dynamic = {0: torch.export.Dim("batch", min=smallest, max=largest)} if smallest != largest else None
    try:
        program = torch.onnx.export(
            wrapper,
            (images,),
            dynamo=True,
            opset_version=opset,
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=(dynamic,) if dynamic else None,
            verbose=False,
        )
        if program is None:
            raise ExportError("torch.onnx.export returned nothing")
        model = program.model_proto
    except Exception as error:  # torch's exporter raises many types
        raise ExportError(f"torch cannot export the module to ONNX: {root_cause(error)}") from error
    versions = {entry.domain: entry.version for entry in model.opset_import}
    if versions.get("") != opset:
        raise ExportError(f"torch exported opset {versions.get('')}, not {opset}; use opset 18, which it writes itself")
    return _checked(simplify(_named(model)))


def _checked(model: onnx.ModelProto) -> onnx.ModelProto:
    import onnx

    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # ValidationError, or InferenceError
        raise ExportError(f"the exported network is not valid ONNX: {root_cause(error)}") from error
    return model


def _named(model: onnx.ModelProto) -> onnx.ModelProto:
    """Nodes and tensors called after the module that they come from, which torch notes in each node's metadata.

    ``node_MatMul_528`` with weight ``val_585`` becomes ``stages.3.blocks.1.ffn.project/MatMul`` with weight
    ``stages.3.blocks.1.ffn.project.weight``: names that mean something, and do not change with the image size.
    """
    import onnx_ir as ir

    named = ir.from_proto(model)
    graph = named.graph
    for name, parameter in list(graph.initializers.items()):
        parameter.name = name.removeprefix(PREFIX)
    fixed = {value.name for value in [*graph.inputs, *graph.outputs]}
    taken = {value.name for value in graph.initializers.values()} | fixed
    for node in graph:
        scope = _scope_of(node)
        node.name = _unique(f"{scope}/{node.op_type}" if scope else node.op_type, taken)
        for output in node.outputs:
            if output.name not in fixed:
                output.name = _unique(f"{node.name}_output", taken)
        if node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
            for value, role in zip(node.inputs[1:], ("weight", "bias"), strict=False):
                if value is not None and value.is_initializer() and len(value.uses()) == 1:
                    wish = _parameter_name(value.name or "", scope, role)
                    if wish != value.name:
                        value.name = _unique(wish, taken)
    return ir.to_proto(named)


def _parameter_name(name: str, scope: str, role: str) -> str:
    """What a weight or bias should be called: torch names those after themselves that it computed."""
    if name.endswith((".weight", ".bias")) or not scope:
        return name
    if name.endswith(".weight_bias"):  # of a folded batch norm
        return f"{name.removesuffix('.weight_bias')}.bias"
    return f"{scope}.{role}"


def _scope_of(node: onnx_ir.Node) -> str:
    """The dotted path of the submodule that a node comes from, "" at the top or where torch does not say."""
    import ast

    scopes = ast.literal_eval(node.metadata_props.get("pkg.torch.onnx.name_scopes", "[]"))
    path = scopes[-2] if len(scopes) > 1 else ""
    return f"{path}.".removeprefix(PREFIX).removesuffix(".")


def _unique(name: str, taken: set[str | None]) -> str:
    unique, number = name, 1
    while unique in taken:
        unique, number = f"{name}_{number}", number + 1
    taken.add(unique)
    return unique


def _check_interface(model: onnx.ModelProto, size: tuple[int, int], batch: int | None) -> None:
    """One input and one output as asked; ``batch`` None stands for a dynamic one."""
    inputs = {value.name: shape_of(value) for value in model.graph.input}
    outputs = {value.name: shape_of(value) for value in model.graph.output}
    wanted = ["batch" if batch is None else batch, 3, *size]
    if inputs != {"images": wanted}:
        raise ExportError(f"the exported network has the inputs {inputs}; wanted images {wanted}")
    logits = outputs.get("logits", [])
    if (
        len(outputs) != 1
        or len(logits) != 4
        or logits[0] != wanted[0]
        or not all(isinstance(d, int) for d in logits[1:])
    ):
        raise ExportError(
            f"the exported network has the outputs {outputs}; wanted one of 4 dimensions, {wanted[0]} first"
        )


def _check_equal(
    model: onnx.ModelProto, shape: tuple[int, ...], seed: int, expected: np.ndarray, discontinuous: bool
) -> None:
    """Raises ExportError unless ONNX Runtime gives what the module gave for these random images.

    A module with a true attribute `discontinuous` moves values by where maxima are (unpooling). Two near maxima may
    change places by rounding, and the logits around them with them, in torch's own float32 against float64 too: of
    such a module most logits must be equal, and nearly all labels.
    """
    logits = run_once(model, random_images(shape, seed))
    if logits.shape != expected.shape:
        raise ExportError(f"the exported network gives logits {logits.shape}, and the module {expected.shape}")
    difference, largest = float(np.abs(logits - expected).max()), float(np.abs(expected).max())
    tolerance = RELATIVE_TOLERANCE * largest
    if discontinuous and difference > tolerance:
        same_labels = (logits.argmax(1) == expected.argmax(1)).mean()
        if np.median(np.abs(logits - expected)) <= tolerance and same_labels >= LABELS_OF_DISCONTINUOUS:
            return
    if not difference <= tolerance:
        raise ExportError(
            f"the exported network differs from the module by {difference:.3g} where logits reach {largest:.3g}; "
            f"wanted at most {RELATIVE_TOLERANCE:g} of that: does its forward depend on anything but the image?"
        )
