"""`edgeseg eval` with windows, scales and worst images, on a tiny network's bundle; what it refuses."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from typer.testing import CliRunner

import edgeseg
from edgeseg.cli import app
from edgeseg.samples import synthetic_street


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    """Two convolutions, written as ONNX by hand: no torch, so that it takes a second."""
    folder = tmp_path_factory.mktemp("network")
    rng = np.random.default_rng(0)
    weights = [rng.normal(0, 0.3, shape).astype(np.float32) for shape in ((8, 3, 3, 3), (11, 8, 3, 3))]
    window: dict = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["images", "w0"], ["a"], **window),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w1"], ["logits"], **window),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("images", [1, 3, 64, 96]), ("logits", [1, 11, 16, 24]))
    ]
    constants = [numpy_helper.from_array(array, f"w{i}") for i, array in enumerate(weights)]
    graph = helper.make_graph(nodes, "network", ends[:1], ends[1:], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), folder / "n.onnx")
    return edgeseg.build(onnx=folder / "n.onnx", backend="onnxruntime", output=folder / "b").path


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for seed in range(3):
        for kind, array in zip(("images", "labels"), synthetic_street(seed, (80, 130)), strict=True):
            (folder / kind / "val").mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(folder / kind / "val" / f"{seed}.png")
    return folder


def run(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_windows_scales_and_worst_images(bundle, data, tmp_path):
    options = ("--slide", "64x96:32x48", "--scales", "0.5,1", "--flip", "--short-side", 70, "--worst-count", 2)
    result = run("eval", bundle, "--data", data, *options, "--worst", tmp_path, "--save", tmp_path / "labels", "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    windows = {"window": [64, 96], "stride": [32, 48]}
    wanted = {"slide": windows, "scales": [0.5, 1.0], "flip": True, "short_side": 70, "crf": False}
    assert report["inference"] == wanted and report["images"] == 3
    assert len(report["worst_images"]) == 2
    first, second = report["worst_images"]
    assert first["miou"] <= second["miou"] and Image.open(first["picture"]).size == (3 * 130 + 2 * 6, 80)
    assert np.asarray(Image.open(tmp_path / "labels" / "0.png")).shape == (80, 130)
    plain = json.loads(run("eval", bundle, "--data", data, "--json").stdout)
    assert "inference" not in plain and "worst_images" not in plain and plain["miou"] != report["miou"]


def test_table_names_the_pictures(bundle, data, tmp_path):
    result = run("eval", bundle, "--data", data, "--worst", tmp_path / "w", "--limit", 1)
    assert result.exit_code == 0 and "01-0.jpg" in result.stdout.replace("\n", "")


def test_run_with_windows(bundle, data, tmp_path):
    result = run("run", bundle, data / "images" / "val" / "0.png", "--slide", "64x96:64x96", "-o", tmp_path, "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert np.asarray(Image.open(report["outputs"][0]["labels"])).shape == (80, 130)
    assert report["latency_ms"]["engine"] > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--slide", "64:32"), "the engine takes 64x96 and no other size, the windows are 64x64"),
        (("--scales", "0.5,1"), "add --slide 64x96:43x64"),
        (("--short-side", "512"), "so a short side can only be had with windows"),
        (("--slide", "64"), "windows are WINDOW:STRIDE such as 768:512"),
        (("--slide", "64x96:65"), "so that no pixel is left out"),
    ],
)
def test_refusals(bundle, data, options, message):
    result = run("eval", bundle, "--data", data, *options)
    assert isinstance(result.exception, ValueError) and message in str(result.exception)


def test_scales_that_are_no_numbers(bundle, data):
    result = run("eval", bundle, "--data", data, "--scales", "large")
    assert result.exit_code == 2 and "0.75,1,1.25" in result.output
