"""The networks besides SegFormer: one row each. Importing this needs no torch.

A new network is a file with a factory ``(num_classes) -> nn.Module`` and a row here (docs/add-a-model.md).
"""

from __future__ import annotations

from typing import Any

from edgeseg.models.entry import PublishedResult
from edgeseg.models.network_entry import NetworkEntry
from edgeseg.models.published import MMSEG, PAPER, TORCHVISION, results


def _mmseg(name: str, encoder: str, factory: str, *, auxiliary: tuple[int, int], **others: Any) -> NetworkEntry:
    """A row for a network that mmsegmentation publishes."""
    return NetworkEntry(
        name=name,
        family=factory.partition(":")[0],
        encoder=encoder,
        formats=("edgeseg", "mmsegmentation"),
        factory=f"edgeseg.models.{factory}",
        auxiliary=auxiliary,
        **others,
    )


def _torchvision(name: str, encoder: str, factory: str, miou: float, gflops: float) -> NetworkEntry:
    """A row for a network that torchvision publishes, with its names inside."""
    return NetworkEntry(
        name=name,
        family=factory.partition(":")[0],
        encoder=encoder,
        formats=("edgeseg", "torchvision"),
        size=(520, 520),
        num_classes=21,
        factory=f"edgeseg.models.{factory}",
        auxiliary=RESNET_AUXILIARY,
        dead=("aux_classifier.",),
        results=(PublishedResult("voc", (520, 520), miou, gflops, None, TORCHVISION),),
    )


def _voc2012(
    name: str,
    factory: str,
    size: tuple[int, int],
    miou: float | None = None,
    source: str = "",
    *,
    encoder: str = "VGG-16",
    **others: Any,
) -> NetworkEntry:
    """A row for a network of 2015 or 2016 with its authors' figure on PASCAL VOC 2012, where it was checked."""
    return NetworkEntry(
        name=name,
        family=factory.partition(":")[0],
        encoder=encoder,
        size=size,
        num_classes=21,
        factory=f"edgeseg.models.{factory}",
        results=(PublishedResult("voc", size, miou, source=f"its paper, VOC 2012 {source}"),) if miou else (),
        **{"formats": ("edgeseg",), **others},
    )


def _fcn_vgg(name: str, function: str, miou: float) -> NetworkEntry:
    """A row for one of the FCN paper's networks; its deconvolutions are bilinear and not built."""
    return NetworkEntry(
        name=name,
        family="fcn_vgg",
        encoder="VGG-16",
        formats=("edgeseg", "pytorch-fcn"),
        size=(500, 500),
        num_classes=21,
        factory=f"edgeseg.models.fcn_vgg:{function}",
        dead=("upscore",),
        adapters=(("pytorch-fcn", "edgeseg.models.fcn_vgg:adapt_pytorch_fcn"),),
        caffe=("pytorch-fcn",),
        results=(PublishedResult("voc", (500, 500), miou, source="wkentaro/pytorch-fcn, VOC 2011 seg11valid"),),
    )


def _searched(
    name: str, encoder: str, factory: str, figures: tuple[float | None, float, None], source: str = PAPER
) -> NetworkEntry:
    """A row for a network that is published for Cityscapes alone; L16 and L33 of dynamic routing have checkpoints."""
    return NetworkEntry(
        name=name,
        family=factory.partition(":")[0],
        encoder=encoder,
        formats=("edgeseg", "dynamic-routing") if source == ROUTING else ("edgeseg",),
        factory=f"edgeseg.models.{factory}",
        min_size=3 if factory.startswith("dynamic") else 1,
        **FULL_CITYSCAPES,
        results=results(None, figures, source),
    )


# One auxiliary FCN head, 256 wide: 3x3 convolution without bias, batch norm, classifier with bias.
RESNET_AUXILIARY = (1024 * 256 * 9 + 2 * 256, 257)
MOBILENET_AUXILIARY = (96 * 256 * 9 + 2 * 256, 257)
ENCNET_TRAINING: dict[str, Any] = {  # and a linear layer that tells which classes an image holds
    "auxiliary": (RESNET_AUXILIARY[0], RESNET_AUXILIARY[1] + 513),
    "dead": ("auxiliary_head.", "decode_head.se_layer."),
}
ICNET_AUXILIARY = (2 * (128 * 128 * 9 + 2 * 128), 2 * 129)  # two heads, 128 wide
FULL_CITYSCAPES: dict[str, Any] = {"size": (1024, 2048), "num_classes": 19}
SETR: dict[str, Any] = {"elastic": ("backbone.pos_embed", "backbone.patch_embed.projection.bias")}
AUTO_DEEPLAB = "Auto-DeepLab paper (CVPR 2019), Cityscapes validation"
ROUTING = "Dynamic routing's README, Cityscapes validation; GFLOPs: average of what its gates leave"

CATALOG: list[NetworkEntry] = [
    _mmseg(
        "fcn-mobilenetv2",
        "MobileNetV2",
        "fcn:fcn_mobilenetv2",
        auxiliary=MOBILENET_AUXILIARY,
        results=results((19.7, 39.6, 64.4), (61.5, 317.1, 14.2)),
    ),
    _mmseg(
        "fcn-resnet50",
        "ResNet-50",
        "fcn:fcn_resnet50",
        auxiliary=RESNET_AUXILIARY,
        results=results((36.1, None, None), (73.61, None, None), MMSEG),
    ),
    _mmseg(
        "fcn-resnet101",
        "ResNet-101",
        "fcn:fcn_resnet101",
        auxiliary=RESNET_AUXILIARY,
        results=results((41.4, 275.7, 14.8), (76.6, 2203.3, 1.2)),
    ),
    _mmseg(
        "pspnet-mobilenetv2",
        "MobileNetV2",
        "pspnet:pspnet_mobilenetv2",
        auxiliary=MOBILENET_AUXILIARY,
        results=results((29.6, 52.9, 57.7), (70.2, 423.4, 11.2)),
    ),
    _mmseg(
        "pspnet-resnet50",
        "ResNet-50",
        "pspnet:pspnet_resnet50",
        auxiliary=RESNET_AUXILIARY,
        results=results((42.48, None, None), (78.55, None, None), MMSEG),
    ),
    _mmseg(
        "pspnet-resnet101",
        "ResNet-101",
        "pspnet:pspnet_resnet101",
        auxiliary=RESNET_AUXILIARY,
        results=results((44.4, 256.4, 15.3), (78.5, 2048.9, 1.2)),
    ),
    _mmseg(
        "deeplabv3-mobilenetv2",
        "MobileNetV2",
        "deeplabv3:deeplabv3_mobilenetv2",
        auxiliary=MOBILENET_AUXILIARY,
        results=results((34.08, None, None), (73.84, None, None), MMSEG),
    ),
    _mmseg(
        "deeplabv3-resnet50",
        "ResNet-50",
        "deeplabv3:deeplabv3_resnet50",
        auxiliary=RESNET_AUXILIARY,
        results=results((42.66, None, None), (79.32, None, None), MMSEG),
    ),
    _mmseg(
        "deeplabv3-resnet101",
        "ResNet-101",
        "deeplabv3:deeplabv3_resnet101",
        auxiliary=RESNET_AUXILIARY,
        results=results((45.0, None, None), (80.2, None, None), MMSEG),
    ),
    _mmseg(
        "deeplabv3plus-mobilenetv2",
        "MobileNetV2",
        "deeplabv3plus:deeplabv3plus_mobilenetv2",
        auxiliary=MOBILENET_AUXILIARY,
        results=results((34.0, 69.4, 43.1), (75.2, 555.4, 8.4)),
    ),
    _mmseg(
        "deeplabv3plus-resnet50",
        "ResNet-50",
        "deeplabv3plus:deeplabv3plus_resnet50",
        auxiliary=RESNET_AUXILIARY,
        results=results((43.95, None, None), (80.09, None, None), MMSEG),
    ),
    _mmseg(
        "deeplabv3plus-resnet101",
        "ResNet-101",
        "deeplabv3plus:deeplabv3plus_resnet101",
        auxiliary=RESNET_AUXILIARY,
        results=results((44.1, 255.1, 14.1), (80.9, 2032.3, 1.2)),
    ),
    _torchvision("fcn-resnet50-torchvision", "ResNet-50", "fcn:fcn_resnet50_torchvision", 60.5, 152.717),
    _torchvision("fcn-resnet101-torchvision", "ResNet-101", "fcn:fcn_resnet101_torchvision", 63.7, 232.738),
    _torchvision(
        "deeplabv3-resnet50-torchvision", "ResNet-50", "deeplabv3:deeplabv3_resnet50_torchvision", 66.4, 178.722
    ),
    _torchvision(
        "deeplabv3-resnet101-torchvision", "ResNet-101", "deeplabv3:deeplabv3_resnet101_torchvision", 67.4, 258.743
    ),
    _mmseg(
        "ocrnet-hrnetw18",
        "HRNetV2-W18",
        "ocrnet:ocrnet_hrnetw18",
        auxiliary=(0, 0),
        results=results((39.32, None, None), (79.47, None, None), MMSEG),
    ),
    _mmseg(
        "ocrnet-hrnetw48",
        "HRNetV2-W48",
        "ocrnet:ocrnet_hrnetw48",
        auxiliary=(0, 0),
        results=results((45.6, 164.8, 17.0), (81.1, 1296.8, 4.2)),
    ),
    _mmseg(
        "encnet-resnet50",
        "ResNet-50",
        "encnet:encnet_resnet50",
        **ENCNET_TRAINING,
        results=results((40.1, None, None), (77.94, None, None), MMSEG),
    ),
    _mmseg(
        "encnet-resnet101",
        "ResNet-101",
        "encnet:encnet_resnet101",
        **ENCNET_TRAINING,
        results=results((44.7, 218.8, 14.9), (76.9, 1748.0, 1.3)),
    ),
    _mmseg(
        "ccnet-resnet50",
        "ResNet-50",
        "ccnet:ccnet_resnet50",
        auxiliary=RESNET_AUXILIARY,
        results=results((42.08, None, None), (79.03, None, None), MMSEG),
    ),
    _mmseg(
        "ccnet-resnet101",
        "ResNet-101",
        "ccnet:ccnet_resnet101",
        auxiliary=RESNET_AUXILIARY,
        results=results((45.2, 278.4, 14.1), (80.2, 2224.8, 1.0)),
    ),
    _mmseg(
        "icnet",
        "ResNet-50",
        "icnet:icnet",
        auxiliary=ICNET_AUXILIARY,
        **FULL_CITYSCAPES,
        min_size=14,
        results=(
            *results(None, (67.7, None, 30.3)),  # the table names no encoder
            *results(None, (76.29, None, None), MMSEG),
        ),
    ),
    _mmseg(
        "icnet-resnet101",
        "ResNet-101",
        "icnet:icnet_resnet101",
        auxiliary=ICNET_AUXILIARY,
        **FULL_CITYSCAPES,
        min_size=14,
        results=results(None, (76.15, None, None), MMSEG),
    ),
    NetworkEntry(
        name="unet",
        family="unet",
        encoder="U-Net",
        formats=("edgeseg",),
        num_classes=2,
        min_size=16,
        factory="edgeseg.models.unet:unet",
    ),
    _mmseg(
        "unet-s5-d16",
        "UNet-S5-D16",
        "unet:unet_s5_d16",
        auxiliary=(128 * 64 * 9 + 2 * 64, 65),
        size=(512, 1024),
        num_classes=19,
        min_size=16,
        results=(PublishedResult("cityscapes", (512, 1024), 69.1, source=MMSEG),),
    ),
    _fcn_vgg("fcn-32s-vgg16", "fcn32s_vgg16", 63.63),
    _fcn_vgg("fcn-16s-vgg16", "fcn16s_vgg16", 65.01),
    _fcn_vgg("fcn-8s-vgg16", "fcn8s_vgg16", 65.51),
    _voc2012("deconvnet", "deconvnet:deconvnet", (224, 224), min_size=193),
    NetworkEntry(
        name="segnet",
        family="segnet",
        encoder="VGG-16",
        formats=("edgeseg",),
        size=(360, 480),
        num_classes=11,
        factory="edgeseg.models.segnet:segnet",
    ),
    _voc2012("deeplabv1-vgg16", "deeplabv1:deeplabv1_vgg16", (513, 513)),
    _voc2012(
        "deeplabv2-resnet101",
        "deeplabv2:deeplabv2_resnet101",
        (513, 513),
        76.35,
        "val; maximum of three scales; 77.69 with the CRF",
        encoder="ResNet-101",
        formats=("edgeseg", "deeplab-pytorch"),
        tables=(("deeplab-pytorch", "edgeseg.models.deeplabv2:DEEPLAB_PYTORCH"),),
        adapters=(("deeplab-pytorch", "edgeseg.models.deeplabv2:adapt_deeplab_pytorch"),),
        caffe=("deeplab-pytorch",),
    ),
    NetworkEntry(
        name="pyramid-ocrnet-hrnetw48",
        family="multiscale",
        encoder="HRNetV2-W48",
        formats=("edgeseg", "mmsegmentation"),
        factory="edgeseg.models.multiscale:pyramid_ocrnet_hrnetw48",
        tables=(("mmsegmentation", "edgeseg.models.multiscale:OF_ONE_SCALE"),),
    ),
    NetworkEntry(
        name="hierarchical-ocrnet-hrnetw48",
        family="multiscale",
        encoder="HRNetV2-W48",
        formats=("edgeseg",),
        factory="edgeseg.models.multiscale:hierarchical_ocrnet_hrnetw48",
        **FULL_CITYSCAPES,
    ),
    NetworkEntry(
        name="attention-to-scale-deeplabv1-vgg16",
        family="multiscale",
        encoder="VGG-16",
        formats=("edgeseg",),
        size=(513, 513),
        num_classes=21,
        factory="edgeseg.models.multiscale:attention_to_scale_deeplabv1_vgg16",
    ),
    _mmseg(
        "setr-naive",
        "ViT-Large",
        "setr:setr_naive",
        **SETR,
        auxiliary=(3 * (2 * 1024 + 1280 * 256 + 2 * 512), 3 * 257),
        results=results((48.28, None, None), (78.1, None, None), MMSEG),
    ),
    _mmseg(
        "setr-pup",
        "ViT-Large",
        "setr:setr_pup",
        **SETR,
        auxiliary=(3 * (2 * 1024 + 9 * 1280 * 256 + 2 * 512), 3 * 257),
        results=(
            *results((50.2, None, 5.4), (82.2, None, 0.5)),
            *results((48.24, None, None), (79.21, None, None), MMSEG),
        ),
    ),
    _mmseg(
        "setr-mla",
        "ViT-Large",
        "setr:setr_mla",
        **SETR,
        auxiliary=(0, 4 * 257),
        results=results((47.39, None, None), (77.0, None, None), MMSEG),
    ),
    NetworkEntry(
        name="gscnn-wideresnet38",
        family="gscnn",
        encoder="WideResNet38",
        formats=("edgeseg", "gscnn"),
        factory="edgeseg.models.gscnn:gscnn_wideresnet38",
        dead=("dsn1.",),
        tables=(("gscnn", "edgeseg.models.gscnn:PUBLISHED_NAMES"),),
        **FULL_CITYSCAPES,
        results=results(None, (80.8, None, None)),
    ),
    _searched("auto-deeplab-s", "NAS-F20-ASPP", "auto_deeplab:auto_deeplab_s", (None, 333.25, None), AUTO_DEEPLAB),
    _searched("auto-deeplab-m", "NAS-F32-ASPP", "auto_deeplab:auto_deeplab_m", (None, 460.93, None), AUTO_DEEPLAB),
    _searched("auto-deeplab", "NAS-F48-ASPP", "auto_deeplab:auto_deeplab_l", (80.3, 695.0, None)),
    _searched("dynamic-routing-l16", "Dynamic-L16", "dynamic_routing:dynamic_l16", (78.6, 119.4, None), ROUTING),
    _searched("dynamic-routing-l33", "Dynamic-L33", "dynamic_routing:dynamic_l33", (79.2, 242.3, None), ROUTING),
    _searched("dynamic-routing", "Dynamic-L33-PSP", "dynamic_routing:dynamic_l33_psp", (80.7, 270.0, None)),
    _searched("axial-deeplab-xl", "AxialResNet-XL", "axial_deeplab:axial_deeplab_xl", (81.1, 2446.8, None)),
]
