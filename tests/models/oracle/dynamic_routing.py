"""Writes fixtures/dynamic_routing.npz with the authors' code: names, shapes and logits of a narrow, short network.

    python tests/models/oracle/dynamic_routing.py DIRECTORY     # github.com/yanwei-li/DynamicRouting at 6a88d01

Two sets of weights: as they are, and with the gates of some cells closed, so that nothing at all reaches others. It
also prints the parameters of the full L16 and L33, and what the authors count for their heads.
"""

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), sys.argv[1]]


class Anything(types.ModuleType):
    """A module that has whatever is asked for: the code's package imports much that the network does not use."""

    def __getattr__(self, name: str) -> Any:
        return type(name, (), {"__init__": lambda self, *args, **kwargs: None})


for missing in ("dl_lib._C", "dl_lib.modeling.postprocessing", "dl_lib.structures"):
    sys.modules[missing] = Anything(missing)
package = types.ModuleType("dl_lib.modeling")  # its own __init__ imports every detector
package.__path__ = [f"{sys.argv[1]}/dl_lib/modeling"]
sys.modules["dl_lib.modeling"] = package

from dl_lib.modeling.dynamic_arch.dynamic_backbone import DynamicNetwork  # type: ignore[import-not-found]  # noqa: E402
from dl_lib.modeling.meta_arch.dynamic4seg import SemSegDecoderHead  # type: ignore[import-not-found]  # noqa: E402
from seeded import fill_, images  # noqa: E402

SIZES = ((64, 96), (32, 64))
CLOSED = ("0.1", "3.0", "4.2")  # layer and stride of the cells closed in the second set


class Network(nn.Module):
    """The authors' backbone and head, as their meta architecture joins them."""

    def __init__(self, num_classes: int, layers: int, width: int, size: tuple[int, int], *, count: bool = False):
        super().__init__()
        self.backbone = DynamicNetwork(
            init_channel=width,
            input_shape=(3, *size),
            cell_num_list=[2, 3, 4] + [4] * 30,
            layer_num=layers,
            norm="SyncBN" if count else "BN",
            cal_flops=count,
            cell_type=["sep_conv_3x3", "skip_connect"],
            using_gate=True,
        )
        head = types.SimpleNamespace(
            IN_FEATURES=[f"layer_{i}" for i in range(4)],
            IGNORE_VALUE=255,
            NUM_CLASSES=num_classes,
            NORM="SyncBN" if count else "BN",
            LOSS_WEIGHT=1.0,
        )
        config = types.SimpleNamespace(MODEL=types.SimpleNamespace(SEM_SEG_HEAD=head, CAL_FLOPS=count))
        self.sem_seg_head = SemSegDecoderHead(config, self.backbone.output_shape())

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        logits = []
        hook = self.sem_seg_head.predictor.register_forward_hook(lambda module, inputs, output: logits.append(output))
        self.sem_seg_head(self.backbone(batch)[0])
        hook.remove()
        return logits[0]


def main() -> None:
    network = fill_(Network(3, 6, 8, SIZES[0]))
    state_dict = network.state_dict()
    arrays = {
        "names": np.array(list(state_dict)),
        "shapes": np.array([" ".join(map(str, tensor.shape)) for tensor in state_dict.values()]),
    }
    for closed in ((), CLOSED):
        for cell in closed:
            network.get_submodule(f"backbone.all_cell_list.{cell}.gate_conv_beta.2").bias.data.fill_(-20)
        for height, width in SIZES:
            with torch.no_grad():
                arrays[f"{height}x{width} {len(closed)}"] = network(images(1, 3, height, width)).numpy()
    np.savez_compressed(HERE.parent / "fixtures" / "dynamic_routing.npz", **arrays)  # type: ignore[arg-type]
    for layers in (16, 33):
        full = Network(19, layers, 64, (1024, 2048), count=True)
        print(layers, sum(p.numel() for p in full.parameters()), full.sem_seg_head.flops)


if __name__ == "__main__":
    main()
