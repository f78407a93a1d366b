"""`--precision auto`: what is built, timed and kept, and what is said where nothing can be timed."""

import importlib.util
import json

import onnx
import pytest
from onnx import helper
from PIL import Image
from test_fallback import network

import edgeseg
from edgeseg.layer_counts import LayerCounts, count_layers
from edgeseg.samples import synthetic_street
from edgeseg.verdict import _cautious, _fastest


@pytest.fixture
def streets(tmp_path):
    (tmp_path / "streets").mkdir()
    for seed in range(8):
        Image.fromarray(synthetic_street(seed, (96, 128))[0]).save(tmp_path / "streets" / f"{seed}.png")
    return tmp_path / "streets"


@pytest.fixture
def quiet(tmp_path):
    onnx.save(network(1.0), tmp_path / "quiet.onnx")
    return tmp_path / "quiet.onnx"


def test_all_are_tried_and_one_is_kept(quiet, streets, tmp_path):
    bundle = edgeseg.build(
        onnx=quiet, precision="auto", backend="onnxruntime", calibration_data=streets, output=tmp_path / "b"
    )
    verdict = bundle.manifest["verdict"]
    assert verdict["timed"] and verdict["chosen"] == bundle.manifest["precision"]
    assert [option["precision"] for option in verdict["options"]] == ["fp32", "fp16", "int8"]
    assert all(option["passed"] and option["latency"] > 0 for option in verdict["options"])
    assert verdict["options"][0]["latency"] == 1
    assert [option["int8_share"] for option in verdict["options"]] == [0, 0, 1]
    sizes = [option["engine_bytes"] for option in verdict["options"]]
    assert sizes[0] > sizes[1] > sizes[2]
    assert f"{verdict['chosen'].upper()} passes the gate" in verdict["why"]
    files = {path.name for path in bundle.path.iterdir()}
    assert files == {"manifest.json", "model.onnx", "verification.json"} | (
        {"scales.json"} if verdict["chosen"] == "int8" else set()
    )
    assert bundle.manifest["rebuild"].endswith(f"--precision auto -o {tmp_path / 'b'}")
    with edgeseg.load(bundle.path) as segmenter:
        assert segmenter(synthetic_street(0, (64, 96))[0]).shape == (64, 96)


def test_a_precision_that_cannot_be_built_is_named(quiet, tmp_path):
    bundle = edgeseg.build(onnx=quiet, precision="auto", backend="onnxruntime", output=tmp_path / "b")
    int8 = bundle.manifest["verdict"]["options"][2]
    assert not int8["passed"] and int8["latency"] is None
    assert int8["remark"].startswith("not built: INT8 needs activation ranges")
    assert "INT8: not built" in bundle.manifest["verdict"]["why"]


def test_int8_that_fails_is_mixed_or_the_reason_why_not_is_given(streets, tmp_path):
    onnx.save(network(1000.0), tmp_path / "loud.onnx")
    bundle = edgeseg.build(
        onnx=tmp_path / "loud.onnx",
        precision="auto",
        backend="onnxruntime",
        calibration_data=streets,
        calibration_method="max",
        output=tmp_path / "b",
    )
    int8 = bundle.manifest["verdict"]["options"][2]
    if int8["passed"]:  # INT8 is faster on this CPU
        assert int8["kept_high"] == ["third"]
    else:
        assert "no mixture was looked for" in int8["remark"]
        assert bundle.manifest["precision"] != "int8"


@pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="TensorRT-RTX is not installed")
def test_without_the_device_the_layers_decide_and_it_is_said(quiet, streets, tmp_path):
    from edgeseg.backends import BACKENDS

    if BACKENDS["tensorrt-rtx"].probe().can_run:
        pytest.skip("its engines run here")
    bundle = edgeseg.build(
        onnx=quiet, precision="auto", backend="tensorrt-rtx", calibration_data=streets, output=tmp_path / "b"
    )
    verdict = json.loads((bundle.path / "manifest.json").read_text())["verdict"]
    assert not verdict["timed"]
    assert "was not timed" in verdict["why"]
    assert all(option["latency"] is None and option["layers"]["layers"] > 0 for option in verdict["options"])
    fp16, int8 = verdict["options"][1:]
    assert verdict["chosen"] == ("int8" if int8["layers"]["layers"] <= fp16["layers"]["layers"] else "fp16")


@pytest.mark.parametrize(
    ("times", "chosen"),
    [
        ({"fp32": [10.0] * 5, "fp16": [9.8] * 5, "int8": [9.9] * 5}, "fp32"),  # 2 % is noise
        ({"fp32": [10.0] * 5, "fp16": [5.0] * 5, "int8": [5.1] * 5}, "fp16"),
        ({"fp32": [10.0] * 5, "fp16": [12.0] * 5, "int8": [5.0] * 5}, "int8"),
        ({"fp32": [10, 20, 40.0], "fp16": [9, 18, 36.0], "int8": [11, 22, 44.0]}, "fp16"),  # the machine slows down
    ],
)
def test_the_fastest_beyond_noise(times, chosen):
    assert _fastest(["fp32", "fp16", "int8"], times) == chosen


@pytest.mark.parametrize(
    ("passing", "counts", "chosen"),
    [
        (["fp32", "fp16", "int8"], {"fp32": 90, "fp16": 100, "int8": 101}, "fp16"),
        (["fp32", "fp16", "int8"], {"fp32": 90, "fp16": 100, "int8": 100}, "int8"),
        (["fp32", "int8"], {"fp32": 90, "int8": 120}, "fp32"),
        (["fp32", "fp16", "int8"], {}, "fp16"),  # nothing told: INT8 is not taken on trust
    ],
)
def test_the_cautious_rule(passing, counts, chosen):
    assert _cautious(passing, {name: LayerCounts(count, 0, 0) for name, count in counts.items()}) == chosen


def test_layers_are_counted(tmp_path):
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["a"], "x/q"),
        helper.make_node("DequantizeLinear", ["a", "s", "z"], ["b"], "x/dq"),
        helper.make_node("Relu", ["b"], ["y"], "relu"),
        helper.make_node("Conv", ["y", "w"], ["o"], "conv"),
    ]
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", [], [])), tmp_path / "m.onnx")
    layers = [
        {"type": "kgen", "precision": "Float -> Int8", "onnx": "x/q"},  # alone
        {"type": "gemm", "precision": "Int8 -> Half", "onnx": "x/dq conv"},  # joined
        {"type": "Subgraph", "precision": "f32", "onnx": "relu,x/dq"},  # joined
        {"type": "Subgraph", "precision": "f32", "onnx": "x/dq,conv"},  # a weight before its product
        {"type": "Reorder", "precision": "f32", "onnx": ""},
        {"type": "Convert", "precision": "i8", "onnx": "relu"},
        {"type": "Convolution", "precision": "f32", "onnx": "conv"},
    ]
    assert count_layers(layers, tmp_path / "m.onnx") == LayerCounts(7, 2, 2)
    assert count_layers([], tmp_path / "m.onnx") == LayerCounts(0, 0, 0)
