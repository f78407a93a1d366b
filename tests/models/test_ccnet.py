"""CCNet against mmsegmentation, and its attention against loops over the pixels."""

import pytest
import torch
from torch import nn

from edgeseg.counting import count_module
from edgeseg.models import MODELS
from edgeseg.models.ccnet import CCNet, CrissCrossAttention
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
    name = "ccnet-resnet50"
    fixture = "ccnet"
    stride = 8

    def small(self, num_classes):
        return CCNet(ResNet(DEPTHS[50], width=8), num_classes, channels=16)

    def shallow(self):
        return CCNet(OneMap(), 5, channels=16)  # ResNet is exported in test_pspnet.py


class TestResNet101(RowContract):
    name = "ccnet-resnet101"
    fixture = "ccnet"


def test_published_counts():
    """Of mmsegmentation's network; the first size is counted above, against what ships."""
    entry = MODELS["ccnet-resnet101"]
    assert entry.params(150) == 68_919_053
    assert entry.published_macs((512, 512), 150) == 278_738_763_776
    assert count_module(lambda: entry.build(19), (1024, 2048)).macs == 2_237_375_971_328


@pytest.mark.parametrize("size", [(5, 7), (1, 6), (6, 1), (1, 1), (4, 4)])
@pytest.mark.parametrize("loudness", [1.0, 30.0])  # energies of some 1e3 too
def test_attention_is_the_papers(size, loudness):
    torch.manual_seed(1)
    attention = CrissCrossAttention(16).eval()
    with torch.no_grad():
        attention.gamma.scale.fill_(0.7)
    x = loudness * torch.randn(2, 16, size[1], size[0]).transpose(2, 3)  # not contiguous
    with torch.no_grad():
        result, wanted = attention(x), naive(attention.double(), x.double())
    assert (result - wanted).abs().max() <= 1e-5 * wanted.abs().max()


def naive(attention, x):
    """Each pixel over its column and row, itself once."""
    query, key, value = attention.query_conv(x), attention.key_conv(x), attention.value_conv(x)
    result = x.clone()
    images, _, height, width = x.shape
    for n in range(images):
        for i in range(height):
            for j in range(width):
                pixels = [(row, j) for row in range(height) if row != i] + [(i, column) for column in range(width)]
                rows, columns = map(list, zip(*pixels, strict=True))
                weights = (query[n, :, i, j] @ key[n][:, rows, columns]).softmax(0)
                result[n, :, i, j] += attention.gamma.scale * (value[n][:, rows, columns] @ weights)
    return result
