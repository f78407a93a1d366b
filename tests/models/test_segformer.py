"""The SegFormers: the contract, the published parameter counts, and the epsilons of each source."""

import pytest
import torch
from torch import nn

from edgeseg.models import MODELS, create_model
from edgeseg.models.segformer import NormEps

from .contract import ModelContract


class TestSegFormer(ModelContract):
    name = "segformer-b0"
    stride = 4


class TestSegFormerOfMmsegmentation(ModelContract):
    name = "segformer-b0-mmseg"
    stride = 4


# Both columns as counted on the published code: NVlabs' without its unused conv_seg, and mmsegmentation's.
PARAMS_M = {
    "b0": (3.752694, 3.753718),
    "b1": (13.7158, 13.7168),
    "b2": (27.4620, 24.7617),
    "b3": (47.3378, 44.6375),
    "b4": (64.1084, 61.4081),
    "b5": (84.7087, 82.0084),
}


@pytest.mark.parametrize("variant", PARAMS_M)
def test_published_parameters(variant):
    for name, published in zip((f"segformer-{variant}", f"segformer-{variant}-mmseg"), PARAMS_M[variant], strict=True):
        assert MODELS[name].params() / 1e6 == pytest.approx(published, abs=5e-5)
    assert MODELS["segformer-b0"].params() == 3_752_694
    assert MODELS["segformer-b0-mmseg"].params() == 3_753_718


def test_epsilons_stand_where_they_belong():
    network = create_model("segformer-b0", 3, norm_eps=NormEps(block=2e-3, embed=3e-3))
    norms = {name: module.eps for name, module in network.named_modules() if isinstance(module, nn.LayerNorm)}
    embed = {name for name in norms if name.endswith(("patch_embed.norm", "attention.norm"))}
    assert len(embed) == 4 + 6  # the deepest stage reduces nothing
    assert all(eps == (3e-3 if name in embed else 2e-3) for name, eps in norms.items())


def test_the_two_heads_concatenate_in_opposite_orders():
    """Deepest first in the paper's head, shallowest first in mmsegmentation's: only their checkpoints can tell."""
    for name, deepest_first in (("segformer-b0", True), ("segformer-b0-mmseg", False)):
        network = create_model(name, 2).eval()
        fuse = network.decode_head.fuse if deepest_first else network.decode_head.fuse.conv
        with torch.no_grad():
            images = torch.randn(1, 3, 64, 64)
            quarter = fuse.weight.shape[1] // 4
            fuse.weight[:, quarter:] = 0  # only the first stage of the concatenation is heard
            before = network(images)
            network.encoder.stages[3].norm.weight.mul_(2)
            changed = not torch.equal(before, network(images))
        assert changed == deepest_first
