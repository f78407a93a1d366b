"""Exact rewrites of an ONNX graph: the same labels from fewer multiply-accumulates.

Each rule is a small identity of linear algebra, one file each, with its proof in the docstring. Together they fold a
SegFormer decode head, whoever exported it, from

    concat_i(upsample(W_i x_i + b_i)) -> 1x1 convolution -> BN -> ReLU     to     ReLU(sum_i upsample(V_i x_i + c_i))

with one small matrix per stage at that stage's own resolution, and the bottleneck of a pyramid pooling head from

    concat(x, upsample(p_i)) -> 3x3 convolution -> BN -> ReLU     to     ReLU(V * x + A [G_i B_i^T])

with matrices of a few rows in place of the convolution's largest part. No runtime does this by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

    from edgeseg.rewrites.graph import Graph


@dataclass(frozen=True)
class RewriteReport:
    """What one rule did to a model. Multiply-accumulates are of one image (batch 1 where the batch is dynamic)."""

    name: str
    applied: int  # how many times; 0 and a reason in `name` where the whole model was left alone
    macs_before: int
    macs_after: int


def rewrite(model: onnx.ModelProto) -> tuple[onnx.ModelProto, list[RewriteReport]]:
    """Applies every rule until none finds anything more.

    Args:
        model: a float32 model; its batch may be dynamic. It is left as it is.

    Returns:
        A new model that computes the same function of its inputs up to rounding (inputs, outputs, and the names of all
        parts that no rule touched stay), and a report for each rule, in the order in which they were applied. A model
        that is not float32 is returned as it came, with one report that says so.
    """
    from edgeseg.rewrites.graph import Graph, copy_of

    macs = _macs(model)
    obstacle = _not_float32(model)
    if obstacle:
        return copy_of(model), [RewriteReport(f"skipped: {obstacle}", 0, macs, macs)]
    graph, result = Graph(model), copy_of(model)
    rules = _rules()
    applied, saved = dict.fromkeys(rules, 0), dict.fromkeys(rules, 0)
    changed = True
    while changed:
        changed = False
        for name, rule in rules.items():
            count = rule(graph)
            if count:
                result, changed = graph.to_proto(), True
                before, macs = macs, _macs(result)
                applied[name] += count
                saved[name] += before - macs
    reports = []
    running = macs + sum(saved.values())
    for name in rules:
        reports.append(RewriteReport(name, applied[name], running, running - saved[name]))
        running -= saved[name]
    return result, reports


def _rules() -> dict[str, Callable[[Graph], int]]:
    """In an order in which each finds what those before it have uncovered."""
    from edgeseg.rewrites.batch_norm import fold_batch_norms
    from edgeseg.rewrites.concat import split_over_concat
    from edgeseg.rewrites.inference import remove_training_parts
    from edgeseg.rewrites.layout import linears_to_convolutions
    from edgeseg.rewrites.merge import merge_convolutions
    from edgeseg.rewrites.resize import drop_identity_resizes, move_before_upsampling
    from edgeseg.rewrites.sums import add_before_upsampling, broadcast_single_pixels, move_before_sums
    from edgeseg.rewrites.upsampled import convolve_before_upsampling

    return {
        "remove what only training needs": remove_training_parts,
        "fold batch norm into the layer before or behind it": fold_batch_norms,
        "drop resizing to the same size": drop_identity_resizes,
        "linear layer on tokens as a 1x1 convolution of the map": linears_to_convolutions,
        "1x1 convolution of a concatenation as a sum": split_over_concat,
        "1x1 convolution of a sum as a sum of convolutions": move_before_sums,
        "1x1 convolution before upsampling": move_before_upsampling,
        "merge consecutive convolutions": merge_convolutions,
        "convolution of upsampled maps as products of small matrices": convolve_before_upsampling,
        "add before upsampling": add_before_upsampling,
        "add a single pixel by broadcasting": broadcast_single_pixels,
    }


def _not_float32(model: onnx.ModelProto) -> str:
    """Why the model is not one to rewrite, or "": weights of another type, or quantised."""
    from onnx import TensorProto

    types = {TensorProto.FLOAT16: "FP16", TensorProto.BFLOAT16: "BF16", TensorProto.DOUBLE: "FP64"}
    for tensor in model.graph.initializer:
        if tensor.data_type in types and tensor.dims:
            return f"the model has {types[tensor.data_type]} weights, and the rewrites are for FP32"
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear") or "QLinear" in node.op_type:
            return "the model is quantised, and the rewrites are for FP32"
    return ""


def _macs(model: onnx.ModelProto) -> int:
    """Multiply-accumulates of one image; 0 where they cannot be counted, since a shape is dynamic beyond the batch."""
    from edgeseg.counting import macs_of_onnx

    batches = [value.type.tensor_type.shape.dim[:1] for value in model.graph.input]
    dims = {dim.dim_param: 1 for leading in batches for dim in leading if dim.dim_param}
    try:
        return macs_of_onnx(model, dims)
    except ValueError:
        return 0
