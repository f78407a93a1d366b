"""SETR against mmsegmentation: logits and names at a tiny width (fixtures/setr.npz), counts at the published one."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgeseg.counting import count_module
from edgeseg.export import onnx_from_module
from edgeseg.models import MODELS, setr
from edgeseg.models.encoders.vit import SelfAttention, VisionTransformer
from edgeseg.models.fit import recognise, settle
from edgeseg.models.shapes import expected_shapes

from .seeded import fill_, images, values

FIXTURE = np.load(Path(__file__).parent / "fixtures" / "setr.npz")
FACTORIES = {"naive": setr.setr_naive, "pup": setr.setr_pup, "mla": setr.setr_mla}
# counted on mmsegmentation's own networks by oracle/setr.py: parameters, of which auxiliary, multiply-accumulates
ADE20K = {
    "naive": (304_449_686, 1_107_906, 362_882_842_624),
    "pup": (308_317_846, 8_972_226, 425_201_811_456),
    "mla": (309_415_062, 154_200, 368_142_450_688),
}
CITYSCAPES = {
    "naive": (305_726_739, 808_761, 5_782_770_860_032),
    "pup": (309_594_899, 8_871_225, 6_215_388_151_808),
    "mla": (310_658_579, 19_532, 5_822_566_367_232),
}


def tiny(name: str, *, grid: tuple[int, int] = (3, 3), depth: int = 8) -> nn.Module:
    widths = {"channels": 12, "mla_channels": 8} if name == "mla" else {"channels": 12}
    return FACTORIES[name](3, grid=grid, encoder={"width": 32, "depth": depth, "num_heads": 4}, **widths)


def published_state_dict(name: str) -> dict[str, torch.Tensor]:
    """The tensors of mmsegmentation's network, by its names."""
    shapes = [tuple(map(int, shape.split())) for shape in FIXTURE[f"{name} shapes"]]
    named = zip(FIXTURE[f"{name} names"].tolist(), shapes, strict=True)
    return {k: torch.from_numpy(values(k, s)) if "num_batches" not in k else torch.tensor(0) for k, s in named}


@pytest.mark.parametrize("name", FACTORIES)
def test_equals_mmsegmentation(name):
    network = tiny(name).eval()
    network.load_state_dict(published_state_dict(name), strict=True)
    for size in ((48, 48), (33, 17)):
        with torch.inference_mode():
            logits = network(images(1, 3, *size)).numpy()
        expected = FIXTURE[f"{name} {size[0]}x{size[1]}"]
        assert logits.shape == expected.shape
        assert np.abs(logits - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("name", FACTORIES)
def test_published_counts(name):
    factory = FACTORIES[name]
    for counts, classes, grid, size in (
        (ADE20K, 150, setr.ADE20K_GRID, (512, 512)),
        (CITYSCAPES, 19, setr.CITYSCAPES_GRID, (1024, 2048)),
    ):
        counted = count_module(lambda f=factory, c=classes, g=grid: f(c, grid=g), size)
        assert (counted.params, counted.macs) == counts[name][::2]
        num_convs = 1 if (name, classes) == ("naive", 19) else 2
        assert setr.auxiliary_params(f"setr-{name}", classes, num_convs=num_convs) == counts[name][1]


@pytest.mark.parametrize("name", FACTORIES)
def test_takes_over_grid_and_bias_of_a_checkpoint(name):
    source = tiny(name, grid=(2, 2))
    projection = source.backbone.patch_embed["projection"]
    projection.bias = nn.Parameter(torch.zeros(32))
    fill_(source)
    network = tiny(name).eval()
    network.load_state_dict(source.state_dict(), strict=True)
    with torch.inference_mode():
        assert torch.equal(network(images(1, 3, 40, 30)), source(images(1, 3, 40, 30)))
    assert network.backbone.grid == (2, 2)


def test_refuses_a_checkpoint_of_another_width_or_of_no_square_grid():
    backbone = VisionTransformer((3, 3), width=32, depth=1, num_heads=4, out_indices=(0,))
    for shape in ((1, 10, 16), (1, 12, 32)):
        state_dict = backbone.state_dict() | {"pos_embed": torch.zeros(shape)}
        with pytest.raises(RuntimeError, match="size mismatch for pos_embed"):
            backbone.load_state_dict(state_dict)


def test_a_grid_of_as_many_patches_but_another_shape_is_resized():
    backbone = VisionTransformer((2, 8), width=32, depth=1, num_heads=4, out_indices=(0,))
    fill_(backbone)
    with torch.inference_mode():
        square = backbone._positions(4, 4)
        assert square.shape == (1, 16, 32) and not torch.equal(square, backbone.pos_embed[:, 1:])
        assert torch.equal(backbone._positions(2, 8), backbone.pos_embed[:, 1:])


def test_attention_equals_torch_multihead_attention():
    attention, reference = SelfAttention(24, 3), nn.MultiheadAttention(24, 3, batch_first=True)
    fill_(attention)
    reference.load_state_dict(attention.state_dict(), strict=True)
    tokens = torch.randn(2, 7, 24, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, _ = reference(tokens, tokens, tokens)
        assert (attention(tokens) - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("name", FACTORIES)
def test_exports_with_the_position_embedding_folded(name):
    network = fill_(tiny(name, depth=4 if name == "mla" else 1))
    model = onnx_from_module(network, (33, 70))  # which proves that ONNX Runtime gives the same
    resizes = [node for node in model.graph.node if node.op_type == "Resize"]
    assert len(resizes) == {"naive": 1, "pup": 4, "mla": 4}[name]  # those of the head


@pytest.mark.parametrize("name", FACTORIES)
def test_every_parameter_learns(name):
    network = tiny(name).train()
    network(torch.randn(2, 3, 48, 48)).square().mean().backward()
    idle = {name for name, p in network.named_parameters() if p.grad is None or not p.grad.isfinite().all()}
    assert idle == ({"backbone.cls_token"} if name == "mla" else set())


@pytest.mark.parametrize("name", FACTORIES)
@pytest.mark.parametrize("grid, has_bias", [(32, False), (48, True)])
def test_published_checkpoints_are_recognised(name, grid, has_bias):
    """Those of ADE20K and Cityscapes, of mmsegmentation 1.2 and of the release before, which had one bias more."""
    shapes = dict(expected_shapes(f"setr-{name}", 7))
    shapes["backbone.pos_embed"] = torch.Size([1, grid**2 + 1, 1024])
    shapes["auxiliary_head.0.conv_seg.weight"] = torch.Size([7, 256, 1, 1])
    if has_bias:
        shapes["backbone.patch_embed.projection.bias"] = torch.Size([1024])
    tensors = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    recognised = recognise(Path("file.pth"), tensors, None)
    assert settle(recognised, None, None) == (f"setr-{name}", 7)
    assert recognised.checkpoint.format.name == "mmsegmentation"


@pytest.mark.parametrize("name", FACTORIES)
def test_row_counts_the_auxiliary_heads(name):
    entry = MODELS[f"setr-{name}"]
    assert entry.auxiliary_params() == ADE20K[name][1]
