"""What export and import of ONNX share: constant folding, tidying, running once, and what a network must look like."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgeseg.errors import ExportError

if TYPE_CHECKING:
    import onnx
    import onnx_ir

RANDOM_OPS = {
    "Bernoulli",
    "Dropout",
    "Multinomial",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
}
LARGEST_FOLDED_TENSOR = "64MB"  # an interpolated position embedding may become a constant, a feature map may not


def simplify(model: onnx.ModelProto) -> onnx.ModelProto:
    """onnxsim's constant folding, and nothing else of it.

    Its graph optimisations are left off because they harm what comes after: they turn each Linear (MatMul + Add) into
    Reshape + Gemm + Reshape, which runs about as fast and is harder to quantise; they join query, key and value to a
    Split; and once these are switched off, they make com.microsoft::Attention nodes, which only ONNX Runtime knows.
    Folding is what matters: it turns the Shape - Slice - Concat chains of exporters into constant sizes.
    """
    import onnxsim

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            simplified, _ = onnxsim.simplify(
                model, perform_optimization=False, tensor_size_threshold=LARGEST_FOLDED_TENSOR
            )
        except Exception as error:  # its C++ core raises many types
            raise ExportError(f"onnxsim cannot fold this network's constants: {root_cause(error)}") from error
    return _tidied(simplified)


def _tidied(model: onnx.ModelProto) -> onnx.ModelProto:
    """Constants as initializers; Identity, inference-time Dropout, unused nodes, doc strings and metadata removed.

    Doc strings and metadata hold stack traces, and with them the paths of the machine that exported.
    """
    import onnx_ir as ir
    from onnx_ir.passes import common

    graph_model = ir.from_proto(model)
    for node in list(graph_model.graph):
        source = node.inputs[0] if node.op_type == "Dropout" and is_idle_dropout(node) else None
        if source is not None:
            node.outputs[0].replace_all_uses_with(source)
            graph_model.graph.remove(node, safe=True)
    for tidy in (
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.IdentityEliminationPass(),
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedOpsetsPass(),
        common.ClearMetadataAndDocStringPass(),
    ):
        tidy(graph_model)
    tidied = ir.to_proto(graph_model)
    tidied.ClearField("metadata_props")
    return tidied


def is_idle_dropout(dropout: onnx_ir.Node) -> bool:
    """A Dropout that is not in training mode, whose mask nobody reads."""
    from onnx_ir.convenience import get_const_tensor

    training = dropout.inputs[2] if len(dropout.inputs) > 2 else None
    flag = get_const_tensor(training) if training is not None else None
    is_off = training is None or (flag is not None and not flag.numpy().any())
    masks_read = any(output.uses() or output.is_graph_output() for output in dropout.outputs[1:])
    return bool(is_off and not masks_read and not dropout.outputs[0].is_graph_output())


def check_not_random(model: onnx.ModelProto) -> None:
    """Raises ExportError for nodes whose result is random."""
    random = sorted({node.op_type for node in model.graph.node if node.op_type in RANDOM_OPS})
    if random:
        raise ExportError(
            f"the exported network has {', '.join(random)} nodes, so its result is random; "
            f"wanted the network in inference mode: dropout that ignores eval() must be removed"
        )


def check_domains(model: onnx.ModelProto) -> None:
    """Raises ExportError for nodes that are not ONNX's own: each runtime knows others."""
    foreign = sorted({f"{n.domain}::{n.op_type}" for n in model.graph.node if n.domain not in ("", "ai.onnx")})
    if foreign:
        raise ExportError(
            f"the network uses operators that are not ONNX's own ({', '.join(foreign)}); "
            f"export it again without optimising for one runtime"
        )


def run_once(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    """The first output of the model in ONNX Runtime.

    Raises:
        ExportError: it cannot be loaded, or fails on these images.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return session.run([model.graph.output[0].name], {model.graph.input[0].name: images})[0]
    except Exception as error:  # ONNX Runtime's exceptions share no base class
        raise ExportError(f"ONNX Runtime cannot run the network: {root_cause(error)}") from error


def check_logits(logits: np.ndarray, batch: int) -> None:
    """Raises ExportError unless these are finite float32 logits (N, C >= 2, h, w) of N images."""
    what = f"shape {tuple(logits.shape)} and type {logits.dtype}"
    if logits.dtype.kind in "iub":
        raise ExportError(
            f"the network's output is labels ({what}), with the ArgMax inside; wanted logits, float32 (N, C, h, w): "
            f"export the network without its ArgMax"
        )
    if logits.ndim != 4 or logits.dtype != np.float32:
        raise ExportError(f"the network's output has {what}; wanted logits, float32 (N, C, h, w)")
    if logits.shape[0] != batch or logits.shape[1] < 2 or min(logits.shape[2:]) < 1:
        raise ExportError(
            f"the network's output has {what} for {batch} images; wanted (N, C, h, w) with at least two classes C"
        )
    if not np.isfinite(logits).all():
        raise ExportError("the network's output has NaN or infinite values for a random image; check its weights")


def random_images(shape: Sequence[int], seed: int) -> np.ndarray:
    """Standard normal (N, 3, H, W) float32: what normalised images look like to a network."""
    return np.random.default_rng(seed).standard_normal(tuple(shape), dtype=np.float32)


def shape_of(value: onnx.ValueInfoProto) -> list[int | str]:
    """The dimensions of a graph input or output; the name, or "?", where one is dynamic."""
    dims = value.type.tensor_type.shape.dim
    return [dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?" for dim in dims]


def root_cause(error: BaseException) -> str:
    """The first line of the innermost exception, with its type."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return text if len(text) <= 300 else f"{text[:297]}..."
