"""Anyone's ONNX file -> the ONNX that the rest of edgeseg works on: one image input, one output of logits, checked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
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
from edgeseg.onnx_shapes import infer_shapes

if TYPE_CHECKING:
    import onnx

LARGEST_BYTES = 2**31 - 1  # what one protobuf message may hold
OLDEST_OPSET = 17  # LayerNormalization as one operator
RELATIVE_TOLERANCE = 1e-4  # of what is returned against the file as it came, as a share of the largest logit


def load_onnx(
    path: Path,
    size: tuple[int, int] | None = None,
    batch: int | tuple[int, int, int] = 1,
    output: str | None = None,
) -> onnx.ModelProto:
    """Reads and checks a segmentation network; the result computes the same as the file.

    Args:
        path: an ONNX file; tensors in other files only from beside it.
        size: (height, width) of the images; needed where the file leaves it open.
        batch: N, or (smallest, usual, largest) for a dynamic batch, which the file must then have.
        output: which output holds the logits, where there are several.

    Returns:
        A model of opset 17 or later with one float32 input (N, 3, H, W) and one float32 output (N, C, h, w), static but
        for a dynamic batch, weights inside. Names are the file's own.

    Raises:
        ValueError: a size or batch that the file does not have, or none where it needs one.
        ExportError: not such a network; the message says what was found.
    """
    path = Path(path)
    model = _read(path)
    _drop_weights_from_inputs(model)
    _choose_output(model, output, path)
    image = _image_input(model, path)
    _fix_dims(image, size, batch, path)
    original = _without_inferred_shapes(model)
    model = simplify(infer_shapes(_upgraded(infer_shapes(original), path)))
    check_not_random(model)
    dims = shape_of(model.graph.input[0])
    counts = [dims[0]] if isinstance(dims[0], int) else [1, 2]
    for seed, count in enumerate(counts):
        images = random_images([int(count), *map(int, dims[1:])], seed)
        logits = run_once(model, images)
        check_logits(logits, len(images))
        _check_unchanged(run_once(original, images), logits)
    _set_output_shape(model, [dims[0], *logits.shape[1:]])
    return infer_shapes(model)


def _read(path: Path) -> onnx.ModelProto:
    """The file with its external data, valid ONNX, or ExportError."""
    import onnx
    from onnx import inliner

    if path.stat().st_size > LARGEST_BYTES:
        raise ExportError(f"{path.name} has {path.stat().st_size / 2**30:.1f} GiB; edgeseg takes up to 2 GiB")
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's DecodeError, or an onnx error on a truncated text form
        raise ExportError(f"{path.name} is not an ONNX file: {root_cause(error)}") from error
    if not model.graph.node:
        raise ExportError(f"{path.name} is not an ONNX file, or has no nodes; wanted an exported network")
    _load_external_data(model, path)
    if model.functions:
        model = inliner.inline_local_functions(model)
    check_domains(model)
    try:
        onnx.checker.check_model(onnx.shape_inference.infer_shapes(model))  # it insists on shapes of outputs
    except Exception as error:  # ValidationError and others
        raise ExportError(f"{path.name} is not valid ONNX: {root_cause(error)}") from error
    return model


def _load_external_data(model: onnx.ModelProto, path: Path) -> None:
    """Reads tensors kept in other files, which must lie beside the ONNX file or below."""
    import onnx

    folder = path.parent.resolve()
    total = path.stat().st_size
    for tensor in _tensors(model):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
        parts = {*PurePosixPath(location).parts, *PureWindowsPath(location).parts}
        is_absolute = PurePosixPath(location).is_absolute() or PureWindowsPath(location).anchor
        file = (folder / location).resolve()
        if not location or is_absolute or ".." in parts or not file.is_relative_to(folder):
            raise ExportError(
                f"{path.name} keeps {tensor.name!r} in {location!r}; only files beside the ONNX file are read: "
                f"move it there and correct the location, or embed the weights"
            )
        if not file.is_file():
            raise ExportError(f"{path.name} keeps {tensor.name!r} in {location!r}, which is not there; copy it as well")
        total += int(next((entry.value for entry in tensor.external_data if entry.key == "length"), 0))
    if total > LARGEST_BYTES:
        raise ExportError(f"{path.name} and its weights have {total / 2**30:.1f} GiB; edgeseg takes up to 2 GiB")
    try:
        onnx.external_data_helper.load_external_data_for_model(model, str(folder))
    except Exception as error:  # a file that is too short, or a link
        raise ExportError(f"the weights beside {path.name} cannot be read: {root_cause(error)}") from error


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """All tensors of a model: initializers and attributes, in branches and functions too."""
    yield from _tensors_of_graph(model.graph)
    for function in model.functions:
        for node in function.node:
            yield from _tensors_of_node(node)


def _tensors_of_graph(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        yield from _tensors_of_node(node)


def _tensors_of_node(node: onnx.NodeProto) -> Iterator[onnx.TensorProto]:
    for attribute in node.attribute:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        for graph in [attribute.g] if attribute.HasField("g") else attribute.graphs:
            yield from _tensors_of_graph(graph)


def _drop_weights_from_inputs(model: onnx.ModelProto) -> None:
    """Old exporters list the weights among the graph's inputs as well, which IR versions before 4 demand."""
    model.ir_version = max(model.ir_version, 8)
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    del model.graph.input[:]
    model.graph.input.extend(inputs)


def _choose_output(model: onnx.ModelProto, output: str | None, path: Path) -> None:
    """Leaves one output: the one named, or the only one."""
    values = list(model.graph.output)
    found = ", ".join(f"{value.name} {_type_of(value)}" for value in values)
    if output is not None:
        values = [value for value in values if value.name == output]
        if not values:
            raise ExportError(f"{path.name} has no output {output!r}; it has {found}")
    if len(values) != 1:
        raise ExportError(
            f"{path.name} has {len(values)} outputs ({found}); wanted one, the logits: pass --onnx-output NAME"
        )
    del model.graph.output[:]
    model.graph.output.extend(values)


def _image_input(model: onnx.ModelProto, path: Path) -> onnx.ValueInfoProto:
    """The one input, if images can go in."""
    import onnx

    values = list(model.graph.input)
    found = ", ".join(f"{value.name} {_type_of(value)}" for value in values) or "none"
    wanted = "wanted one input of images, float32 (N, 3, H, W)"
    if len(values) != 1:
        raise ExportError(f"{path.name} has {len(values)} inputs ({found}); {wanted}")
    shape = shape_of(values[0])
    if values[0].type.tensor_type.elem_type != onnx.TensorProto.FLOAT or len(shape) != 4:
        raise ExportError(f"{path.name} has the input {found}; {wanted}")
    if isinstance(shape[1], int) and shape[1] != 3:
        hint = ": it takes (N, H, W, 3), export it with channels first" if shape[3] == 3 else ""
        raise ExportError(f"{path.name} has the input {found}; {wanted}{hint}")
    return values[0]


def _type_of(value: onnx.ValueInfoProto) -> str:
    """For messages: float32 (1, 3, 512, 512)."""
    from onnx import TensorProto
    from onnx.helper import tensor_dtype_to_np_dtype

    element = value.type.tensor_type.elem_type
    name = str(tensor_dtype_to_np_dtype(element)) if element != TensorProto.UNDEFINED else "unknown type"
    return f"{name} ({', '.join(map(str, shape_of(value)))})"


def _fix_dims(
    image: onnx.ValueInfoProto, size: tuple[int, int] | None, batch: int | tuple[int, int, int], path: Path
) -> None:
    """Gives the input's open dimensions their values; ValueError where the file and the arguments contradict."""
    found = f"{path.name} takes images {_type_of(image)}"
    dims = image.type.tensor_type.shape.dim
    fixed = [dim.dim_value if dim.HasField("dim_value") else None for dim in dims]
    if size is None and None in fixed[2:]:
        raise ValueError(f"{found}, so its size is open; pass --size HxW")
    if size is not None and any(have not in (None, asked) for have, asked in zip(fixed[2:], size, strict=True)):
        raise ValueError(
            f"{found}, which cannot become {size[0]}x{size[1]}; leave --size out, or export it with a dynamic size"
        )
    if fixed[0] is not None and fixed[0] != batch:
        asked = f"{batch}" if isinstance(batch, int) else f"dynamic, {batch[0]} to {batch[2]}"
        raise ValueError(
            f"{found}, so its batch is fixed, and the batch asked for is {asked}; "
            f"pass --batch {fixed[0]}, or export it with a dynamic batch"
        )
    dims[1].dim_value = 3
    for dim, side in zip(dims[2:], size or (), strict=False):
        dim.dim_value = side
    if isinstance(batch, int):
        dims[0].dim_value = batch
    else:
        dims[0].dim_param = "batch"


def _without_inferred_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy without what was noted about inner tensors and the output, which the fixed input may contradict."""
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.value_info[:]
    for value in copy.graph.output:
        value.type.tensor_type.ClearField("shape")
    return copy


def _upgraded(model: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    from onnx import version_converter

    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if opset >= OLDEST_OPSET:
        return model
    try:
        upgraded = version_converter.convert_version(model, OLDEST_OPSET)
    except Exception as error:  # RuntimeError and ConvertError
        raise ExportError(
            f"{path.name} is of opset {opset} and cannot be brought to {OLDEST_OPSET}: {root_cause(error)}; "
            f"export it again with opset {OLDEST_OPSET} or later"
        ) from error
    return upgraded


def _check_unchanged(expected: np.ndarray, logits: np.ndarray) -> None:
    difference, largest = float(np.abs(logits - expected).max()), float(np.abs(expected).max())
    if not difference <= RELATIVE_TOLERANCE * largest:
        raise ExportError(
            f"bringing the network to opset {OLDEST_OPSET} and folding its constants changed the logits by "
            f"{difference:.3g} where they reach {largest:.3g}; export it again with opset {OLDEST_OPSET} or later"
        )


def _set_output_shape(model: onnx.ModelProto, shape: Sequence[int | str]) -> None:
    dims = model.graph.output[0].type.tensor_type.shape.dim
    del dims[:]
    for size in shape:
        dims.add(**({"dim_value": size} if isinstance(size, int) else {"dim_param": size}))
