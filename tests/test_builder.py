"""Building from Python: the three sources, batches, INT8 from the user's own images, and what is refused."""

import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import edgeseg
from edgeseg.builder import BuildOptions, rebuild_command
from edgeseg.errors import CalibrationError, InputError
from edgeseg.samples import synthetic_street

NETWORK = """
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 5, 3, 2, 1))

not_a_network = 3
"""


@pytest.fixture
def own_network(tmp_path, monkeypatch):
    (tmp_path / "own_network.py").write_text(NETWORK)
    monkeypatch.syspath_prepend(tmp_path)
    yield "own_network:make"
    sys.modules.pop("own_network", None)


@pytest.fixture(scope="module")
def streets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("streets")
    for seed in range(8):
        Image.fromarray(synthetic_street(seed, (96, 128))[0]).save(folder / f"{seed}.png")
    return folder


def own_labels(image: np.ndarray) -> np.ndarray:
    """The own network in torch, on an image of its input size."""
    import own_network

    x = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    logits = own_network.make().eval()((x - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1))
    return torch.nn.functional.interpolate(logits, image.shape[:2], mode="bilinear").argmax(1)[0].numpy()


def test_module_to_labels(own_network, tmp_path):
    bundle = edgeseg.build(module=own_network, size=(64, 96), backend="onnxruntime", output=tmp_path / "b")
    image = synthetic_street(0, (64, 96))[0]
    with edgeseg.load(bundle.path) as segmenter:
        labels = segmenter(image)
        assert segmenter.label_set.name == "generic"
        assert segmenter(image[:33, :47]).shape == (33, 47)
    assert (labels == own_labels(image)).mean() > 0.9999
    assert bundle.manifest["notes"] == ["5 classes: unknown, so they are numbered"]


def test_onnx_to_labels(own_network, tmp_path):
    import own_network as module

    path = tmp_path / "net.onnx"
    torch.onnx.export(module.make().eval(), (torch.zeros(1, 3, 64, 96),), path, dynamo=True, external_data=False)
    bundle = edgeseg.build(onnx=path, backend="onnxruntime", output=tmp_path / "b")
    image = synthetic_street(1, (64, 96))[0]
    with edgeseg.load(bundle.path) as segmenter:
        assert (segmenter(image) == own_labels(image)).mean() > 0.9999
    assert bundle.report()["model"] == "net"


def test_int8_from_the_users_images(own_network, streets, tmp_path):
    bundle = edgeseg.build(
        module=own_network,
        size=(64, 96),
        precision="int8",
        backend="onnxruntime",
        calibration_data=streets,
        output=tmp_path / "b",
    )
    assert bundle.verification["image_source"] == f"8 of 8 images in {streets}"
    scales = json.loads((bundle.path / "scales.json").read_text())
    assert scales["image_count"] == 8
    assert "scales.json" in bundle.manifest["files"]


@pytest.mark.parametrize("batch", [2, (1, 2, 4)])
def test_batches(own_network, tmp_path, batch):
    options = {"module": own_network, "size": (64, 96), "backend": "onnxruntime"}
    single = edgeseg.build(**options, output=tmp_path / "one")
    batched = edgeseg.build(**options, batch=batch, output=tmp_path / "many")
    assert batched.manifest["gmacs"] == single.manifest["gmacs"]  # for one image, whatever the batch
    image = synthetic_street(2, (64, 96))[0]
    with edgeseg.load(single.path) as one, edgeseg.load(batched.path) as many:
        np.testing.assert_array_equal(one(image), many(image))


def test_scales_serve_again_and_no_other_network(own_network, streets, tmp_path):
    options = {"module": own_network, "precision": "int8", "backend": "onnxruntime"}
    first = edgeseg.build(**options, size=(64, 96), calibration_data=streets, output=tmp_path / "first")
    again = edgeseg.build(**options, size=(64, 96), scales=first.path / "scales.json", output=tmp_path / "again")
    edgeseg.build(**options, size=(96, 64), scales=first.path / "scales.json", output=tmp_path / "another size")
    assert (again.path / "model.onnx").read_bytes() == (first.path / "model.onnx").read_bytes()
    with pytest.raises(CalibrationError, match="calibrate again"):
        edgeseg.build(
            model="segformer-b0",
            size=(64, 96),
            precision="int8",
            backend="onnxruntime",
            scales=first.path / "scales.json",
            output=tmp_path / "other",
        )


def test_int8_without_images_is_refused(own_network, tmp_path):
    with pytest.raises(CalibrationError, match="--calibration-data DIR"):
        edgeseg.build(module=own_network, size=(64, 96), precision="int8", backend="onnxruntime", output=tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_int8_from_noise_is_refused(own_network, rng, tmp_path):
    (tmp_path / "noise").mkdir()
    for i in range(8):
        Image.fromarray(rng.integers(0, 256, (64, 96, 3), np.uint8)).save(tmp_path / "noise" / f"{i}.png")
    with pytest.raises(CalibrationError, match="random noise"):
        edgeseg.build(
            module=own_network,
            size=(64, 96),
            precision="int8",
            backend="onnxruntime",
            calibration_data=tmp_path / "noise",
            output=tmp_path / "b",
        )


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, ValueError, "exactly one of --model, --onnx and --module, got none"),
        ({"model": "a", "module": "b:c"}, ValueError, "got model and module"),
        ({"module": "no_colon"}, ValueError, "PACKAGE:FACTORY"),
        ({"module": "no_such_package:make"}, InputError, "cannot import no_such_package:make"),
        ({"module": "own_network:not_a_network"}, InputError, "is a int; wanted a function"),
        ({"model": "segformer-b0", "scales": "s.json"}, ValueError, "--scales are INT8 ranges, the build is fp32"),
        ({"model": "segformer-b3"}, InputError, "no checkpoint in the package; pass --weights"),
        ({"model": "segformer-b0", "backend": "abacus"}, ValueError, "unknown backend 'abacus'"),
        ({"model": "segformer-b0", "dataset": "ade20k"}, edgeseg.EdgesegError, "11"),
    ],
)
def test_what_is_refused(own_network, tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        edgeseg.build(**{"backend": "onnxruntime", **options}, output=tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_the_rebuild_command_names_what_differs_from_the_defaults(tmp_path):
    options = BuildOptions(model="segformer-b0", size=(64, 96), precision="int8", batch=(1, 2, 4), rewrites=False)
    assert rebuild_command(options, tmp_path) == (
        f"edgeseg build --model segformer-b0 --size 64x96 --batch 1:2:4 --int8 --no-rewrites -o {tmp_path}"
    )


def test_the_rebuild_command_spells_every_option_that_matters(tmp_path):
    options = BuildOptions(
        onnx=tmp_path / "n.onnx",
        onnx_output="logits",
        precision="int8",
        max_drop=2.5,
        backend="tensorrt-rtx",
        calibration_data=tmp_path,
        calibration_images=16,
        calibration_method="max",
        compute_capabilities=("8.6", "8.9"),
    )
    assert rebuild_command(options, tmp_path / "b") == (
        f"edgeseg build --onnx {tmp_path}/n.onnx --onnx-output logits --max-drop 2.5 --backend tensorrt-rtx "
        f"--calibration-data {tmp_path} --calibration-images 16 --calibration-method max "
        f"--compute-capability 8.6 --compute-capability 8.9 --int8 -o {tmp_path}/b"
    )
