"""DeepLabV3+ against mmsegmentation."""

from edgeseg.models.deeplabv3plus import DeepLabV3Plus
from edgeseg.models.encoders.mobilenet_v2 import MobileNetV2
from edgeseg.models.encoders.resnet import DEPTHS, ResNet

from .contract import CatalogContract, RowContract


class TestMobileNetV2(CatalogContract):
    name = "deeplabv3plus-mobilenetv2"
    fixture = "dilated"
    stride = 4

    def small(self, num_classes):
        return DeepLabV3Plus(MobileNetV2(0.25), num_classes, channels=16, c1_channels=6)

    def shallow(self):
        return DeepLabV3Plus(ResNet((1, 1, 2, 2), width=8), 5, channels=16, c1_channels=6)


class TestResNet50(CatalogContract):
    name = "deeplabv3plus-resnet50"
    fixture = "dilated"
    test_exports = None  # the same as above
    stride = 4

    def small(self, num_classes):
        return DeepLabV3Plus(ResNet(DEPTHS[50], width=8), num_classes, channels=16, c1_channels=6)


class TestResNet101(RowContract):
    name = "deeplabv3plus-resnet101"
    fixture = "dilated"
