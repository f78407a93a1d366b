"""The graph that the rules work on: an onnx_ir graph, and the few questions and edits that all of them share."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from edgeseg.onnx_shapes import infer_shapes

ONNX = ("", "ai.onnx")  # the domains of ONNX's own operators

Attribute = int | float | str | Sequence[int] | ir.Attr
Dims = tuple[int | None, ...]  # None: not known before the graph runs, such as a dynamic batch


class Graph:
    """A private copy of a model's main graph, with its shapes inferred. Edits never reach the model it came from."""

    def __init__(self, model: onnx.ModelProto):
        self.model = ir.from_proto(infer_shapes(model))
        self.graph = self.model.graph
        self._names = {value.name for node in self.graph.all_nodes() for value in node.outputs}
        self._names |= {value.name for value in self.graph.inputs} | set(self.graph.initializers)
        self._names |= {node.name for node in self.graph.all_nodes()}
        self._own: set[int] = set()  # ids of the values that rules have made
        self._kept: set[str | None] = set()  # names that new values took over from old ones
        self._wishes: list[tuple[ir.Value | ir.Node, str]] = []  # new things, and what they would be called best

    def to_proto(self) -> onnx.ModelProto:
        """The edited model, what nothing reads any more left out."""
        RemoveUnusedNodesPass()(self.model)
        self.graph.sort()
        self._grant_wishes()
        return ir.to_proto(self.model)

    def nodes(self, *op_types: str) -> Iterator[ir.Node]:
        """The nodes of ONNX's own operators of these types, in the graph's order. The graph may be edited meanwhile:
        nodes that are gone by their turn are left out."""
        for node in list(self.graph):
            if node.op_type in op_types and node.domain in ONNX and node.graph is self.graph:
                yield node

    def add(
        self,
        before: ir.Node,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Attribute],
        shape: Sequence[int | str | None],
        name: str,
        dtype: ir.DataType = ir.DataType.FLOAT,
    ) -> ir.Value:
        """A new node in front of another one, named ``name``; returns its output."""
        node = ir.node(op_type, inputs, attributes, name=self._unique(name))
        (output,) = node.outputs
        output.name = self._unique(f"{name}_output")
        self._own.add(id(output))
        self._wishes += [(node, name), (output, f"{name}_output")]
        output.shape, output.type = ir.Shape(shape), ir.TensorType(dtype)
        self.graph.insert_before(before, node)
        return output

    def constant(self, name: str, array: np.ndarray) -> ir.Value:
        """A new initializer; float64 arrays are stored as float32."""
        array = np.ascontiguousarray(array, dtype=np.float32 if array.dtype == np.float64 else array.dtype)
        unique = self._unique(name)
        value = ir.Value(
            name=unique,
            shape=ir.Shape(array.shape),
            type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
            const_value=ir.tensor(array, name=unique),
        )
        self.graph.register_initializer(value)
        self._wishes.append((value, name))
        return value

    def substitute(self, old: ir.Value, new: ir.Value) -> None:
        """``new`` takes over the readers of ``old``, its place among the graph's outputs, and a name from the model."""
        if id(old) not in self._own:
            new.name, old.name = old.name, None
            self._kept.add(new.name)
        old.replace_all_uses_with(new, replace_graph_outputs=True)
        self._remove_if_dead(old.producer())

    def bypass(self, old: ir.Value, source: ir.Value) -> None:
        """The readers of ``old``, which is no output of the graph, read ``source`` instead."""
        old.replace_all_uses_with(source)
        self._remove_if_dead(old.producer())

    def _remove_if_dead(self, node: ir.Node | None) -> None:
        """Removes a node that nothing reads, and then what it alone has read: else those would seem to have readers."""
        if node is None or any(output.uses() or output.is_graph_output() for output in node.outputs):
            return
        sources = [value.producer() for value in node.inputs if value is not None]
        self.graph.remove(node, safe=True)
        for source in dict.fromkeys(sources):
            self._remove_if_dead(source)

    def _grant_wishes(self) -> None:
        """A folded layer is called what the layers were called that it replaces, now that those are gone."""
        nodes = list(self.graph.all_nodes())
        values = [value for node in nodes for value in node.outputs]
        values += [*self.graph.inputs, *self.graph.initializers.values()]
        things: list[ir.Value | ir.Node] = [*nodes, *values]
        taken, present = {thing.name for thing in things}, {id(thing) for thing in things}
        for thing, name in self._wishes:
            is_output = isinstance(thing, ir.Value) and thing.is_graph_output()
            if id(thing) in present and not is_output and name not in taken and thing.name not in self._kept:
                taken = taken - {thing.name} | {name}
                thing.name = name

    def _unique(self, name: str) -> str:
        unique, number = name, 1
        while unique in self._names:
            unique, number = f"{name}_{number}", number + 1
        self._names.add(unique)
        return unique


def copy_of(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def dims(value: ir.Value | None) -> Dims:
    """The shape, None where a dimension is not known; () also where not even the rank is."""
    if value is None or value.shape is None:
        return ()
    return tuple(dim if isinstance(dim, int) else None for dim in value.shape)


def like(value: ir.Value, changes: Mapping[int, int]) -> list[int | str | None]:
    """The shape of a value with some dimensions replaced; symbolic dimensions keep their names."""
    shape = [dim if isinstance(dim, int) else dim.value for dim in value.shape or ()]
    return [changes.get(axis, dim) for axis, dim in enumerate(shape)]


def array_of(value: ir.Value | None) -> np.ndarray | None:
    """The value of a tensor that no input can change, or None. Seen through Identity and Transpose."""
    if value is None:
        return None
    node = value.producer()
    if node is not None and node.op_type in ("Identity", "Transpose"):
        array = array_of(node.inputs[0])
        if array is None or node.op_type == "Identity":
            return array
        return array.transpose(ints(node, "perm") or None)
    tensor = None if value.is_graph_input() else ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def floats_of(value: ir.Value | None) -> np.ndarray | None:
    """The same in float64, the precision in which the rules compute; None also where it is not float32."""
    array = array_of(value)
    return array.astype(np.float64) if array is not None and array.dtype == np.float32 else None


def reader_of(value: ir.Value) -> ir.Node | None:
    """The one node that reads a value, once; None where there are more, or where it is an output of the graph."""
    uses = list(value.uses())
    if len(uses) != 1 or value.is_graph_output() or uses[0].node.graph is not value.graph:
        return None
    return uses[0].node


def maker_of(value: ir.Value | None, op_type: str) -> ir.Node | None:
    """The node of this type that makes a value which nothing else reads, or None."""
    node = value.producer() if value is not None else None
    if value is None or node is None or node.op_type != op_type or node.domain not in ONNX:
        return None
    return node if reader_of(value) is not None else None


def integer(node: ir.Node, name: str, default: int) -> int:
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_int()


def number(node: ir.Node, name: str, default: float) -> float:
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_float()


def ints(node: ir.Node, name: str) -> tuple[int, ...]:
    attribute = node.attributes.get(name)
    return () if attribute is None else tuple(attribute.as_ints())


def text(node: ir.Node, name: str, default: str) -> str:
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_string()


def input_of(node: ir.Node, index: int) -> ir.Value | None:
    """An input, or None where an optional one is left out."""
    return node.inputs[index] if index < len(node.inputs) else None


def stem_of(node: ir.Node) -> str:
    """What a layer is called: its weight's or bias's name without the ending, else the node's name.

    >>> stem of Conv(x, "decode_head.fuse.weight", "decode_head.fuse.bias")
    decode_head.fuse
    """
    for value in node.inputs:
        for ending in (".weight", ".bias"):
            if value is not None and value.name and value.name.endswith(ending):
                return value.name.removesuffix(ending)
    return node.name or node.outputs[0].name or node.op_type
