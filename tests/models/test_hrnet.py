"""HRNet's maps; its numbers and parameters are compared in test_ocrnet.py."""

import pytest
import torch

from edgeseg.models.encoders.hrnet import HRNet


@pytest.mark.parametrize("size", [(64, 64), (33, 70), (1, 1), (3, 200)])
def test_four_maps_at_strides_4_to_32(size):
    network = HRNet((3, 5, 7, 9), modules=(1, 1, 1), depth=1, stem_width=4).eval()
    assert network.channels == (3, 5, 7, 9)
    with torch.inference_mode():
        maps = network(torch.randn(2, 3, *size))
    sizes = [tuple(-(-side // stride) for side in size) for stride in (4, 8, 16, 32)]
    assert [tuple(x.shape) for x in maps] == [(2, c, *s) for c, s in zip(network.channels, sizes, strict=True)]
    assert all(x.isfinite().all() for x in maps)


def test_values_stay_small_through_all_exchanges():
    """Untrained, float16 must be able to hold them: `--weights random` is for timing FP16 too."""
    torch.manual_seed(0)
    network = HRNet((8, 16, 32, 64)).eval()
    with torch.inference_mode():
        assert max(x.abs().max() for x in network(torch.randn(1, 3, 64, 64))) < 1e3
