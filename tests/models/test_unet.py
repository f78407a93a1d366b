"""Both U-Nets: mmsegmentation's against it, the paper's against plain functions."""

from pathlib import Path

import pytest
import torch
from torch.nn.functional import conv2d, conv_transpose2d, max_pool2d, pad

from edgeseg.counting import count_module
from edgeseg.models import MODELS
from edgeseg.models.fit import recognise, settle
from edgeseg.models.shapes import expected_shapes
from edgeseg.models.unet import UNet, UNetS5D16

from .contract import CatalogContract
from .seeded import fill_, images


class TestUNetS5D16(CatalogContract):
    name = "unet-s5-d16"
    fixture = "unet"
    stride = 1
    fixture_sizes = ((32, 32), (16, 48))

    def small(self, num_classes):
        return UNetS5D16(num_classes, channels=4)


class TestUNet(CatalogContract):
    name = "unet"
    stride = 1

    def small(self, num_classes):
        return UNet(num_classes, channels=4)

    def test_equals_the_reference(self):
        network = fill_(self.small(5))
        for size in ((64, 64), (17, 50), (16, 16)):
            x = images(2, 3, *size)
            with torch.inference_mode():
                logits, wanted = network(x), reference(network.state_dict(), x)
            assert (logits - wanted).abs().max() <= 1e-5 * wanted.abs().max()

    test_published_names_and_shapes = None  # the authors' Caffe program has other sizes

    def test_checkpoints_are_recognised(self):
        """Its own: nobody publishes one of this form."""
        tensors = {name: torch.empty(shape, device="meta") for name, shape in expected_shapes("unet", 7).items()}
        recognised = recognise(Path("file.pth"), tensors, None)
        assert settle(recognised, None, None) == ("unet", 7)


def reference(weights, x, level=0):
    """The paper's figure 1 from the top down: level 4 is the lowest."""

    def two_convolutions(part, x):
        for layer in (0, 2):
            x = conv2d(x, weights[f"{part}.{level}.{layer}.weight"], weights[f"{part}.{level}.{layer}.bias"], padding=1)
            x = x.clamp(min=0)
        return x

    x = two_convolutions("down", x)
    if level == 4:
        return x
    below = reference(weights, max_pool2d(x, 2), level + 1)
    up = conv_transpose2d(below, weights[f"up.{level}.weight"], weights[f"up.{level}.bias"], stride=2)
    up = pad(up, (0, x.shape[3] - up.shape[3], 0, x.shape[2] - up.shape[2]))
    x = two_convolutions("join", torch.cat([x, up], dim=1))
    return x if level else conv2d(x, weights["classifier.weight"], weights["classifier.bias"])


@pytest.mark.parametrize(("num_classes", "params"), [(19, 29.063e6), (2, 29.061e6)])
def test_published_parameters_of_mmsegmentation(num_classes, params):
    assert MODELS["unet-s5-d16"].params(num_classes) == pytest.approx(params, abs=500)


@pytest.mark.parametrize("channels", [1, 4, 64])
def test_parameters_of_the_paper(channels):
    w, num_classes = channels, 2
    counted = count_module(lambda: UNet(num_classes, channels), (16, 16))
    assert counted.params == 7574 * w**2 + 27 * w + 107 * w + (w + 1) * num_classes


def test_macs_of_the_paper():
    """A convolution's weights are used once a pixel of their level, 4^i times fewer at level i; a 2x2 up-convolution's
    once a pixel of the level below."""
    w, pixels, num_classes = 64, 512 * 512, 2
    down = 27 * w + 9 * w**2 + sum(9 * (2 ** (i - 1) + 2**i) * 2**i * w**2 // 4**i for i in range(1, 5))
    up = sum((27 * 4**i + 8 * 4**i // 4) * w**2 // 4**i for i in range(4))
    assert count_module(lambda: UNet(num_classes), (512, 512)).macs == pixels * (down + up + w * num_classes)
