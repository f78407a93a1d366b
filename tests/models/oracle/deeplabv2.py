"""DeepLab v2 on a narrow and shallow ResNet: the logits of kazuto1011/deeplab-pytorch for fixtures/deeplabv2.npz.

Needs the folder libs of https://github.com/kazuto1011/deeplab-pytorch on PYTHONPATH. Its widths are written into the
code; here every layer but the classifier is made 8 times as narrow.
Run from the repository's root: PYTHONPATH=tests:THERE python -m models.oracle.deeplabv2
"""

import types
from pathlib import Path

import numpy as np
import torch
from torch import nn

from models.seeded import fill_, images

FIXTURE = Path(__file__).parents[1] / "fixtures" / "deeplabv2.npz"
CLASSES = 7  # what no width becomes
NARROWER = 8
SIZES = ((33, 65), (64, 64), (129, 97))


def narrow(channels: int) -> int:
    return channels if channels in (3, CLASSES) else channels // NARROWER


def reference() -> nn.Module:
    """Its DeepLabV2 inside its multi-scale wrapper with no other scale, so that names are those of its files."""
    from libs.models import deeplabv2, resnet
    from libs.models.msc import MSC

    narrowed = types.SimpleNamespace(**vars(nn))
    narrowed.Conv2d = lambda i, o, *args, **options: nn.Conv2d(narrow(i), narrow(o), *args, **options)
    deeplabv2.nn = resnet.nn = narrowed
    resnet._BATCH_NORM = resnet._ConvBnReLU.BATCH_NORM = lambda c, **options: nn.BatchNorm2d(narrow(c), **options)
    return MSC(deeplabv2.DeepLabV2(CLASSES, [2, 2, 3, 1], [6, 12, 18, 24]), scales=[])


if __name__ == "__main__":
    network = reference()
    fill_(network.base)
    network.eval()
    arrays = {}
    with torch.inference_mode():
        for height, width in SIZES:
            arrays[f"{height}x{width}"] = network.base(images(1, 3, height, width)).numpy()
    arrays["names"] = np.array([f"{key} {tuple(tensor.shape)}" for key, tensor in network.state_dict().items()])
    np.savez_compressed(FIXTURE, **arrays)
    print(f"{FIXTURE.name}: {FIXTURE.stat().st_size} bytes", {k: v.shape for k, v in arrays.items()})
    print({k: float(np.abs(v).max()) for k, v in arrays.items() if k != "names"})
