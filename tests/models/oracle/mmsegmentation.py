"""mmsegmentation's networks on the CPU, and how their logits come into a fixture for `CatalogContract`.

Needs mmsegmentation 1.2.2, mmcv-lite 2.1.0, mmengine 0.10.7, ftfy and regex beside torch.
"""

import sys
import types
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
sys.modules["mmcv._ext"] = types.ModuleType("mmcv._ext")  # mmcv-lite has no compiled operators; these need none
sys.modules["mmcv._ext"].__getattr__ = lambda name: None  # type: ignore[method-assign]

import mmseg  # noqa: E402
from mmengine import Config  # noqa: E402
from mmengine.registry import init_default_scope  # noqa: E402
from mmseg.registry import MODELS  # noqa: E402
from seeded import fill_, images  # noqa: E402

CONFIGS = Path(mmseg.__file__).parent / ".mim" / "configs"
CLASSES = 5
SIZES = ((64, 64), (33, 65))
RESNET_WIDTHS = (32, 64, 128, 256)  # of the stages of `narrow`
init_default_scope("mmseg")


def published(path: str) -> Config:
    """The published configuration of a network alone, with batch norm for one device."""
    config = Config.fromfile(CONFIGS / f"{path}.py").model
    config.update(data_preprocessor=None, pretrained=None)
    _one_device(config)
    return config


def narrow(resnet: Config) -> None:
    """Makes a ResNet's configuration ResNet-50 at one eighth of its width."""
    resnet.update(depth=50, base_channels=8, stem_channels=8)


def build(config: Config) -> nn.Module:
    return MODELS.build(config)


def write(
    fixture: str,
    rows: Mapping[str, tuple[nn.Module, Callable[[Tensor], Tensor]]],
    digests: Mapping[str, nn.Module],
    dead: tuple[str, ...] = ("auxiliary_head.",),
    sizes: tuple[tuple[int, int], ...] = SIZES,
) -> None:
    """Writes names, shapes and logits of tiny networks, and what is read of the published ones as a digest."""
    arrays: dict[str, np.ndarray] = {}
    for key, (network, forward) in rows.items():
        state_dict = fill_(network).state_dict()
        arrays[f"{key} names"] = np.array(list(state_dict))
        arrays[f"{key} shapes"] = np.array([" ".join(map(str, tensor.shape)) for tensor in state_dict.values()])
        for height, width in sizes:
            with torch.no_grad():
                logits = forward(images(2, 3, height, width)).numpy()
            arrays[f"{key} {height}x{width}"] = logits
            print(f"{key} {height}x{width}: {logits.shape}, max {abs(logits).max():.3g}, std {logits.std((0, 2, 3))}")
    for name, network in digests.items():
        lines = [f"{key} {tuple(t.shape)}" for key, t in network.state_dict().items() if not key.startswith(dead)]
        arrays[f"{name} digest"] = np.array(sha256("\n".join(sorted(lines)).encode()).hexdigest())
    np.savez_compressed(HERE.parent / "fixtures" / f"{fixture}.npz", **arrays)


def _one_device(config: Config) -> None:
    for key, value in config.items():
        if key == "norm_cfg":
            config[key] = {"type": "BN"}
        elif isinstance(value, dict):
            _one_device(value)
        elif isinstance(value, list):
            for item in value:
                if isinstance(item, dict):
                    _one_device(item)
