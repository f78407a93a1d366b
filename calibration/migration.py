"""Migration: activations rescaled channel by channel before INT8, so that one step serves all channels better.

An activation has one INT8 step for all its channels, and one loud channel makes it coarse for the quiet ones. Channel
j is divided by s_j, and the layers around it make up for it (`channels`): behind a LayerNormalization this is
SmoothQuant (Xiao et al. 2023, arXiv 2211.10438, equation 4), between convolutions cross-layer equalisation (Nagel et
al. 2019, arXiv 1906.04721). Every s_j is a power of two, so that the float network computes the same to the bit.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgeseg.calibration.channels import Group, find_groups
from edgeseg.errors import CalibrationError
from edgeseg.precision.graph import Graph, attribute, copy_of, drop_unused, fresh_namer, opset_of
from edgeseg.precision.placement import find_placement
from edgeseg.precision.ranges import only_input

Kind = Literal["smooth", "equalise"]
Exponents = Mapping[str, tuple[int, ...]]  # first place of a group -> log2 of s, a channel each

ALPHA = 0.5  # how much of the spread goes into the weights of the layers behind; all of it into a depthwise one
LARGEST_EXPONENT = 6  # channels differ by no more than a factor of 64 either way
LOUDEST_TO_QUIETEST = 2.0**-10  # a channel that calibration saw silent is taken to have this share of the loudest


def migration(
    model: onnx.ModelProto, images: Sequence[np.ndarray], kinds: Sequence[Kind] = ("smooth", "equalise")
) -> dict[str, tuple[int, ...]]:
    """The exponents of every group of these kinds.

    Args:
        model: float32 ONNX, as `calibrate` takes it.
        images: (1, 3, h, w) float32 network inputs, a few real ones.
        kinds: "smooth": groups behind a LayerNormalization; "equalise": all others.

    Raises:
        ValueError: no image.
    """
    if not images:
        raise ValueError("migration measures channels on real images, got none")
    found = {
        key: group
        for key, group in _keyed_groups(model).items()
        if ("smooth" if group.behind_norm else "equalise") in kinds
    }
    places = find_placement(model).tensors(model)
    _, axes = find_groups(model)
    quantized = {key: [t for t in dict.fromkeys(places.values()) if t in group.tensors] for key, group in found.items()}
    peaks = _channel_peaks(model, {t: axes[t] for tensors in quantized.values() for t in tensors}, images)
    return {
        key: exponents_of(np.max([peaks[t] for t in quantized[key]], axis=0), *_weight_peaks(model, group))
        for key, group in found.items()
    }


def migrated(model: onnx.ModelProto, exponents: Exponents) -> onnx.ModelProto:
    """The same network to the bit, channels of its activations divided by 2 ** exponents.

    Raises:
        CalibrationError: exponents of another network.
    """
    if not exponents:
        return model
    result = copy_of(model)
    graph, namer = Graph(model), fresh_namer(model)
    groups = _keyed_groups(model)
    values: dict[tuple[int, int], np.ndarray] = {}
    for key, powers in exponents.items():
        group = groups.get(key)
        if group is None or group.channels != len(powers):
            raise CalibrationError(
                f"the scales rescale {len(powers)} channels before {key}, and the graph has no such group of "
                "activations; they were made for another network or with other rewrites: calibrate again"
            )
        for edit in group.edits:
            place = (edit.index, edit.position)
            if place not in values:
                constant = graph.constant(model.graph.node[edit.index].input[edit.position])
                assert constant is not None
                values[place] = constant
            shape = [-1 if i == edit.axis else 1 for i in range(values[place].ndim)]
            values[place] = np.ldexp(values[place], edit.sign * np.reshape(np.array(powers), shape))
    for (index, position), value in values.items():
        node = result.graph.node[index]
        name = namer(f"{node.input[position]}/migrated")
        result.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value, np.float32), name))
        node.input[position] = name
    drop_unused(result)
    return result


def exponents_of(activations: np.ndarray, weights: np.ndarray, alpha: float) -> tuple[int, ...]:
    """log2 of s_j = activations_j ** alpha / weights_j ** (1 - alpha), rounded; the loudest channel keeps its size.

    Args:
        activations: (C,) largest |x| of every channel.
        weights: (C,) largest |w| that reads it, as a share of its row's largest.
        alpha: 1 leaves no spread in the activations.
    """
    if activations.max() == 0:
        return (0,) * len(activations)
    loudness = np.log2(np.maximum(activations, activations.max() * LOUDEST_TO_QUIETEST))
    powers = alpha * loudness - (1 - alpha) * np.log2(np.maximum(weights, LOUDEST_TO_QUIETEST))
    powers = np.rint(powers - np.median(powers)).clip(-LARGEST_EXPONENT, LARGEST_EXPONENT)
    powers += np.rint((loudness - powers).max() - loudness.max())
    return tuple(int(power) for power in powers)


def _keyed_groups(model: onnx.ModelProto) -> dict[str, Group]:
    """Groups with something to quantize, by the first place in each."""
    groups, _ = find_groups(model)
    home = {tensor: group for group in groups for tensor in group.tensors}
    keyed: dict[str, Group] = {}
    for key, tensor in find_placement(model).tensors(model).items():
        group = home.get(tensor)
        if group is not None and all(group is not other for other in keyed.values()):
            keyed[key] = group
    return keyed


def _weight_peaks(model: onnx.ModelProto, group: Group) -> tuple[np.ndarray, float]:
    """(C,) the largest share that a channel's weights have of their row's largest, and alpha: depthwise layers, whose
    rows have one channel each, make up for any factor without loss."""
    graph = Graph(model)
    peaks = np.full(group.channels, LOUDEST_TO_QUIETEST)
    is_free = True
    for edit in group.edits:
        node = graph.nodes[edit.index]
        weight = graph.constant(node.input[edit.position])
        if edit.sign < 0 or weight is None or weight.ndim < 2 or attribute(node, "group", 1) > 1:
            continue
        is_free = False
        columns = np.abs(np.moveaxis(weight, edit.axis, 0)).reshape(group.channels, *_rows_first(weight, edit.axis))
        columns = columns.max(axis=2)
        peaks = np.maximum(peaks, (columns / np.maximum(columns.max(axis=0), 1e-30)).max(axis=1))
    return peaks, 1.0 if is_free else ALPHA


def _rows_first(weight: np.ndarray, axis: int) -> tuple[int, int]:
    """What is left of a weight without its input channels: output channels, and the rest."""
    rest = [size for i, size in enumerate(weight.shape) if i != axis]
    return rest[0], int(np.prod(rest[1:]))


def _channel_peaks(
    model: onnx.ModelProto, axes: Mapping[str, tuple[int, int]], images: Sequence[np.ndarray]
) -> dict[str, np.ndarray]:
    """Largest |x| of every channel, computed inside the graph: a number for each channel comes out, no activation."""
    import onnxruntime

    if not axes:
        return {}
    probe, namer = copy_of(model), fresh_namer(model)
    outputs = {}
    for tensor, (axis, rank) in axes.items():
        magnitude, peak = namer(f"{tensor}/magnitude"), namer(f"{tensor}/channel_peak")
        others = [i for i in range(rank) if i != axis]
        probe.graph.node.append(helper.make_node("Abs", [tensor], [magnitude]))
        if opset_of(model) >= 18:
            numbers = namer(f"{tensor}/axes")
            probe.graph.initializer.append(numpy_helper.from_array(np.array(others, np.int64), numbers))
            probe.graph.node.append(helper.make_node("ReduceMax", [magnitude, numbers], [peak], keepdims=0))
        else:
            probe.graph.node.append(helper.make_node("ReduceMax", [magnitude], [peak], keepdims=0, axes=others))
        probe.graph.output.append(helper.make_tensor_value_info(peak, TensorProto.FLOAT, None))
        outputs[tensor] = peak
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(probe.SerializeToString(), options, ["CPUExecutionProvider"])
    name, shape = only_input(model)
    peaks: dict[str, np.ndarray] = {}
    for image in images:
        batch = np.repeat(image, shape[0] or 1, axis=0)
        for tensor, value in zip(outputs, session.run(list(outputs.values()), {name: batch}), strict=True):
            peaks[tensor] = np.maximum(peaks.get(tensor, 0), value)
    return peaks
