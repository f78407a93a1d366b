"""DeepLab-LargeFOV against a second writing of it, with the holes made by zeros in the kernels."""

import pytest
import torch
from torch.nn.functional import avg_pool2d, conv2d, max_pool2d, pad

from edgeseg.counting import count_module
from edgeseg.export import onnx_from_module
from edgeseg.models.deeplabv1 import DeepLabV1, deeplabv1_vgg16
from models.seeded import fill_, images

WIDTHS, HIDDEN, RATE = (4, 6, 8, 10, 12), 16, 3
STAGES = ["1_1 1_2", "2_1 2_2", "3_1 3_2 3_3", "4_1 4_2 4_3", "5_1 5_2 5_3"]


def with_holes(weight, rate):
    """A (o, i, 3, 3) kernel of holes `rate` as the dense kernel that it stands for."""
    dense = weight.new_zeros(*weight.shape[:2], 2 * rate + 1, 2 * rate + 1)
    dense[:, :, ::rate, ::rate] = weight
    return dense


def caffe_pool(x, stride):
    """3x3 with padding 1, rounding up: the last window is full of padding where the size is even."""
    beyond = [(-side) % 2 if stride == 1 else (side + 1) % 2 for side in x.shape[-2:]]
    rows, columns = (0, 0) if stride == 1 else beyond
    return max_pool2d(pad(x, (1, 1 + columns, 1, 1 + rows), value=-float("inf")), 3, stride)


def reference(tensors, x):
    def layer(name, x, rate):
        weight = with_holes(tensors[f"{name}.weight"], rate)
        return conv2d(x, weight, tensors[f"{name}.bias"], padding=rate).relu()

    for stage, (stride, rate) in zip(STAGES, [(2, 1), (2, 1), (2, 1), (1, 1), (1, 2)], strict=True):
        for name in stage.split():
            x = layer(f"conv{name}", x, rate)
        x = caffe_pool(x, stride)
    x = avg_pool2d(pad(x, (1, 1, 1, 1)), 3, 1)
    x = layer("fc6", x, RATE)
    x = conv2d(x, tensors["fc7.weight"], tensors["fc7.bias"]).relu()
    return conv2d(x, tensors["fc8.weight"], tensors["fc8.bias"])


@pytest.fixture(scope="module")
def network():
    return fill_(DeepLabV1(7, WIDTHS, HIDDEN, RATE))


@pytest.mark.parametrize("size", [(1, 1), (33, 65), (64, 64), (129, 97), (50, 43)])
def test_equals_the_layers_of_the_paper(network, size):
    image = images(2, 3, *size)
    with torch.inference_mode():
        logits, expected = network(image), reference(network.state_dict(), image)
    assert (logits - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize(("size", "logits_size"), [((64, 96), (9, 13)), ((65, 97), (9, 13)), ((513, 321), (65, 41))])
def test_logits_at_stride_8(size, logits_size):
    with torch.device("meta"):
        network = deeplabv1_vgg16(21)
    assert network(torch.empty(1, 3, *size, device="meta")).shape == (1, 21, *logits_size)


def test_exports_to_what_it_computes(network):
    onnx_from_module(network, (33, 50))


def test_published_counts():
    counted = count_module(lambda: deeplabv1_vgg16(21), (513, 513))
    assert counted.params == 14_714_688 + 4_719_616 + 1_049_600 + 21_525  # 20.5 M in the paper's table 1
    channels, macs, side = 3, 0, 513
    for i, (width, depth) in enumerate(zip((64, 128, 256, 512, 512), (2, 2, 3, 3, 3), strict=True)):
        for _ in range(depth):
            macs += side**2 * 9 * channels * width
            channels = width
        side = (side + 1) // 2 if i < 3 else side
    assert side == 65
    assert counted.macs == macs + side**2 * (9 * 512 * 1024 + 1024 * 1024 + 1024 * 21)
