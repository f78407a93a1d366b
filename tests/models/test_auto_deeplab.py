"""Auto-DeepLab: counts against the paper's and a closed form, its cell against one written as a list of sums."""

import pytest
import torch
from torch.nn.functional import batch_norm, conv2d, interpolate, pad

from edgeseg.counting import count_module, params_of_module
from edgeseg.export import onnx_from_module
from edgeseg.models import auto_deeplab
from edgeseg.models.auto_deeplab import AutoDeepLab, Cell, SameConv

from .seeded import fill_, images

PAPER = {20: (10.15, 333.25), 32: (21.62, 460.93), 48: (44.42, 695.03)}  # parameters in M, multiply-accumulates in 1e9
FACTORIES = {20: auto_deeplab.auto_deeplab_s, 32: auto_deeplab.auto_deeplab_m, 48: auto_deeplab.auto_deeplab_l}


def tiny(levels=auto_deeplab.LEVELS) -> AutoDeepLab:
    return AutoDeepLab(3, 4, stem_width=8, width=16, fine_width=6, levels=levels)


@pytest.mark.parametrize("filters", PAPER)
def test_published_parameters(filters):
    with torch.device("meta"):
        params = params_of_module(FACTORIES[filters](19))
    assert params / 1e6 == pytest.approx(PAPER[filters][0], abs=5e-3)


def test_counts_are_those_of_the_closed_form():
    counted = count_module(lambda: auto_deeplab.auto_deeplab_s(19), (1025, 2049))
    assert counted.macs == macs_in_closed_form(20)


@pytest.mark.parametrize("filters, ours", [(20, 320.45), (32, 439.92), (48, 662.42)])
def test_published_multiply_accumulates(filters, ours):
    """Less than the paper's by what the module's docstring explains."""
    assert macs_in_closed_form(filters) / 1e9 == pytest.approx(ours, abs=5e-3)
    assert 0.95 < ours / PAPER[filters][1] < 0.965


def macs_in_closed_form(filters: int) -> int:
    """At 1025x2049 with 19 classes; the pixels of levels 0 to 3 are those of strides 4 to 32."""
    pixels = [257 * 513, 129 * 257, 65 * 129, 33 * 65]
    stem = 513 * 1025 * 9 * (3 * 64 + 64 * 64) + pixels[0] * 9 * 64 * 128
    cells, before, current, finer = 0, 64, 128, 0
    for i, level in enumerate(auto_deeplab.LEVELS):
        width = filters * 2**level
        stride_two = i > 0 and level > auto_deeplab.LEVELS[i - 1]
        cells += pixels[level - stride_two] * width * (before + current)
        operations = 2 * 4 * (9 + width) + 2 * 3 * (25 + width) + (25 + 9 + 25) * width
        cells += pixels[level] * width * operations
        before, current = current, 5 * width
        finer = 5 * width if i == 2 else finer
    aspp = pixels[1] * 256 * (current * (1 + 27) + 5 * 256) + current * 256
    decoder = pixels[0] * (finer * 48 + 9 * 304 * 256 + 9 * 256 * 256 + 256 * 19)
    return stem + cells + aspp + decoder


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(9, 13), (8, 10)])
def test_cell_equals_its_sums(stride, size):
    cell = fill_(Cell(6, 10, 4, stride))
    weights = iter([p for name, p in cell.named_parameters() if p.ndim == 4])
    norms = iter(
        [
            (m.running_mean, m.running_var, m.weight, m.bias)
            for m in cell.modules()
            if isinstance(m, torch.nn.BatchNorm2d)
        ]
    )

    def same(x, weight, step=1, dilation=1, groups=1):
        """TensorFlow's SAME, by its definition."""
        for axis, size in ((3, x.shape[3]), (2, x.shape[2])):
            total = max((-(-size // step) - 1) * step + dilation * (weight.shape[2] - 1) + 1 - size, 0)
            x = pad(x, ([0, 0] if axis == 2 else []) + [total // 2, total - total // 2])
        return conv2d(x, weight, stride=step, dilation=dilation, groups=groups)

    def norm(x):
        return batch_norm(x, *next(norms), eps=1e-3)

    def separable(x, step=1):
        x = norm(conv2d(same(x.relu(), next(weights), step, groups=4), next(weights)))
        return norm(conv2d(same(x.relu(), next(weights), groups=4), next(weights)))

    def atrous(x, step=1):
        x = x.relu()
        if step == 2:
            halved = [-(-s // 2) for s in x.shape[2:]]
            return norm(same(interpolate(x, halved, mode="bilinear", align_corners=True), next(weights)))
        return norm(same(x, next(weights), dilation=2))

    current, before = images(1, 6, *size), images(1, 10, size[0] + 3, size[1])
    before_resized = interpolate(before, size, mode="bilinear", align_corners=True)
    with torch.no_grad():
        s0 = norm(conv2d(current.relu(), next(weights)))
        s1 = norm(conv2d(before_resized.relu(), next(weights)))
        s2 = atrous(s1, stride) + separable(s0, stride)
        s3 = separable(s1, stride) + atrous(s0, stride)
        s4 = separable(s3) + separable(s1, stride)
        s5 = separable(s4) + separable(s2)
        s6 = separable(s3) + atrous(s5)
        expected = torch.cat([s2, s3, s4, s5, s6], dim=1)
        assert (cell(current, before) - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("size", [(65, 97), (64, 96), (33, 50), (1, 7)])
def test_logits_at_stride_four(size):
    with torch.inference_mode():
        logits = fill_(tiny())(images(2, 3, *size))
    assert logits.shape == (2, 3, -(-size[0] // 4), -(-size[1] // 4)) and logits.isfinite().all()


def test_strided_padding_is_odd_at_the_end():
    conv = SameConv(1, 1, 3, 2)
    torch.nn.init.ones_(conv.weight)
    with torch.no_grad():
        assert conv(torch.eye(4)[None, None])[0, 0].tolist() == [[3, 1], [1, 2]]


def test_exports():
    onnx_from_module(fill_(tiny(levels=(0, 1, 0))), (65, 98))  # which proves that ONNX Runtime gives the same


def test_every_parameter_learns():
    network = tiny().train()
    network(torch.randn(2, 3, 64, 65)).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
