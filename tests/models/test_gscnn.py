"""GSCNN against the authors' code, and its edges against OpenCV (fixtures/gscnn.npz)."""

from pathlib import Path

import numpy as np
import pytest
import torch

from edgeseg.counting import count_module
from edgeseg.export import onnx_from_module
from edgeseg.models import gscnn
from edgeseg.models.fit import recognise, settle
from edgeseg.models.shapes import expected_shapes

from .seeded import fill_, images, values

FIXTURE = np.load(Path(__file__).parent / "fixtures" / "gscnn.npz")
WIDTHS = [tuple(channels // 8 for channels in module) for module in gscnn.WIDTHS]


def tiny(blocks=gscnn.BLOCKS) -> gscnn.Gscnn:
    """An eighth of the published widths, three classes."""
    return gscnn.Gscnn(
        3, stem_width=8, widths=WIDTHS, blocks=blocks, shape_widths=(4, 2, 1), aspp_width=32, fine_width=6
    ).eval()


def published_state_dict() -> dict[str, torch.Tensor]:
    """The tensors of the authors' network, under our names: their encoder's modules stand under "backbone."."""
    state_dict = {}
    for name, shape in zip(FIXTURE["names"].tolist(), FIXTURE["shapes"].tolist(), strict=True):
        size = tuple(map(int, shape.split()))
        tensor = torch.tensor(0) if "num_batches" in name else torch.from_numpy(values(name, size))
        state_dict[f"backbone.{name}" if name.startswith("mod") else name] = tensor
    return state_dict


@pytest.mark.parametrize("size", [(48, 64), (33, 41)])
def test_equals_the_authors_code(size):
    network = tiny()
    network.load_state_dict(published_state_dict(), strict=True)
    with torch.inference_mode():
        logits = network(images(1, 3, *size)).numpy()
    expected = FIXTURE[f"logits {size[0]}x{size[1]}"]
    assert logits.shape == expected.shape == (1, 3, -(-size[0] // 2), -(-size[1] // 2))
    assert np.abs(logits - expected).max() <= 1e-4 * np.abs(expected).max()


def test_published_counts():
    """Of the authors' code at 19 classes and 512x512, counted by oracle/gscnn.py."""
    counted = count_module(lambda: gscnn.gscnn_wideresnet38(19), (512, 512))
    assert (counted.params, counted.macs) == (137_278_125, 755_215_892_480)


@pytest.mark.parametrize("name", ["noise", "steps", "blocks", "smooth"])
def test_canny_equals_opencv(name, monkeypatch):
    image = FIXTURE[f"image {name}"]
    height, width, _ = image.shape
    expected = np.unpackbits(FIXTURE[f"canny {name}"], count=height * width).reshape(height, width)
    batch = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)[None])).float()
    edges = gscnn.canny(batch)[0, 0].numpy()
    assert not (edges > expected).any()  # every edge is one of OpenCV's; the others hang on longer weak chains
    monkeypatch.setattr(gscnn, "HYSTERESIS_STEPS", 64)
    assert np.array_equal(gscnn.canny(batch)[0, 0].numpy(), expected)


@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (2, 3, 1, 5), (1, 3, 2, 2)])
def test_canny_of_the_smallest_images(shape):
    image = 255 * torch.arange(float(np.prod(shape))).reshape(shape).remainder(2)
    edges = gscnn.canny(image)
    assert edges.shape == (shape[0], 1, *shape[2:]) and set(edges.unique().tolist()) <= {0.0, 1.0}


def test_bytes_wrap_as_on_x86():
    x = torch.tensor([-2.7, -1.0, -0.9, -0.0, 0.0, 0.9, 1.0, 2.6, 254.9])
    assert gscnn.wrapped_bytes(x).tolist() == [254, 255, 0, 0, 0, 0, 1, 2, 254]


def test_exports_without_control_flow():
    network = fill_(tiny(blocks=(1, 1, 1, 1, 1, 1)))
    model = onnx_from_module(network, (33, 41))  # which proves that ONNX Runtime gives the same
    types = {node.op_type for node in model.graph.node}
    assert not types & {"Loop", "If", "Scan", "NonZero"}


def test_every_parameter_learns():
    network = tiny().train()
    network(torch.randn(2, 3, 33, 48)).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_the_published_checkpoint_is_recognised():
    shapes = {
        name.removeprefix("backbone."): shape for name, shape in expected_shapes("gscnn-wideresnet38", 19).items()
    }
    shapes["dsn1.weight"] = torch.Size([1, 64, 1, 1])
    tensors = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    recognised = recognise(Path("best_cityscapes_checkpoint.pth"), tensors, None)
    assert settle(recognised, None, None) == ("gscnn-wideresnet38", 19)
    assert recognised.checkpoint.format.name == "gscnn"
