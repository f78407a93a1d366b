"""FCN on dilated backbones against mmsegmentation and torchvision."""

from edgeseg.models.encoders.mobilenet_v2 import MobileNetV2
from edgeseg.models.encoders.resnet import DEPTHS, ResNet
from edgeseg.models.fcn import FCN, TorchvisionFCN

from .contract import CatalogContract, RowContract


class TestMobileNetV2(CatalogContract):
    name = "fcn-mobilenetv2"
    fixture = "dilated"
    stride = 8

    def small(self, num_classes):
        return FCN(MobileNetV2(0.25), num_classes, channels=16)


class TestResNet50(CatalogContract):
    name = "fcn-resnet50"
    fixture = "dilated"
    stride = 8

    def small(self, num_classes):
        return FCN(ResNet(DEPTHS[50], width=8), num_classes, channels=16)

    def shallow(self):
        return FCN(ResNet((1, 1, 2, 2), width=8), 5, channels=16)


class TestResNet101(RowContract):
    name = "fcn-resnet101"
    fixture = "dilated"


class TestTorchvision50(CatalogContract):
    name = "fcn-resnet50-torchvision"
    fixture = "dilated"
    stride = 8

    def small(self, num_classes):
        return TorchvisionFCN(ResNet(DEPTHS[50], width=8, deep_stem=False), num_classes)

    def shallow(self):
        return TorchvisionFCN(ResNet((1, 1, 2, 2), width=8, deep_stem=False), 5)


class TestTorchvision101(RowContract):
    name = "fcn-resnet101-torchvision"
    fixture = "dilated"
