"""INT8 written into the ONNX as QuantizeLinear/DequantizeLinear pairs (explicit quantization).

Symmetric signed INT8, zero point 0: one scale for an activation tensor, one for each output channel of a weight.
Weights are stored as INT8 behind a DequantizeLinear; where the pairs stand is `placement`'s business.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgeseg.calibration.migration import migrated
from edgeseg.calibration.scales import LEVELS, Scales
from edgeseg.errors import CalibrationError
from edgeseg.precision.casts import FP16_LIMIT, cast_float_to_half, readers_and_maker
from edgeseg.precision.graph import Graph, copy_of, drop_unused, fresh_namer, with_opset
from edgeseg.precision.placement import Placement, WeightedOp, find_placement, places_behind
from edgeseg.precision.ranges import node_keys

LARGEST_BIAS = 2**30  # in steps of input scale x weight scale, as runtimes with 32-bit biases store one

OPSET = {"fp32": 13, "fp16": 19}  # first with a scale per channel; first with float16 scales


def quantize(
    model: onnx.ModelProto,
    scales: Scales,
    *,
    high_precision: Literal["fp32", "fp16"] = "fp32",
    exclude: Sequence[str] = (),
    exclude_behind: Sequence[str] = (),
    weight_levels: int = LEVELS,
) -> onnx.ModelProto:
    """The network with INT8 weighted operations; what is quantized already stays as it is.

    Args:
        model: float32 ONNX, the one that the scales were measured on, at any input size; not modified.
        scales: from `calibrate`, or a file.
        high_precision: of everything else, casts and float16 scales included; input and output stay float32.
        exclude: regular expressions; a place whose key or node name matches one (`re.search`) stays in floating point.
        exclude_behind: operations such as "Concat"; a weighted operation fed by one of them stays in floating point.
        weight_levels: largest integer of a weight; 127, or 63 for kernels that add pairs of products in 16 bits.

    Raises:
        ValueError: an expression that matches nothing; weight_levels out of 1 .. 127.
        CalibrationError: scales of another network.
        ExportError: an opset that cannot be raised to 13 (fp32) or 19 (fp16).
    """
    if high_precision not in OPSET:
        raise ValueError(f"high_precision must be fp32 or fp16, got {high_precision!r}")
    if not 1 <= weight_levels <= LEVELS:
        raise ValueError(f"weight_levels must be in 1 .. {LEVELS}, got {weight_levels}")
    scales.check(model=model)
    model = migrated(model, scales.migration)
    is_half = high_precision == "fp16"
    loud = set(_loud_tensors(model, scales.peaks)) if is_half else set()
    result = copy_of(with_opset(model, OPSET[high_precision]))
    placement = find_placement(result)
    excluded = _excluded(placement, result, exclude) | places_behind(result, placement, exclude_behind)
    inserter = _Inserter(result, scales, weight_levels, is_half=is_half, loud=loud)
    inserter.insert(placement, excluded)
    if is_half:
        result, _ = cast_float_to_half(result, keep=inserter.keep)
    return result


class _Inserter:
    """One pass over a model that is ours to change."""

    def __init__(self, model: onnx.ModelProto, scales: Scales, weight_levels: int, *, is_half: bool, loud: set[str]):
        self.model = model
        self.scales = scales
        self.weight_levels = weight_levels
        self.is_half = is_half
        self.loud = loud  # tensors that float16 cannot hold
        self.keep = readers_and_maker(model, loud)  # first outputs of the nodes to leave in float32
        self.graph = Graph(model)
        self.namer = fresh_namer(model)
        self.before: dict[int, list[onnx.NodeProto]] = {}  # node index -> new nodes to stand in front of it

    def insert(self, placement: Placement, excluded: set[str]) -> None:
        nodes = self.model.graph.node
        sites: dict[str, list[tuple[int, int]]] = {}  # activation tensor -> the (node, input) pairs to feed from Q/DQ
        amax: dict[str, float] = {}  # one pair serves all readers of a tensor, with the widest of their ranges
        for op in placement.ops:
            if op.is_quantized or op.key in excluded:
                continue
            self._add_site(sites, amax, op.key, op.index, op.activation)
            nodes[op.index].input[op.weight] = self._quantized_weight(op)
        for place in placement.residuals:
            if excluded.isdisjoint({place.key, place.key.removesuffix(":residual")}):
                self._add_site(sites, amax, place.key, place.index, place.shortcut)
        for tensor, readers in sites.items():
            output = self._pair(tensor, amax[tensor], min(index for index, _ in readers))
            for index, position in readers:
                nodes[index].input[position] = output
        ordered = [new for index, node in enumerate(nodes) for new in [*self.before.get(index, ()), node]]
        del self.model.graph.node[:]
        self.model.graph.node.extend(ordered)
        drop_unused(self.model)

    def _add_site(self, sites: dict, amax: dict, key: str, index: int, position: int) -> None:
        tensor = self.model.graph.node[index].input[position]
        maker = self.graph.made_by(tensor)
        if maker is not None and maker.op_type == "DequantizeLinear":
            return
        sites.setdefault(tensor, []).append((index, position))
        amax[tensor] = max(amax.get(tensor, 0.0), self.scales.scales[key].scale * LEVELS)

    def _pair(self, tensor: str, amax: float, index: int) -> str:
        """Q and DQ in front of the first reader; returns the dequantized tensor."""
        is_half = self.is_half and tensor not in self.loud
        scale = self._initializer(f"{tensor}/scale", _rounding(is_half)(np.array(amax / LEVELS)))
        zero = self._initializer(f"{tensor}/zero_point", np.zeros((), np.int8))
        quantized, dequantized = self.namer(f"{tensor}/q"), self.namer(f"{tensor}/dq")
        if not is_half:
            self.keep |= {quantized, dequantized}  # DQ would overflow where its operand did
        self.before.setdefault(index, []).extend(
            (
                helper.make_node("QuantizeLinear", [tensor, scale, zero], [quantized], name=quantized),
                helper.make_node("DequantizeLinear", [quantized, scale, zero], [dequantized], name=dequantized),
            )
        )
        return dequantized

    def _quantized_weight(self, op: WeightedOp) -> str:
        """The dequantized weight. Operations that share a weight get one each: ONNX Runtime's exact INT8 kernels for
        CPUs without VNNI refuse a graph where they share the integers ("Attempt to replace the existing tensor")."""
        node = self.model.graph.node[op.index]
        name = node.input[op.weight]
        is_half = self.is_half and node.output[0] not in self.keep
        weight = self.graph.constant(name)
        assert weight is not None
        least = self._least_scale(op, node)
        integers, scale = quantized_weight(weight, op.axis, self.weight_levels, _rounding(is_half), least)
        stored = self._initializer(f"{name}/int8", integers)
        scales = self._initializer(f"{name}/scale", scale)
        zeros = self._initializer(f"{name}/zero_point", np.zeros(scale.shape, np.int8))
        output = self.namer(f"{name}/dq")
        dequantize = helper.make_node("DequantizeLinear", [stored, scales, zeros], [output], name=output, axis=op.axis)
        self.before.setdefault(op.index, []).append(dequantize)
        if not is_half:
            self.keep.add(output)
        return output

    def _least_scale(self, op: WeightedOp, node: onnx.NodeProto) -> np.ndarray | float:
        """Below it a channel's bias would leave 32 bits, and ONNX Runtime cuts it off without a word. Such a channel's
        weights are so small beside its bias (a batch norm switched it off) that the larger step loses nothing."""
        bias = self.graph.constant(node.input[2]) if len(node.input) > 2 else None
        weight = self.graph.constant(node.input[op.weight])
        if bias is None or weight is None or bias.shape != (weight.shape[op.axis],):
            return 0.0
        return np.abs(bias.astype(np.float64)) / (self.scales.scales[op.key].scale * LARGEST_BIAS)

    def _initializer(self, wish: str, value: np.ndarray) -> str:
        name = self.namer(wish)
        self.model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name


def quantized_weight(
    weight: np.ndarray,
    axis: int,
    levels: int,
    as_scale: Callable[[np.ndarray], np.ndarray],
    least: np.ndarray | float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """INT8 integers of a weight's shape, and a float32 scale for each index of `axis`: max |w| / levels, or `least`.

    A channel of zeros gets a scale of 1 / levels, since a scale must be positive.
    """
    others = tuple(i for i in range(weight.ndim) if i != axis)
    amax = np.abs(weight).max(others).astype(np.float64)
    scale = as_scale(np.maximum(np.where(amax > 0, amax, 1.0) / levels, least))
    shape = tuple(-1 if i == axis else 1 for i in range(weight.ndim))
    integers = np.rint(weight.astype(np.float64) / scale.astype(np.float64).reshape(shape))
    return np.clip(integers, -levels, levels).astype(np.int8), scale


def _rounding(is_half: bool) -> Callable[[np.ndarray], np.ndarray]:
    return _half_scales if is_half else _float_scales


def _float_scales(scale: np.ndarray) -> np.ndarray:
    return np.maximum(scale, np.finfo(np.float32).tiny).astype(np.float32)


def _half_scales(scale: np.ndarray) -> np.ndarray:
    """Float32 numbers that float16 holds exactly, never below the scale wanted, so that rounding clips nothing."""
    half = np.clip(scale, np.finfo(np.float16).smallest_subnormal, np.finfo(np.float16).max).astype(np.float16)
    with np.errstate(over="ignore"):
        up = np.minimum(np.nextafter(half, np.float16(np.inf)), np.finfo(np.float16).max)
    return np.where(half.astype(np.float64) < scale, up, half).astype(np.float32)


def _excluded(placement: Placement, model: onnx.ModelProto, patterns: Sequence[str]) -> set[str]:
    """Keys that the expressions name."""
    names = {op.key: model.graph.node[op.index].name for op in placement.ops}
    names |= {place.key: model.graph.node[place.index].name for place in placement.residuals}
    excluded: set[str] = set()
    for pattern in patterns:
        found = {key for key, name in names.items() if re.search(pattern, key) or re.search(pattern, name)}
        if not found:
            some = ", ".join(list(names)[:3])
            raise ValueError(f"exclude expression {pattern!r} matches no place of the network; places are {some}, …")
        excluded |= found
    return excluded


def _loud_tensors(model: onnx.ModelProto, peaks: Mapping[str, float]) -> list[str]:
    """The tensors that calibration saw beyond FP16_LIMIT."""
    names = {key: output for output, key in node_keys(model).items()}
    loud = [(key, peak) for key, peak in peaks.items() if peak > FP16_LIMIT]
    for key, peak in loud:
        if key not in names:
            raise CalibrationError(
                f"the scales say that {key} reaches {peak:.4g}, too much for float16, and the graph has no such node; "
                "calibrate again with images (--calibration-data)"
            )
    return [names[key] for key, _ in loud]
