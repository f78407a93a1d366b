"""Migration: the same network to the bit, activations of one size, and INT8 that gains by it."""

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from precision.networks import SIZE, export, network, pictures, run
from torch import nn

from edgeseg.calibration import Scales, calibrate
from edgeseg.calibration.channels import find_groups
from edgeseg.calibration.migration import exponents_of, migrated, migration
from edgeseg.calibration.prepare import best_trial, try_migrations
from edgeseg.errors import CalibrationError
from edgeseg.precision.int8 import quantize


class Normed(nn.Module):
    """Tokens, a LayerNormalization with a loud channel in 16, and a linear layer that hardly reads it."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.norm = nn.LayerNorm(16)
        self.linear = nn.Linear(16, 12)
        with torch.no_grad():
            self.norm.weight[3], self.linear.weight[:, 3] = 200.0, 1e-3

    def forward(self, x):
        tokens = self.norm(self.stem(x).flatten(2).transpose(1, 2))
        return self.linear(tokens).transpose(1, 2).reshape(1, 12, *SIZE)


class Depthwise(nn.Module):
    """1x1 - batch norm - activation - depthwise - 1x1, some channels a hundred times as loud as others."""

    def __init__(self, activation: nn.Module):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 1), nn.BatchNorm2d(16), activation, nn.Conv2d(16, 16, 3, padding=1, groups=16),
            nn.ReLU(), nn.Conv2d(16, 5, 1),
        )  # fmt: skip
        with torch.no_grad():
            gains = 10.0 ** torch.linspace(-1, 1, 16)
            self.body[1].weight.copy_(gains)
            self.body[3].weight.div_(gains.reshape(-1, 1, 1, 1))

    def forward(self, x):
        return self.body(x)


def made(module: nn.Module) -> onnx.ModelProto:
    torch.manual_seed(0)
    return export(module.eval())


@pytest.mark.parametrize("name", ["segformer", "convnet"])
def test_the_float_network_stays_the_same(name):
    _, model = network(name)
    images = pictures(3)
    exponents = migration(model, images[:2])
    assert exponents and any(set(powers) - {0} for powers in exponents.values())
    for image in images:
        np.testing.assert_array_equal(run(migrated(model, exponents), image), run(model, image))


@pytest.mark.parametrize("module", [Normed, lambda: Depthwise(nn.ReLU())])
def test_int8_gains_where_channels_differ(module):
    torch.manual_seed(0)
    model, images = made(module()), pictures(4)
    trials = try_migrations(model, images[:2], ("none", "smooth", "equalise", "both"))
    best = best_trial(trials)
    assert best.exponents and best.error < 0.5 * trials[0].error

    def error(exponents):
        quantized = quantize(model, calibrate(model, images[:2], migration=exponents))
        return sum(float(np.mean((run(quantized, x) - run(model, x)) ** 2)) for x in images[2:])

    assert error(best.exponents) < 0.5 * error({})


def test_smoothing_evens_out_what_the_linear_layer_reads():
    torch.manual_seed(0)
    model, images = made(Normed()), pictures(2)
    ((key, powers),) = migration(model, images, ["smooth"]).items()
    assert key.startswith("MatMul:") or key.startswith("Gemm:")
    assert powers[3] >= max(powers[:3] + powers[4:]) + 3
    plain, even = (calibrate(model, images, method="max", migration=m).scales[key] for m in ({}, {key: powers}))
    assert even.amax <= plain.amax * 1.01


def test_clips_and_gates_block_their_groups():
    torch.manual_seed(0)
    keys = set(migration(made(Depthwise(nn.ReLU6())), pictures(1)))
    assert len(keys) == 1  # behind the ReLU alone
    assert migration(made(Depthwise(nn.GELU())), pictures(1)).keys() == keys
    assert len(migration(made(Depthwise(nn.ReLU())), pictures(1))) == 2


def test_groups_hold_what_must_move_together():
    _, model = network("segformer")
    groups, axes = find_groups(model)
    names = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for group in groups:
        for edit in group.edits:
            constant = names.get(model.graph.node[edit.index].input[edit.position])
            assert constant is None or constant.shape[edit.axis] == group.channels
        assert all(tensor in axes for tensor in group.tensors)
    tensors = [tensor for group in groups for tensor in group.tensors]
    assert len(tensors) == len(set(tensors))
    assert sum(group.behind_norm for group in groups) >= 8  # two a block, and those that end a stage


def test_exponents_follow_the_formula():
    assert exponents_of(np.array([1.0, 16.0, 1.0]), np.ones(3), 0.5) == (-2, 0, -2)
    assert exponents_of(np.array([1.0, 16.0, 1.0]), np.ones(3), 1.0) == (-4, 0, -4)
    assert exponents_of(np.zeros(2), np.ones(2), 0.5) == (0, 0)
    assert max(map(abs, exponents_of(np.array([0.0, 1e30]), np.ones(2), 1.0))) <= 20


def test_scales_carry_their_migration(tmp_path):
    _, model = network("segformer")
    images = pictures(2)
    exponents = migration(model, images)
    scales = calibrate(model, images, migration=exponents)
    scales.save(tmp_path / "s.json")
    again = Scales.load(tmp_path / "s.json")
    assert again == scales and again.migration == exponents
    assert quantize(model, again) == quantize(migrated(model, exponents), calibrate(migrated(model, exponents), images))


def test_a_migration_of_another_network_is_refused():
    _, model = network("segformer")
    with pytest.raises(CalibrationError, match="rescale 3 channels before Conv:0:1x1x1x1, and the graph has no such"):
        migrated(model, {"Conv:0:1x1x1x1": (1, 2, 3)})
    with pytest.raises(ValueError, match="real images, got none"):
        migration(model, [])
