"""An ONNX graph with Q/DQ as a torch module that trains: its weights are parameters, its pairs fake quantisers.

The graph is the one that `edgeseg.precision.int8.quantize` made, so that the places are the deployed network's by
construction. Trained weights and scales go back into the float graph, and `quantize` makes the deployed one anew.
"""

from dataclasses import replace

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

from edgeseg.calibration.scales import LEVELS, Scale, Scales
from edgeseg.errors import ExportError
from edgeseg.precision.graph import DEFAULT_DOMAINS, Graph, copy_of, drop_unused
from edgeseg.precision.placement import find_placement
from edgeseg.training.fake_quant import ActivationQuantizer, fake_quantized_weight
from edgeseg.training.onnx_ops import OPERATORS

# Inputs that are learned besides the weights: biases, gains, and constants of several numbers that are added.
LEARNED_INPUTS = {
    **dict.fromkeys(("Conv", "ConvTranspose", "Gemm"), (1, 2)),
    **dict.fromkeys(("LayerNormalization", "InstanceNormalization", "BatchNormalization"), (1, 2)),
    **dict.fromkeys(("MatMul", "Add"), (0, 1)),
}
PAIR = ("QuantizeLinear", "DequantizeLinear")


class OnnxNetwork(nn.Module):
    """(N, 3, H, W) float32 -> logits, at the batch and size that the graph is for.

    Gradients reach every weight, bias, gain, and every scale of an activation.
    """

    def __init__(self, model: onnx.ModelProto, quantized: onnx.ModelProto | None = None) -> None:
        """
        Args:
            model: the float graph, opset 13 to 23; the parameters' values are its.
            quantized: `quantize(model, ...)` in FP32; None executes the float graph.

        Raises:
            ExportError: an operator that training does not know.
        """
        super().__init__()
        self._float = model
        run = quantized or model
        graph = Graph(run)
        learned = _learned(model)
        nodes = [run.graph.node[index] for index in graph.order()]
        self._nodes = [node for node in nodes if node.output[0] not in learned]  # that made a weight of a constant
        self._attributes = [{a.name: _attribute(a) for a in node.attribute} for node in self._nodes]
        self._input, self._output = run.graph.input[0].name, run.graph.output[0].name
        self.names = tuple(learned)  # of the parameters, as tensors of the float graph
        self.parameters_of_graph = nn.ParameterList([nn.Parameter(torch.from_numpy(v)) for v in learned.values()])
        self._quantized_weights = _weights(model, quantized) if quantized else {}
        self.quantizers = nn.ModuleDict()
        self._quantizer_of: dict[str, str] = {}  # output of a DequantizeLinear -> key in `quantizers`
        self._quantized_tensor: dict[str, str] = {}  # the same -> activation tensor
        self._prepare_pairs(graph)
        self._last_use = self._last_uses()
        self._constants: dict[str, Tensor] = {}
        self._buffer_of: dict[str, str] = {}  # constants that follow the module to its device
        read = {name for node in self._nodes if node.op_type not in PAIR for name in node.input} - learned.keys()
        for tensor in run.graph.initializer:
            if tensor.name not in read:
                continue
            value = torch.from_numpy(numpy_helper.to_array(tensor).copy())
            if value.is_floating_point() and value.ndim:
                self._buffer_of[tensor.name] = f"constant_{len(self._buffer_of)}"
                self.register_buffer(self._buffer_of[tensor.name], value, persistent=False)
            else:
                self._constants[tensor.name] = value

    def forward(self, images: Tensor) -> Tensor:
        learned = dict(zip(self.names, self.parameters_of_graph, strict=True))
        buffers = {name: self.get_buffer(key) for name, key in self._buffer_of.items()}
        values: dict[str, Tensor | None] = {self._input: images, "": None, **self._constants, **buffers, **learned}
        for output, (name, axis) in self._quantized_weights.items():
            values[output] = fake_quantized_weight(learned[name], axis)
        for position, (node, attributes) in enumerate(zip(self._nodes, self._attributes, strict=True)):
            output = node.output[0]
            if output in self._quantized_weights or node.op_type == "QuantizeLinear":
                continue
            if node.op_type == "DequantizeLinear":
                tensor = values[self._quantized_tensor[output]]
                results = (self.quantizers[self._quantizer_of[output]](tensor),)
            elif node.op_type == "Constant":
                results = (attributes["value"],)
            else:
                results = OPERATORS[node.op_type](attributes, *(values[name] for name in node.input))
                results = results if isinstance(results, tuple) else (results,)
            values.update(zip(node.output, results, strict=False))
            for name in self._last_use.get(position, ()):  # without gradients, memory is that of a plain run
                del values[name]
        logits = values[self._output]
        assert logits is not None
        return logits

    def trained_model(self) -> onnx.ModelProto:
        """The float graph with the parameters as they are now."""
        model = copy_of(self._float)
        values = {n: p.detach().cpu().numpy() for n, p in zip(self.names, self.parameters_of_graph, strict=True)}
        initializers = {tensor.name: tensor for tensor in model.graph.initializer}
        for name, value in values.items():
            if name in initializers:
                initializers[name].CopyFrom(numpy_helper.from_array(value, name))
                continue
            # Made by constant nodes (a Transpose of a weight, say): the trained value stands where their result did.
            new = f"{name}/trained"
            model.graph.initializer.append(numpy_helper.from_array(value, new))
            for node in model.graph.node:
                for position, read in enumerate(node.input):
                    if read == name:
                        node.input[position] = new
        drop_unused(model)
        return model

    def trained_scales(self, scales: Scales) -> Scales:
        """`scales` with the ranges learned; a place that is not quantized keeps its own."""
        learned = {
            self._quantized_tensor[output]: float(self.quantizers[key].scale.detach())  # type: ignore[union-attr,operator,arg-type]
            for output, key in self._quantizer_of.items()
        }
        places = find_placement(self._float).tensors(self._float)
        changed = {
            key: Scale(learned[tensor], learned[tensor] * LEVELS) if tensor in learned else scales.scales[key]
            for key, tensor in places.items()
        }
        return replace(scales, scales=changed, method=f"{scales.method}, then learned")

    def _prepare_pairs(self, graph: Graph) -> None:
        for node in self._nodes:
            if node.domain not in DEFAULT_DOMAINS or (node.op_type not in (*OPERATORS, *PAIR, "Constant")):
                raise ExportError(
                    f"training knows no operator {node.op_type} ({node.name}); quantisation-aware training needs "
                    f"networks of convolutions, products, norms and their like: use --max-drop of `edgeseg build`"
                )
            output = node.output[0]
            if node.op_type != "DequantizeLinear" or output in self._quantized_weights:
                continue
            quantize = graph.made_by(node.input[0])
            scale = graph.constant(node.input[1])
            if quantize is None or quantize.op_type != "QuantizeLinear" or scale is None or scale.size != 1:
                raise ExportError(
                    f"{node.name} is no Q/DQ pair with one scale; give the float network, not an INT8 one"
                )
            key = f"pair_{len(self.quantizers)}"
            self.quantizers[key] = ActivationQuantizer(scale.item())
            self._quantizer_of[output] = key
            self._quantized_tensor[output] = quantize.input[0]

    def _last_uses(self) -> dict[int, list[str]]:
        """Position of a node -> tensors that nothing behind it reads."""
        last: dict[str, int] = {}
        for position, node in enumerate(self._nodes):
            reads = [self._quantized_tensor.get(node.output[0], name) for name in node.input]
            for name in [*reads, *node.output]:
                last[name] = position
        made = {name for node in self._nodes for name in node.output}
        made -= {self._output, *self._quantized_weights}
        made -= {node.output[0] for node in self._nodes if node.op_type == "QuantizeLinear"}
        uses: dict[int, list[str]] = {}
        for name in made - {""}:
            uses.setdefault(last[name], []).append(name)
        return uses


def _learned(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """The tensors of a float graph that training changes, and their values."""
    graph = Graph(model)
    ops = {op.index: op.weight for op in find_placement(model).ops}
    found: dict[str, np.ndarray] = {}
    for index in graph.order():
        node = graph.nodes[index]
        for position in LEARNED_INPUTS.get(node.op_type, ()):
            name = node.input[position] if position < len(node.input) else ""
            value = graph.constant(name) if name else None
            if value is None or value.dtype != np.float32 or value.size < 2:
                continue
            is_weight = (node.op_type == "MatMul") or (
                position == 1 and node.op_type in ("Conv", "ConvTranspose", "Gemm")
            )
            if is_weight and ops.get(index) != position:
                continue  # the matrix of an interpolation, or of a product that is not a layer
            found[name] = np.array(value)
    return found


def _weights(model: onnx.ModelProto, quantized: onnx.ModelProto) -> dict[str, tuple[str, int]]:
    """Output of a weight's DequantizeLinear in the quantized graph -> (the weight in the float graph, its axis)."""
    floats = {op.key: model.graph.node[op.index].input[op.weight] for op in find_placement(model).ops}
    nodes = quantized.graph.node
    return {
        nodes[op.index].input[op.weight]: (floats[op.key], op.axis)
        for op in find_placement(quantized).ops
        if op.is_quantized
    }


def _attribute(attribute: onnx.AttributeProto) -> object:
    value = helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode()
    return torch.from_numpy(numpy_helper.to_array(value).copy()) if isinstance(value, onnx.TensorProto) else value
