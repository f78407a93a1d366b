"""DeconvNet against a second writing of it: real deconvolutions and torch's own max_unpool2d."""

import pytest
import torch
from torch.nn.functional import batch_norm, conv2d, conv_transpose2d, max_pool2d, max_unpool2d

from edgeseg.counting import count_module
from edgeseg.export import onnx_from_module
from edgeseg.models.deconvnet import MIN_SIZE, DeconvNet, convolution_of_deconvolution, deconvnet
from models.seeded import fill_, images

WIDTHS, HIDDEN = (4, 6, 8, 10, 12), 16
# The paper's table 3, top to bottom.
ENCODER = ["1_1 1_2", "2_1 2_2", "3_1 3_2 3_3", "4_1 4_2 4_3", "5_1 5_2 5_3"]
DECODER = ["5_1 5_2 5_3", "4_1 4_2 4_3", "3_1 3_2 3_3", "2_1 2_2", "1_1 1_2"]


def reference(tensors, x):
    def normalised(name, x):
        statistics = (tensors[f"{name}_bn.{key}"] for key in ("running_mean", "running_var", "weight", "bias"))
        return batch_norm(x, *statistics).relu()

    def convolution(name, x, padding):
        return normalised(name, conv2d(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"], padding=padding))

    def deconvolution(name, x):  # the weight as a deconvolution has it: (in, out, k, k), turned round
        weight = tensors[f"{name}.weight"].transpose(0, 1).rot90(2, (2, 3))
        return normalised(name, conv_transpose2d(x, weight, tensors[f"{name}.bias"], padding=1))

    switches = []
    for stage in ENCODER:
        for name in stage.split():
            x = convolution(f"conv{name}", x, 1)
        size = x.shape[-2:]
        x, indices = max_pool2d(x, 2, ceil_mode=True, return_indices=True)
        switches.append((indices, size))
    x = convolution("fc7", convolution("fc6", x, 0), 0)
    x = normalised("fc6_deconv", conv_transpose2d(x, tensors["fc6_deconv.weight"], tensors["fc6_deconv.bias"]))
    for stage in DECODER:
        indices, size = switches.pop()
        x = max_unpool2d(x, indices, 2, output_size=size)
        for name in stage.split():
            x = deconvolution(f"deconv{name}", x)
    return conv2d(x, tensors["score.weight"], tensors["score.bias"])


@pytest.fixture(scope="module")
def network():
    return fill_(DeconvNet(7, WIDTHS, HIDDEN))


@pytest.mark.parametrize("size", [(224, 224), (MIN_SIZE, MIN_SIZE + 30), (256, 225)])
def test_equals_the_layers_of_the_paper(network, size):
    image = images(1, 3, *size)
    with torch.inference_mode():
        logits, expected = network(image), reference(network.state_dict(), image)
    assert logits.shape == (1, 7, *size)
    assert (logits - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_smallest_size_is_the_smallest(network):
    with pytest.raises(RuntimeError, match=r"[Kk]ernel size"):
        network(torch.zeros(1, 3, MIN_SIZE - 1, 224))


@pytest.mark.parametrize(("kernel", "padding"), [(3, 1), (7, 0), (2, 1)])
def test_a_deconvolution_of_stride_1_is_a_convolution(kernel, padding):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(4, 5, kernel, kernel, generator=generator, dtype=torch.float64)
    x = torch.randn(2, 4, 6, 7, generator=generator, dtype=torch.float64)
    expected = conv_transpose2d(x, weight, padding=padding)
    assert torch.allclose(conv2d(x, convolution_of_deconvolution(weight), padding=kernel - 1 - padding), expected)


def test_exports_to_what_it_computes(network):
    used = {node.op_type for node in onnx_from_module(network, (224, 200)).graph.node}
    assert not used & {"MaxUnpool", "ScatterElements", "ScatterND", "GatherElements", "Loop", "If"}


def test_published_counts():
    counted = count_module(lambda: deconvnet(21), (224, 224))
    assert counted.params == 14_723_136 + 102_772_736 + 16_789_504 + 102_761_984 + 14_756_928 + 1_365
    assert round(counted.params / 1e6) == 252
    encoder = 15_346_630_656  # VGG-16's convolutions at 224x224, as the literature has them: 15.3 G
    fully_connected = 512 * 4096 * 49 + 4096 * 4096 + 4096 * 512 * 49
    # Mirrored, the 3 input channels become 64 and the classifier follows.
    assert counted.macs == 2 * encoder + fully_connected + 224**2 * (9 * 64 * (64 - 3) + 64 * 21)
