"""Runs the float network in ONNX Runtime and hands out activations and peaks, one image at a time.

A peak is max |x| of a tensor, computed inside the graph, so that measuring all of them costs a number each. Whole
activations are fetched only where a histogram needs them, in groups that fit a budget of memory.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, shape_inference

from edgeseg.errors import CalibrationError
from edgeseg.onnx_shapes import without_weights
from edgeseg.precision.graph import Graph, copy_of, fresh_namer

GROUP_BYTES = 256 << 20  # activations held at the same time


class Runner:
    """The network with `tensors` as further outputs, and the peak of every float32 tensor with `peaks`."""

    def __init__(self, model: onnx.ModelProto, tensors: Sequence[str], *, peaks: bool):
        import onnxruntime

        self.input_name, self.input_shape = only_input(model)
        self._model = model
        self._tensors = list(dict.fromkeys(tensors))
        probe = copy_of(model)
        known = {output.name for output in probe.graph.output} | {value.name for value in probe.graph.input}
        probe.graph.output.extend(
            helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in self._tensors if name not in known
        )
        self._peaks = _append_peaks(probe, float_tensors(model)) if peaks else {}
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(probe.SerializeToString(), options, ["CPUExecutionProvider"])
        self._groups: list[list[str]] | None = None
        self.peaks: dict[str, float] = {}  # tensor name -> max |x| over all images so far

    def run(self, images: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        """(name, activation) of every chosen tensor for one batch, which `fitting` has made fit the network."""
        if self._groups is None:
            self._groups = self._grouped(images.shape)
        for number, group in enumerate(self._groups):
            fetched = [name for name in group if name != self.input_name]
            peak_names = list(self._peaks) if number == 0 else []
            outputs = (
                self._session.run([*fetched, *peak_names], {self.input_name: images}) if fetched or peak_names else []
            )
            for name, peak in zip(peak_names, outputs[len(fetched) :], strict=True):
                tensor = self._peaks[name]
                self.peaks[tensor] = max(self.peaks.get(tensor, 0.0), _finite(tensor, float(peak)))
            del outputs[len(fetched) :]
            if self.input_name in group:
                yield self.input_name, images
            while fetched:  # freed one by one
                yield fetched.pop(), outputs.pop()

    def _grouped(self, shape: tuple[int, ...]) -> list[list[str]]:
        sizes = _tensor_bytes(self._model, shape)
        groups: list[list[str]] = [[]]
        held = 0
        for name in self._tensors:
            size = sizes.get(name, GROUP_BYTES)  # not known: alone
            if groups[-1] and held + size > GROUP_BYTES:
                groups.append([])
                held = 0
            groups[-1].append(name)
            held += size
        return groups


def only_input(model: onnx.ModelProto) -> tuple[str, tuple[int | None, ...]]:
    """Name and shape (None: dynamic) of the one graph input."""
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    if len(inputs) != 1:
        raise ValueError(f"the network must have one input, got {', '.join(value.name for value in inputs) or 'none'}")
    dims = inputs[0].type.tensor_type.shape.dim
    return inputs[0].name, tuple(dim.dim_value if dim.dim_value > 0 else None for dim in dims)


def fitting(batches: Iterable[np.ndarray], shape: tuple[int | None, ...]) -> Iterator[tuple[np.ndarray, int]]:
    """Batches as the network takes them: one image at a time, repeated to fill a static batch; and how many came.

    Raises:
        ValueError: a batch that is not (N, C, h, w) float32 of the network's size.
    """
    for batch in batches:
        if not isinstance(batch, np.ndarray) or batch.dtype != np.float32 or batch.ndim != 4:
            came = f"{batch.shape} {batch.dtype}" if isinstance(batch, np.ndarray) else type(batch).__name__
            raise ValueError(f"a batch must be (N, C, h, w) float32 numpy, got {came}; use Preprocess on the image")
        if len(shape) != 4 or any(
            want not in (None, got) for want, got in zip(shape[1:], batch.shape[1:], strict=True)
        ):
            wanted = "x".join("?" if size is None else str(size) for size in shape)
            raise ValueError(f"the network takes {wanted}, got a batch of {'x'.join(map(str, batch.shape))}")
        for i in range(len(batch)):
            image = np.ascontiguousarray(batch[i : i + 1])
            yield np.repeat(image, shape[0] or 1, axis=0), 1


def float_tensors(model: onnx.ModelProto) -> list[str]:
    """Names of the float32 tensors that nodes make, as far as types can be inferred."""
    try:
        inferred = shape_inference.infer_shapes(without_weights(model, noted=True), data_prop=True)
    except Exception:  # a graph that onnx cannot follow is still one that the runtime may run
        inferred = model
    values = [*inferred.graph.value_info, *inferred.graph.output]
    floats = {value.name for value in values if value.type.tensor_type.elem_type == TensorProto.FLOAT}
    return [name for node in model.graph.node for name in node.output if name in floats]


def node_keys(model: onnx.ModelProto) -> dict[str, str]:
    """First output of every node -> a name such as "Mul:17", the 17th Mul in the order of `Graph.order`."""
    graph = Graph(model)
    counts: dict[str, int] = {}
    keys = {}
    for index in graph.order():
        node = graph.nodes[index]
        number = counts[node.op_type] = counts.get(node.op_type, -1) + 1
        keys[node.output[0]] = f"{node.op_type}:{number}"
    return keys


def _append_peaks(model: onnx.ModelProto, tensors: list[str]) -> dict[str, str]:
    """Adds max |x| of the tensors as scalar outputs, in place; returns output name -> tensor name."""
    namer = fresh_namer(model)
    peaks = {}
    for tensor in tensors:
        magnitude, peak = namer(f"{tensor}/abs"), namer(f"{tensor}/peak")
        model.graph.node.append(helper.make_node("Abs", [tensor], [magnitude]))
        model.graph.node.append(helper.make_node("ReduceMax", [magnitude], [peak], keepdims=0))
        model.graph.output.append(helper.make_tensor_value_info(peak, TensorProto.FLOAT, []))
        peaks[peak] = tensor
    return peaks


def _tensor_bytes(model: onnx.ModelProto, input_shape: tuple[int, ...]) -> dict[str, int]:
    """Sizes of the tensors at one input shape, as far as shapes can be inferred."""
    fixed = without_weights(model)
    name, _ = only_input(model)
    value = next(value for value in fixed.graph.input if value.name == name)
    for dim, size in zip(value.type.tensor_type.shape.dim, input_shape, strict=True):
        dim.dim_value = size
    try:
        inferred = shape_inference.infer_shapes(fixed, data_prop=True)
    except Exception:
        return {}
    sizes = {name: 4 * int(np.prod(input_shape))}
    for item in [*inferred.graph.value_info, *inferred.graph.output]:
        dims = item.type.tensor_type.shape.dim
        if item.type.tensor_type.HasField("shape") and all(dim.dim_value > 0 for dim in dims):
            sizes[item.name] = 4 * int(np.prod([dim.dim_value for dim in dims]))
    return sizes


def _finite(tensor: str, peak: float) -> float:
    if not np.isfinite(peak):
        raise CalibrationError(
            f"the float network itself gives {peak} in {tensor} on the calibration images; "
            "check the weights and the preprocessing before lowering the precision"
        )
    return peak
