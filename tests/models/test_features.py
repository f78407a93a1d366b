"""Backbones of other libraries under our heads: Hugging Face's and, where it is installed, timm's."""

import itertools

import numpy as np
import pytest
import torch
from rewrites.graphs import onnxruntime_session
from torch import nn
from transformers import ConvNextConfig, ResNetConfig, SwinConfig
from transformers.models.convnext.modeling_convnext import ConvNextBackbone
from transformers.models.resnet.modeling_resnet import ResNetBackbone
from transformers.models.swin.modeling_swin import SwinBackbone

from edgeseg.export import onnx_from_module
from edgeseg.models.deeplabv3plus import DeepLabV3Plus
from edgeseg.models.encoders.features import FeatureExtractor
from edgeseg.models.fcn import FCN
from edgeseg.models.ocrnet import OCRNet
from edgeseg.models.pspnet import PSPNet
from edgeseg.rewrites import rewrite

SIZE = (64, 96)
STAGES = ["stage1", "stage2", "stage3", "stage4"]


def resnet() -> nn.Module:
    sizes = {"embedding_size": 8, "hidden_sizes": [16, 24, 32, 40], "depths": [1, 1, 1, 1]}
    return ResNetBackbone(ResNetConfig(**sizes, out_features=STAGES))


def convnext() -> nn.Module:
    sizes = {"hidden_sizes": [16, 24, 32, 40], "depths": [1, 1, 1, 1]}
    return ConvNextBackbone(ConvNextConfig(**sizes, out_features=STAGES))


def swin() -> nn.Module:
    sizes = {"image_size": 64, "embed_dim": 16, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 4, 8], "window_size": 4}
    return SwinBackbone(SwinConfig(**sizes, out_features=STAGES))


class TimmStyle(nn.Module):
    """timm's interface: a list of maps, (N, h, w, C) as its Swin gives them, and `feature_info`."""

    class Info:
        def channels(self) -> list[int]:
            return [8, 16]

    feature_info = Info()
    output_fmt = "NHWC"

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 4, 4), nn.Conv2d(8, 16, 2, 2)

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        first = self.first(images)
        return [first.permute(0, 2, 3, 1), self.second(first).permute(0, 2, 3, 1)]


@pytest.mark.parametrize("make", [resnet, convnext, swin])
def test_maps_of_hugging_face(make):
    extractor = make().eval()
    images = torch.randn(2, 3, *SIZE)
    encoder = FeatureExtractor(extractor).eval()
    with torch.no_grad():
        maps, wanted = encoder(images), extractor(images).feature_maps
    assert encoder.channels == tuple(one.shape[1] for one in maps) and len(maps) == 4
    assert all(torch.equal(one, right) for one, right in zip(maps, wanted, strict=True))


def test_maps_of_timms_interface():
    encoder = FeatureExtractor(TimmStyle())
    maps = encoder(torch.randn(1, 3, *SIZE))
    assert [tuple(one.shape) for one in maps] == [(1, 8, 16, 24), (1, 16, 8, 12)]
    assert encoder.channels == (8, 16)


@pytest.mark.parametrize("name", ["resnet10t", "convnext_atto", "swin_s3_tiny_224"])
def test_maps_of_timm(name):
    timm = pytest.importorskip("timm", reason="timm is not installed", exc_type=ImportError)
    size = {"img_size": SIZE} if name.startswith("swin") else {}
    encoder = FeatureExtractor(timm.create_model(name, features_only=True, **size)).eval()
    maps = encoder(torch.randn(1, 3, *SIZE))
    assert encoder.channels == tuple(one.shape[1] for one in maps)
    assert all(a.shape[2] > b.shape[2] for a, b in itertools.pairwise(maps))


@pytest.mark.parametrize("head", [FCN, PSPNet, DeepLabV3Plus, OCRNet])
def test_heads_take_them(head):
    network = head(FeatureExtractor(convnext()), 5, channels=16).eval()
    with torch.no_grad():
        logits = network(torch.randn(1, 3, *SIZE))
    stride = 4 if head in (DeepLabV3Plus, OCRNet) else 32
    assert logits.shape == (1, 5, SIZE[0] // stride, SIZE[1] // stride) and logits.isfinite().all()


def test_some_stages():
    encoder = FeatureExtractor(resnet(), stages=(0, 2))
    maps = encoder(torch.randn(1, 3, *SIZE))
    assert encoder.channels == (16, 32) and [one.shape[1] for one in maps] == [16, 32]
    for stages in ((4,), (-1,), ()):
        with pytest.raises(ValueError, match="stages must be some of 0 to 3, got"):
            FeatureExtractor(resnet(), stages=stages)


def test_not_an_extractor():
    with pytest.raises(TypeError, match="Conv2d does not say how many channels its maps have; wanted timm"):
        FeatureExtractor(nn.Conv2d(3, 8, 3))


def test_a_module_with_one_deploys():
    """As `edgeseg build --module` does: exported, rewritten, run."""
    size = (128, 192)
    network = PSPNet(FeatureExtractor(convnext(), stages=(0,)), 5, channels=32).eval()
    model, reports = rewrite(onnx_from_module(network, size))
    assert sum(report.applied for report in reports) > 0
    session = onnxruntime_session(model)
    images = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted = network(images).numpy()
    found = session.run(None, {session.get_inputs()[0].name: images.numpy()})[0]
    assert np.abs(found - wanted).max() <= 1e-4 * np.abs(wanted).max()
