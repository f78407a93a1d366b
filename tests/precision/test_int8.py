from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeseg.backends import BACKENDS
from edgeseg.calibration import calibrate
from edgeseg.calibration.scales import Scale
from edgeseg.errors import CalibrationError, ExportError
from edgeseg.precision.int8 import _half_scales, quantize, quantized_weight
from edgeseg.precision.placement import find_placement
from precision.networks import FLOAT_ONLY, emulate, modules_by_key, network, pictures, rms, run

NAMES = ["segformer", "convnet"]
IMAGES = pictures(4)
EXACT_X86 = {"session.x64quantprecision": "1"}  # no 16-bit sums on a CPU without VNNI; no effect elsewhere


@pytest.fixture(scope="module", params=NAMES)
def calibrated(request):
    module, model = network(request.param)
    return module, model, calibrate(model, IMAGES)


def pairs(model, op_type="QuantizeLinear"):
    return [node for node in model.graph.node if node.op_type == op_type]


@pytest.mark.parametrize("levels", [127, 63])
def test_equals_an_emulation_in_torch(calibrated, levels):
    module, model, scales = calibrated
    quantized = quantize(model, scales, weight_levels=levels)
    onnx.checker.check_model(quantized, full_check=True)
    image = IMAGES[0]
    expected = emulate(module, modules_by_key(module, model), scales, image, levels)
    found = run(quantized, image, FLOAT_ONLY)
    damage = rms(found - run(model, image))
    assert damage > 0
    # Rounding is the same but for numbers that fall on the edge of a step by the last bit of float32.
    assert rms(found - expected) < 0.2 * damage
    assert np.corrcoef((found - run(model, image)).ravel(), (expected - run(model, image)).ravel())[0, 1] > 0.97


def test_one_weight_in_two_places():
    """A recurrent block, or a network run at several scales. ONNX Runtime's exact kernels refuse shared integers."""
    weight = np.random.default_rng(0).normal(0, 0.5, (3, 3, 3, 3)).astype(np.float32)
    first = helper.make_node("Conv", ["images", "w"], ["x"], pads=[1, 1, 1, 1])
    second = helper.make_node("Conv", ["x", "w"], ["logits"], pads=[1, 1, 1, 1])
    model = model_of([first, second], {"w": weight}, (1, 3, 64, 96))
    image = IMAGES[0]
    quantized = quantize(model, calibrate(model, [image], method="max"))
    wanted = run(model, image)
    assert rms(run(quantized, image, EXACT_X86) - wanted) < 0.05 * rms(wanted)


@pytest.mark.parametrize("size", [1e-9, 1e-20, 0.0])
def test_a_channel_switched_off_keeps_its_bias(size):
    """A batch norm with a gain near 0 leaves a channel its bias alone. In steps of input scale x weight scale that bias
    would leave 32 bits, where ONNX Runtime cuts it off."""
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.normal(0, 0.5, (8, 3, 3, 3)).astype(np.float32),
        "b": np.linspace(1, 8, 8, dtype=np.float32),
        "w2": rng.normal(0, 0.5, (3, 8, 1, 1)).astype(np.float32),
        "b2": np.zeros(3, np.float32),
    }
    weights["w"][3] *= size
    nodes = [
        helper.make_node("Conv", ["images", "w", "b"], ["x"], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["x", "w2", "b2"], ["logits"]),
    ]
    model = model_of(nodes, weights, (1, 3, 64, 96))
    quantized = quantize(model, calibrate(model, IMAGES, method="max"))
    wanted = run(model, IMAGES[0])
    assert rms(run(quantized, IMAGES[0], EXACT_X86) - wanted) < 0.05 * rms(wanted)


@pytest.mark.parametrize("levels, entries", [(127, EXACT_X86), (63, {})])
def test_kernels_that_are_really_int8_give_the_same(levels, entries):
    """With the session option that a CPU without VNNI needs, or with 63 levels, which need none.

    Inputs and weights at the ends of their ranges are what overflows sums of two products in 16 bits.
    """
    rng = np.random.default_rng(0)
    weight = (rng.choice([-1, 1], (96, 40)) * rng.uniform(0.9, 1, (96, 40))).astype(np.float32)
    weight[:, 0] = 1
    nodes = [helper.make_node("MatMul", ["images", "w"], ["logits"])]
    model = model_of(nodes, {"w": weight}, (1, 3, 64, 40))
    image = (np.sign(IMAGES[0]) * 2).astype(np.float32)
    image[:, :, 0] = 2
    quantized = quantize(model, calibrate(model, [image], method="max"), weight_levels=levels)
    reference = image.astype(np.float64) @ weight
    assert rms(run(quantized, image, entries) - reference) < 0.01 * rms(reference)


def model_of(nodes, weights, output_shape) -> onnx.ModelProto:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "g",
        [value("images", TensorProto.FLOAT, [1, 3, 64, 96])],
        [value("logits", TensorProto.FLOAT, output_shape)],
        [numpy_helper.from_array(item, name) for name, item in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def test_graph_is_as_small_as_it_should_be(calibrated):
    _, model, scales = calibrated
    quantized = quantize(model, scales)
    tensors = set(find_placement(model).tensors(model).values())
    assert len(pairs(quantized)) == len(tensors)  # readers of one tensor share a pair
    assert len(pairs(quantized, "DequantizeLinear")) == len(tensors) + len(find_placement(model).ops)
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in quantized.graph.initializer}
    assert all(stored[node.input[2]].dtype == np.int8 for node in pairs(quantized))
    assert all(not stored[node.input[2]].any() for node in pairs(quantized))
    floats = sum(value.nbytes for value in stored.values() if value.dtype == np.float32)
    assert floats < 0.2 * sum(numpy_helper.to_array(tensor).nbytes for tensor in model.graph.initializer)
    assert [value.name for value in quantized.graph.output] == ["logits"]


def test_argument_is_left_alone_and_twice_is_once(calibrated):
    _, model, scales = calibrated
    before = model.SerializeToString(deterministic=True)
    once = quantize(model, scales)
    assert model.SerializeToString(deterministic=True) == before
    assert find_placement(once).keys == find_placement(model).keys
    assert quantize(once, scales).SerializeToString(deterministic=True) == once.SerializeToString(deterministic=True)


def test_float16_around_it(calibrated):
    _, model, scales = calibrated
    mixed = quantize(model, scales, high_precision="fp16")
    onnx.checker.check_model(mixed, full_check=True)
    stored = {tensor.name: tensor.data_type for tensor in mixed.graph.initializer}
    for node in pairs(mixed) + pairs(mixed, "DequantizeLinear"):
        assert stored[node.input[1]] == TensorProto.FLOAT16
    assert {value.type.tensor_type.elem_type for value in [*mixed.graph.input, *mixed.graph.output]} == {
        TensorProto.FLOAT
    }
    # Float16 moves some values over the edge of a step: other errors, but not more of them.
    reference = run(model, IMAGES[0])
    damage = rms(run(quantize(model, scales), IMAGES[0], FLOAT_ONLY) - reference)
    assert rms(run(mixed, IMAGES[0], FLOAT_ONLY) - reference) < 1.5 * damage


def test_tensors_too_large_for_float16_stay_float32():
    model = loud_convnet()
    scales = calibrate(model, IMAGES)
    assert max(scales.peaks.values()) > 65504
    mixed = quantize(model, scales, high_precision="fp16")
    onnx.checker.check_model(mixed, full_check=True)
    reference = run(model, IMAGES[0])
    damage = rms(run(quantize(model, scales), IMAGES[0], FLOAT_ONLY) - reference)
    assert rms(run(mixed, IMAGES[0], FLOAT_ONLY) - reference) < 1.5 * damage
    names = {tensor.name: tensor.data_type for tensor in mixed.graph.initializer}
    assert {names[node.input[1]] for node in pairs(mixed)} == {TensorProto.FLOAT, TensorProto.FLOAT16}
    scales.peaks["Conv:99"] = 1e6  # type: ignore[index]
    with pytest.raises(CalibrationError, match=r"Conv:99 reaches 1e\+06, too much for float16, and the graph"):
        quantize(model, scales, high_precision="fp16")


def loud_convnet() -> onnx.ModelProto:
    """The convnet with early activations a million times larger and their readers as much smaller: same function."""
    model = onnx.ModelProto()
    model.CopyFrom(network("convnet")[1])
    stem, first, second = (f"{name}.weight" for name in ("stem", "block1.first", "block1.second"))
    gains = {stem: 1e6, "stem.bias": 1e6, first: 1e-6, second: 1e6, "block1.second.bias": 1e6}
    gains |= {"block2.first.weight": 1e-6, "block2.project.weight": 1e-6}
    found = 0
    for tensor in model.graph.initializer:
        for name, gain in gains.items():
            if tensor.name.endswith(name):
                tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(gain), tensor.name))
                found += 1
    assert found == len(gains)
    return model


def test_excluded_places_stay_float():
    _, model = network("convnet")
    scales = calibrate(model, IMAGES)
    keys = list(scales.scales)
    assert quantize(model, scales, exclude=["."]).graph == model.graph
    only_gemm = quantize(model, scales, exclude=["Conv"])
    assert len(pairs(only_gemm)) == 2
    block = [key for key in keys if key.endswith(":residual")][
        -1
    ]  # its shortcut has a convolution, so a pair of its own
    conv = block.removesuffix(":residual")
    without = quantize(model, scales, exclude=[f"^{conv}$"])
    # Its weight, its activation and the shortcut of its Add.
    assert len(pairs(without, "DequantizeLinear")) == len(pairs(quantize(model, scales), "DequantizeLinear")) - 3
    by_name = model.graph.node[find_placement(model).ops[0].index].name
    assert len(pairs(quantize(model, scales, exclude=[f"^{by_name}$"]))) == len(pairs(quantize(model, scales))) - 1


def test_scales_of_another_network_are_refused():
    _, model = network("convnet")
    _, other = network("segformer")
    with pytest.raises(CalibrationError, match=r"for \d+ places, the graph has 13.*Conv:0:8x3x3x3.*not in the graph"):
        quantize(model, calibrate(other, IMAGES[:1]))


def test_scales_serve_another_input_size():
    from precision.networks import ConvNet, export, with_random_weights

    _, model = network("convnet")
    larger = export(with_random_weights(ConvNet()), (96, 128))
    quantized = quantize(larger, calibrate(model, IMAGES))
    image = pictures(1, (96, 128), seed=5)[0]
    reference = run(larger, image)
    assert 0 < rms(run(quantized, image, FLOAT_ONLY) - reference) < 0.2 * rms(reference)


def test_wrong_arguments_are_refused():
    _, model = network("convnet")
    scales = calibrate(model, IMAGES[:1])
    with pytest.raises(ValueError, match="'Softmax' matches no place of the network; places are Conv:0"):
        quantize(model, scales, exclude=["Softmax"])
    with pytest.raises(ValueError, match=r"weight_levels must be in 1 \.\. 127, got 128"):
        quantize(model, scales, weight_levels=128)
    with pytest.raises(ValueError, match="fp32 or fp16, got 'bf16'"):
        quantize(model, scales, high_precision="bf16")  # type: ignore[arg-type]


def test_an_opset_that_cannot_be_raised_is_refused():
    model = onnx.ModelProto()
    model.CopyFrom(network("convnet")[1])
    model.opset_import[0].version = 11
    model.graph.node[0].op_type = "NoSuchOperation"
    scales = calibrate(network("convnet")[1], IMAGES[:1])
    fitting = replace(scales, scales=dict.fromkeys(find_placement(model).keys, Scale(1.0, 127.0)))
    with pytest.raises(ExportError, match="has opset 11, this precision needs 13"):
        quantize(model, fitting)


@pytest.mark.parametrize("levels", [127, 63])
def test_weights_are_rounded_to_the_nearest_step_of_their_channel(rng, levels):
    weight = (rng.normal(size=(5, 7, 3)) * np.float32([1, 1e-3, 1e3])).astype(np.float32)
    weight[:, :, 1] = 0
    integers, scale = quantized_weight(weight, 2, levels, lambda value: value.astype(np.float32))
    assert integers.dtype == np.int8
    assert np.abs(integers).max((0, 1)).tolist() == [levels, 0, levels]
    assert (np.abs(integers * scale - weight) <= scale / 2 * (1 + 1e-5)).all()


def test_half_scales_are_exact_in_float16_and_never_too_small():
    wanted = np.float64([1e-12, 6e-8, 1e-5, 0.1, 1 / 3, 1000.123, 1e9])
    scales = _half_scales(wanted)
    assert (scales == scales.astype(np.float16)).all()
    assert (scales[:-1] >= wanted[:-1]).all()
    assert scales[2:-1] == pytest.approx(wanted[2:-1], rel=1e-2)


def test_openvino_options_give_the_numbers_of_the_graph():
    """In a network with a concatenation, whose INT8 convolution OpenVINO 2026.4 computes wrongly."""
    openvino = pytest.importorskip("openvino")
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["images", "k"], ["c"]),
        helper.make_node("Tanh", ["images"], ["t"]),
        helper.make_node("Concat", ["c", "t"], ["cat"], axis=1),
        helper.make_node("Conv", ["cat", "k2"], ["d"]),
        helper.make_node("Conv", ["d", "k3"], ["logits"]),
    ]
    shapes = {"k": (16, 3, 1, 1), "k2": (32, 19, 1, 1), "k3": (5, 32, 1, 1)}
    weights = {
        name: (rng.choice([-1, 1], shape) * rng.uniform(0.9, 1, shape)).astype(np.float32)
        for name, shape in shapes.items()
    }
    model = model_of(nodes, weights, (1, 5, 64, 96))
    scales = calibrate(model, IMAGES, method="max")
    quantized = quantize(model, scales, weight_levels=63, exclude_behind=BACKENDS["openvino"].int8_exclude_behind)
    assert len(pairs(quantized)) == 2
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(quantized.SerializeToString()), "CPU", {"INFERENCE_NUM_THREADS": 1})
    expected = run(quantized, IMAGES[0], FLOAT_ONLY)
    assert rms(compiled(IMAGES[0])[0] - expected) < 0.01 * rms(expected)
