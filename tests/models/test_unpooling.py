"""Pooling with switches against torch's own, which finds and uses flat indices."""

import pytest
import torch
from torch.nn.functional import max_pool2d, max_unpool2d

from edgeseg.models.unpooling import max_pool_with_switches, max_unpool

SHAPES = [
    (0, 3, 4, 6),
    (1, 1, 1, 1),
    (1, 2, 2, 2),
    (2, 3, 1, 7),
    (2, 3, 8, 1),
    (3, 5, 8, 6),
    (2, 4, 7, 9),
    (1, 2, 33, 65),
]


def tied(shape):
    """Few values, so that most windows have their maximum twice or more."""
    return torch.randint(-1, 2, shape, generator=torch.Generator().manual_seed(0)).float()


def distinct(shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def rectified(shape):
    """What a ReLU leaves: whole windows of zeros."""
    return distinct(shape).relu()


def infinite(shape):
    return torch.where(tied(shape) > 0, float("inf"), torch.where(tied(shape) < 0, -float("inf"), distinct(shape)))


@pytest.mark.parametrize("maps", [tied, distinct, rectified, infinite, torch.zeros])
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_torch_with_its_indices(maps, shape):
    x = maps(shape)
    pooled, switches = max_pool_with_switches(x)
    values = torch.randn(pooled.shape, generator=torch.Generator().manual_seed(2))
    if shape[0] == 0:  # torch refuses to pool no images
        assert pooled.shape == (0, 3, 2, 3) and max_unpool(values, switches).shape == shape
        return
    expected, indices = max_pool2d(x, 2, ceil_mode=True, return_indices=True)
    assert torch.equal(pooled, expected)
    unpooled = max_unpool2d(values, indices, 2, output_size=shape[-2:])
    assert torch.equal(max_unpool(values, switches), unpooled)


def test_every_pattern_of_ties():
    """All 3^4 windows of three values, each where torch has its index."""
    levels = torch.arange(3.0)
    windows = torch.cartesian_prod(levels, levels, levels, levels).view(81, 1, 2, 2)
    pooled, switches = max_pool_with_switches(windows)
    expected, indices = max_pool2d(windows, 2, return_indices=True)
    assert torch.equal(pooled, expected)
    assert torch.equal((2 * switches.lower + switches.right).flatten(), indices.flatten())


def test_reads_a_map_that_is_not_contiguous():
    x = tied((2, 4, 7, 9)).permute(0, 1, 3, 2)
    _, indices = max_pool2d(x, 2, ceil_mode=True, return_indices=True)
    pooled, switches = max_pool_with_switches(x)
    assert torch.equal(max_unpool(pooled, switches), max_unpool2d(pooled, indices, 2, output_size=x.shape[-2:]))


def test_passes_gradients_to_the_maxima_alone():
    x = distinct((1, 2, 6, 6)).requires_grad_()
    pooled, switches = max_pool_with_switches(x)
    max_unpool(pooled, switches).sum().backward()
    assert torch.equal(x.grad != 0, torch.isin(x, pooled.detach()))
