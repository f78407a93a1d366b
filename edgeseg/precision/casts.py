"""Float32 graph -> float16 graph with explicit casts, as strongly typed engines want it.

Which operation can be float16 is read from its own ONNX schema: the inputs and outputs whose type variable allows both
float32 and float16 change, all others (the scales of Resize, the mean of LayerNormalization) stay. A node that has no
such variable, that has a body, comes from another domain, or is to be kept, stays float32 with casts around it.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, defs, helper, numpy_helper, shape_inference

from edgeseg.errors import ExportError
from edgeseg.precision.graph import DEFAULT_DOMAINS, Graph, captured_names, copy_of, drop_unused, fresh_namer, opset_of

HALF_MAX = 65504.0
FP16_LIMIT = 8192.0  # an eighth of float16's largest: room for images louder than those measured
FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16
_SMALLEST_NORMAL = 2.0**-14

# Their output type is an attribute of theirs, not that of their input.
_TYPED_BY_ATTRIBUTE = ("Cast", "ConstantOfShape", "RandomNormal", "RandomUniform", "EyeLike", "Constant")


@dataclass(frozen=True)
class CastCounts:
    """What the conversion did."""

    casts: int  # Cast nodes added
    half_nodes: int  # nodes that compute in float16 now
    float_nodes: tuple[str, ...]  # "Op output" of the nodes with float32 tensors that stayed float32
    subnormal_weights: int  # nonzero weights that lost precision below 2**-14
    zeroed_weights: int  # nonzero weights that became 0, below 2**-25


def cast_float_to_half(model: onnx.ModelProto, *, keep: Collection[str] = ()) -> tuple[onnx.ModelProto, CastCounts]:
    """A copy in float16 whose inputs and outputs are still float32.

    Args:
        model: float32 ONNX; tensors that are float16 already stay so.
        keep: first outputs of the nodes that must stay float32. A node with a weight beyond 65504 stays too.

    Raises:
        ExportError: onnx cannot infer the types of the graph.
    """
    return _Converter(model, set(keep)).convert()


def readers_and_maker(model: onnx.ModelProto, tensors: Collection[str]) -> set[str]:
    """First outputs of the nodes that make or read one of the tensors: what `keep` takes to leave a tensor float32."""
    graph = Graph(model)
    indices = {graph.producer[name] for name in tensors if name in graph.producer}
    for name in tensors:
        indices.update(graph.consumers.get(name, ()))
    return {graph.nodes[index].output[0] for index in indices}


class _Converter:
    def __init__(self, model: onnx.ModelProto, keep: set[str]):
        self.model = copy_of(model)
        _constants_to_initializers(self.model)
        self.types = _tensor_types(self.model)
        self.opset = opset_of(model)
        # What a loop body or a branch reads keeps its name and type.
        captured = set().union(*(captured_names(node) for node in self.model.graph.node))
        self.keep = keep | {node.output[0] for node in self.model.graph.node if captured & set(node.output)}
        self.namer = fresh_namer(model)
        self.weights = {tensor.name: tensor for tensor in self.model.graph.initializer}
        self.made: dict[str, int] = {}  # tensor -> FLOAT or HALF, as it is now
        self.cast: dict[tuple[str, int], str] = {}  # tensor, wanted type -> the tensor of that type
        self.nodes: list[NodeProto] = []
        self.casts = 0
        self.subnormal = 0
        self.zeroed = 0

    def convert(self) -> tuple[onnx.ModelProto, CastCounts]:
        graph = self.model.graph
        old = list(graph.node)
        outputs = {output.name for output in graph.output if self.types.get(output.name) == FLOAT}
        half_nodes, float_nodes = 0, []
        for node in old:
            inputs, made = self._float16_positions(node)
            is_half = bool(made) or (bool(inputs) and node.op_type == "QuantizeLinear")
            for position, name in enumerate(node.input):
                if name and self.types.get(name) == FLOAT:
                    node.input[position] = self._as(name, HALF if is_half and position in inputs else FLOAT)
            self.nodes.append(node)
            self._take_outputs(node, made if is_half else set(), outputs)
            half_nodes += is_half
            if not is_half and self._has_float(node) and node.op_type not in _TYPED_BY_ATTRIBUTE:
                float_nodes.append(f"{node.op_type} {node.output[0]}")
        del graph.node[:]
        graph.node.extend(self.nodes)
        del graph.value_info[:]
        drop_unused(self.model)
        counts = CastCounts(self.casts, half_nodes, tuple(float_nodes), self.subnormal, self.zeroed)
        return self.model, counts

    def _float16_positions(self, node: NodeProto) -> tuple[set[int], set[int]]:
        """Positions of the inputs and outputs of a node that become float16; none for a node that stays."""
        nothing: tuple[set[int], set[int]] = (set(), set())
        if node.domain not in DEFAULT_DOMAINS or node.output[0] in self.keep or node.op_type in _TYPED_BY_ATTRIBUTE:
            return nothing
        if any(item.HasField("g") or item.graphs for item in node.attribute):
            return nothing
        try:
            schema = defs.get_schema(node.op_type, self.opset, "")
        except defs.SchemaError:
            return nothing
        allowed = {
            constraint.type_param_str
            for constraint in schema.type_constraints
            if {"tensor(float)", "tensor(float16)"} <= set(constraint.allowed_type_strs)
        }
        inputs = {
            i
            for i, name in enumerate(node.input)
            if name and self.types.get(name) == FLOAT and _formal(schema.inputs, i).type_str in allowed
        }
        if any(self._is_too_large(node.input[i]) for i in inputs):
            return nothing
        outputs = {
            i
            for i, name in enumerate(node.output)
            if name and self.types.get(name) == FLOAT and _formal(schema.outputs, i).type_str in allowed
        }
        return inputs, outputs

    def _is_too_large(self, name: str) -> bool:
        if name not in self.weights:
            return False
        values = numpy_helper.to_array(self.weights[name])
        finite = values[np.isfinite(values)]
        return bool(finite.size) and float(np.abs(finite).max()) > HALF_MAX

    def _as(self, name: str, wanted: int) -> str:
        """The tensor in the wanted type: itself, a weight converted here, or the output of one shared Cast."""
        if self.made.get(name, FLOAT) == wanted:
            return name
        if (name, wanted) not in self.cast:
            if name in self.weights:
                self.cast[name, wanted] = self._half_weight(name)
            else:
                output = self.namer(f"{name}/{'fp16' if wanted == HALF else 'fp32'}")
                self._add_cast(name, output, wanted)
                self.cast[name, wanted] = output
        return self.cast[name, wanted]

    def _half_weight(self, name: str) -> str:
        values = numpy_helper.to_array(self.weights[name])
        half = values.astype(np.float16)
        magnitudes = np.abs(values)
        self.zeroed += int(((half == 0) & (values != 0)).sum())
        self.subnormal += int(((half != 0) & (magnitudes < _SMALLEST_NORMAL)).sum())
        output = self.namer(f"{name}/fp16")
        self.model.graph.initializer.append(numpy_helper.from_array(half, output))
        return output

    def _take_outputs(self, node: NodeProto, half: set[int], graph_outputs: set[str]) -> None:
        for position in half:
            name = node.output[position]
            if name in graph_outputs:
                # The graph's output keeps its name and type; the float16 value goes by another name.
                node.output[position] = self.namer(f"{name}/fp16")
                self._add_cast(node.output[position], name, FLOAT)
                self.cast[name, HALF] = node.output[position]
            else:
                self.made[name] = HALF

    def _add_cast(self, source: str, output: str, wanted: int) -> None:
        self.nodes.append(helper.make_node("Cast", [source], [output], name=f"{output}/cast", to=wanted))
        self.casts += 1

    def _has_float(self, node: NodeProto) -> bool:
        return any(self.types.get(name) == FLOAT for name in node.output)


def _formal(parameters: "Sequence[defs.OpSchema.FormalParameter]", position: int) -> "defs.OpSchema.FormalParameter":
    """The formal parameter of an argument; the last one of a variadic operation serves all that follow."""
    return parameters[min(position, len(parameters) - 1)]


def _constants_to_initializers(model: onnx.ModelProto) -> None:
    """In place: a Constant node becomes an initializer, which can be converted without a Cast at run time."""
    kept = []
    for node in model.graph.node:
        value = next((item.t for item in node.attribute if item.name == "value"), None)
        if node.op_type == "Constant" and node.domain in DEFAULT_DOMAINS and value is not None:
            tensor = model.graph.initializer.add()
            tensor.CopyFrom(value)
            tensor.name = node.output[0]
        else:
            kept.append(node)
    del model.graph.node[:]
    model.graph.node.extend(kept)


def _tensor_types(model: onnx.ModelProto) -> dict[str, int]:
    """Element type of every tensor."""
    try:
        inferred = shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    except Exception as error:  # InferenceError, or a bare RuntimeError of the checker
        raise ExportError(
            f"onnx cannot infer the types of the network, which float16 casts need ({error}); "
            "simplify the ONNX (onnxsim) or export it again"
        ) from error
    graph = inferred.graph
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    for value in [*graph.input, *graph.value_info, *graph.output]:
        types[value.name] = value.type.tensor_type.elem_type
    return types
