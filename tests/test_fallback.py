"""Mixed precision end to end: a network with one block that INT8 ruins, and a search that finds just that one."""

import json
import re

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper
from PIL import Image

import edgeseg
from edgeseg.errors import VerificationError
from edgeseg.samples import synthetic_street

SIZE = (64, 96)
WIDTH = 16


@pytest.fixture(scope="module")
def streets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("streets")
    for seed in range(8):
        Image.fromarray(synthetic_street(seed, (96, 128))[0]).save(folder / f"{seed}.png")
    return folder


def network(loud: float) -> onnx.ModelProto:
    """Five convolutions. `second` makes one channel `loud` times as loud as the rest, and `third` reads it that much
    more quietly: one INT8 scale for all of them leaves the quiet channels nothing."""
    rng = np.random.default_rng(2)
    nodes, weights, tensor, width = [], [], "images", 3
    for name, kernel, stride in (
        ("stem", 3, 2),
        ("first", 3, 1),
        ("second", 3, 1),
        ("third", 3, 1),
        ("classifier", 1, 1),
    ):
        out = 5 if name == "classifier" else WIDTH
        weight = rng.normal(0, (2 / (width * kernel**2)) ** 0.5, (out, width, kernel, kernel))
        if name == "second":
            weight[0] *= loud
        if name == "third":
            weight[:, 0] /= loud
        weights.append(numpy_helper.from_array(weight.astype(np.float32), f"{name}.weight"))
        pads = [kernel // 2] * 4
        last = name == "classifier"
        made = "logits" if last else f"{name}.out"
        nodes.append(
            helper.make_node(
                "Conv", [tensor, f"{name}.weight"], [made], f"{name}/Conv", pads=pads, strides=[stride] * 2
            )
        )
        if not last:
            nodes.append(helper.make_node("Relu", [made], [f"{name}.relu"], f"{name}/Relu"))
        tensor, width = f"{name}.relu", out
    values = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, channels, height, wide])
        for name, channels, height, wide in (("images", 3, *SIZE), ("logits", 5, SIZE[0] // 2, SIZE[1] // 2))
    ]
    graph = helper.make_graph(nodes, "loud", values[:1], values[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


@pytest.fixture
def options(tmp_path, streets):
    onnx.save(network(1000.0), tmp_path / "loud.onnx")
    onnx.save(network(1.0), tmp_path / "quiet.onnx")
    return {
        "onnx": tmp_path / "loud.onnx",
        "precision": "int8",
        "backend": "onnxruntime",
        "calibration_data": streets,
        "calibration_method": "max",
        "output": tmp_path / "b",
    }


def test_plain_int8_fails_and_the_error_names_the_search(options):
    with pytest.raises(VerificationError, match="let --max-drop D look for what to keep out of INT8"):
        edgeseg.build(**options)
    assert not options["output"].exists()


def test_the_search_finds_the_block_and_no_other(options):
    bundle = edgeseg.build(**options, max_drop=15.0)
    manifest = json.loads((bundle.path / "manifest.json").read_text())
    fallback = manifest["fallback"]
    taken = fallback["steps"][fallback["chosen"]]
    assert taken["kept_high"] == ["third"]
    assert taken["fits"] and taken["drop"] <= 15 < fallback["steps"][0]["drop"]
    assert fallback["steps"][0] == fallback["steps"][0] | {"kept_high": [], "fits": False, "int8_share": 1.0}
    assert manifest["int8_share"] == pytest.approx(taken["int8_share"])
    shares = {"stem": 3 * 16 * 9, "first": 16 * 16 * 9, "second": 16 * 16 * 9, "third": 16 * 16 * 9, "classifier": 80}
    assert manifest["int8_share"] == pytest.approx(1 - shares["third"] / sum(shares.values()))
    assert bundle.verification["fallback"] == fallback
    worst = max(fallback["blocks"], key=lambda block: block["changed_labels"])
    assert worst["name"] == "third"
    assert any(note.startswith("mixed precision: third kept in FP32") for note in manifest["notes"])
    assert "--max-drop 15" in manifest["rebuild"]


def test_no_search_where_plain_int8_fits(options, tmp_path):
    bundle = edgeseg.build(**options | {"onnx": tmp_path / "quiet.onnx"}, max_drop=15.0)
    assert bundle.manifest["int8_share"] == 1.0
    assert "fallback" not in bundle.manifest


def test_what_cannot_be_had_fails_with_the_best_found(options):
    with pytest.raises(VerificationError) as caught:
        edgeseg.build(**options, max_drop=0.0)
    message = str(caught.value)
    assert re.search(
        r"keeps 93% of the labels and loses 0 points of agreement-mIoU or less \(nothing left in INT8", message
    )
    assert re.search(r"the best, with \d of 5 blocks in floating point and \d+% of the multiply-accumulates", message)
    assert caught.value.fallback is not None and caught.value.fallback["chosen"] is None
    assert not options["output"].exists()


def test_labels_decide_where_there_are_some(options, tmp_path):
    """Labels that the FP32 network itself gives: then the drop in mIoU is the loss of agreement."""
    for kind in ("images", "labels"):
        (tmp_path / "set" / kind / "val").mkdir(parents=True)
    session = onnxruntime.InferenceSession(options["onnx"])
    mean, std = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)
    for seed in range(3):
        image = synthetic_street(seed, SIZE)[0]
        batch = ((image / np.float32(255) - mean) / std).transpose(2, 0, 1)[None]
        logits = torch.from_numpy(session.run(None, {"images": batch})[0])
        labels = torch.nn.functional.interpolate(logits, SIZE, mode="bilinear").argmax(1)[0].numpy()
        Image.fromarray(image).save(tmp_path / "set" / "images" / "val" / f"{seed}.png")
        Image.fromarray(labels.astype(np.uint8)).save(tmp_path / "set" / "labels" / "val" / f"{seed}.png")
    bundle = edgeseg.build(**options, max_drop=15.0, data=tmp_path / "set")
    labelled = bundle.verification["labelled"]
    assert labelled["measure"] == bundle.manifest["fallback"]["measure"] == "mIoU"
    assert labelled["images"] == 3 and labelled["reference_miou"] > 0.999
    assert labelled["drop"] == pytest.approx(100 * (labelled["reference_miou"] - labelled["miou"]))
    assert 0 < labelled["drop"] <= 15


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"data": "set"}, "--data judges a build by its labels, and needs a limit: add --max-drop"),
        ({"max_drop": 1.0, "fallback_budget": 0.0}, "--fallback-budget is in seconds and above 0, got 0"),
    ],
)
def test_what_is_refused(options, given, message):
    with pytest.raises(ValueError, match=message):
        edgeseg.build(**options, **given)
