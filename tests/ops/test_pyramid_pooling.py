"""pyramid_pooling against torch's adaptive_avg_pool2d in float64, in both layouts, on every path."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.nn.functional import adaptive_avg_pool2d

from edgeseg import kernels
from edgeseg.ops import pyramid_pooling, pyramid_pooling_conv
from edgeseg.ops.pyramid_pooling import ELEMENTS, pyramid_pooling_reference, run_kernel

INSTRUCTION_SETS = [
    name
    for name, number in kernels.INSTRUCTION_SETS.items()
    if kernels.available() and kernels.load().edgeseg_can_run(number)
]
PATHS = [
    *INSTRUCTION_SETS,
    pytest.param(
        "emulated",
        marks=pytest.mark.skipif(
            kernels.library_path("edgeseg_emulated") is None, reason="built without EDGESEG_EMULATION"
        ),
    ),
]
BINS = (1, 2, 3, 6)
# Sides that bins divide, that leave overlaps, below the bins, of one pixel; channels and widths around 4, 8 and 16.
CASES = [
    ((1, 8, 12, 12), BINS),
    ((2, 5, 13, 17), BINS),
    ((1, 16, 33, 33), BINS),
    ((3, 3, 7, 65), BINS),
    ((1, 17, 5, 4), BINS),
    ((2, 1, 1, 1), BINS),
    ((1, 9, 1, 40), (1, 2)),
    ((1, 33, 40, 1), (3,)),
    ((1, 12, 10, 20), (4, 1, 4, 7)),
    ((1, 4, 24, 31), (64,)),
    ((1, 2, 9, 8), tuple([4] * 16)),
    ((0, 4, 6, 6), BINS),
    ((2, 0, 6, 6), BINS),
]
TOLERANCE = {"float32": 4e-7, "float16": 5.1e-4, "bfloat16": 4e-3}  # half a place of the output, and float32 sums


def expected_pyramid(x: torch.Tensor, bins: tuple[int, ...]) -> torch.Tensor:
    """(N, C, S) float64."""
    if 0 in x.shape:
        return torch.zeros(*x.shape[:2], sum(b * b for b in bins), dtype=torch.float64)
    return torch.cat([adaptive_avg_pool2d(x.double(), b).flatten(2) for b in bins], 2)


def random_map(shape: tuple[int, ...], dtype: str = "float32") -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).to(getattr(torch, dtype))


def run(path: str, x: torch.Tensor, bins: tuple[int, ...], channels_last: bool, threads: int = 1) -> torch.Tensor:
    """(N, C, S) from the C function; the sentinel shows means that nobody wrote."""
    positions = sum(b * b for b in bins)
    n, channels = x.shape[:2]
    source = (x.permute(0, 2, 3, 1) if channels_last else x).contiguous()
    pooled = x.new_full((n, positions, channels) if channels_last else (n, channels, positions), 1e4)
    dtype = str(x.dtype).removeprefix("torch.")
    if path == "emulated":
        rows = np.array(bins, np.int32)
        geometry = *x.shape, rows.ctypes.data, len(bins), channels_last
        size = np.zeros(1, np.int64)
        wanted = kernels.function("edgeseg_pyramid_pooling_cuda_workspace", "qqqqpqip", "edgeseg_emulated")
        assert wanted(*geometry, size.ctypes.data) == 0
        workspace = np.full(int(size[0]) // 4, np.nan, np.float32)
        function = kernels.function("edgeseg_pyramid_pooling_cuda", "pppiqqqqpqip", "edgeseg_emulated")
        addresses = source.data_ptr(), pooled.data_ptr(), workspace.ctypes.data if size[0] else None
        assert function(*addresses, ELEMENTS[dtype], *geometry, None) == 0
    else:
        run_kernel(source.data_ptr(), pooled.data_ptr(), dtype, tuple(x.shape), bins, channels_last, threads, path)
    return pooled.mT if channels_last else pooled


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("channels_last", [False, True])
class TestPaths:
    @pytest.mark.parametrize(("shape", "bins"), CASES)
    @pytest.mark.parametrize("dtype", TOLERANCE)
    def test_any_size(self, shape, bins, dtype, channels_last, path):
        x = random_map(shape, dtype)
        pooled = run(path, x, bins, channels_last)
        torch.testing.assert_close(
            pooled.double(), expected_pyramid(x, bins), rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype]
        )

    def test_whole_numbers_are_exact(self, channels_last, path):
        """Sums are exact, so the division's rounding is all there is: equal to float64's mean, rounded once."""
        x = torch.randint(-50, 51, (1, 19, 20, 27), generator=torch.Generator().manual_seed(0)).float()
        assert torch.equal(run(path, x, BINS, channels_last), expected_pyramid(x, BINS).float())
        halves = run(path, x.half(), BINS, channels_last)
        assert torch.equal(halves, expected_pyramid(x, BINS).float().half())

    def test_constant_stays(self, channels_last, path):
        for value in (1.0, 0.1, -3e30, 1e-42):
            x = torch.full((1, 6, 16, 18), value)
            torch.testing.assert_close(
                run(path, x, BINS, channels_last), torch.full((1, 6, 50), value), rtol=5e-7, atol=1e-44
            )

    def test_not_finite_stays_in_its_bins(self, channels_last, path):
        x = torch.zeros(1, 10, 12, 12)
        x[0, 3, 0, 0], x[0, 4, 11, 11], x[0, 4, 0, 0], x[0, 5, 6, 6] = torch.nan, torch.inf, -torch.inf, torch.inf
        pooled, expected = run(path, x, BINS, channels_last), expected_pyramid(x, BINS).float()
        torch.testing.assert_close(pooled, expected, rtol=0, atol=0, equal_nan=True)

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
    def test_every_half(self, dtype, channels_last, path):
        """One pixel a plane: widening and narrowing give all 65536 values back, NaN as NaN, subnormals too."""
        x = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(getattr(torch, dtype))
        x = x[:: 1 if path != "emulated" else 97].reshape(1, -1, 1, 1)
        torch.testing.assert_close(run(path, x, (1,), channels_last)[..., None], x, rtol=0, atol=0, equal_nan=True)

    def test_halves_round_to_nearest_even(self, channels_last, path):
        for dtype in ("float16", "bfloat16"):
            ulp = torch.finfo(getattr(torch, dtype)).eps
            low = torch.tensor([1, 1 + ulp, 2**-14, 2**-14 * (1 - ulp), 3 * 2**-24]).to(getattr(torch, dtype))
            bits = low.view(torch.int16)
            x = torch.stack([low, (bits + 1).view(low.dtype)], 1).reshape(1, -1, 1, 2)  # the mean is half way
            expected = torch.where(bits % 2 == 0, low, (bits + 1).view(low.dtype))
            assert torch.equal(run(path, x, (1,), channels_last).flatten(), expected)

    def test_large_planes(self, channels_last, path):
        """In CUDA's channels_first: planes whose sums do not fit shared memory."""
        x = random_map((1, 2, 30, 2100))
        torch.testing.assert_close(
            run(path, x, BINS, channels_last).double(), expected_pyramid(x, BINS), rtol=1e-5, atol=4e-7
        )


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.skipif(not INSTRUCTION_SETS, reason="the kernel library was not built")
def test_threads_and_instruction_sets_change_nothing(channels_last):
    x = random_map((2, 331, 19, 23))
    expected = run("portable", x, BINS, channels_last, threads=1)
    for path in INSTRUCTION_SETS:
        for threads in (1, 2, 5):
            assert torch.equal(run(path, x, BINS, channels_last, threads), expected)


class TestFunction:
    x = random_map((2, 12, 14, 15))

    def test_array_and_tensor_in_both_layouts(self):
        expected = [adaptive_avg_pool2d(self.x.double(), b).float() for b in BINS]
        for x in (self.x, self.x.to(memory_format=torch.channels_last), self.x.mT.contiguous().mT):
            for threads in (None, 2):
                pyramid = pyramid_pooling(x, threads=threads)
                assert [pooled.shape for pooled in pyramid] == [(2, 12, b, b) for b in BINS]
                for array, tensor, right in zip(
                    pyramid_pooling(x.numpy(), threads=threads), pyramid, expected, strict=True
                ):
                    torch.testing.assert_close(tensor, right, rtol=4e-7, atol=4e-7)
                    np.testing.assert_array_equal(array, tensor.numpy())

    def test_channels_last_stays_so(self):
        last = self.x.to(memory_format=torch.channels_last)
        assert all(pooled.stride(1) == 1 for pooled in pyramid_pooling(last))
        assert all(pooled.strides[1] == 4 for pooled in pyramid_pooling(last.numpy()))

    def test_other_views(self):
        view = self.x[:, ::2, 1:, 3:]
        for pooled, right in zip(
            pyramid_pooling(view, (2, 5)), pyramid_pooling(view.contiguous(), (2, 5)), strict=True
        ):
            assert torch.equal(pooled, right)
        reverse = self.x.numpy()[:, :, ::-1, ::2]
        np.testing.assert_array_equal(pyramid_pooling(reverse, [3])[0], pyramid_pooling(reverse.copy(), [3])[0])

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision(self, dtype):
        for pooled, b in zip(pyramid_pooling(self.x.to(dtype)), BINS, strict=True):
            assert pooled.dtype == dtype
            right = adaptive_avg_pool2d(self.x.to(dtype).double(), b)
            torch.testing.assert_close(pooled.double(), right, rtol=4e-3, atol=1e-5)
        assert pyramid_pooling(self.x.half().numpy(), (1,))[0].dtype == np.float16

    def test_input_is_not_changed(self):
        before = self.x.clone()
        pyramid_pooling(self.x)
        assert torch.equal(self.x, before)

    @pytest.mark.parametrize(
        ("x", "bins", "error", "match"),
        [
            (
                np.zeros((3, 4, 4), np.float32),
                BINS,
                ValueError,
                r"must be \(N, C, H, W\), got \(3, 4, 4\); add a batch",
            ),
            (np.zeros((1, 3, 0, 4), np.float32), BINS, ValueError, r"H and W in .* got \(1, 3, 0, 4\)"),
            (np.zeros((1, 3, 4, 4), np.int32), BINS, TypeError, "float32 or float16, got (torch.)?int32"),
            (np.zeros((1, 3, 4, 4)), BINS, TypeError, "float32 or float16, got (torch.)?float64"),
            (np.zeros((1, 3, 4, 4), np.float32), (), ValueError, r"1 to 16 numbers .* got \(\)"),
            (np.zeros((1, 3, 4, 4), np.float32), (1, 0), ValueError, r"from 1 .* got \(1, 0\)"),
            (np.zeros((1, 3, 4, 4), np.float32), (60, 5), ValueError, "add up to at most 64"),
            (np.zeros((1, 3, 4, 4), np.float32), (1,) * 17, ValueError, "1 to 16 numbers"),
            (np.zeros((1, 3, 4, 4), np.float32), (1.0,), TypeError, "sequence of integers"),
            (np.zeros((1, 3, 4, 4), np.float32), 6, TypeError, "sequence of integers, got 6"),
            ([[[[0.0]]]], BINS, TypeError, "numpy array or a torch tensor, got list"),
        ],
    )
    def test_refuses(self, x, bins, error, match):
        with pytest.raises(error, match=match):
            pyramid_pooling(x, bins)
        if isinstance(x, np.ndarray):
            with pytest.raises(error, match=match):
                pyramid_pooling(torch.from_numpy(x), bins)

    def test_refuses_no_threads(self):
        with pytest.raises(ValueError, match="threads must be at least 1, got 0"):
            pyramid_pooling(self.x, threads=0)


class TestConv:
    """The branches of PSPNet: pooled, then a 1x1 convolution with folded BatchNorm and a ReLU."""

    x = random_map((2, 12, 14, 15))
    weights = tuple(random_map((5 + b, 12, 1, 1)) for b in BINS)
    biases = tuple(random_map((5 + b,)) for b in BINS)

    def test_equals_torch(self):
        for x in (self.x, self.x.to(memory_format=torch.channels_last)):
            tensors = pyramid_pooling_conv(x, self.weights, self.biases)
            arrays = pyramid_pooling_conv(
                x.numpy(), [weight[:, :, 0, 0].numpy() for weight in self.weights], [b.numpy() for b in self.biases]
            )
            for b, weight, bias, tensor, array in zip(BINS, self.weights, self.biases, tensors, arrays, strict=True):
                pooled = adaptive_avg_pool2d(x.double(), b)
                right = torch.nn.functional.conv2d(pooled, weight.double(), bias.double()).relu().float()
                torch.testing.assert_close(tensor, right, rtol=1e-5, atol=3e-6)
                np.testing.assert_allclose(array, right.numpy(), rtol=1e-5, atol=3e-6)

    def test_compiles_without_a_break(self):
        torch.compiler.reset()
        compiled = torch.compile(
            lambda x: pyramid_pooling_conv(x, self.weights, self.biases), fullgraph=True, backend="aot_eager"
        )
        for pair in zip(compiled(self.x), pyramid_pooling_conv(self.x, self.weights, self.biases), strict=True):
            torch.testing.assert_close(*pair)

    def test_refuses(self):
        with pytest.raises(ValueError, match="each of the 4 bins needs one weight and one bias, got 3 and 4"):
            pyramid_pooling_conv(self.x, self.weights[:3], self.biases)
        with pytest.raises(ValueError, match=r"must be \(O, 12\) or \(O, 12, 1, 1\) .* got \(6, 12, 1, 1\) and \(7,\)"):
            pyramid_pooling_conv(self.x, self.weights, self.biases[1:] + self.biases[:1])


class TestTorchOperator:
    @pytest.mark.parametrize("shape", [(1, 7, 8, 16), (2, 3, 5, 7), (0, 4, 3, 3)])
    @pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
    @pytest.mark.parametrize("channels_last", [False, True])
    def test_opcheck(self, shape, dtype, channels_last):
        x = random_map(shape, dtype)
        pyramid_pooling(x)  # registers it
        source = x.permute(0, 2, 3, 1).contiguous() if channels_last else x
        torch.library.opcheck(torch.ops.edgeseg.pyramid_pooling.default, (source, list(BINS), channels_last))

    @pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
    def test_compiles_without_a_break(self, memory_format):
        torch.compiler.reset()
        compiled = torch.compile(lambda x: pyramid_pooling(2 * x, (1, 4))[1] + 1, fullgraph=True, backend="aot_eager")
        for batch in (1, 3):
            x = random_map((batch, 6, 9, 10)).to(memory_format=memory_format)
            assert torch.equal(compiled(x), pyramid_pooling(2 * x, (1, 4))[1] + 1)

    @pytest.mark.parametrize("channels_last", [False, True])
    def test_every_way_to_compute_it_agrees(self, channels_last):
        from edgeseg.ops import _torch_pyramid_pooling as registered

        x = torch.randint(-9, 10, (2, 10, 9, 21)).float()  # exact sums
        expected = registered.pyramid_pooling_reference(x, list(BINS), channels_last)
        for way in (torch.ops.edgeseg.pyramid_pooling, *([registered._through_ctypes] if INSTRUCTION_SETS else [])):
            torch.testing.assert_close(way(x, list(BINS), channels_last), expected, rtol=3e-7, atol=1e-7)

    def test_refuses_from_cpp_too(self):
        x = torch.zeros(1, 2, 3, 3)
        pyramid_pooling(x)
        if not kernels.status()["torch"]["available"]:
            pytest.skip("edgeseg was built without torch")
        with pytest.raises(RuntimeError, match=r"a bin not in \[1, 64\]"):
            torch.ops.edgeseg.pyramid_pooling(x, [1, 2**32 + 1])
        with pytest.raises(RuntimeError, match="add up to more than 64"):
            torch.ops.edgeseg.pyramid_pooling(x, [40, 40])
        with pytest.raises(RuntimeError, match="float32, float16 or bfloat16"):
            torch.ops.edgeseg.pyramid_pooling(x.int(), [1])

    @pytest.mark.cuda
    @pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
    @pytest.mark.parametrize("dtype", TOLERANCE)
    @pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
    def test_on_cuda(self, dtype, memory_format):
        for shape, bins in [*CASES, ((1, 2, 300, 2100), BINS), ((2, 512, 60, 60), BINS)]:
            x = random_map(shape, dtype)
            pyramid = pyramid_pooling(x.cuda().to(memory_format=memory_format), bins)
            packed = torch.cat([pooled.flatten(2) for pooled in pyramid], 2).cpu().double()
            tolerance = 2 * TOLERANCE[dtype]
            torch.testing.assert_close(packed, expected_pyramid(x, bins), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("shape", "bins"), CASES)
def test_reference(shape, bins):
    x = random_map(shape)
    packed = [torch.from_numpy(pooled).flatten(2) for pooled in pyramid_pooling_reference(x.numpy(), bins)]
    torch.testing.assert_close(torch.cat(packed, 2).double(), expected_pyramid(x, bins), rtol=4e-7, atol=4e-7)


@pytest.mark.skipif(not INSTRUCTION_SETS, reason="the kernel library was not built")
@pytest.mark.parametrize(
    ("at", "value"),
    [(0, None), (1, None), (2, 3), (3, -1), (4, -1), (5, 0), (6, 1 << 23), (7, None), (8, 0), (8, 17), (10, -1)],
)
def test_the_c_function_checks_its_arguments(at, value):
    x, pooled, bins = np.zeros((1, 2, 4, 4), np.float32), np.zeros((1, 2, 5), np.float32), np.array([1, 2], np.int32)
    values: list = [x.ctypes.data, pooled.ctypes.data, 0, 1, 2, 4, 4, bins.ctypes.data, 2, 0, 1, 0]
    function = kernels.function("edgeseg_pyramid_pooling", "ppiqqqqpqiii")
    assert function(*values) == 0
    values[at] = value
    with pytest.raises(ValueError, match="pool: invalid argument"):
        kernels.check(function(*values), "pool")


def test_without_the_library_arrays_and_tensors_are_pooled():
    script = """
from edgeseg import kernels
kernels.library_path = lambda name: None
import sys
import numpy as np
from edgeseg.ops import pyramid_pooling
x = np.arange(32, dtype=np.float32).reshape(1, 2, 4, 4)
expected = [[2.5, 4.5], [10.5, 12.5]]
assert pyramid_pooling(x, (1, 2))[1][0, 0].tolist() == expected
assert "torch" not in sys.modules
import torch
assert pyramid_pooling(torch.from_numpy(x), (1, 2))[1][0, 0].tolist() == expected"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
