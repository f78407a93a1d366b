"""Questions asked of an ONNX graph by calibration, INT8 and FP16: order, producers, consumers, constants, opset."""

from collections.abc import Callable

import numpy as np
import onnx
from onnx import NodeProto, numpy_helper

from edgeseg.errors import ExportError

DEFAULT_DOMAINS = ("", "ai.onnx")


class Graph:
    """Look-ups over one ModelProto, made once. It holds no copy and sees no later change of the model."""

    def __init__(self, model: onnx.ModelProto):
        self.model = model
        self.nodes = model.graph.node
        self.initializers = {tensor.name: tensor for tensor in model.graph.initializer}
        self.outputs = [output.name for output in model.graph.output]
        self.producer: dict[str, int] = {}  # tensor name -> index of the node that makes it
        self.consumers: dict[str, list[int]] = {}  # tensor name -> indices of the nodes that read it
        for index, node in enumerate(self.nodes):
            for name in node.output:
                if name:
                    self.producer[name] = index
            for name in {*node.input, *captured_names(node)} - {""}:
                self.consumers.setdefault(name, []).append(index)

    def made_by(self, name: str) -> NodeProto | None:
        """The node that makes a tensor; None for a graph input or an initializer."""
        return self.nodes[self.producer[name]] if name in self.producer else None

    def is_read_once(self, name: str) -> bool:
        return len(self.consumers.get(name, ())) == 1 and name not in self.outputs

    def order(self) -> list[int]:
        """Node indices in an order that the wiring alone decides: depth first from the outputs, inputs left to right.

        The order of the nodes in the file and the names of the tensors differ between exporters and simplifiers; this
        does not. Nodes that no output needs are left out.
        """
        done: set[int] = set()
        result: list[int] = []
        for output in self.outputs:
            stack = [(self.producer[output], False)] if output in self.producer else []
            while stack:
                index, is_ready = stack.pop()
                if is_ready:
                    result.append(index)
                    continue
                if index in done:
                    continue
                done.add(index)
                stack.append((index, True))
                node = self.nodes[index]
                for name in reversed([*node.input, *sorted(captured_names(node))]):
                    if name in self.producer and self.producer[name] not in done:
                        stack.append((self.producer[name], False))
        return result

    def constant(self, name: str) -> np.ndarray | None:
        """The value of a tensor that no input can change, or None.

        Seen through Constant, Identity, Transpose and Cast nodes, which exporters leave between a weight and its user.
        """
        if name in self.initializers:
            return numpy_helper.to_array(self.initializers[name])
        node = self.made_by(name)
        if node is None or node.domain not in DEFAULT_DOMAINS:
            return None
        attributes = {attribute.name: attribute for attribute in node.attribute}
        if node.op_type == "Constant":
            return numpy_helper.to_array(attributes["value"].t) if "value" in attributes else None
        if node.op_type not in ("Identity", "Transpose", "Cast"):
            return None
        value = self.constant(node.input[0])
        if value is None or node.op_type == "Identity":
            return value
        if node.op_type == "Transpose":
            return value.transpose(tuple(attributes["perm"].ints) if "perm" in attributes else None)
        return value.astype(onnx.helper.tensor_dtype_to_np_dtype(attributes["to"].i))


def captured_names(node: NodeProto) -> set[str]:
    """Tensors of the surrounding graph that the branches and loop bodies of a node may read."""
    names: set[str] = set()
    for attribute in node.attribute:
        for body in [attribute.g] if attribute.HasField("g") else attribute.graphs:
            for inner in body.node:
                names.update(name for name in inner.input if name)
                names |= captured_names(inner)
            names.update(output.name for output in body.output)
    return names


def attribute(node: NodeProto, name: str, default: int) -> int:
    """An integer attribute of a node."""
    return next((item.i for item in node.attribute if item.name == name), default)


def opset_of(model: onnx.ModelProto) -> int:
    """Version of the default operator set."""
    return next((entry.version for entry in model.opset_import if entry.domain in DEFAULT_DOMAINS), 0)


def copy_of(model: onnx.ModelProto) -> onnx.ModelProto:
    """A ModelProto that shares nothing with its source."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    return result


def with_opset(model: onnx.ModelProto, minimum: int) -> onnx.ModelProto:
    """The model itself where its opset is `minimum` or more, else a converted copy.

    Raises:
        ExportError: onnx has no conversion for one of its nodes.
    """
    came = opset_of(model)
    if came >= minimum:
        return model
    try:
        return onnx.version_converter.convert_version(model, minimum)
    except Exception as error:  # onnx raises bare RuntimeError and its own ConvertError
        raise ExportError(
            f"the ONNX has opset {came}, this precision needs {minimum}, and onnx cannot convert it ({error}); "
            f"export the network again with opset {minimum} or later"
        ) from error


def fresh_namer(model: onnx.ModelProto) -> Callable[[str], str]:
    """`namer(wish)` -> the wish itself, or the wish with a number where the graph has that name already."""
    taken = {tensor.name for tensor in model.graph.initializer} | {value.name for value in model.graph.input}
    for node in model.graph.node:
        taken.update(node.output)
        taken.add(node.name)

    def namer(wish: str) -> str:
        name, number = wish, 1
        while name in taken:
            name, number = f"{wish}_{number}", number + 1
        taken.add(name)
        return name

    return namer


def drop_unused(model: onnx.ModelProto) -> None:
    """Removes, in place, nodes and initializers that no output needs (old weights after a conversion)."""
    graph = model.graph
    used = {output.name for output in graph.output}
    kept = []
    for node in reversed(graph.node):
        if used.intersection(node.output):
            kept.append(node)
            used.update(node.input)
            used |= captured_names(node)
    if len(kept) < len(graph.node):
        del graph.node[:]
        graph.node.extend(reversed(kept))
    initializers = [tensor for tensor in graph.initializer if tensor.name in used]
    if len(initializers) < len(graph.initializer):
        del graph.initializer[:]
        graph.initializer.extend(initializers)
