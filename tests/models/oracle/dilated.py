"""Writes fixtures/dilated.npz: FCN, PSPNet, DeepLabV3, DeepLabV3+ of mmsegmentation, FCN and DeepLabV3 of torchvision.

    python tests/models/oracle/dilated.py

needs mmsegmentation 1.2.2, mmcv-lite 2.1.0, mmengine 0.10.7 and torchvision. Names, shapes and logits are those of tiny
widths; of the published widths there is a digest of names and shapes.
"""

import sys
import types
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
sys.modules["mmcv._ext"] = types.ModuleType("mmcv._ext")  # mmcv-lite has no compiled operators; these need none
sys.modules["mmcv._ext"].__getattr__ = lambda name: None  # type: ignore[method-assign]

import mmseg  # noqa: E402
import torchvision  # noqa: E402
from mmengine import Config  # noqa: E402
from mmengine.registry import init_default_scope  # noqa: E402
from mmseg.registry import MODELS  # noqa: E402
from seeded import fill_, images  # noqa: E402

SIZES = ((64, 64), (33, 65))
CLASSES = 5
CONFIGS = Path(mmseg.__file__).parent / ".mim" / "configs"
FAMILIES = ("fcn", "pspnet", "deeplabv3", "deeplabv3plus")
TORCHVISION = torchvision.models.segmentation
DEAD = ("auxiliary_head.", "aux_classifier.")
BACKBONES = {"resnet50": "r50-d8", "resnet101": "r101-d8", "mobilenetv2": None}


def published(family: str, backbone: str) -> Config:
    """The published configuration of the network alone, on one device."""
    name = BACKBONES[backbone]
    path = f"{family}/{family}_{name}" if name else f"mobilenet_v2/mobilenet-v2-d8_{family}"
    config = Config.fromfile(CONFIGS / f"{path}_4xb4-160k_ade20k-512x512.py").model
    config.update(data_preprocessor=None, pretrained=None)
    for part in (config.backbone, config.decode_head, config.auxiliary_head):
        part.norm_cfg = {"type": "BN"}
    return config


def tiny(family: str, backbone: str) -> Config:
    """One eighth of ResNet-50's width, or a quarter of MobileNetV2's."""
    config = published(family, backbone)
    if backbone == "resnet50":
        config.backbone.update(depth=50, base_channels=8, stem_channels=8)
        widths = (32, 128, 256)
    else:
        config.backbone.widen_factor = 0.25
        widths = (8, 24, 80)
    config.decode_head.update(in_channels=widths[2], channels=16, num_classes=CLASSES)
    if family == "deeplabv3plus":
        config.decode_head.update(c1_in_channels=widths[0], c1_channels=6)
    config.auxiliary_head.update(in_channels=widths[1], channels=8, num_classes=CLASSES)
    return config


def digest(network: torch.nn.Module) -> str:
    """Of the names and shapes that inference reads."""
    lines = [f"{name} {tuple(t.shape)}" for name, t in network.state_dict().items() if not name.startswith(DEAD)]
    return sha256("\n".join(sorted(lines)).encode()).hexdigest()


def shrink(network: torch.nn.Module, factor: int = 8) -> torch.nn.Module:
    """Every tensor's channels cut to one in `factor`: torchvision's networks cannot be made narrower."""
    for module in network.modules():
        for name, tensor in [*module._parameters.items(), *module._buffers.items()]:
            if tensor is not None and tensor.ndim:
                cut = tensor[tuple(slice(side // factor if side >= 64 else side) for side in tensor.shape)].clone()
                held = module._parameters if name in module._parameters else module._buffers
                held[name] = torch.nn.Parameter(cut) if held is module._parameters else cut
    return network


def record(arrays: dict, key: str, network: torch.nn.Module, forward) -> None:
    state_dict = fill_(network).state_dict()
    arrays[f"{key} names"] = np.array(list(state_dict))
    arrays[f"{key} shapes"] = np.array([" ".join(map(str, tensor.shape)) for tensor in state_dict.values()])
    for height, width in SIZES:
        with torch.no_grad():
            arrays[f"{key} {height}x{width}"] = forward(images(2, 3, height, width)).numpy()


def main() -> None:
    init_default_scope("mmseg")
    arrays: dict[str, np.ndarray] = {}
    for family in FAMILIES:
        for backbone in ("resnet50", "mobilenetv2"):
            network = MODELS.build(tiny(family, backbone))
            record(arrays, f"{family}-{backbone}", network, network._forward)
        for backbone in BACKBONES:
            arrays[f"{family}-{backbone} digest"] = np.array(digest(MODELS.build(published(family, backbone))))
    for family in ("fcn", "deeplabv3"):
        for backbone in ("resnet50", "resnet101"):
            create = getattr(TORCHVISION, f"{family}_{backbone}")
            network = create(weights=None, weights_backbone=None, aux_loss=True)
            arrays[f"{family}-{backbone}-torchvision digest"] = np.array(digest(network))
        network = getattr(TORCHVISION, f"{family}_resnet50")(weights_backbone=None, num_classes=CLASSES, aux_loss=True)
        logits = lambda x, network=network: network.classifier(network.backbone(x)["out"])  # noqa: E731
        record(arrays, f"{family}-resnet50-torchvision", shrink(network), logits)
    np.savez_compressed(HERE.parent / "fixtures" / "dilated.npz", **arrays)


if __name__ == "__main__":
    main()
