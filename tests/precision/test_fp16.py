import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeseg.errors import CalibrationError, ExportError
from edgeseg.precision.casts import cast_float_to_half
from edgeseg.precision.fp16 import cast_to_fp16
from precision.networks import network, pictures, rms, run
from precision.test_int8 import loud_convnet

IMAGES = pictures(3)


def types_of(model):
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    values = [*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output]
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    return types | {tensor.name: tensor.data_type for tensor in inferred.graph.initializer}


@pytest.mark.parametrize("name", ["segformer", "convnet"])
def test_a_network_in_float16(name):
    _, model = network(name)
    before = model.SerializeToString(deterministic=True)
    half, report = cast_to_fp16(model, IMAGES)
    assert model.SerializeToString(deterministic=True) == before
    onnx.checker.check_model(half, full_check=True)
    assert report.casts == 2  # at the input and at the output
    assert report.casts == sum(node.op_type == "Cast" for node in half.graph.node)
    assert report.kept == ()
    types = types_of(half)
    assert types["images"] == types["logits"] == TensorProto.FLOAT
    for node in half.graph.node:
        if node.op_type in ("Conv", "MatMul", "Gemm", "LayerNormalization", "Softmax", "Add"):
            assert {types[item] for item in [*node.input, *node.output] if item} == {TensorProto.FLOAT16}
    count = {op: sum(node.op_type == op for node in model.graph.node) for op in ("LayerNormalization", "Resize")}
    assert count == {op: sum(node.op_type == op for node in half.graph.node) for op in count}
    reference, found = run(model, IMAGES[0]), run(half, IMAGES[0])
    assert 0 < rms(found - reference) < 0.01 * rms(reference)
    assert (found.argmax(1) == reference.argmax(1)).mean() > 0.98


def test_twice_is_once():
    half, _ = cast_to_fp16(network("segformer")[1], IMAGES)
    again, report = cast_to_fp16(half, IMAGES)
    assert again.SerializeToString(deterministic=True) == half.SerializeToString(deterministic=True)
    assert report.casts == 0


def test_peaks_are_the_largest_activations():
    _, model = network("convnet")
    _, report = cast_to_fp16(model, IMAGES)
    logits = max(np.abs(run(model, image)).max() for image in IMAGES)
    assert report.peaks["logits"] == pytest.approx(logits, rel=1e-5)
    assert report.loudest == max(report.peaks.values())
    assert report.image_count == 3
    assert f"largest activation {report.loudest:.4g} on 3 images" in report.notes[0]


def test_what_overflows_stays_float32():
    model = loud_convnet()
    reference = run(model, IMAGES[0])
    everything, _ = cast_float_to_half(model)
    assert not np.allclose(run(everything, IMAGES[0]), reference, rtol=0.1, atol=0.1 * rms(reference))
    half, report = cast_to_fp16(model, IMAGES)
    onnx.checker.check_model(half, full_check=True)
    assert report.loudest > 65504
    assert any(item.startswith("Conv") for item in report.kept)
    assert any(line.startswith("FP32 kept in ") for line in report.notes)
    assert 0 < report.half_nodes < len(model.graph.node)
    found = run(half, IMAGES[0])
    assert np.isfinite(found).all()
    assert rms(found - reference) < 0.01 * rms(reference)
    types = types_of(half)
    loud = [name for name, peak in report.peaks.items() if peak > 8192]
    assert loud
    assert {types[name] for name in loud} == {TensorProto.FLOAT}


def test_a_lower_limit_keeps_more():
    _, model = network("segformer")
    _, report = cast_to_fp16(model, IMAGES)
    half, strict = cast_to_fp16(model, IMAGES, data_max=report.loudest / 2)
    assert len(strict.kept) > len(report.kept)
    assert strict.casts > report.casts
    onnx.checker.check_model(half, full_check=True)
    nothing, all_kept = cast_to_fp16(model, IMAGES, data_max=1e-30)
    assert rms(run(nothing, IMAGES[0]) - run(model, IMAGES[0])) <= 1e-6
    assert all_kept.half_nodes < 0.1 * len(model.graph.node)


def small(nodes, weights, shape=(1, 3, 64, 96)):
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "g",
        [value("images", TensorProto.FLOAT, shape)],
        [value("logits", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.asarray(item), name) for name, item in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def test_weights_that_float16_cannot_hold():
    nodes = [
        helper.make_node("Mul", ["images", "huge"], ["a"]),
        helper.make_node("Mul", ["a", "tiny"], ["b"]),
        helper.make_node("Mul", ["b", "few"], ["logits"]),
    ]
    tiny = np.float32([[[1e-5, 1e-9, 0]]]).repeat(32, 2)
    few = np.float32([[[1e-5, 1e-9, 0]]]).repeat(32, 2)
    half, report = cast_to_fp16(small(nodes, {"huge": np.float32(1e5), "tiny": tiny, "few": few}), IMAGES)
    assert [item.split()[0] for item in report.kept] == ["Mul", "Mul"]  # the huge weight, and what reads its product
    assert (report.subnormal_weights, report.zeroed_weights) == (32, 32)
    assert report.notes[-1] == "FP16 weights: 32 became 0, 32 below 6.1e-5 lost digits"
    onnx.checker.check_model(half, full_check=True)


def test_an_output_that_is_also_read_inside_and_constants_in_nodes():
    constant = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.float32(0.5)))
    nodes = [constant, helper.make_node("Mul", ["images", "c"], ["logits"]), helper.make_node("Exp", ["logits"], ["e"])]
    model = small(nodes, {})
    model.graph.output.append(helper.make_tensor_value_info("e", TensorProto.FLOAT, [1, 3, 64, 96]))
    half, report = cast_to_fp16(model, IMAGES)
    onnx.checker.check_model(half, full_check=True)
    assert report.casts == 3
    assert np.allclose(run(half, IMAGES[0]), 0.5 * IMAGES[0], atol=1e-2)


def test_what_a_branch_reads_stays_float32():
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Mul", ["a", "a"], ["out"])], "body", [], [value("out", TensorProto.FLOAT, [1, 3, 64, 96])]
    )
    nodes = [
        helper.make_node("Sqrt", ["images"], ["s"]),
        helper.make_node("Abs", ["images"], ["a"]),
        helper.make_node("If", ["yes"], ["logits"], then_branch=body, else_branch=body),
    ]
    model = small(nodes[1:], {"yes": np.array(True)})
    half, _ = cast_to_fp16(model, IMAGES)
    onnx.checker.check_model(half, full_check=True)
    assert np.allclose(run(half, IMAGES[0]), IMAGES[0] ** 2, rtol=1e-5)


def test_bad_data_is_refused():
    _, model = network("convnet")
    with pytest.raises(CalibrationError, match="no image came; FP16 needs a few real images"):
        cast_to_fp16(model, [])
    with pytest.raises(ValueError, match="float16's largest number, got 100000"):
        cast_to_fp16(model, IMAGES, data_max=100000)
    broken = small([helper.make_node("Log", ["images"], ["l"]), helper.make_node("Exp", ["l"], ["logits"])], {})
    zeros = IMAGES[0].copy()
    zeros[..., :4] = 0
    with pytest.raises(CalibrationError, match="the float network itself gives"):
        cast_to_fp16(broken, [np.abs(zeros)])
    untyped = small([helper.make_node("MatMul", ["images", "w"], ["logits"])], {"w": np.zeros((5, 5), np.float32)})
    with pytest.raises(ExportError, match="cannot infer the types"):
        cast_float_to_half(untyped)
