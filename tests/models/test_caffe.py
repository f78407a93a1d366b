"""Published checkpoints that came from Caffe: recognised, and run on the images that they were trained on."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from edgeseg.models import MODELS, caffe, deeplabv2
from edgeseg.models.catalog_checkpoints import digest
from edgeseg.models.fit import recognise, settle
from edgeseg.models.shapes import expected_shapes
from edgeseg.models.shipped_counts import shipped_names
from edgeseg.preprocess import Preprocess
from edgeseg.sources import network_from_name

UPSCORES = {
    "fcn-32s-vgg16": {"upscore": 64},
    "fcn-16s-vgg16": {"upscore2": 4, "upscore16": 32},
    "fcn-8s-vgg16": {"upscore2": 4, "upscore_pool4": 4, "upscore8": 16},
}


def published(name):
    """Names and shapes of the published file."""
    shapes = dict(expected_shapes(name, 21))
    if name in UPSCORES:
        return shapes | {f"{key}.weight": (21, 21, k, k) for key, k in UPSCORES[name].items()}
    return {f"base.{key}": shape for key, shape in shapes.items()}


@pytest.mark.parametrize("name", [*UPSCORES, "deeplabv2-resnet101"])
def test_published_names_are_recognised(name):
    tensors = {key: torch.empty(shape, device="meta") for key, shape in published(name).items()}
    recognised = recognise(Path("file.pth"), tensors, None)
    assert settle(recognised, None, 21) == (name, 21)
    assert recognised.checkpoint.format.name in MODELS[name].caffe


def test_images_become_what_caffe_gave_its_networks():
    image = np.random.RandomState(0).randint(0, 256, (4, 5, 3), np.uint8)
    tensor = Preprocess((4, 5), caffe.MEAN, caffe.STD)(image)
    bgr = image[:, :, ::-1].astype(np.float32) - np.float32([104.008, 116.669, 122.675])
    assert np.allclose(tensor[0, ::-1], bgr.transpose(2, 0, 1), atol=1e-3)


def test_a_build_takes_them(tmp_path, monkeypatch):
    """A narrow DeepLab v2 in its published format, through the same function as `edgeseg build --model`.

    That function exports it, too, and compares ONNX Runtime with torch.
    """
    narrow = deeplabv2.DeepLabV2(3, width=8, depths=(1, 1, 1, 1))
    monkeypatch.setattr(
        deeplabv2, "deeplabv2_resnet101", lambda n: deeplabv2.DeepLabV2(n, width=8, depths=(1, 1, 1, 1))
    )
    tensors = [name for name in narrow.state_dict() if not name.endswith("num_batches_tracked")]
    names = shipped_names() | {"deeplabv2-resnet101": (len(tensors), digest(tensors))}
    monkeypatch.setattr("edgeseg.models.catalog_checkpoints.shipped_names", lambda: names)
    expected_shapes.cache_clear()
    theirs = {f"base.{name}": t for name, t in narrow.state_dict().items() if t.is_floating_point()}
    save_file(theirs, tmp_path / "published.safetensors")
    try:
        network = network_from_name("deeplabv2-resnet101", str(tmp_path / "published.safetensors"), None, (33, 33), 1)
    finally:
        expected_shapes.cache_clear()
    assert network.preprocess == Preprocess((33, 33), caffe.MEAN, caffe.STD)
    assert torch.equal(network.module.layer1.conv1.conv.weight, narrow.layer1.conv1.conv.weight.flip(1))
