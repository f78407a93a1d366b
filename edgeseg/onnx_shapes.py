"""Shape inference for networks whose batch may be dynamic, without carrying their weights around."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

BATCHES = (2, 3)
LARGEST_SHAPE_TENSOR = 4096  # elements; shape inference needs the values of shapes and axes, never those of weights


def infer_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that notes the shape of every tensor as far as it is known.

    ONNX's inference loses track of a dynamic batch at the first Reshape whose target is computed from it, which is how
    exporters write every Reshape. So it is run for two batch sizes: what does not change between them is static, and
    what changes with them is the batch.
    """
    from onnx import ModelProto, helper, shape_inference

    graph = shape_inference.infer_shapes(without_weights(model, noted=True), data_prop=True).graph
    inferred = ModelProto()
    inferred.CopyFrom(model)
    del inferred.graph.value_info[:], inferred.graph.output[:]
    inferred.graph.output.extend(graph.output)
    batch = _dynamic_batch(model)
    if batch is None:
        inferred.graph.value_info.extend(graph.value_info)
        return inferred
    smaller, larger = (_values_at(model, batch, size) for size in BATCHES)
    for name, (element, dims) in smaller.items():
        others = larger[name][1] if name in larger else []
        if len(others) == len(dims):
            shape = [_merged(pair, batch) for pair in zip(dims, others, strict=True)]
            inferred.graph.value_info.append(helper.make_tensor_value_info(name, element, shape))
    return inferred


def without_weights(model: onnx.ModelProto, *, noted: bool = False) -> onnx.ModelProto:
    """A copy fit for shape inference: weights as inputs without values.

    Args:
        model: any ONNX.
        noted: keep what the file says of inner tensors and of the outputs' shapes; by default that is forgotten.
    """
    from onnx import ModelProto, helper

    light = ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions)
    graph = light.graph
    graph.name = model.graph.name or "graph"
    graph.node.extend(model.graph.node)
    graph.input.extend(model.graph.input)
    graph.output.extend(model.graph.output)
    if noted:
        graph.value_info.extend(model.graph.value_info)
    else:
        for value in graph.output:
            value.type.tensor_type.ClearField("shape")
    inputs = {value.name for value in graph.input}
    for tensor in model.graph.initializer:
        if prod(tensor.dims) <= LARGEST_SHAPE_TENSOR:
            graph.initializer.append(tensor)
        elif tensor.name not in inputs:
            graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return light


def _dynamic_batch(model: onnx.ModelProto) -> str | None:
    """The name of the batch where it is the one open dimension of the inputs, else None."""
    weights = {tensor.name for tensor in model.graph.initializer}
    shapes = [v.type.tensor_type.shape.dim for v in model.graph.input if v.name not in weights]
    names = {
        (axis, dim.dim_param) for shape in shapes for axis, dim in enumerate(shape) if not dim.HasField("dim_value")
    }
    if len(names) != 1:
        return None
    ((axis, name),) = names
    return name if axis == 0 and name else None


def _values_at(model: onnx.ModelProto, batch: str, size: int) -> dict[str, tuple[int, list[int | None]]]:
    """Element type and shape of every inner tensor at one batch size."""
    import onnx

    fixed = without_weights(model)
    for value in fixed.graph.input:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param == batch:
                dim.dim_value = size
    inferred = onnx.shape_inference.infer_shapes(fixed, data_prop=True)
    return {
        value.name: (
            value.type.tensor_type.elem_type,
            [dim.dim_value if dim.HasField("dim_value") else None for dim in value.type.tensor_type.shape.dim],
        )
        for value in inferred.graph.value_info
        if value.type.tensor_type.HasField("shape")
    }


def _merged(sizes: tuple[int | None, int | None], batch: str) -> int | str | None:
    if sizes == BATCHES:
        return batch
    return sizes[0] if sizes[0] == sizes[1] else None
