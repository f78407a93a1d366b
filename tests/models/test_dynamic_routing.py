"""Dynamic routing against the authors' code (fixtures/dynamic_routing.npz), and its counts against the paper's."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from edgeseg.counting import count_module, params_of_module
from edgeseg.export import onnx_from_module
from edgeseg.models.dynamic_routing import DynamicRouting, dynamic_l16
from edgeseg.models.fit import recognise, settle
from edgeseg.models.shapes import expected_shapes

from .seeded import fill_, images, values

FIXTURE = np.load(Path(__file__).parent / "fixtures" / "dynamic_routing.npz")
CLOSED = ("0.1", "3.0", "4.2")  # of oracle/dynamic_routing.py


def tiny(layers: int = 6, *, pyramid_pooling: bool = False) -> DynamicRouting:
    return DynamicRouting(3, layers, width=8, pyramid_pooling=pyramid_pooling).eval()


def published_state_dict() -> dict[str, torch.Tensor]:
    shapes = [tuple(map(int, shape.split())) for shape in FIXTURE["shapes"].tolist()]
    named = zip(FIXTURE["names"].tolist(), shapes, strict=True)
    return {k: torch.from_numpy(values(k, s)) if "num_batches" not in k else torch.tensor(0) for k, s in named}


@pytest.mark.parametrize("closed", [(), CLOSED])
def test_equals_the_authors_code(closed):
    network = tiny()
    state_dict = published_state_dict()
    for cell in closed:
        state_dict[f"backbone.all_cell_list.{cell}.gate_conv_beta.2.bias"].fill_(-20)
    network.load_state_dict(state_dict, strict=True)
    for height, width in ((64, 96), (32, 64)):
        with torch.inference_mode():
            logits = network(images(1, 3, height, width)).numpy()
        expected = FIXTURE[f"{height}x{width} {len(closed)}"]
        assert logits.shape == expected.shape
        assert np.abs(logits - expected).max() <= 1e-4 * np.abs(expected).max()


def test_a_stride_that_nothing_reaches_stays_zero():
    network = fill_(tiny())
    seen = []
    for layer in range(6):
        for cell in network.backbone.all_cell_list[layer]:
            torch.nn.init.constant_(cell.gate_conv_beta[2].bias, -20)
    network.sem_seg_head.layer_decoder_list[3].register_forward_hook(lambda module, inputs, output: seen.append(inputs))
    with torch.inference_mode():
        network(images(1, 3, 64, 64))
    assert not seen[0][0].any()


def test_parameters_of_the_authors_code():
    """As oracle/dynamic_routing.py prints them; 17.8 M in the paper. Layers 4 to L - 2 are all alike."""
    with torch.device("meta"):
        five, six = (params_of_module(DynamicRouting(19, layers)) for layers in (5, 6))
        assert params_of_module(dynamic_l16(19)) == 17_784_968
    assert five + 11 * (six - five) == 17_784_968
    assert five + 28 * (six - five) == 38_871_666


def test_multiply_accumulates():
    """At 1024x2048: the docstring derives the paper's figures from these; norms and ReLU add 1.3 G and 4.4 G."""

    def macs(layers, *, pyramid_pooling=False):
        build = partial(DynamicRouting, 19, layers, pyramid_pooling=pyramid_pooling)
        return count_module(build, (1024, 2048)).macs

    five, six, pooled = macs(5), macs(6), macs(5, pyramid_pooling=True)
    assert five + 11 * (six - five) == 117_908_855_072
    assert five + 28 * (six - five) == 241_370_310_048
    assert pooled - five == 24_172_298_240


@pytest.mark.parametrize("size", [(64, 96), (33, 50), (3, 7)])
def test_logits_at_stride_four(size):
    with torch.inference_mode():
        logits = fill_(tiny(pyramid_pooling=True))(images(2, 3, *size))
    assert logits.shape == (2, 3, *(-(-((side - 3) // 2 + 1) // 2) for side in size)) and logits.isfinite().all()


def test_gates_begin_open():
    network = DynamicRouting(3, 4, width=8)
    assert network.backbone.all_cell_list[1][1].gate_conv_beta[2].bias.tolist() == [1.5, 1.5, 1.5]


def test_exports_as_one_static_graph():
    model = onnx_from_module(fill_(tiny(3, pyramid_pooling=True)), (50, 70))  # ONNX Runtime gives the same
    assert not {node.op_type for node in model.graph.node} & {"If", "Loop", "NonZero"}


def test_every_parameter_learns():
    network = tiny(pyramid_pooling=True).train()
    network(torch.randn(2, 3, 64, 96)).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_published_checkpoints_are_recognised():
    shapes = expected_shapes("dynamic-routing-l16", 19)
    tensors = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    recognised = recognise(Path("model_final.pth"), tensors, None)
    assert settle(recognised, None, None) == ("dynamic-routing-l16", 19)
