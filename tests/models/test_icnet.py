"""ICNet against mmsegmentation."""

import pytest

from edgeseg.models import MODELS
from edgeseg.models.encoders.resnet import DEPTHS, ResNet
from edgeseg.models.icnet import ICNet

from .contract import CatalogContract, RowContract


class TestResNet50(CatalogContract):
    name = fixture = "icnet"
    stride = 8
    fixture_sizes = ((128, 128), (97, 131))

    def small(self, num_classes, depths=DEPTHS[50]):
        ends = {"light_channels": 4, "pool_channels": 8, "channels": (4, 6, 6), "fuse_channels": 8}
        return ICNet(ResNet(depths, width=8), num_classes, **ends)

    def shallow(self):
        return self.small(5, (1, 1, 1, 1))


class TestResNet101(RowContract):
    name = "icnet-resnet101"
    fixture = "icnet"


# As mmsegmentation counts them, with the auxiliary heads and without.
@pytest.mark.parametrize(
    ("name", "params", "without"), [("icnet", 47.828e6, 47.528e6), ("icnet-resnet101", 66.820e6, 66.520e6)]
)
def test_published_parameters(name, params, without):
    entry = MODELS[name]
    assert entry.params() == pytest.approx(params, abs=500)
    assert entry.params() - entry.auxiliary_params() == pytest.approx(without, abs=500)
