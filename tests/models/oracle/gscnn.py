"""Writes fixtures/gscnn.npz with the authors' code: names, shapes and logits of GSCNN at an eighth of its width.

    python tests/models/oracle/gscnn.py DIRECTORY     # a copy of github.com/nv-tlabs/GSCNN (edd16c5)

Needs OpenCV, six and torchvision. Also Canny edges of hostile images by OpenCV, and, printed, what the full network
counts without its unused `dsn1`.
The authors' code is for non-commercial use: nothing of it is here.
"""

import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), sys.argv[1]]
torch.Tensor.cuda = lambda self, *_: self  # type: ignore[method-assign,assignment]  # the code assumes a GPU

from config import cfg  # type: ignore[import-not-found]  # noqa: E402
from my_functionals import GatedSpatialConv  # type: ignore[import-not-found]  # noqa: E402
from network.gscnn import GSCNN  # type: ignore[import-not-found]  # noqa: E402
from seeded import fill_, images  # noqa: E402

SIZES = ((48, 64), (33, 41))


def narrow(channels: int) -> int:
    """An eighth, keeping the few channels of images, classes and gates: 33 is 32 and a gate."""
    return channels // 8 + channels % 8 if channels >= 8 else channels


def tiny() -> nn.Module:
    """The authors' network, built while convolutions and norms make themselves narrow."""
    gated_conv = GatedSpatialConv.GatedSpatialConv2d
    conv, gated = nn.Conv2d.__init__, gated_conv.__init__

    def narrow_conv(self: nn.Conv2d, in_channels: int, out_channels: int, *args: Any, **kwargs: Any) -> None:
        conv(self, narrow(in_channels), narrow(out_channels), *args, **kwargs)

    nn.Conv2d.__init__ = narrow_conv  # type: ignore[method-assign]
    cfg.MODEL.BNFUNC = lambda channels: nn.BatchNorm2d(narrow(channels))
    gated_conv.__init__ = lambda self, i, o: gated(self, narrow(i), narrow(o))
    try:
        return fill_(GSCNN(3))
    finally:
        nn.Conv2d.__init__ = conv  # type: ignore[method-assign]
        cfg.MODEL.BNFUNC = nn.BatchNorm2d
        gated_conv.__init__ = gated


def logits(network: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    """What the authors' network upsamples to the image's size."""
    seen = []
    hook = network.final_seg.register_forward_hook(lambda module, inputs, output: seen.append(output))
    with torch.no_grad():
        network(batch)
    hook.remove()
    return seen[0]


def main() -> None:
    network = tiny()
    used = {name: tensor for name, tensor in network.state_dict().items() if not name.startswith("dsn1.")}
    arrays = {
        "names": np.array(list(used)),
        "shapes": np.array([" ".join(map(str, tensor.shape)) for tensor in used.values()]),
    }
    for size in SIZES:
        arrays[f"logits {size[0]}x{size[1]}"] = logits(network, images(1, 3, *size)).numpy()
    random = np.random.RandomState(0)
    for name, image in {
        "noise": random.randint(0, 256, (37, 53, 3)),
        "steps": random.randint(0, 4, (37, 53, 3)) * 12,
        "blocks": np.kron(random.randint(0, 256, (6, 7, 3)), np.ones((6, 8, 1))),
        "smooth": cv2.GaussianBlur(random.randint(0, 256, (48, 64, 3)).astype(np.uint8), (0, 0), 2),
    }.items():
        image = image.astype(np.uint8)
        arrays[f"image {name}"] = image
        arrays[f"canny {name}"] = np.packbits(cv2.Canny(image, 10, 100) > 0)
    np.savez_compressed(HERE.parent / "fixtures" / "gscnn.npz", **arrays)  # type: ignore[arg-type]
    full = GSCNN(19).to("meta").eval()
    del full.dsn1
    image = images(1, 3, 512, 512)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        full.forward.__func__.__globals__["cv2"] = type("NoEdges", (), {"Canny": lambda *_: np.zeros((512, 512))})
        torch.Tensor.cpu = lambda self: image  # type: ignore[method-assign,assignment]
        torch.Tensor.cuda = lambda self, *_: self.to("meta")  # type: ignore[method-assign,assignment]
        full(image.to("meta"))
    print(sum(p.numel() for p in full.parameters()), counter.get_total_flops() // 2)


if __name__ == "__main__":
    main()
