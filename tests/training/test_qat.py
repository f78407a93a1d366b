"""Quantisation-aware training: ONNX's rounding to the bit, the places of the deployed graph, INT8 that recovers."""

import json

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

import edgeseg
from edgeseg.calibration import calibrate
from edgeseg.calibration.scales import Scale, Scales
from edgeseg.errors import CalibrationError, ExportError, InputError
from edgeseg.precision.int8 import quantize
from edgeseg.precision.placement import find_placement
from edgeseg.training.distillation import distillation
from edgeseg.training.fake_quant import ActivationQuantizer, fake_quantized_weight
from edgeseg.training.onnx_network import OnnxNetwork
from edgeseg.training.options import FinetuneOptions
from edgeseg.training.qat import finetune_quantized
from tests.precision.networks import FLOAT_ONLY, network, pictures, rms, run


def pair_in_onnx_runtime(x: np.ndarray, scale: np.ndarray, axis: int | None = None) -> np.ndarray:
    """DequantizeLinear(QuantizeLinear(x))."""
    zero = np.zeros(scale.shape, np.int8)
    options = {} if axis is None else {"axis": axis}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"], **options),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"], **options),
    ]
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, x.shape) for name in "xy"]
    constants = [numpy_helper.from_array(scale, "scale"), numpy_helper.from_array(zero, "zero")]
    graph = helper.make_graph(nodes, "pair", infos[:1], infos[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return run(model, x, FLOAT_ONLY)


@pytest.mark.parametrize("scale", [0.1, 1.0, 0.0078125, 3.3e-5, 17.3])
def test_activations_round_as_onnx_to_the_bit(rng, scale):
    scale = np.float32(scale)
    ties = (np.arange(-140, 140) + np.float32(0.5)) * scale
    x = np.concatenate([ties, rng.normal(size=10000) * 60 * scale, [0.0, -0.0, 1e30, -1e30]]).astype(np.float32)
    with torch.no_grad():
        ours = ActivationQuantizer(float(scale))(torch.from_numpy(x)).numpy()
    np.testing.assert_array_equal(ours, pair_in_onnx_runtime(x, np.array(scale)))


@pytest.mark.parametrize(("shape", "axis"), [((6, 4, 3, 3), 0), ((4, 6, 2, 2), 1), ((5, 7), 1), ((3, 1, 1, 1), 0)])
def test_weights_round_as_they_are_stored(rng, shape, axis):
    weight = rng.normal(size=shape).astype(np.float32)
    weight[(slice(None),) * axis + (0,)] = 0  # a channel of zeros
    rounded = fake_quantized_weight(torch.from_numpy(weight), axis).numpy()
    amax = np.abs(weight).max(tuple(i for i in range(len(shape)) if i != axis))
    scale = (np.where(amax > 0, amax, 1).astype(np.float64) / 127).astype(np.float32)
    np.testing.assert_array_equal(rounded, pair_in_onnx_runtime(weight, scale, axis))


def test_gradients_by_hand():
    quantizer = ActivationQuantizer(0.5)
    x = torch.tensor([0.6, -0.9, 100.0, -100.0], requires_grad=True)  # levels 1.2, -1.8, and two beyond the ends
    quantizer(x).backward(torch.tensor([1.0, 10.0, 100.0, 1000.0]))
    assert x.grad.tolist() == [1, 10, 0, 0]
    of_scale = 1 * (1 - 1.2) + 10 * (-2 + 1.8) + 100 * 127 + 1000 * -128
    of_scale /= np.sqrt(127 * 4)
    assert quantizer.log_scale.grad.item() == pytest.approx(of_scale * 0.5, rel=1e-5)  # d scale / d log scale
    weight = torch.randn(3, 4, requires_grad=True)
    fake_quantized_weight(weight, 0).sum().backward()
    assert weight.grad.tolist() == torch.ones(3, 4).tolist()


def test_distillation_by_hand(rng):
    a, b = (rng.normal(size=(2, 5, 3, 4)) for _ in range(2))
    p, q = (np.exp(x) / np.exp(x).sum(1, keepdims=True) for x in (b, a))
    expected = (p * np.log(p / q)).sum(1).mean()
    ours = distillation(torch.from_numpy(a), torch.from_numpy(b)).item()
    assert ours == pytest.approx(expected)
    assert distillation(torch.from_numpy(a), torch.from_numpy(a)).item() == pytest.approx(0, abs=1e-12)


def scales_of(model: onnx.ModelProto) -> Scales:
    return calibrate(model, pictures(8), method="max")


@pytest.mark.parametrize("name", ["convnet", "segformer"])
def test_the_graph_in_torch_is_the_graph_in_onnx_runtime(name):
    _, model = network(name)
    quantized = quantize(model, scales_of(model))
    image = pictures(1, seed=5)[0]
    with torch.no_grad():
        floats = OnnxNetwork(model)(torch.from_numpy(image)).numpy()
        student = OnnxNetwork(model, quantized)
    logits = student(torch.from_numpy(image))
    logits.square().mean().backward()
    missing = [n for n, p in zip(student.names, student.parameters_of_graph, strict=True) if p.grad is None]
    assert not missing and all(q.log_scale.grad is not None for q in student.quantizers.values())
    ours = logits.detach().numpy()
    np.testing.assert_allclose(floats, run(model, image), rtol=1e-4, atol=1e-4 * np.abs(floats).max())
    theirs = run(quantized, image, FLOAT_ONLY)
    # Sums in another order move a value over the edge of a step here and there; INT8 itself does much more.
    assert rms(ours - theirs) < 0.3 * rms(theirs - floats)
    assert (ours.argmax(1) == theirs.argmax(1)).mean() > 0.99
    pairs = sum(node.op_type == "QuantizeLinear" for node in quantized.graph.node)
    assert len(student.quantizers) == pairs == len(set(find_placement(model).tensors(model).values()))


def test_exact_arithmetic_gives_exact_equality(rng):
    """Integers and powers of two: sums have no rounding, so not one value may differ."""
    image = rng.integers(-100, 100, (1, 3, 16, 16)).astype(np.float32)
    weight = rng.integers(-127, 128, (8, 3, 3, 3)).astype(np.float32)
    weight[:, 0, 0, 0] = 127  # the scale of every channel is 1
    nodes = [
        helper.make_node("Conv", ["images", "w", "b"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("Conv", ["r", "v"], ["logits"], name="classifier"),
    ]
    second = rng.integers(-127, 128, (5, 8, 1, 1)).astype(np.float32)
    second[:, 0] = 127
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("images", image.shape),)]
    out = helper.make_tensor_value_info("logits", TensorProto.FLOAT, (1, 5, 16, 16))
    constants = [
        numpy_helper.from_array(v, n) for n, v in (("w", weight), ("b", np.arange(8, dtype=np.float32)), ("v", second))
    ]
    graph = helper.make_graph(nodes, "g", infos, [out], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    scales = scales_with(model, [1.0, 1024.0])
    quantized = quantize(model, scales)
    with torch.no_grad():
        ours = OnnxNetwork(model, quantized)(torch.from_numpy(image)).numpy()
    np.testing.assert_array_equal(ours, run(quantized, image, FLOAT_ONLY))


def scales_with(model: onnx.ModelProto, steps: list[float]) -> Scales:
    keys = find_placement(model).keys
    return Scales(
        scales={key: Scale(step, 127 * step) for key, step in zip(keys, steps, strict=True)},
        peaks={},
        method="given",
        image_count=1,
        images_sha256="",
        preprocess={},
        source_sha256="",
        input_size=(16, 16),
        edgeseg="",
    )


def test_untrained_weights_and_scales_come_back_unchanged():
    _, model = network("segformer")
    scales = scales_of(model)
    quantized = quantize(model, scales)
    student = OnnxNetwork(model, quantized)
    again = quantize(student.trained_model(), student.trained_scales(scales))
    image = pictures(1, seed=5)[0]
    np.testing.assert_array_equal(run(again, image, FLOAT_ONLY), run(quantized, image, FLOAT_ONLY))


def test_training_recovers_and_the_exported_graph_is_what_was_trained():
    _, model = network("convnet")
    wrong = {key: Scale(scale.scale / 4, scale.amax / 4) for key, scale in scales_of(model).scales.items()}
    scales = scales_of(model).__class__(**{**vars(scales_of(model)), "scales": wrong})  # everything loud is clipped
    student, teacher = OnnxNetwork(model, quantize(model, scales)), OnnxNetwork(model).requires_grad_(False)
    images = [torch.from_numpy(image) for image in pictures(4)]
    optimizer = torch.optim.Adam(
        [{"params": student.parameters_of_graph, "lr": 1e-4}, {"params": student.quantizers.parameters(), "lr": 5e-2}]
    )
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        loss = sum(distillation(student(image), teacher(image)) for image in images)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]

    exported = quantize(student.trained_model(), student.trained_scales(scales))
    with torch.no_grad():
        ours = student(images[0]).numpy()
    theirs = run(exported, images[0].numpy(), FLOAT_ONLY)
    assert (ours.argmax(1) == theirs.argmax(1)).mean() > 0.99
    before = run(quantize(model, scales), images[0].numpy(), FLOAT_ONLY)
    assert rms(ours - theirs) < 0.1 * rms(ours - before)  # the old weights would not do


def test_a_shared_weight_stays_shared():
    nodes = [
        helper.make_node("Transpose", ["w"], ["wt"], name="t", perm=[1, 0, 2, 3]),
        helper.make_node("Conv", ["images", "wt"], ["a"], name="a"),
        helper.make_node("Relu", ["a"], ["r"], name="r"),
        helper.make_node("Conv", ["r", "wt"], ["logits"], name="b"),
    ]
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, (1, 3, 16, 16)) for n in ("images", "logits")]
    weight = np.random.default_rng(0).normal(size=(3, 3, 1, 1)).astype(np.float32)
    graph = helper.make_graph(nodes, "g", infos[:1], infos[1:], [numpy_helper.from_array(weight, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    student = OnnxNetwork(model, quantize(model, scales_with(model, [0.05, 0.05])))
    assert len(student.parameters_of_graph) == 1
    with torch.no_grad():
        student.parameters_of_graph[0].mul_(2)
    trained = student.trained_model()
    image = pictures(1, (16, 16))[0]
    with torch.no_grad():
        expected = OnnxNetwork(trained)(torch.from_numpy(image)).numpy()
    np.testing.assert_allclose(run(trained, image), expected, rtol=1e-4, atol=1e-5)
    assert [tensor.name for tensor in trained.graph.initializer] == ["wt/trained"]


def test_an_int8_network_is_refused():
    _, model = network("convnet")
    quantized = quantize(model, scales_of(model))
    with pytest.raises(ExportError, match=r"give the float network|knows no operator"):
        OnnxNetwork(quantized)


@pytest.fixture(scope="module")
def own_onnx(tmp_path_factory):
    """A network of eleven classes for pictures of 64x96, as a user's file."""
    from tests.precision.networks import ConvNet, export, with_random_weights

    path = tmp_path_factory.mktemp("onnx") / "own.onnx"
    onnx.save(export(with_random_weights(ConvNet(11))), path)
    return path


def test_from_onnx_to_bundle_with_labels(own_onnx, streets, tmp_path):
    options = {"onnx": own_onnx, "qat": True, "data": streets, "output": tmp_path, "backend": "onnxruntime"}
    options |= {"iterations": 4, "batch": 2, "evaluate_every": 2}
    first = finetune_quantized(FinetuneOptions(**options, time_limit=1e-9))
    assert (first["stopped"], first["iteration"]) == ("time limit", 1)
    report = finetune_quantized(FinetuneOptions(**options, resume=True))
    assert (report["stopped"], report["figure"], report["iteration"]) == ("done", "mIoU", 4)
    assert report["ptq"] == first["ptq"] and report["best_miou"] >= report["ptq"]["miou"]
    with edgeseg.load(report["bundle"]) as segmenter:
        assert segmenter.label_set.name == "camvid"
        manifest = segmenter.bundle.manifest
    assert manifest["precision"] == "int8"
    scales = json.loads((tmp_path / "bundle" / "scales.json").read_text())
    if report["best_miou"] > report["ptq"]["miou"]:
        assert scales["method"].endswith("then learned")
    nodes = onnx.load(tmp_path / "bundle" / "model.onnx").graph.node
    assert sum(node.op_type == "QuantizeLinear" for node in nodes) == len(
        {*find_placement(onnx.load(tmp_path / "best.onnx")).tensors(onnx.load(tmp_path / "best.onnx")).values()}
    )


def test_from_images_without_labels(own_onnx, streets, tmp_path):
    options = {"onnx": own_onnx, "qat": True, "output": tmp_path / "r", "backend": "onnxruntime", "iterations": 1}
    report = finetune_quantized(FinetuneOptions(**options, data=streets / "images" / "train", batch=2))
    assert (report["figure"], report["fp32"], report["val_images"]) == ("agreement-mIoU", None, 1)
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "0.png").write_bytes((streets / "images" / "train" / "0.png").read_bytes())
    with pytest.raises(InputError, match="has 1 images; training needs at least two"):
        finetune_quantized(FinetuneOptions(**{**options, "output": tmp_path / "s"}, data=tmp_path / "one"))


def test_scales_of_another_network_are_refused(own_onnx, streets, tmp_path):
    _, model = network("segformer")
    scales_of(model).save(tmp_path / "scales.json")
    options = {"onnx": own_onnx, "qat": True, "data": streets, "output": tmp_path / "r"}
    with pytest.raises(CalibrationError, match="calibrate again"):
        finetune_quantized(FinetuneOptions(**options, scales=tmp_path / "scales.json"))
