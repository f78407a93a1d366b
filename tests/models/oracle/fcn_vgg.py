"""FCN-32s, -16s and -8s on a narrow VGG: the logits of wkentaro/pytorch-fcn for fixtures/fcn_vgg.npz.

Needs the folder torchfcn/models of https://github.com/wkentaro/pytorch-fcn as the package `torchfcn_models` on
PYTHONPATH. Its widths are written into the code; here every convolution but the classifiers is made 8 times as narrow.
Run from the repository's root: PYTHONPATH=tests:THERE python -m models.oracle.fcn_vgg
"""

import sys
import types
from pathlib import Path

import numpy as np
import torch
from torch import nn

from models.seeded import fill_, images

FIXTURE = Path(__file__).parents[1] / "fixtures" / "fcn_vgg.npz"
CLASSES = 2  # what no width becomes
NARROWER = 8
SIZES = ((33, 65), (32, 32))


class NarrowConv2d(nn.Conv2d):
    def __init__(self, in_channels: int, out_channels: int, *args: int, **options: int):
        widths = (c if c in (3, CLASSES) else c // NARROWER for c in (in_channels, out_channels))
        super().__init__(*widths, *args, **options)


def reference(name: str) -> nn.Module:
    """One of its classes, with narrow convolutions. What it imports for downloads is not needed: empty modules."""
    for unneeded in ("fcn", "torchvision"):
        sys.modules.setdefault(unneeded, types.ModuleType(unneeded))
    module = __import__(f"torchfcn_models.{name.lower()}", fromlist=[name])
    module.nn = types.SimpleNamespace(**vars(nn) | {"Conv2d": NarrowConv2d})
    network = getattr(module, name)(CLASSES)
    trained = nn.ModuleDict({key: child for key, child in network.named_children() if not key.startswith("upscore")})
    fill_(trained)  # the deconvolutions stay bilinear, as its training leaves them
    return network.eval()


if __name__ == "__main__":
    arrays = {}
    for name in ("FCN32s", "FCN16s", "FCN8s"):
        network = reference(name)
        with torch.inference_mode():
            for height, width in SIZES:
                arrays[f"{name}-{height}x{width}"] = network(images(1, 3, height, width)).numpy()
        tensors = network.state_dict().items()
        arrays[f"{name}-names"] = np.array([f"{key} {tuple(tensor.shape)}" for key, tensor in tensors])
    np.savez_compressed(FIXTURE, **arrays)
    print(f"{FIXTURE.name}: {FIXTURE.stat().st_size} bytes", {k: v.shape for k, v in arrays.items()})
    print({k: float(np.abs(v).max()) for k, v in arrays.items() if "names" not in k})
