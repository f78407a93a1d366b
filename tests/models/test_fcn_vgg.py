"""FCN against wkentaro/pytorch-fcn's stored logits, and its interpolation against torch's deconvolution."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import conv_transpose2d

from edgeseg.counting import count_module
from edgeseg.errors import CheckpointError
from edgeseg.export import onnx_from_module
from edgeseg.models import fcn_vgg
from edgeseg.models.fcn_vgg import FCN, adapt_pytorch_fcn, interpolate_as_deconvolution
from models.seeded import images, values

FIXTURE = Path(__file__).parent / "fixtures" / "fcn_vgg.npz"
STRIDES = (32, 16, 8)
WIDTHS, HIDDEN, CLASSES = (8, 16, 32, 64, 64), 512, 2  # of the fixture


def narrow(stride, **options):
    return FCN(CLASSES, stride, widths=WIDTHS, hidden=HIDDEN, **options).eval()


def published(stride):
    """A checkpoint of pytorch-fcn: its own list of names, seeded values, bilinear deconvolutions."""
    tensors = {}
    for line in np.load(FIXTURE)[f"FCN{stride}s-names"]:
        name, _, shape = str(line).partition(" ")
        sizes = tuple(int(size) for size in shape.strip("(,)").split(","))
        upscore = name.startswith("upscore")
        tensors[name] = bilinear(sizes) if upscore else torch.from_numpy(values(name, sizes))
    return tensors


def bilinear(shape):
    """Two boxes convolved make a triangle; the mean of neighbours centres it on an even number of taps."""
    factor = shape[-1] // 2
    taps = np.convolve(np.convolve(np.ones(factor), np.ones(factor)), [0.5, 0.5]) / factor
    weight = np.zeros(shape, np.float32)
    weight[range(shape[0]), range(shape[1])] = np.outer(taps, taps)
    return torch.from_numpy(weight)


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize("size", [(33, 65), (32, 32)])
def test_equals_the_reference_implementation(stride, learned, size):
    network = narrow(stride, learned=learned)
    tensors = {name: adapt_pytorch_fcn(name, tensor) for name, tensor in published(stride).items()}
    kept = {name: tensor for name, tensor in tensors.items() if learned or not name.startswith("upscore")}
    network.load_state_dict(kept, strict=True)
    expected = np.load(FIXTURE)[f"FCN{stride}s-{size[0]}x{size[1]}"]
    with torch.inference_mode():
        logits = network(images(1, 3, *size).flip(1)).numpy()  # it reads BGR
    assert logits.shape == expected.shape
    assert np.abs(logits - expected).max() <= 1e-4 * np.abs(expected).max()


def test_trained_deconvolutions_are_not_left_out():
    weight = published(8)["upscore_pool4.weight"]
    with pytest.raises(CheckpointError, match=r"upscore_pool4.*no bilinear interpolation.*learned=True"):
        adapt_pytorch_fcn("upscore_pool4.weight", weight + 0.01)


@pytest.mark.parametrize("factor", [2, 8, 16, 32])
@pytest.mark.parametrize("shape", [(1, 1), (3, 5)])
def test_interpolates_like_the_deconvolution(factor, shape):
    x = torch.randn(2, 3, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weight = bilinear((3, 3, 2 * factor, 2 * factor)).double()
    whole = conv_transpose2d(x, weight, stride=factor)
    for begin in (0, 1, factor - 1, factor):
        size = tuple(side - begin for side in whole.shape[-2:])
        for height, width in {size, (1, size[1] - 1), (size[0] // 2 + 1, 1)} - {(1, 0)}:
            cropped = whole[:, :, begin : begin + height, begin : begin + width]
            assert torch.allclose(interpolate_as_deconvolution(x, factor, begin, (height, width)), cropped, atol=1e-12)


@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize("size", [(1, 1), (2, 31), (47, 33)])
def test_logits_at_any_image_size(stride, size):
    with torch.inference_mode():
        logits = narrow(stride)(torch.randn(2, 3, *size))
    assert logits.shape == (2, CLASSES, *size) and logits.isfinite().all()


def test_exports_to_what_it_computes():
    model = onnx_from_module(FCN(3, 8, widths=(2, 2, 4, 4, 4), hidden=8), (33, 48))
    used = {node.op_type for node in model.graph.node}
    assert "Resize" in used and "ConvTranspose" not in used


# 14 714 688 + 102 764 544 + 16 781 312 as the docstring derives, plus 4097, 513 and 257 for every class.
PARAMS = {32: 134_260_544 + 4097 * 21, 16: 134_260_544 + (4097 + 513) * 21, 8: 134_260_544 + (4097 + 513 + 257) * 21}
DECONVOLUTIONS = {32: (64,), 16: (4, 32), 8: (4, 4, 16)}


@pytest.mark.parametrize("stride", STRIDES)
def test_published_counts(stride):
    counted = count_module(lambda: getattr(fcn_vgg, f"fcn{stride}s_vgg16")(21), (500, 500))
    assert counted.params == PARAMS[stride]
    assert round(counted.params / 1e6) == 134  # the paper's table 1
    learned = count_module(lambda: FCN(21, stride, learned=True), (500, 500))
    assert learned.params == PARAMS[stride] + sum(21**2 * k**2 for k in DECONVOLUTIONS[stride])
    assert counted.macs == MACS[stride]


def convolutions(side):
    """Multiply-accumulates of VGG-16, fc6, fc7 and the scores at stride 32 on a padded image, by hand."""
    total, channels, side = 0, 3, side + 198
    for width, depth in zip((64, 128, 256, 512, 512), (2, 2, 3, 3, 3), strict=True):
        for _ in range(depth):
            total += side**2 * 9 * channels * width
            channels = width
        side = -(-side // 2)
    return total + (side - 6) ** 2 * (49 * 512 * 4096 + 4096 * 4096 + 4096 * 21)


MACS = {32: convolutions(500)}
MACS[16] = MACS[32] + 34**2 * 512 * 21  # 16 pixels deconvolved: 2 * (16 + 1)
MACS[8] = MACS[16] + 70**2 * 256 * 21
