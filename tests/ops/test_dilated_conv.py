"""dilated_conv against torch's conv2d in float64, on every instruction set, in the CUDA emulation and on a GPU."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.nn.functional import batch_norm, conv2d

from edgeseg import kernels
from edgeseg.ops import dilated_conv, fold_batch_norm, pack_weight, quantize_weight
from edgeseg.ops.dilated_conv import Branch, run_kernel
from tests.ops.convolutions import (
    INSTRUCTION_SETS,
    WAYS,
    Part,
    assert_near,
    expected,
    random_part,
    random_tensor,
    run,
    run_emulated,
)
from tests.ops.ways import needs_emulation

# (N, C, H, W), O, k, dilation. Odd sides, channels and outputs around vectors, slices and tiles; the dilation below
# half the side, above it, and beyond the map, where the centre tap is all that is left; one pixel; no image.
CASES = [
    ((1, 8, 9, 7), 5, 3, 2),
    ((2, 33, 12, 11), 19, 3, 4),
    ((1, 40, 13, 10), 17, 3, 7),
    ((1, 20, 6, 9), 33, 3, 30),
    ((3, 17, 5, 5), 16, 1, 1),
    ((1, 65, 16, 15), 130, 3, 6),
    ((1, 5, 11, 14), 9, 5, 3),
    ((1, 3, 17, 9), 4, 7, 2),
    ((1, 1, 1, 1), 1, 3, 1),
    ((2, 12, 1, 30), 8, 3, 5),
    ((0, 4, 6, 6), 3, 3, 2),
]


@pytest.mark.parametrize(("path", "dtype", "out"), WAYS)
class TestPaths:
    @pytest.mark.parametrize(("shape", "outputs", "size", "dilation"), CASES)
    def test_any_size(self, shape, outputs, size, dilation, path, dtype, out):
        x, part = random_tensor(shape, dtype), random_part(outputs, shape[1], size, dilation, dtype)
        for activation in ("none", "relu") if path != "emulated" else ("relu6",):
            assert_near(run(path, x, [part], out, activation), expected(x, [part], activation))

    def test_whole_numbers_are_exact(self, path, dtype, out):
        """Sums below 2^24 in float32, below 2048 in float16 and any in int8 have nothing to round."""
        most = 127 if dtype == "int8" and out == "float32" else 2
        values = [torch.randint(-most, most + 1, s, generator=torch.Generator().manual_seed(0)) for s in
                  ((1, 40, 9, 10), (24, 40, 3, 3))]  # fmt: skip
        x, weight = (value.to(getattr(torch, dtype)) for value in values)
        ones = torch.ones(24)
        part = Part(weight, ones, ones if dtype == "int8" else None, 2)
        assert torch.equal(run(path, x, [part], out).double(), expected(x, [part]))

    def test_not_finite_stays_where_its_taps_reach(self, path, dtype, out):
        if dtype == "int8":
            pytest.skip("int8 is always finite")
        x = torch.zeros((1, 9, 11, 12), dtype=getattr(torch, dtype))
        x[0, 3, 5, 5], x[0, 8, 0, 0], x[0, 1, 10, 11] = torch.nan, torch.inf, -torch.inf
        part = Part(torch.ones((18, 9, 3, 3), dtype=x.dtype), torch.zeros(18), None, 4)
        for activation in ("none", "relu"):  # of NaN torch's relu is NaN
            torch.testing.assert_close(
                run(path, x, [part], out, activation).double(), expected(x, [part], activation), equal_nan=True
            )


@needs_emulation
@pytest.mark.parametrize(("dtype", "channels"), [("float16", 2056), ("float32", 1040), ("int8", 4112)])
def test_sums_split_among_blocks(dtype, channels):
    """One tile alone: its sum is split, the parts lie in the workspace and are added in their order."""
    x, part = random_tensor((1, channels, 3, 4), dtype), random_part(19, channels, 1, 1, dtype)
    source, weight = x.permute(0, 2, 3, 1).contiguous(), part.weight.permute(2, 3, 0, 1).contiguous()
    results = []
    for _ in range(2):
        y = torch.full((1, 3, 4, 19), torch.nan, dtype=torch.float16 if dtype == "float16" else torch.float32)
        branch = Branch(
            weight.data_ptr(), part.bias.data_ptr(), None if part.scale is None else part.scale.data_ptr(), 1, 1
        )
        infinity = float("inf")
        assert (
            run_emulated(source, dtype, [branch], None, y, (1, 3, 4, channels, 19), (-infinity, infinity)) > 2 * 2**16
        )
        results.append(y)
    assert torch.equal(*results)
    assert_near(results[0].permute(0, 3, 1, 2), expected(x, [part]))


@pytest.mark.parametrize("path", INSTRUCTION_SETS)
@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_more_than_a_task(path, dtype):
    """Several blocks of channels, of pixels and of outputs; results do not depend on the number of threads."""
    x, part = random_tensor((1, 600, 20, 21), dtype), random_part(140, 600, 3, 4, dtype)
    once = run(path, x, [part], "float32")
    assert_near(once, expected(x, [part]))
    for threads in (2, 5):
        assert torch.equal(run(path, x, [part], "float32", threads=threads), once)


class TestFunction:
    x, part = random_tensor((2, 12, 13, 17), "float32"), random_part(10, 12, 3, 3, "float32")
    wanted = expected(x, [part], "relu")

    def call(self, x, **changes):
        arguments = {"weight": self.part.weight, "bias": self.part.bias, "dilation": 3, "activation": "relu"} | changes
        if isinstance(x, np.ndarray):
            arguments |= {k: v.numpy() for k, v in arguments.items() if isinstance(v, torch.Tensor)}
        return dilated_conv(x, **arguments)

    @pytest.mark.parametrize("channels_last", [False, True])
    def test_array_and_tensor_keep_their_layout(self, channels_last):
        layout = torch.channels_last if channels_last else torch.contiguous_format
        tensor = self.x.contiguous(memory_format=layout)
        y = self.call(tensor)
        assert y.is_contiguous(memory_format=layout)
        assert_near(y, self.wanted)
        array = self.call(tensor.numpy())
        assert isinstance(array, np.ndarray) and array.dtype == np.float32
        assert (array.transpose(0, 2, 3, 1) if channels_last else array).flags.c_contiguous
        assert_near(torch.from_numpy(array), self.wanted)

    def test_strided(self):
        wide = random_tensor((2, 24, 20, 17), "float32")
        view = wide[:, ::2, 3:16]
        wanted = expected(view, [self.part], "relu")
        assert_near(self.call(view), wanted)
        assert_near(torch.from_numpy(self.call(view.numpy()[:, :, :, ::-1][:, :, :, ::-1])), wanted)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision(self, dtype):
        x, weight = self.x.to(dtype), self.part.weight.to(dtype)
        wanted = expected(x, [self.part._replace(weight=weight)], "relu")
        assert_near(self.call(x, weight=weight), wanted)
        if dtype == torch.float16:
            assert_near(torch.from_numpy(self.call(x.numpy(), weight=weight)), wanted)

    @pytest.mark.parametrize("out", [None, "float32", "float16"])
    def test_int8(self, out):
        x, part = random_tensor((2, 9, 8, 7), "int8"), random_part(6, 9, 3, 2, "int8")
        y = dilated_conv(x, part.weight, part.bias, dilation=2, scale=part.scale, out_dtype=out)
        assert y.dtype == getattr(torch, out or "float32")
        assert_near(y, expected(x, [part]))
        numbers = (t.numpy() for t in (x, part.weight, part.bias))
        array = dilated_conv(*numbers, dilation=2, scale=part.scale.numpy(), out_dtype=out)
        assert array.dtype == (out or "float32")
        assert_near(torch.from_numpy(array), expected(x, [part]))

    @pytest.mark.parametrize(("dtype", "order"), [("float32", (0, 2, 3, 1)), ("int8", (2, 3, 1, 0))])
    def test_packed_weight_is_the_same_weight(self, dtype, order):
        weight = random_tensor((10, 12, 3, 3), dtype)
        packed, array = pack_weight(weight), pack_weight(weight.numpy())
        assert torch.equal(packed, weight) and packed.permute(order).is_contiguous()
        assert pack_weight(packed).data_ptr() == packed.data_ptr()
        assert (array == weight.numpy()).all() and array.transpose(2, 3, 1, 0).flags.c_contiguous
        assert np.shares_memory(pack_weight(array), array)

    def test_takes_packed_weights(self):
        packed = pack_weight(self.part.weight)
        assert_near(self.call(self.x, weight=packed), self.wanted)
        assert_near(torch.from_numpy(self.call(self.x.numpy(), weight=pack_weight(packed.numpy()))), self.wanted)

    def test_without_bias_and_empty_batch(self):
        assert_near(
            dilated_conv(self.x, self.part.weight), conv2d(self.x.double(), self.part.weight.double(), padding=1)
        )
        assert self.call(self.x[:0]).shape == (0, 10, 13, 17)
        assert self.call(self.x[:0].numpy()).shape == (0, 10, 13, 17)

    @pytest.mark.parametrize(
        ("change", "error", "match"),
        [
            ({"x": torch.zeros(12, 4, 4)}, ValueError, r"x must be \(N, C, H, W\) .* got \(12, 4, 4\)"),
            ({"x": torch.zeros(1, 12, 0, 4)}, ValueError, r"H and W at least 1, got \(1, 12, 0, 4\)"),
            ({"x": torch.zeros(1, 11, 4, 4)}, ValueError, r"weight must be \(O, 11, k, k\) .* got \(10, 12, 3, 3\)"),
            ({"x": torch.zeros(1, 12, 4, 4).double()}, TypeError, "float32, float16 or int8, got float64"),
            ({"weight": torch.zeros(10, 12, 2, 2)}, ValueError, r"k 1, 3, 5 or 7 .* got \(10, 12, 2, 2\)"),
            ({"weight": torch.zeros(10, 12, 3, 3).half()}, TypeError, "x's type, float32, got float16"),
            ({"bias": torch.zeros(9)}, ValueError, r"bias must be \(10,\), got \[\(9,\)\]"),
            ({"dilation": 0}, ValueError, r"dilation must be in \[1, 2\^22\], got 0"),
            ({"dilation": 1.5}, TypeError, "integer"),
            ({"activation": "gelu"}, ValueError, "one of none, relu, relu6, got 'gelu'"),
            ({"scale": torch.zeros(10)}, ValueError, "scale belongs to int8, got x of float32"),
            ({"x": torch.zeros(1, 12, 4, 4).char()}, ValueError, "int8 needs scale"),
            ({"out_dtype": "float16"}, ValueError, "only of int8, got 'float16' with x of float32"),
            ({"threads": 0}, ValueError, "threads must be at least 1, got 0"),
            ({"x": [[[[0.0]]]]}, TypeError, "numpy array or a torch tensor, got list"),
        ],
    )
    def test_refuses(self, change, error, match):
        with pytest.raises(error, match=match):
            self.call(**({"x": self.x} | change))
        if isinstance(change.get("x", self.x), torch.Tensor):
            with pytest.raises(error, match=match):
                self.call(**({"x": self.x} | change | {"x": change.get("x", self.x).numpy()}))


class TestHelpers:
    @pytest.mark.parametrize("with_bias", [False, True])
    def test_folded_batch_norm(self, with_bias):
        weight, x = random_tensor((6, 4, 3, 3), "float32").double(), random_tensor((1, 4, 8, 9), "float32").double()
        bias, mean, gamma, beta = (random_tensor((6,), "float32", i).double() for i in range(4))
        variance = mean.abs() + 0.3
        bias = bias if with_bias else None
        folded, shift = fold_batch_norm(weight, bias, mean, variance, gamma, beta, eps=1e-3)
        wanted = batch_norm(conv2d(x, weight, bias, padding=1), mean, variance, gamma, beta, eps=1e-3)
        torch.testing.assert_close(conv2d(x, folded, shift, padding=1), wanted)
        arrays = (None if t is None else t.numpy() for t in (weight, bias, mean, variance, gamma, beta))
        np.testing.assert_allclose(fold_batch_norm(*arrays, eps=1e-3)[0], folded.numpy())

    def test_quantized_weight_is_within_half_a_step(self):
        weight = random_tensor((6, 5, 3, 3), "float32")
        weight[2] = 0
        for quantized, scale in (quantize_weight(weight), map(torch.from_numpy, quantize_weight(weight.numpy()))):
            assert quantized.dtype == torch.int8 and scale.dtype == torch.float32 and scale[2] == 1
            error = (quantized * scale[:, None, None, None] - weight).abs()
            assert (error <= 0.5001 * scale[:, None, None, None]).all()
            assert (quantized.abs().amax((1, 2, 3)) == torch.tensor([127, 127, 0, 127, 127, 127])).all()


class TestTorchOperator:
    def arguments(self, dtype: str, shape: tuple[int, ...] = (2, 5, 6, 9)):
        part = random_part(7, shape[3], 3, 2, dtype)
        weight = part.weight.permute(2, 3, 1, 0).contiguous()
        return random_tensor(shape, dtype), weight, part.bias, part.scale, 2, 0.0, 6.0, torch.float32

    @pytest.mark.parametrize("dtype", ["float32", "int8"])
    @pytest.mark.parametrize("shape", [(2, 5, 6, 9), (0, 3, 3, 4)])
    def test_opcheck(self, dtype, shape):
        dilated_conv(torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1, 1))  # registers it
        torch.library.opcheck(torch.ops.edgeseg.dilated_conv.default, self.arguments(dtype, shape))

    @pytest.mark.parametrize("dtype", ["float32", "int8"])
    def test_compiles_without_a_break(self, dtype):
        torch.compiler.reset()
        part = random_part(7, 9, 3, 2, dtype)

        def network(x):
            return dilated_conv(x, part.weight, part.bias, dilation=2, activation="relu", scale=part.scale) + 1

        compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
        for batch in (1, 3):
            x = random_tensor((batch, 9, 6, 7), dtype)
            torch.testing.assert_close(compiled(x), network(x))

    @pytest.mark.parametrize("dtype", ["float32", "int8"])
    def test_every_way_to_compute_it_agrees(self, dtype):
        from edgeseg.ops import _torch_dilated_conv as registered

        x, weight, bias, scale, *others, _ = self.arguments(dtype)
        y = torch.ops.edgeseg.dilated_conv(x, weight, bias, scale, *others, torch.float32)
        lists = [bias], [] if scale is None else [scale], [others[0]], False, *others[1:], torch.float32
        assert_near(registered.reference(x, [weight], *lists), y.double())
        if kernels.available():
            assert torch.equal(registered.through_ctypes(x, [weight], *lists, 1), y)

    def test_refuses_from_cpp_too(self):
        dilated_conv(torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1, 1))
        if not kernels.status()["torch"]["available"]:
            pytest.skip("edgeseg was built without torch")
        for change, match in [
            ({1: torch.zeros(2, 2, 9, 7)}, "kernel size not 1, 3, 5 or 7"),
            ({1: torch.zeros(3, 3, 8, 7)}, r"weights must be \(k, k, C, O\)"),
            ({2: torch.zeros(6)}, r"must be \(O\) float32"),
            ({4: 0}, "a dilation below 1"),
            ({7: torch.float64}, "float32 or float16"),
        ]:
            arguments = dict(enumerate(self.arguments("float32"))) | change
            with pytest.raises(RuntimeError, match=match):
                torch.ops.edgeseg.dilated_conv(*arguments.values())


@pytest.mark.skipif(not kernels.available(), reason="the kernel library was not built")
@pytest.mark.parametrize(
    "change",
    [{"N": -1}, {"H": 0}, {"C": 2**40}, {"kernel": 2}, {"dilation": 0}, {"x": None}, {"scale": 1}, {"W": 2**31}],
)
def test_the_c_function_checks_its_arguments(change):
    room = np.zeros(64, np.float32)
    sizes = {"N": 1, "H": 2, "W": 2, "C": 2, "O": 2} | {k: v for k, v in change.items() if k in "NHWCO"}
    branch = Branch(room.ctypes.data, None, change.get("scale"), change.get("kernel", 3), change.get("dilation", 1))
    with pytest.raises(ValueError, match="invalid argument"):
        run_kernel(
            change.get("x", room.ctypes.data),
            "float32",
            [branch],
            None,
            room.ctypes.data,
            tuple(sizes.values()),
            (0, 1),
        )


def test_without_the_library_it_is_the_same():
    script = """
from edgeseg import kernels
kernels.library_path = lambda name: None
import numpy as np, torch
from edgeseg.ops import dilated_conv
random = np.random.default_rng(0)
for d in (1, 3, 9):
    x, w = random.integers(-9, 9, (2, 5, 7, 8)), random.integers(-9, 9, (4, 5, 3, 3))
    y = torch.nn.functional.conv2d(*map(torch.from_numpy, (x, w)), padding=d, dilation=d).relu().numpy()
    f = dilated_conv(x.astype(np.float32), w.astype(np.float32), dilation=d, activation="relu")
    assert f.dtype == np.float32 and (f == y).all()
    ones, x, w = np.ones(4, np.float32), x.astype(np.int8), w.astype(np.int8)
    assert (dilated_conv(x, w, dilation=d, activation="relu", scale=ones) == y).all()
    tensors = map(torch.from_numpy, (x, w))
    assert (dilated_conv(*tensors, dilation=d, activation="relu", scale=torch.ones(4)).numpy() == y).all()"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.cuda
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(("dtype", "out"), [way[1:] for way in (w.values for w in WAYS[-4:])])
@pytest.mark.parametrize(("shape", "outputs", "size", "dilation"), [*CASES, ((1, 2048, 33, 33), 256, 3, 12)])
def test_on_cuda(shape, outputs, size, dilation, dtype, out, channels_last):
    x, part = random_tensor(shape, dtype), random_part(outputs, shape[1], size, dilation, dtype)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    tensors = {k: None if v is None else v.cuda() for k, v in part._asdict().items() if k != "dilation"}
    y = dilated_conv(
        x.cuda().contiguous(memory_format=layout), **tensors, dilation=dilation, activation="relu",
        out_dtype=out if dtype == "int8" else None,
    )  # fmt: skip
    assert y.is_contiguous(memory_format=layout) and str(y.dtype) == f"torch.{out}"
    assert_near(y.cpu(), expected(x, [part], "relu"))
