"""Writes fixtures/axial_deeplab.npz with the authors' code: names, shapes and results of two of its residual blocks.

    python tests/models/oracle/axial_deeplab.py DIRECTORY     # a copy of github.com/csrhddlam/axial-deeplab

That code has the encoder for classification, with attention to whole rows and columns.
"""

import importlib.util
import sys
import types
from pathlib import Path

import numpy as np
import torch
from torch import nn

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from seeded import fill_, images  # noqa: E402

CASES = {"short": (12, 2, 24, 1), "long": (40, 1, 32, 5)}  # side, stride, channels in, every which pixel is stored
PLANES = 16


def axialnet() -> types.ModuleType:
    """The one file that defines the network, without the package that trains it."""
    folder = Path(sys.argv[1]) / "lib" / "models"
    package = types.ModuleType("models")
    package.__path__ = [str(folder)]
    sys.modules["models"] = package
    spec = importlib.util.spec_from_file_location("models.axialnet", folder / "axialnet.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    block = axialnet().AxialBlock
    arrays = {}
    for name, (side, stride, channels, step) in CASES.items():
        shortcut = None
        if stride != 1 or channels != 2 * PLANES:
            shortcut = nn.Sequential(nn.Conv2d(channels, 2 * PLANES, 1, stride, bias=False), nn.BatchNorm2d(2 * PLANES))
        module = fill_(block(channels, PLANES, stride, shortcut, groups=8, kernel_size=side))
        tensors = {key: value for key, value in module.state_dict().items() if not key.endswith("flatten_index")}
        arrays[f"{name} names"] = np.array(list(tensors))
        arrays[f"{name} shapes"] = np.array([" ".join(map(str, tensor.shape)) for tensor in tensors.values()])
        with torch.no_grad():
            arrays[f"{name} result"] = module(images(2, channels, side, side)).numpy()[:, :, ::step, ::step]
    np.savez_compressed(HERE.parent / "fixtures" / "axial_deeplab.npz", **arrays)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
