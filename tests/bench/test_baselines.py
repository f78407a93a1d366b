"""What people run today, with our weights: each must give the labels of the network in plain torch."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgeseg.backends.onnxruntime import session_from_model
from edgeseg.bench.baselines import add_tail, open_baseline, prepare_baseline
from edgeseg.bench.systems import SystemSpec
from edgeseg.export import onnx_from_module
from edgeseg.labels import LABEL_SETS
from edgeseg.models.weights import load_weights, network_from_weights
from edgeseg.preprocess import Preprocess
from edgeseg.samples import sample_images
from edgeseg.sources import Network

SIZE = (64, 96)


def shipped() -> nn.Module:
    return network_from_weights(load_weights("segformer-b0-camvid", "segformer-b0"))


def tiny() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 11, 3, 2, 1)).eval()


def network_of(module: nn.Module, onnx: Any) -> Network:
    return Network(
        name="segformer-b0",
        onnx=onnx,
        label_set=LABEL_SETS["camvid"],
        preprocess=Preprocess(SIZE),
        params=0,
        weights="segformer-b0-camvid",
        source_sha256="",
        module=module,
    )


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    return [image[: SIZE[0], : SIZE[1]].copy() for _, image in sample_images()[:2]]


def in_torch(module: nn.Module, images: list[np.ndarray]) -> np.ndarray:
    x = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        logits = module((x - mean.view(3, 1, 1)) / std.view(3, 1, 1))
    return torch.nn.functional.interpolate(logits, SIZE, mode="bilinear", align_corners=False).argmax(1).numpy()


@pytest.mark.parametrize("kind", ["torch", "onnxruntime", "openvino", "transformers"])
def test_labels_are_those_of_the_network(kind, images, tmp_path):
    if kind in ("openvino", "transformers"):
        pytest.importorskip(kind)
    is_runtime = kind in ("onnxruntime", "openvino")
    module = tiny() if is_runtime else shipped()  # an export takes a while, and these two need none
    network = network_of(module, onnx_from_module(module, SIZE, batch=2) if is_runtime else None)
    spec = SystemSpec(kind, str(tmp_path / kind), SIZE, batch=2, threads=1)
    prepare_baseline(kind, network, spec, lambda: iter(()))
    with open_baseline(spec) as system:
        labels = system(images)
        assert system.stages.preprocess and system.stages.engine and system.engine_bytes
    assert [one.shape for one in labels] == [SIZE, SIZE]
    assert (np.stack(labels) == in_torch(module, images)).mean() > 0.999


def test_the_tail_in_the_graph_is_torchs(rng):
    from onnx import TensorProto, helper

    shape = (2, 5, 7, 9)
    identity = helper.make_node("Identity", ["images"], ["logits"])
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("images", "logits")]
    graph = helper.make_graph([identity], "g", value[:1], value[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    logits = rng.standard_normal(shape).astype(np.float32)
    with session_from_model(add_tail(model, (23, 40))) as session:
        labels = session.infer(logits)
    scores = torch.nn.functional.interpolate(torch.from_numpy(logits), (23, 40), mode="bilinear", align_corners=False)
    np.testing.assert_array_equal(labels[:, 0], scores.argmax(1).numpy())
    assert model.graph.output[0].name == "logits"  # the caller's model is left as it was
