"""DeepLabV3 against mmsegmentation and torchvision."""

from edgeseg.models.deeplabv3 import DeepLabV3, TorchvisionDeepLabV3
from edgeseg.models.encoders.mobilenet_v2 import MobileNetV2
from edgeseg.models.encoders.resnet import DEPTHS, ResNet

from .contract import CatalogContract, RowContract


class TestMobileNetV2(CatalogContract):
    name = "deeplabv3-mobilenetv2"
    fixture = "dilated"
    stride = 8

    def small(self, num_classes):
        return DeepLabV3(MobileNetV2(0.25), num_classes, channels=16)

    def shallow(self):
        return DeepLabV3(ResNet((1, 1, 2, 2), width=8), 5, channels=16)


class TestResNet50(CatalogContract):
    name = "deeplabv3-resnet50"
    fixture = "dilated"
    test_exports = None  # the same as above
    stride = 8

    def small(self, num_classes):
        return DeepLabV3(ResNet(DEPTHS[50], width=8), num_classes, channels=16)


class TestResNet101(RowContract):
    name = "deeplabv3-resnet101"
    fixture = "dilated"


class TestTorchvision50(CatalogContract):
    name = "deeplabv3-resnet50-torchvision"
    fixture = "dilated"
    stride = 8

    def small(self, num_classes):
        return TorchvisionDeepLabV3(ResNet(DEPTHS[50], width=8, deep_stem=False), num_classes, channels=32)

    def shallow(self):
        return TorchvisionDeepLabV3(ResNet((1, 1, 2, 2), width=8, deep_stem=False), 5, channels=32)


class TestTorchvision101(RowContract):
    name = "deeplabv3-resnet101-torchvision"
    fixture = "dilated"
