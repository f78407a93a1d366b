"""DeepLab v2 against kazuto1011/deeplab-pytorch's stored logits."""

from pathlib import Path

import numpy as np
import pytest
import torch

from edgeseg.counting import count_module
from edgeseg.models import MODELS
from edgeseg.models.catalog_checkpoints import formats_of
from edgeseg.models.checkpoints import translate
from edgeseg.models.deeplabv2 import DeepLabV2, deeplabv2_resnet101
from models.seeded import images, values

FIXTURE = Path(__file__).parent / "fixtures" / "deeplabv2.npz"


def published(prefix="base."):
    """A checkpoint of deeplab-pytorch: its own list of names, values seeded by the names inside its wrapper."""
    tensors = {}
    for line in np.load(FIXTURE)["names"]:
        name, _, shape = str(line).partition(" ")
        name = name.removeprefix("base.")
        sizes = tuple(int(size) for size in shape.strip("(,)").split(",") if size)
        tracked = name.endswith("num_batches_tracked")
        tensors[prefix + name] = torch.tensor(0) if tracked else torch.from_numpy(values(name, sizes))
    return tensors


def loaded(prefix="base."):
    """The network with that checkpoint, the way every checkpoint goes."""
    network = DeepLabV2(7, width=8, depths=(2, 2, 3, 1)).eval()
    format = formats_of(MODELS["deeplabv2-resnet101"])[1]
    checkpoint = translate(Path("file.pth"), published(prefix), format)
    assert not checkpoint.surplus and not checkpoint.doubled
    counters = {name: t for name, t in network.state_dict().items() if name.endswith("num_batches_tracked")}
    network.load_state_dict(checkpoint.tensors | counters, strict=True)
    return network


@pytest.mark.parametrize("prefix", ["base.", "scale."])
@pytest.mark.parametrize("size", [(33, 65), (64, 64), (129, 97)])
def test_equals_the_reference_implementation(size, prefix):
    expected = np.load(FIXTURE)[f"{size[0]}x{size[1]}"]
    with torch.inference_mode():
        logits = loaded(prefix)(images(1, 3, *size).flip(1)).numpy()  # it reads BGR
    assert logits.shape == expected.shape
    assert np.abs(logits - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("size", [(1, 1), (40, 57)])
def test_takes_any_size(size):
    with torch.inference_mode():
        assert loaded()(torch.randn(2, 3, *size)).isfinite().all()


def test_every_parameter_learns():
    network = loaded().train()
    network(torch.randn(2, 3, 64, 64)).square().mean().backward()
    assert not [n for n, p in network.named_parameters() if p.grad is None or not p.grad.isfinite().all()]


def test_published_counts():
    counted = count_module(lambda: deeplabv2_resnet101(21), (513, 513))
    assert counted.params == 44_549_160 - (2048 * 1000 + 1000) + 4 * (2048 * 21 * 9 + 21)  # torchvision's ResNet-101
    macs, channels = 257**2 * 49 * 3 * 64, 64
    stages = ((3, 64, 129), (4, 128, 65), (23, 256, 65), (3, 512, 65))  # blocks, inner width, side
    for depth, inner, side in stages:
        for block in range(depth):
            project = channels * 4 * inner if block == 0 else 0
            macs += side**2 * (channels * inner + 9 * inner * inner + 4 * inner * inner + project)
            channels = 4 * inner
    assert counted.macs == macs + 4 * 65**2 * 9 * 2048 * 21
