"""What every network of the registry must satisfy. A model's own test subclasses one of the two and names its entry."""

from hashlib import sha256
from math import ceil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from edgeseg.counting import count_module
from edgeseg.errors import CheckpointError
from edgeseg.export import onnx_from_module
from edgeseg.models import MODELS, create_model
from edgeseg.models.fit import recognise, settle
from edgeseg.models.shapes import expected_shapes
from edgeseg.models.weights import load_weights, network_from_weights

from .seeded import fill_, images, values

FIXTURES = Path(__file__).parent / "fixtures"


class ModelContract:
    name: str
    stride: int
    sizes = ((64, 96), (65, 97), (33, 130))

    @pytest.fixture(scope="class")
    @classmethod
    def network(cls):
        return network_from_weights(load_weights("random", cls.name, 7))

    def small(self, num_classes: int) -> nn.Module:
        """The network, or the same code at tiny widths."""
        return create_model(self.name, num_classes)

    @pytest.mark.parametrize("batch", [1, 2])
    def test_logits_at_the_head_s_stride(self, network, batch):
        for height, width in self.sizes:
            with torch.inference_mode():
                logits = network(torch.randn(batch, 3, height, width))
            assert logits.shape == (batch, 7, ceil(height / self.stride), ceil(width / self.stride))
            assert logits.dtype == torch.float32 and logits.isfinite().all()

    @pytest.mark.parametrize("num_classes", [1, 255])
    def test_any_number_of_classes(self, num_classes):
        with torch.device("meta"):
            network = create_model(self.name, num_classes)
        assert network(torch.empty(2, 3, 64, 64, device="meta")).shape[1] == num_classes

    @pytest.mark.parametrize("num_classes", [0, -1, 256])
    def test_refuses_other_numbers_of_classes(self, num_classes):
        with pytest.raises(ValueError, match=rf"1 to 255.*got {num_classes}"):
            create_model(self.name, num_classes)

    def test_images_of_a_batch_do_not_meet(self, network):
        images = torch.randn(3, 3, 64, 96, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            together = network(images)
            alone = torch.cat([network(image[None]) for image in images])
        assert (together - alone).abs().max() <= 1e-5 * alone.abs().max()

    def test_every_parameter_learns(self):
        network = self.small(3).train()
        network(torch.randn(2, 3, 64, 64)).square().mean().backward()
        idle = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
        assert not idle

    def test_counts_are_those_of_the_network(self):
        entry = MODELS[self.name]
        for size in self.sizes:
            counted = count_module(lambda: entry.build(5), size)
            assert (counted.params, counted.macs) == (entry.params(5), entry.published_macs(size, 5))
            assert 0 < entry.deployed_macs(size, 5) <= counted.macs

    def test_smallest_size_is_the_smallest(self, network):
        entry = MODELS[self.name]
        with torch.inference_mode():
            assert network(torch.randn(1, 3, entry.min_size, entry.min_size)).isfinite().all()
        for size in ((entry.min_size - 1, 64), (64, entry.min_size - 1)):
            with pytest.raises(ValueError, match=f"cannot take an input of {size[0]}x{size[1]}.*at least"):
                entry.published_macs(size)

    def test_own_checkpoint_returns_in_half_precision(self, network, tmp_path):
        state_dict = {k: v.half() for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")}
        save_file(state_dict, tmp_path / "own.safetensors")
        weights = load_weights(tmp_path / "own.safetensors")
        assert (weights.format, weights.model, weights.num_classes) == ("edgeseg", self.name, 7)
        restored = network_from_weights(weights).state_dict()
        assert restored.keys() == network.state_dict().keys()
        for name, tensor in network.state_dict().items():
            assert torch.equal(restored[name], tensor.half().float() if tensor.is_floating_point() else tensor)

    def test_random_weights_are_the_same_twice(self, network):
        state = torch.random.get_rng_state()
        again = network_from_weights(load_weights("random", self.name, 7)).state_dict()
        assert torch.equal(torch.random.get_rng_state(), state)
        assert all(torch.equal(tensor, again[name]) for name, tensor in network.state_dict().items())


class RowContract:
    """A row of the catalogue: what it says about the network, and that published checkpoints lead to it.

    The fixture holds a "digest" of the names and shapes that the reference has at the published widths.
    """

    name: str
    fixture: str  # fixtures/<fixture>.npz, written by oracle/<fixture>.py

    def of_reference(self, what: str) -> np.ndarray:
        with np.load(FIXTURES / f"{self.fixture}.npz") as fixture:
            return fixture[f"{self.name} {what}"]

    def test_counts_are_those_of_the_network(self):
        """The shipped ones, at the size of the row; test_paper_table.py has the others."""
        entry = MODELS[self.name]
        counted = count_module(entry.build, entry.size)
        assert (counted.params + entry.auxiliary_params(), counted.macs) == (entry.params(), entry.published_macs())

    def test_published_names_and_shapes(self):
        with torch.device("meta"):
            tensors = MODELS[self.name].build().state_dict()
        lines = [f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items()]
        assert sha256("\n".join(sorted(lines)).encode()).hexdigest() == str(self.of_reference("digest"))

    @pytest.mark.parametrize("num_classes", [0, -1, 256])
    def test_refuses_other_numbers_of_classes(self, num_classes):
        with pytest.raises(ValueError, match=rf"1 to 255.*got {num_classes}"):
            create_model(self.name, num_classes)

    def test_checkpoints_are_recognised(self):
        """As edgeseg saves them, and as published with what inference never reads."""
        entry = MODELS[self.name]
        other = "pspnet-resnet101" if self.name != "pspnet-resnet101" else "fcn-resnet101"
        for format, dead in ((entry.formats[0], ()), (entry.formats[1], entry.dead)):
            shapes = expected_shapes(self.name, 7) | {f"{prefix}conv_seg.weight": (9, 9) for prefix in dead}
            tensors = {tensor: torch.empty(shape, device="meta") for tensor, shape in shapes.items()}
            for model in (None, self.name):
                recognised = recognise(Path("file.pth"), tensors, model)
                assert settle(recognised, model, None) == (self.name, 7)
                assert recognised.checkpoint.format.name == format
            with pytest.raises(CheckpointError, match=f"a {self.name} with 7 classes.*not a {other}; pass --model"):
                settle(recognise(Path("file.pth"), tensors, other), other, None)


class CatalogContract(RowContract, ModelContract):
    """The network itself at tiny widths, `small`, against what the reference implementation gave.

    The fixture also holds "names" and "shapes" of the reference's tensors at these widths, and its logits at each of
    ``fixture_sizes`` for `images` of two.
    """

    fixture_sizes = ((64, 64), (33, 65))
    fixture_classes = 5
    tolerance = 1e-4  # of the largest logit; 1e-5 for transformers

    @pytest.fixture(scope="class")
    @classmethod
    def network(cls):
        torch.manual_seed(0)
        return cls().small(7).eval()

    def shallow(self) -> nn.Module:
        """What is exported: `small`, with fewer blocks where another test exports the backbone."""
        return self.small(5)

    def reference_tensors(self) -> dict[str, torch.Tensor]:
        """What the reference would save, auxiliary heads and counters included."""
        shapes = [tuple(map(int, shape.split())) for shape in self.of_reference("shapes")]
        names = self.of_reference("names").tolist()
        return {
            name: torch.tensor(7) if name.endswith("num_batches_tracked") else torch.from_numpy(values(name, shape))
            for name, shape in zip(names, shapes, strict=True)
        }

    def test_equals_the_reference(self):
        network = self.small(self.fixture_classes).eval()
        theirs = self.reference_tensors()
        alive = {name: t for name, t in theirs.items() if not name.startswith(MODELS[self.name].dead)}
        network.load_state_dict(alive, strict=True)
        for height, width in self.fixture_sizes:
            with torch.inference_mode():
                logits = network(images(2, 3, height, width)).numpy()
            wanted = self.of_reference(f"{height}x{width}")
            assert logits.shape == wanted.shape
            assert np.abs(logits - wanted).max() <= self.tolerance * np.abs(wanted).max()

    def test_exports(self):
        """`onnx_from_module` compares ONNX Runtime with torch."""
        onnx_from_module(fill_(self.shallow()), (65, 97))

    @pytest.mark.parametrize("num_classes", [1, 255])
    def test_any_number_of_classes(self, num_classes):
        assert self.small(num_classes)(torch.zeros(2, 3, 64, 64)).shape[1] == num_classes

    def test_smallest_size_is_the_smallest(self, network):
        entry = MODELS[self.name]
        with torch.inference_mode():
            assert network(torch.randn(1, 3, entry.min_size, entry.min_size)).isfinite().all()
        if entry.min_size > 1:
            with pytest.raises(ValueError, match=f"cannot take an input of {entry.min_size - 1}x64.*at least"):
                entry.checked_size((entry.min_size - 1, 64))

    def test_own_checkpoint_returns_in_half_precision(self):
        """Of all networks in test_checkpoints_are_recognised, from files in test_weights.py."""

    def test_random_weights_are_the_same_twice(self):
        first, again = (torch.manual_seed(3) and self.small(7).state_dict() for _ in range(2))
        assert all(torch.equal(tensor, again[name]) for name, tensor in first.items())
