"""Writes fixtures/setr.npz with mmsegmentation 1.2.2: names, shapes and logits of its three SETRs at a tiny width.

    python tests/models/oracle/setr.py        # needs mmsegmentation 1.2.2, mmcv-lite 2.1.0, mmengine 0.10.7

It also prints what the full networks count: parameters without and of the auxiliary heads, and multiply-accumulates.
"""

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
sys.modules["mmcv._ext"] = types.ModuleType("mmcv._ext")  # mmcv-lite has no compiled operators; SETR needs none
sys.modules["mmcv._ext"].__getattr__ = lambda name: None  # type: ignore[method-assign]

import mmseg  # noqa: E402
from mmengine import Config  # noqa: E402
from mmengine.registry import init_default_scope  # noqa: E402
from mmseg.registry import MODELS  # noqa: E402
from seeded import fill_, images  # noqa: E402

SIZES = ((48, 48), (33, 17))  # the position embedding as trained, and resized
CONFIGS = Path(mmseg.__file__).parent / ".mim" / "configs" / "setr"


def published(name: str, crop: str) -> Config:
    """The configuration of the network alone, without what needs a file or several GPUs."""
    config = Config.fromfile(CONFIGS / f"setr_vit-l_{name}_{crop}.py").model
    config.update(data_preprocessor=None, pretrained=None)
    config.backbone.init_cfg = None
    _plain_batch_norm(config)
    return config


def _plain_batch_norm(node: Any) -> None:
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    if isinstance(node, dict) and node.get("type") == "SyncBN":
        node["type"] = "BN"
    for child in children:
        _plain_batch_norm(child)


def tiny(name: str) -> Config:
    config = published(name, "8xb2-160k_ade20k-512x512")
    last = 7 if name != "mla" else (1, 3, 5, 7)
    config.backbone.update(img_size=(48, 48), embed_dims=32, num_layers=8, num_heads=4, out_indices=last)
    config.auxiliary_head = None
    if name == "mla":
        config.neck.update(in_channels=[32] * 4, out_channels=12)
        config.decode_head.update(in_channels=(12,) * 4, channels=4 * 8, mla_channels=8, num_classes=3)
    else:
        config.decode_head.update(in_channels=32, in_index=0, channels=12, num_classes=3)
    return config


def main() -> None:
    init_default_scope("mmseg")
    arrays = {}
    for name in ("naive", "pup", "mla"):
        network = fill_(MODELS.build(tiny(name)))
        state_dict = network.state_dict()
        arrays[f"{name} names"] = np.array(list(state_dict))
        arrays[f"{name} shapes"] = np.array([" ".join(map(str, tensor.shape)) for tensor in state_dict.values()])
        for size in SIZES:
            with torch.no_grad():
                arrays[f"{name} {size[0]}x{size[1]}"] = network._forward(images(1, 3, *size)).numpy()
        for crop, size in (("8xb2-160k_ade20k-512x512", (512, 512)), ("8xb1-80k_cityscapes-768x768", (1024, 2048))):
            full = MODELS.build(published(name, crop)).to("meta").train()  # eval takes a path that is not counted
            auxiliary = sum(p.numel() for p in full.auxiliary_head.parameters())
            total = sum(p.numel() for p in full.parameters())
            with FlopCounterMode(display=False) as counter:
                full._forward(torch.empty(2, 3, *size, device="meta"))
            print(name, crop, size, total - auxiliary, auxiliary, counter.get_total_flops() // 4)
    np.savez_compressed(HERE.parent / "fixtures" / "setr.npz", **arrays)


if __name__ == "__main__":
    main()
