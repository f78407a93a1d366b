"""SegNet against a second writing of it: a list of layers run with torch's own indices and max_unpool2d."""

import pytest
import torch
from torch.nn.functional import batch_norm, conv2d, max_pool2d, max_unpool2d

from edgeseg.counting import count_module
from edgeseg.export import onnx_from_module
from edgeseg.models.segnet import SegNet, segnet
from models.seeded import fill_, images

WIDTHS = (4, 6, 8, 10, 12)
# The authors' Caffe model, top to bottom (segnet_train.prototxt).
ENCODER = ["1_1 1_2", "2_1 2_2", "3_1 3_2 3_3", "4_1 4_2 4_3", "5_1 5_2 5_3"]
DECODER = ["5_3 5_2 5_1", "4_3 4_2 4_1", "3_3 3_2 3_1", "2_2 2_1", "1_2"]


def reference(tensors, x):
    def layer(name, x):
        x = conv2d(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"], padding=1)
        statistics = (tensors[f"{name}_bn.{key}"] for key in ("running_mean", "running_var", "weight", "bias"))
        return batch_norm(x, *statistics).relu()

    switches = []
    for stage in ENCODER:
        for name in stage.split():
            x = layer(f"conv{name}", x)
        size = x.shape[-2:]
        x, indices = max_pool2d(x, 2, ceil_mode=True, return_indices=True)
        switches.append((indices, size))
    for stage in DECODER:
        indices, size = switches.pop()
        x = max_unpool2d(x, indices, 2, output_size=size)
        for name in stage.split():
            x = layer(f"conv{name}_D", x)
    return conv2d(x, tensors["conv1_1_D.weight"], tensors["conv1_1_D.bias"], padding=1)


@pytest.fixture(scope="module")
def network():
    return fill_(SegNet(7, WIDTHS))


@pytest.mark.parametrize("size", [(1, 1), (33, 65), (64, 64), (90, 46)])
def test_equals_the_layers_of_the_paper(network, size):
    image = images(2, 3, *size)
    with torch.inference_mode():
        logits, expected = network(image), reference(network.state_dict(), image)
    assert logits.shape == (2, 7, *size)
    assert (logits - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_reference_reads_every_tensor(network):
    names = set(network.state_dict())
    layers = [f"conv{n}" for s in ENCODER for n in s.split()] + [f"conv{n}_D" for s in DECODER for n in s.split()]
    parts = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    expected = {f"{layer}.{part}" for layer in [*layers, "conv1_1_D"] for part in parts[:2]}
    assert names == expected | {f"{layer}_bn.{part}" for layer in layers for part in parts}


def test_every_parameter_learns():
    network = SegNet(3, WIDTHS).train()
    network(torch.randn(2, 3, 64, 64)).square().mean().backward()
    assert not [n for n, p in network.named_parameters() if p.grad is None or not p.grad.isfinite().all()]


def test_exports_to_what_it_computes(network):
    used = {node.op_type for node in onnx_from_module(network, (33, 50), batch=(1, 2, 3)).graph.node}
    assert "DepthToSpace" in used
    assert not used & {"MaxUnpool", "ScatterElements", "ScatterND", "GatherElements", "Loop", "If"}


def test_published_counts():
    counted = count_module(lambda: segnet(12), (360, 480))
    assert counted.params == 14_723_136 + 14_726_796  # 29.45 M
    widths, depths, channels, macs, size = (64, 128, 256, 512, 512), (2, 2, 3, 3, 3), 3, 0, (360, 480)
    for width, depth in zip(widths, depths, strict=True):
        for _ in range(depth):
            macs += size[0] * size[1] * 9 * channels * width
            channels = width
        size = tuple(-(-side // 2) for side in size)
    # The decoder is the mirror image, but for the scores: 12 channels where the encoder reads 3.
    assert counted.macs == 2 * macs + 360 * 480 * 9 * 64 * (12 - 3)
