"""Multiply-accumulates and parameters: of a torch module, and of an ONNX graph.

One convention everywhere, the one in which two implementations of a network can be compared exactly: the
multiply-accumulates (half of the FLOPs) of convolutions, linear layers and matrix products, attention's included;
no biases, norms, activations or resizing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from edgeseg.onnx_shapes import without_weights

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto
    from torch import nn

# Where an operator's two factors stand among its inputs; the quantised forms put scales and zero points between.
FACTORS = {
    "Conv": (0, 1),
    "ConvInteger": (0, 1),
    "QLinearConv": (0, 3),
    "ConvTranspose": (0, 1),
    "Gemm": (0, 1),
    "MatMul": (0, 1),
    "MatMulInteger": (0, 1),
    "QLinearMatMul": (0, 3),
}


@dataclass(frozen=True)
class ModuleCount:
    """What a network is made of, and what one image costs it."""

    params: int
    macs: int


def count_module(build: Callable[[], nn.Module], size: tuple[int, int]) -> ModuleCount:
    """Builds a network on the meta device, where nothing is allocated or computed, and counts it.

    Args:
        build: makes the module, for instance ``MODELS["segformer-b5"].build``.
        size: (height, width) of the (1, 3, H, W) input.
    """
    import torch

    with torch.device("meta"):
        module = build().eval()  # batch norm refuses to train on one image that was pooled to one pixel
    return ModuleCount(params_of_module(module), macs_of_module(module, size))


def params_of_module(module: nn.Module) -> int:
    """Number of parameters; a shared one counts once, buffers not at all."""
    return sum(parameter.numel() for parameter in module.parameters())


def macs_of_module(module: nn.Module, size: tuple[int, int]) -> int:
    """Multiply-accumulates of ``module`` on one (1, 3, H, W) image, from shapes alone; the module is left as it is.

    A submodule that computes with products what is published without any says so by ``published_macs = 0``.
    """
    import torch
    from torch.func import functional_call
    from torch.utils.flop_counter import FlopCounterMode

    tensors = dict(module.named_parameters()) | dict(module.named_buffers())
    shapes = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors.items()}
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        functional_call(module, shapes, (torch.empty(1, 3, *size, device="meta"),))
    by_module = counter.get_flop_counts()  # under "Class.path.of.submodule", each with all that is inside
    uncounted = [name for name, part in module.named_modules() if getattr(part, "published_macs", None) == 0]
    extra = sum(sum(by_module.get(f"{type(module).__name__}.{name}", {}).values()) for name in uncounted)
    return (counter.get_total_flops() - extra) // 2


def macs_of_onnx(model: ModelProto, dims: Mapping[str, int] | None = None) -> int:
    """Multiply-accumulates of one run of an ONNX model, whatever its precision.

    Args:
        model: FP32, FP16 or quantised (Q/DQ nodes cost nothing, QLinear operators count as what they stand for).
            Its batch counts: at batch 2 everything is twice as much.
        dims: sizes for symbolic dimensions, such as ``{"batch": 1}``.

    Raises:
        ValueError: where a shape is not known; it names the symbolic dimensions or the tensor.
    """
    return sum(macs_by_node(model, dims).values())


def macs_by_node(model: ModelProto, dims: Mapping[str, int] | None = None) -> dict[str, int]:
    """The same for each node that has any, in the graph's order, by the node's name (or its first output's)."""
    nodes, shapes = _static_shapes(model, dims or {})
    macs: dict[str, int] = {}
    for node in nodes:
        count = _macs_of_node(node, shapes)
        if count is not None:
            name = node.name if node.name and node.name not in macs else node.output[0]
            macs[name] = count
    return macs


def int8_share(model: ModelProto, dims: Mapping[str, int] | None = None) -> float:
    """Share of the multiply-accumulates, 0 .. 1, of which both factors come from DequantizeLinear, casts between aside.

    What the graph asks for; a runtime may compute more of it in floating point.
    """
    makers = {output: node for node in model.graph.node for output in node.output}

    def is_int8(name: str) -> bool:
        maker = makers.get(name)
        while maker is not None and maker.op_type == "Cast":
            maker = makers.get(maker.input[0])
        return maker is not None and maker.op_type == "DequantizeLinear"

    macs = macs_by_node(model, dims)
    reduced = 0
    for node in model.graph.node:
        if node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul") and all(map(is_int8, node.input[:2])):
            reduced += macs_of(node, macs)
    return reduced / max(sum(macs.values()), 1)


def macs_of(node: NodeProto, macs: Mapping[str, int]) -> int:
    """One node's part of `macs_by_node`; 0 where it has none."""
    return macs.get(node.output[0], macs.get(node.name, 0))


def largest_nodes(model: ModelProto, count: int = 10, dims: Mapping[str, int] | None = None) -> list[tuple[str, int]]:
    """The ``count`` nodes with the most multiply-accumulates, most first."""
    return sorted(macs_by_node(model, dims).items(), key=lambda item: -item[1])[:count]


def params_of_onnx(model: ModelProto) -> int:
    """Number of weights that an ONNX graph stores: the floating-point initialisers that are not scalars.

    A graph whose batch norms are folded has fewer than the module it came from.
    """
    from onnx import TensorProto

    floating = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE}
    return sum(prod(tensor.dims) for tensor in model.graph.initializer if tensor.data_type in floating and tensor.dims)


def _macs_of_node(node: NodeProto, shapes: Mapping[str, list[int]]) -> int | None:
    if node.op_type == "Einsum":
        return _macs_of_einsum(node, [_shape(name, node, shapes) for name in node.input])
    if node.op_type not in FACTORS:
        if _counts(node):
            raise ValueError(
                f"cannot count {node.op_type} {node.name!r}: it computes in a branch or a loop, "
                "and how often is not known before it runs; export without control flow"
            )
        return None
    left, right = (_shape(node.input[i], node, shapes) for i in FACTORS[node.op_type])
    if node.op_type == "ConvTranspose":  # each input element is spread over (C_out / groups, *kernel)
        return prod(left) * prod(right[1:])
    outputs = prod(_shape(node.output[0], node, shapes))
    if "Conv" in node.op_type:  # each output element gathers (C_in / groups, *kernel)
        return outputs * prod(right[1:])
    transposed = node.op_type == "Gemm" and any(a.name == "transA" and a.i for a in node.attribute)
    return outputs * left[0 if transposed else -1]


def _macs_of_einsum(node: NodeProto, operands: list[list[int]]) -> int | None:
    """Every combination of indices is one multiply-accumulate, where two operands meet; one operand is only moved."""
    equation = next(a.s for a in node.attribute if a.name == "equation").decode().replace(" ", "")
    terms = equation.split("->")[0].split(",")
    if len(terms) == 1:
        return None
    if len(terms) != 2 or "." in equation:
        raise ValueError(f"cannot count the Einsum {node.name!r} ({equation}): wanted two operands and no ellipsis")
    extents: dict[str, int] = {}
    for term, shape in zip(terms, operands, strict=True):
        for index, extent in zip(term, shape, strict=True):
            extents[index] = max(extent, extents.get(index, 1))  # an extent of 1 broadcasts
    return prod(extents.values())


def _shape(name: str, node: NodeProto, shapes: Mapping[str, list[int]]) -> list[int]:
    if name not in shapes:
        raise ValueError(
            f"the shape of {name!r}, which {node.op_type} {node.name!r} needs, is not static; "
            "export with fixed sizes, or simplify the model with onnxsim first"
        )
    return shapes[name]


def _static_shapes(model: ModelProto, dims: Mapping[str, int]) -> tuple[list[NodeProto], dict[str, list[int]]]:
    """The nodes, local functions inlined, and the shape of every tensor that has a known one."""
    from onnx import inliner, shape_inference

    light = without_weights(model)
    symbolic = {name for value in light.graph.input for name in _substitute(value, dims)}
    if symbolic:
        raise ValueError(
            f"counting needs static shapes, and the inputs have symbolic dimensions: {', '.join(sorted(symbolic))}; "
            'give their sizes, for instance dims={"batch": 1}, or export with fixed sizes'
        )
    if light.functions:
        light = inliner.inline_local_functions(light)
    inferred = shape_inference.infer_shapes(light, data_prop=True).graph
    # What the exporter noted serves only where inference knows nothing, at operators that are not ONNX's own.
    noted = [*model.graph.value_info, *model.graph.output]
    shapes = {value.name: shape for value in noted if (shape := _static_shape(value)) is not None}
    for value in [*inferred.value_info, *inferred.output, *inferred.input]:
        if (shape := _static_shape(value)) is not None:
            shapes[value.name] = shape
    shapes |= {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    return list(inferred.node), shapes


def _substitute(value: ValueInfoProto, dims: Mapping[str, int]) -> list[str]:
    """Gives the value's symbolic dimensions their sizes, in place; the names of those that have none."""
    missing = []
    for i, dim in enumerate(value.type.tensor_type.shape.dim):
        if dim.dim_param in dims and not dim.HasField("dim_value"):
            dim.dim_value = dims[dim.dim_param]
        elif not dim.HasField("dim_value"):
            missing.append(f"{value.name}[{i}]" + (f" ({dim.dim_param})" if dim.dim_param else ""))
    return missing


def _static_shape(value: ValueInfoProto) -> list[int] | None:
    tensor = value.type.tensor_type
    if not tensor.HasField("shape") or not all(dim.HasField("dim_value") for dim in tensor.shape.dim):
        return None
    return [dim.dim_value for dim in tensor.shape.dim]


def _subgraphs(node: NodeProto) -> list[GraphProto]:
    return [graph for a in node.attribute for graph in ([a.g] if a.HasField("g") else a.graphs)]


def _counts(node: NodeProto) -> bool:
    return node.op_type in FACTORS or any(_counts(inner) for graph in _subgraphs(node) for inner in graph.node)
