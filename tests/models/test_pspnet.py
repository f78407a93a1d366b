"""PSPNet against mmsegmentation."""

import pytest
import torch
from torch.nn.functional import adaptive_avg_pool2d

from edgeseg.models.encoders.mobilenet_v2 import MobileNetV2
from edgeseg.models.encoders.resnet import DEPTHS, ResNet
from edgeseg.models.layers import adaptive_avg_pool
from edgeseg.models.pspnet import PSPNet

from .contract import CatalogContract, RowContract


class TestMobileNetV2(CatalogContract):
    name = "pspnet-mobilenetv2"
    fixture = "dilated"
    stride = 8

    def small(self, num_classes):
        return PSPNet(MobileNetV2(0.25), num_classes, channels=16)

    def shallow(self):
        return PSPNet(ResNet((1, 1, 2, 2), width=8), 5, channels=16)


class TestResNet50(CatalogContract):
    name = "pspnet-resnet50"
    fixture = "dilated"
    test_exports = None  # the same as above
    stride = 8

    def small(self, num_classes):
        return PSPNet(ResNet(DEPTHS[50], width=8), num_classes, channels=16)


class TestResNet101(RowContract):
    name = "pspnet-resnet101"
    fixture = "dilated"


@pytest.mark.parametrize("size", [(64, 64), (12, 18), (13, 7), (5, 9), (1, 1), (3, 200)])
@pytest.mark.parametrize("bins", [1, 2, 3, 6])
def test_adaptive_average(size, bins):
    x = torch.randn(2, 3, *size)
    wanted = adaptive_avg_pool2d(x.double(), bins)
    assert (adaptive_avg_pool(x, bins) - wanted).abs().max() <= 1e-6 * x.abs().max()
    rows_last = x.permute(0, 1, 3, 2)
    assert torch.allclose(adaptive_avg_pool(rows_last, bins), adaptive_avg_pool2d(rows_last, bins), atol=1e-6)
