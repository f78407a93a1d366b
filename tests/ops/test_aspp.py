"""aspp against its branches computed apart by torch in float64, on every instruction set and in the CUDA emulation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgeseg import kernels
from edgeseg.ops import aspp
from tests.ops.convolutions import WAYS, Part, assert_near, expected, random_part, random_tensor, run

# (N, C, H, W), O, dilations (0: the pooled branch, last).
CASES = [
    ((1, 80, 9, 11), 16, (1, 2, 4, 6, 0)),
    ((2, 33, 12, 7), 19, (1, 6, 12, 18, 0)),
    ((3, 20, 5, 5), 8, (3, 1)),
    ((1, 70, 1, 1), 3, (2, 0)),
    ((2, 8, 6, 6), 4, (1, 2, 3, 4, 5, 6, 7, 0)),
    ((0, 8, 6, 6), 4, (1, 2, 0)),
]


def random_parts(outputs: int, channels: int, dilations: tuple[int, ...], dtype: str) -> list[Part]:
    """The first convolution and the pooled branch are 1x1, as in DeepLabV3; the others 3x3."""
    return [
        random_part(outputs, channels, 1 if i == 0 or d == 0 else 3, d, dtype, seed=3 * i)
        for i, d in enumerate(dilations)
    ]


def call(x, parts: list[Part], **options):
    """The public function, for an array or a tensor."""
    columns = [[p[i] for p in parts] for i in range(3)]
    if isinstance(x, np.ndarray):
        columns = [[None if t is None else t.numpy() for t in column] for column in columns]
    elif x.is_cuda:
        columns = [[None if t is None else t.cuda() for t in column] for column in columns]
    weights, biases, scales = columns
    pool = parts[-1].dilation == 0
    dilations = [p.dilation for p in parts[: len(parts) - pool]]
    return aspp(x, weights, biases, dilations, pool=pool, scales=None if scales[0] is None else scales, **options)


@pytest.mark.parametrize(("path", "dtype", "out"), WAYS)
@pytest.mark.parametrize(("shape", "outputs", "dilations"), CASES)
def test_any_size(shape, outputs, dilations, path, dtype, out):
    x, parts = random_tensor(shape, dtype), random_parts(outputs, shape[1], dilations, dtype)
    assert_near(run(path, x, parts, out, "relu"), expected(x, parts, "relu"))


@pytest.mark.parametrize(("path", "dtype", "out"), WAYS)
def test_a_constant_map_has_itself_as_mean(path, dtype, out):
    """The pooled branch then equals a 1x1 convolution, pixel by pixel."""
    x = torch.full((1, 40, 10, 11), 3).to(getattr(torch, dtype))
    part = random_part(12, 40, 1, 1, dtype)
    y = run(path, x, [part, part._replace(dilation=0)], out)
    convolution, pooled = y.double().split(12, 1)
    torch.testing.assert_close(pooled, convolution, rtol=0, atol=2e-3 if out == "float16" else 2e-5)
    assert (pooled == pooled[:, :, :1, :1]).all()


class TestFunction:
    x = random_tensor((2, 12, 13, 17), "float32")
    parts = random_parts(10, 12, (1, 3, 6, 20, 0), "float32")
    wanted = expected(x, parts, "relu")

    @pytest.mark.parametrize("channels_last", [False, True])
    def test_array_and_tensor_keep_their_layout(self, channels_last):
        layout = torch.channels_last if channels_last else torch.contiguous_format
        tensor = self.x.contiguous(memory_format=layout)
        y = call(tensor, self.parts)
        assert y.is_contiguous(memory_format=layout)
        assert_near(y, self.wanted)
        assert_near(torch.from_numpy(call(tensor.numpy(), self.parts)), self.wanted)

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int8"])
    def test_types(self, dtype):
        x, parts = random_tensor((2, 9, 8, 7), dtype), random_parts(6, 9, (1, 2, 0), dtype)
        assert_near(call(x, parts), expected(x, parts, "relu"))
        assert_near(call(x, parts, activation="none"), expected(x, parts))
        if dtype == "int8":
            assert_near(call(x, parts, out_dtype="float16"), expected(x, parts, "relu"))
        if dtype != "bfloat16":
            assert_near(torch.from_numpy(call(x.numpy(), parts)), expected(x, parts, "relu"))

    def test_threads(self):
        x, parts = random_tensor((2, 9, 8, 7), "int8"), random_parts(6, 9, (1, 2, 0), "int8")
        assert torch.equal(call(x, parts, threads=3), call(x, parts))

    @pytest.mark.parametrize(
        ("change", "match"),
        [
            ({"dilations": [1]}, "a weight and a bias, got 1 dilations, 3 weights and 3 biases"),
            ({"biases": [torch.zeros(10)]}, "got 2 dilations, 3 weights and 1 biases"),
            ({"pool": False}, "1 to 7 dilations and for each a weight"),
            ({"weights": [torch.zeros(10, 12, 3, 3)] * 3}, r"pooled branch's weight must be \(O, 12, 1, 1\)"),
            ({"weights": [torch.zeros(o, 12, 1, 1) for o in (10, 9, 10)]}, r"one O for all, got \(9, 12, 1, 1\)"),
            ({"dilations": [1, -2]}, r"dilation must be in .* got \[1, -2\]"),
            ({"scales": [torch.zeros(10)]}, "each of the 3 weights needs a scale, got 1"),
        ],
    )
    def test_refuses(self, change, match):
        arguments = {"weights": [torch.zeros(10, 12, 1, 1)] * 3, "biases": [torch.zeros(10)] * 3, "dilations": [1, 2]}
        with pytest.raises(ValueError, match=match):
            aspp(self.x, **(arguments | change))


class TestTorchOperator:
    def arguments(self, dtype: str):
        parts = random_parts(7, 9, (1, 2, 0), dtype)
        weights = [p.weight.permute(2, 3, 1, 0).contiguous() for p in parts]
        scales = [p.scale for p in parts] if dtype == "int8" else []
        x = random_tensor((2, 5, 6, 9), dtype)
        return x, weights, [p.bias for p in parts], scales, [1, 2], True, 0.0, 6.0, torch.float32

    @pytest.mark.parametrize("dtype", ["float32", "int8"])
    def test_opcheck_and_every_way_agrees(self, dtype):
        from edgeseg.ops import _torch_aspp
        from edgeseg.ops import _torch_dilated_conv as shared

        arguments = self.arguments(dtype)
        torch.library.opcheck(torch.ops.edgeseg.aspp.default, arguments)
        y = torch.ops.edgeseg.aspp(*arguments)
        assert_near(_torch_aspp.aspp_reference(*arguments), y.double())
        if kernels.available():
            assert torch.equal(shared.through_ctypes(*arguments, 1), y)

    @pytest.mark.parametrize("dtype", ["float32", "int8"])
    def test_compiles_without_a_break(self, dtype):
        torch.compiler.reset()
        parts = random_parts(7, 9, (1, 2, 0), dtype)
        compiled = torch.compile(lambda x: call(x, parts) + 1, fullgraph=True, backend="aot_eager")
        for batch in (1, 3):
            x = random_tensor((batch, 9, 6, 7), dtype)
            torch.testing.assert_close(compiled(x), call(x, parts) + 1)


@pytest.mark.cuda
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", ["float16", "float32", "int8"])
@pytest.mark.parametrize(("shape", "outputs", "dilations"), [*CASES, ((1, 2048, 33, 33), 256, (1, 6, 12, 18, 0))])
def test_on_cuda(shape, outputs, dilations, dtype, channels_last):
    x, parts = random_tensor(shape, dtype), random_parts(outputs, shape[1], dilations, dtype)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    y = call(x.cuda().contiguous(memory_format=layout), parts)
    assert y.is_contiguous(memory_format=layout)
    assert_near(y.cpu(), expected(x, parts, "relu"))
    assert torch.equal(call(x.cuda(), parts), y), "the result must not depend on which block came last"
