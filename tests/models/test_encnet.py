"""EncNet against mmsegmentation, and its encoding against the paper's equation."""

import pytest
import torch
from torch import nn

from edgeseg.counting import count_module, macs_of_module
from edgeseg.models import MODELS
from edgeseg.models.encnet import EncNet, Encoding
from edgeseg.models.encoders.resnet import DEPTHS, ResNet

from .contract import CatalogContract, RowContract


class OneMap(nn.Conv2d):
    """A backbone in one layer."""

    channels = (24,)

    def __init__(self):
        super().__init__(3, 24, 8, stride=8)

    def forward(self, images):
        return [super().forward(images)]


class TestResNet50(CatalogContract):
    name = "encnet-resnet50"
    fixture = "encnet"
    stride = 8

    def small(self, num_classes):
        return EncNet(ResNet(DEPTHS[50], width=8), num_classes, channels=16, num_codes=6)

    def shallow(self):
        return EncNet(OneMap(), 5, channels=16, num_codes=6)  # ResNet is exported in test_pspnet.py


class TestResNet101(RowContract):
    name = "encnet-resnet101"
    fixture = "encnet"


def test_published_counts():
    """Of mmsegmentation's network; the first size is counted above, against what ships."""
    entry = MODELS["encnet-resnet101"]
    assert entry.params(150) == 55_052_162
    assert entry.published_macs((512, 512), 150) == 218_542_374_912
    assert count_module(lambda: entry.build(19), (1024, 2048)).macs == 1_746_139_348_992


@pytest.mark.parametrize("shape", [(2, 8, 5, 7), (1, 3, 1, 1), (3, 16, 33, 2)])
@pytest.mark.parametrize("num_codes", [1, 6])
def test_encoding_is_the_papers(shape, num_codes):
    torch.manual_seed(0)
    encoding = Encoding(shape[1], num_codes)
    x = (torch.randn(shape) + 3).transpose(2, 3)  # not contiguous, and far from the code words
    with torch.no_grad():
        encoding.codewords.normal_()
        encoded = encoding(x)
        pixels, codes, scale = (
            x.flatten(2).transpose(1, 2).double(),
            encoding.codewords.double(),
            encoding.scale.double(),
        )
        residuals = pixels[:, :, None] - codes  # (N, hw, K, C)
        weights = (scale * residuals.square().sum(3)).softmax(2)
        wanted = (weights[..., None] * residuals).sum(1)
    assert encoded.shape == (shape[0], num_codes, shape[1])
    assert (encoded - wanted).abs().max() <= 1e-5 * wanted.abs().max()


def test_published_counts_leave_the_encoding_out():
    class Encoded(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.inner = torch.nn.Conv2d(3, 4, 1), torch.nn.Sequential(Encoding(4, 2))

        def forward(self, x):
            return self.inner(self.conv(x))

    assert macs_of_module(Encoded(), (5, 7)) == 5 * 7 * 3 * 4
