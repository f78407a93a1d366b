"""OCRNet against mmsegmentation."""

import pytest

from edgeseg.counting import count_module
from edgeseg.models import MODELS
from edgeseg.models.encoders.hrnet import HRNet
from edgeseg.models.ocrnet import OCRNet

from .contract import CatalogContract, RowContract


class TestHRNetW18(CatalogContract):
    name = "ocrnet-hrnetw18"
    fixture = "ocrnet"
    stride = 4

    def small(self, num_classes):
        return OCRNet(HRNet((4, 6, 8, 10), modules=(1, 2, 2), depth=2), num_classes, channels=16, key_channels=8)

    def shallow(self):
        backbone = HRNet((4, 6, 8, 10), modules=(0, 1, 0), depth=1, stem_width=8)
        return OCRNet(backbone, 5, channels=16, key_channels=8)


class TestHRNetW48(RowContract):
    name = "ocrnet-hrnetw48"
    fixture = "ocrnet"


def test_published_counts():
    """Of mmsegmentation's network; the first size is counted above, against what ships."""
    entry = MODELS["ocrnet-hrnetw48"]
    assert entry.params(150) == 70_533_100
    assert MODELS["ocrnet-hrnetw18"].params(150) == pytest.approx(12.183e6, abs=500)
    assert entry.published_macs((512, 512), 150) == 167_125_319_680
    assert count_module(lambda: entry.build(19), (1024, 2048)).macs == 1_297_879_072_768
