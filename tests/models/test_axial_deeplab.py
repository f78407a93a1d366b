"""Axial-DeepLab: its blocks against the authors' code, local attention against loops, counts against closed forms."""

from pathlib import Path

import numpy as np
import pytest
import torch

from edgeseg.counting import count_module
from edgeseg.export import onnx_from_module
from edgeseg.models.axial_deeplab import AxialDeepLab, axial_deeplab_l, axial_deeplab_xl
from edgeseg.models.encoders.axial_resnet import HEADS, AxialAttention, AxialBlock

from .seeded import fill_, images, values

FIXTURE = np.load(Path(__file__).parent / "fixtures" / "axial_deeplab.npz")


def tiny() -> AxialDeepLab:
    return AxialDeepLab(3, 8, layers=(1, 1, 1, 1), span=9, decoder_width=16, fine_widths=(8, 4)).eval()


@pytest.mark.parametrize("name, side, stride, channels, step", [("short", 12, 2, 24, 1), ("long", 40, 1, 32, 5)])
def test_block_equals_the_authors_code(name, side, stride, channels, step):
    """Whose attention is global: a span of all offsets. A line of 40 takes two blocks of queries."""
    block = AxialBlock(channels, 16, stride, span=2 * side - 1).eval()
    state_dict = {}
    for key, shape in zip(FIXTURE[f"{name} names"].tolist(), FIXTURE[f"{name} shapes"].tolist(), strict=True):
        tensor = torch.from_numpy(values(key, tuple(map(int, shape.split())))) if shape else torch.tensor(0)
        state_dict[key] = tensor.unsqueeze(-1) if key.endswith("qkv_transform.weight") else tensor  # theirs is 1-D
    block.load_state_dict(state_dict, strict=True)
    with torch.inference_mode():
        result = block(images(2, channels, side, side)).numpy()[:, :, ::step, ::step]
    expected = FIXTURE[f"{name} result"]
    assert result.shape == expected.shape
    assert np.abs(result - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("length, span", [(1, 5), (7, 5), (40, 5), (70, 3), (33, 65)])
def test_local_attention_equals_loops(length, span):
    """The paper's equation 4 within the span, pixel by pixel in float64."""
    attention = fill_(AxialAttention(32, span, along_rows=True))
    x = images(1, 32, 2, length)
    with torch.inference_mode():
        result = attention(x)[0].double().numpy()
        qkv = attention.bn_qkv(attention.qkv_transform(x))[0].double().numpy().reshape(HEADS, 8, 2, length)
    table = attention.relative.detach().double().numpy()
    (weight, bias, mean, variance), similar = (
        [
            tensor.double().numpy()
            for tensor in (norm.weight.detach(), norm.bias.detach(), norm.running_mean, norm.running_var)
        ]
        for norm in (attention.bn_output, attention.bn_similarity)
    )

    def normed(value, channel, norm):
        return (value - norm[2][channel]) / np.sqrt(norm[3][channel] + 1e-5) * norm[0][channel] + norm[1][channel]

    for head in range(HEADS):
        for row in range(2):
            q, k, v = np.split(qkv[head, :, row], (2, 4))
            for i in range(length):
                sees = [j for j in range(length) if abs(i - j) <= span // 2]
                here, there = [span // 2 + i - j for j in sees], [span // 2 + j - i for j in sees]
                terms = (q[:, i] @ k[:, sees], q[:, i] @ table[:2, here], (k[:, sees] * table[2:4, there]).sum(0))
                logits = sum(normed(term, n * HEADS + head, similar) for n, term in enumerate(terms))
                weights = np.exp(logits - logits.max())
                weights /= weights.sum()
                for c in range(4):
                    channel = 2 * (4 * head + c)
                    expected = normed(weights @ v[c, sees], channel, (weight, bias, mean, variance))
                    expected += normed(weights @ table[4 + c, here], channel + 1, (weight, bias, mean, variance))
                    assert result[4 * head + c, row, i] == pytest.approx(expected, rel=1e-4, abs=1e-5)


def published(width: int, *, instances: bool, keys: float) -> tuple[int, float]:
    """(parameters, multiply-accumulates) at 1025x2049, with 19 classes and `keys` in sight of a query."""
    sizes = [257 * 513, 129 * 257, 65 * 129, 65 * 129]
    params = 9 * (3 * width + width**2 + 2 * width**2) + 2 * 4 * width
    macs = float(513 * 1025 * 9 * (3 * width + width**2 + 2 * width**2))
    channels = 2 * width
    for i, depth in enumerate((3, 4, 6, 3)):
        planes = 2 * width * 2**i
        for block in range(depth):
            before, after = sizes[i - 1 if i in (1, 2) and block == 0 else i], sizes[i]
            attention = 2 * planes**2 + 4 * planes + 48 + 4 * planes + planes // 4 * 65
            params += channels * planes + 2 * planes + 2 * attention + 2 * planes**2 + 4 * planes
            macs += before * (channels * planes + 2 * (2 * planes**2 + 1.5 * keys * planes + 2 * 65 * planes))
            macs += after * 2 * planes**2
            if block == 0:
                params += 2 * channels * planes + 4 * planes
                macs += after * 2 * channels * planes
            channels = 2 * planes
    for fine, decoder, heads in [((64, 32), 256, ((256, 19),))] + [((32, 16), 128, ((32, 1), (32, 2)))] * instances:
        params += channels * 256 + 512 + 8 * width * fine[0] + 4 * width * fine[1] + 2 * sum(fine)
        macs += sizes[3] * channels * 256 + sizes[1] * 8 * width * fine[0] + sizes[0] * 4 * width * fine[1]
        separable = [(256 + fine[0], decoder, sizes[1]), (decoder + fine[1], decoder, sizes[0])]
        separable += [(decoder, middle, sizes[0]) for middle, _ in heads]
        for inward, outward, pixels in separable:
            params += inward * (25 + outward) + 2 * (inward + outward)
            macs += pixels * inward * (25 + outward)
        for middle, outward in heads:
            params += (middle + 1) * outward
            macs += sizes[0] * middle * outward
    return params, macs


@pytest.mark.parametrize(
    "factory, width, paper, ours",
    [(axial_deeplab_l, 64, (44.9, 687.4), (43.6, 698.4)), (axial_deeplab_xl, 128, (173.0, 2446.8), (170.4, 2519.0))],
)
def test_published_counts(factory, width, paper, ours):
    """The module's docstring says what its differences from the paper's figures may come from."""
    counted = count_module(lambda: factory(19), (1025, 2049))
    assert counted.params == published(width, instances=False, keys=65)[0]
    params, macs = published(width, instances=True, keys=65)
    assert (params / 1e6, macs / 1e9) == pytest.approx(ours, rel=1e-3)
    assert (params / 1e6, macs / 1e9) == pytest.approx(paper, rel=0.031)
    padded = published(width, instances=False, keys=96)[1]  # and the last block of a line is filled up
    assert padded < counted.macs < 1.04 * padded


@pytest.mark.parametrize("size", [(64, 96), (33, 50), (1, 7)])
def test_logits_at_stride_four(size):
    with torch.inference_mode():
        logits = fill_(tiny())(images(2, 3, *size))
    assert logits.shape == (2, 3, -(-size[0] // 4), -(-size[1] // 4)) and logits.isfinite().all()


def test_exports_with_indices_folded():
    model = onnx_from_module(fill_(tiny()), (70, 150))  # which proves that ONNX Runtime gives the same
    assert not {node.op_type for node in model.graph.node} & {"Range", "Einsum", "Loop", "If"}


def test_every_parameter_learns_but_shifts_that_softmax_cancels():
    network = tiny().train()
    network(torch.randn(2, 3, 33, 50)).square().mean().backward()
    idle = {name.rpartition(".block.")[2] for name, p in network.named_parameters() if p.grad is None}
    assert {name.split(".", 3)[-1] for name in idle} == {
        f"{axis}_block.bn_similarity.bias" for axis in ("hight", "width")
    }


@torch.inference_mode()
def test_untrained_the_network_is_well_conditioned():
    """Else no two runtimes agree on it, and `--weights random` cannot be built."""
    torch.manual_seed(0)
    network = axial_deeplab_l(5).eval()
    images = torch.randn(1, 3, 64, 96)
    logits, exact = network(images), network.double()(images.double())
    assert 1 < exact.abs().max() < 100
    assert (logits - exact).abs().max() < 1e-5 * exact.abs().max()
