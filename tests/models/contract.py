"""What every network of the registry must satisfy. A model's own test subclasses it and names its entry."""

from math import ceil

import pytest
import torch
from safetensors.torch import save_file

from edgeseg.counting import count_module
from edgeseg.models import MODELS, create_model
from edgeseg.models.weights import load_weights, network_from_weights


class ModelContract:
    name: str
    stride: int
    sizes = ((64, 96), (65, 97), (33, 130))

    @pytest.fixture(scope="class")
    @classmethod
    def network(cls):
        return network_from_weights(load_weights("random", cls.name, 7))

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
        network = create_model(self.name, 3).train()
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
