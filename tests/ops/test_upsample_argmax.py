"""upsample_argmax against torch's interpolate and argmax, on every instruction set that this machine can run.

"lanes16" is the AVX-512 code (16 cells at once) compiled to baseline instructions, so that its tiles, shuffles and
edges are tested on machines without AVX-512; only the instructions differ from what an AVX-512 machine runs.
"""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from edgeseg import kernels
from edgeseg.ops import upsample_argmax
from edgeseg.ops.upsample_argmax import run_kernel, upsample_argmax_reference

INSTRUCTION_SETS = [
    name
    for name, number in kernels.INSTRUCTION_SETS.items()
    if kernels.available() and kernels.load().edgeseg_can_run(number)
]

# (N, C, h, w), (height, width). Widths below, at and above 4, 8 and 16 lanes; one row, one column, no image, one class.
GENERAL = [
    ((1, 5, 16, 16), (33, 47)),
    ((2, 7, 9, 33), (50, 71)),
    ((3, 3, 1, 1), (5, 7)),
    ((1, 4, 1, 19), (9, 100)),
    ((1, 4, 19, 1), (100, 9)),
    ((1, 6, 2, 2), (100, 300)),
    ((1, 255, 5, 18), (12, 41)),
    ((1, 1, 4, 4), (9, 9)),
    ((0, 4, 3, 3), (6, 6)),
    ((1, 20, 40, 50), (13, 17)),
    ((1, 9, 64, 70), (8, 9)),
    ((1, 9, 20, 20), (20, 20)),
    ((1, 9, 20, 23), (20, 60)),
    ((1, 4, 30, 17), (45, 68)),
    ((2, 3, 64, 16), (256, 65)),
]


def run(logits: np.ndarray, size: tuple[int, int], instruction_set: str, threads: int = 1) -> np.ndarray:
    """The kernel with everything forced; the sentinel shows labels that nobody wrote."""
    logits = np.ascontiguousarray(logits, np.float32)
    labels = np.full((logits.shape[0], *size), 254, np.uint8)
    run_kernel(logits.ctypes.data, labels.ctypes.data, logits.shape, size, threads, instruction_set)
    return labels


def expected_labels(logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    upsampled = interpolate(torch.from_numpy(logits), size, mode="bilinear", align_corners=False)
    return upsampled.argmax(1).numpy()


def assert_best(logits: np.ndarray, labels: np.ndarray, size: tuple[int, int]) -> None:
    """Every label's score is the best to within float32 rounding of the scores: labels agree where it matters."""
    assert labels.dtype == np.uint8 and labels.shape == (logits.shape[0], *size)
    assert labels.size == 0 or labels.max() < logits.shape[1]
    upsampled = interpolate(torch.from_numpy(logits).double(), size, mode="bilinear", align_corners=False)
    chosen = upsampled.gather(1, torch.from_numpy(labels.astype(np.int64))[:, None])[:, 0]
    lost = upsampled.max(1).values - chosen
    assert lost.numel() == 0 or lost.max() <= 8 * np.finfo(np.float32).eps * np.abs(logits).max()


def regions(shape: tuple[int, ...], seed: int, noise: float = 0.02) -> np.ndarray:
    """Logits as a network's: large regions of one class, so that filling, pruning and their borders are all at work."""
    generator = torch.Generator().manual_seed(seed)
    n, classes, height, width = shape
    coarse = 3 * torch.randn(n, classes, -(-height // 8), -(-width // 8), generator=generator)
    fine = interpolate(coarse, (height, width), mode="bilinear", align_corners=False)
    return (fine + noise * torch.randn(shape, generator=generator)).numpy()


@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
class TestKernel:
    @pytest.mark.parametrize(("shape", "size"), GENERAL)
    def test_any_size(self, shape, size, instruction_set):
        for logits in (np.random.default_rng(0).standard_normal(shape, np.float32), regions(shape, 1)):
            assert_best(logits, run(logits, size, instruction_set), size)

    @pytest.mark.parametrize("scale", [2, 4, 8])
    @pytest.mark.parametrize("shape", [(1, 4, 9, 40), (2, 19, 16, 33), (1, 150, 7, 21), (1, 3, 5, 3)])
    def test_exact_with_ties(self, shape, scale, instruction_set):
        """Integers and quarters are exact in every step at these scales: all labels, thousands of ties included."""
        size = (scale * shape[2], scale * shape[3])
        random = np.random.default_rng(2)
        for values in (
            random.integers(-2, 3, shape),
            random.integers(-9, 10, shape) / 4,
            np.rint(4 * regions(shape, 3)) / 4,
        ):
            logits = values.astype(np.float32)
            np.testing.assert_array_equal(run(logits, size, instruction_set), expected_labels(logits, size))

    def test_all_scores_equal_is_class_0(self, instruction_set):
        for value in (0.0, -1e30, 1e-42, -0.0):
            logits = np.full((1, 9, 6, 20), value, np.float32)
            assert not run(logits, (24, 80), instruction_set).any()

    def test_negative_zero_ties_with_zero(self, instruction_set):
        logits = np.zeros((1, 4, 6, 20), np.float32)
        logits[:, 0] = -0.0
        assert not run(logits, (24, 80), instruction_set).any()

    @pytest.mark.parametrize("scale", [1, 2, 4, 8])
    @pytest.mark.parametrize("share", [0.002, 0.05, 1.0])
    def test_not_finite(self, scale, share, instruction_set):
        """NaN wins, the first one; an infinity under a weight of 0 is a NaN: as torch, at every pixel."""
        random = np.random.default_rng(4)
        for shape in ((2, 6, 13, 37), (1, 6, 3, 2)):
            logits = random.integers(-2, 3, shape).astype(np.float32)
            special = np.array([np.nan, np.inf, -np.inf, -0.0], np.float32)[random.integers(0, 4, shape)]
            logits = np.where(random.random(shape) < share, special, logits)
            size = (scale * shape[2], scale * shape[3])
            np.testing.assert_array_equal(run(logits, size, instruction_set), expected_labels(logits, size))

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_one_class_not_finite_everywhere(self, value, instruction_set):
        logits = regions((1, 5, 10, 24), 5)
        logits[:, 2] = value
        np.testing.assert_array_equal(run(logits, (40, 96), instruction_set), expected_labels(logits, (40, 96)))

    def test_a_class_that_no_corner_prefers_can_win_between(self, instruction_set):
        """Second everywhere, first in the middle: what argmax before upsampling loses, and pruning must not."""
        logits = np.array([[8, 0] * 16, [0, 8] * 16, [7, 7] * 16], np.float32).reshape(1, 3, 1, 32)
        labels = run(logits, (1, 128), instruction_set)
        assert (labels == 2).sum() == 31 * 2  # at 3/8 and 5/8 of each cell; at 1/8 and 7/8 it ties with a lower class
        np.testing.assert_array_equal(labels, expected_labels(logits, (1, 128)))

    def test_huge_and_tiny_values(self, instruction_set):
        random = np.random.default_rng(6)
        for scale in (2.0**126, 2.0**100, 2.0**-100):
            logits = (scale * random.integers(-2, 3, (1, 6, 9, 21))).astype(np.float32)
            np.testing.assert_array_equal(run(logits, (36, 84), instruction_set), expected_labels(logits, (36, 84)))

    def test_labels_do_not_depend_on_threads(self, instruction_set):
        logits = regions((2, 19, 67, 45), 7)
        once = run(logits, (268, 200), instruction_set, threads=1)
        for threads in (2, 3, 8):
            np.testing.assert_array_equal(run(logits, (268, 200), instruction_set, threads), once)

    def test_random_sizes(self, instruction_set):
        random = np.random.default_rng(8)
        for seed in range(40):
            n, classes = int(random.integers(1, 3)), int(random.integers(1, 12))
            h, w, height, width = (int(side) for side in random.integers(1, [24, 60, 90, 200]))
            logits = regions((n, classes, h, w), seed, noise=0.3)
            assert_best(logits, run(logits, (height, width), instruction_set), (height, width))


def test_instruction_sets_agree():
    """All of them on one input: at most rounding apart, and this input has no close calls."""
    logits = regions((1, 30, 40, 53), 9)
    first, *others = (run(logits, (160, 212), name) for name in INSTRUCTION_SETS)
    for labels in others:
        assert (labels != first).mean() < 1e-4


class TestFunction:
    logits = regions((2, 11, 18, 26), 10)
    size = (61, 104)

    def test_array_gives_array(self):
        labels = upsample_argmax(self.logits, self.size)
        assert isinstance(labels, np.ndarray)
        assert_best(self.logits, labels, self.size)

    def test_tensor_gives_the_same_labels(self):
        labels = upsample_argmax(torch.from_numpy(self.logits), self.size)
        assert labels.dtype == torch.uint8 and labels.shape == (2, *self.size)
        np.testing.assert_array_equal(labels.numpy(), upsample_argmax(self.logits, self.size))
        np.testing.assert_array_equal(upsample_argmax(torch.from_numpy(self.logits), self.size, threads=2), labels)

    def test_strided_array(self):
        view = np.ascontiguousarray(self.logits.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)[:, ::2, 1:, ::-1]
        np.testing.assert_array_equal(upsample_argmax(view, self.size), upsample_argmax(view.copy(), self.size))

    def test_strided_tensor(self):
        view = torch.from_numpy(self.logits).to(memory_format=torch.channels_last)[:, 1::2, :, 3:]
        assert torch.equal(upsample_argmax(view, self.size), upsample_argmax(view.contiguous(), self.size))

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision(self, dtype):
        half = torch.from_numpy(self.logits).to(dtype)
        assert_best(half.float().numpy(), upsample_argmax(half, self.size).numpy(), self.size)
        if dtype is torch.float16:
            np.testing.assert_array_equal(upsample_argmax(half.numpy(), self.size), upsample_argmax(half, self.size))

    def test_empty_batch(self):
        assert upsample_argmax(self.logits[:0], self.size).shape == (0, *self.size)
        assert upsample_argmax(torch.from_numpy(self.logits[:0]), self.size).shape == (0, *self.size)

    def test_input_is_not_changed(self):
        before = self.logits.copy()
        upsample_argmax(self.logits, self.size)
        np.testing.assert_array_equal(self.logits, before)

    def test_many_callers_at_once(self):
        expected = upsample_argmax(self.logits, self.size)
        with ThreadPoolExecutor(6) as callers:
            for labels in callers.map(lambda _: upsample_argmax(self.logits, self.size, threads=2), range(40)):
                np.testing.assert_array_equal(labels, expected)

    @pytest.mark.parametrize(
        ("logits", "size", "error", "match"),
        [
            (
                np.zeros((19, 4, 4), np.float32),
                (8, 8),
                ValueError,
                r"must be \(N, C, h, w\), got \(19, 4, 4\); add a batch",
            ),
            (np.zeros((1, 256, 4, 4), np.float32), (8, 8), ValueError, "1 to 255 classes .* got 256"),
            (np.zeros((1, 0, 4, 4), np.float32), (8, 8), ValueError, "1 to 255 classes .* got 0"),
            (np.zeros((1, 3, 0, 4), np.float32), (8, 8), ValueError, r"h and w in .* got \(1, 3, 0, 4\)"),
            (np.zeros((1, 3, 4, 4), np.int32), (8, 8), TypeError, "must be float32 or float16, got int32"),
            (np.zeros((1, 3, 4, 4)), (8, 8), TypeError, "must be float32 or float16, got float64"),
            (np.zeros((1, 3, 4, 4), np.float32), (0, 8), ValueError, r"each in .*, got \(0, 8\)"),
            (np.zeros((1, 3, 4, 4), np.float32), (8.0, 8), TypeError, "two integers"),
            (np.zeros((1, 3, 4, 4), np.float32), 8, TypeError, "two integers"),
            (np.zeros((1, 3, 4, 4), np.float32), (8, 8, 8), TypeError, "two integers"),
            ([[[[0.0]]]], (8, 8), TypeError, "numpy array or a torch tensor, got list"),
        ],
    )
    def test_refuses(self, logits, size, error, match):
        with pytest.raises(error, match=match):
            upsample_argmax(logits, size)
        if isinstance(logits, np.ndarray):
            with pytest.raises(
                error, match=match.replace("got int32", "got torch").replace("got float64", "got torch")
            ):
                upsample_argmax(torch.from_numpy(logits), size)

    def test_refuses_no_threads(self):
        with pytest.raises(ValueError, match="threads must be at least 1, got 0"):
            upsample_argmax(self.logits, self.size, threads=0)


class TestTorchOperator:
    @pytest.mark.parametrize("shape", [(1, 19, 8, 16), (2, 3, 5, 7), (0, 4, 3, 3)])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
    def test_opcheck(self, shape, dtype):
        upsample_argmax(torch.zeros(1, 1, 1, 1), (1, 1))  # registers it
        logits = torch.from_numpy(regions(shape, 11)).to(dtype)
        torch.library.opcheck(torch.ops.edgeseg.upsample_argmax.default, (logits, 33, 47))

    def test_compiles_without_a_break(self):
        torch.compiler.reset()
        compiled = torch.compile(lambda x: upsample_argmax(2 * x, (24, 31)) + 1, fullgraph=True, backend="aot_eager")
        for batch in (1, 3):
            logits = torch.from_numpy(regions((batch, 5, 8, 9), 12))
            assert torch.equal(compiled(logits), upsample_argmax(2 * logits, (24, 31)) + 1)

    def test_every_way_to_compute_it_agrees(self):
        from edgeseg.ops import _torch_upsample_argmax as registered

        logits = torch.from_numpy(np.rint(4 * regions((2, 6, 9, 21), 13)) / 4)
        expected = registered.upsample_argmax_reference(logits, 36, 84)
        assert torch.equal(torch.ops.edgeseg.upsample_argmax(logits, 36, 84), expected)
        assert torch.equal(registered._through_ctypes(logits, 36, 84), expected)

    def test_refuses_from_cpp_too(self):
        upsample_argmax(torch.zeros(1, 1, 1, 1), (1, 1))
        if not kernels.status()["torch"]["available"]:
            pytest.skip("edgeseg was built without torch")
        with pytest.raises(RuntimeError, match=r"classes not in \[1, 255\]"):
            torch.ops.edgeseg.upsample_argmax(torch.zeros(1, 300, 2, 2), 4, 4)
        with pytest.raises(RuntimeError, match="float32, float16 or bfloat16"):
            torch.ops.edgeseg.upsample_argmax(torch.zeros(1, 3, 2, 2, dtype=torch.int64), 4, 4)


class TestReference:
    """The numpy fallback, which is also what the kernel is read against."""

    @pytest.mark.parametrize(("shape", "size"), GENERAL)
    def test_any_size(self, shape, size):
        logits = regions(shape, 14)
        assert_best(logits, upsample_argmax_reference(logits, size), size)

    def test_not_finite(self):
        random = np.random.default_rng(15)
        logits = random.choice(
            np.array([0, 1, np.nan, np.inf, -np.inf], np.float32), (1, 5, 6, 9), p=[0.4, 0.3, 0.1, 0.1, 0.1]
        )
        for size in ((24, 36), (6, 9), (6, 36)):
            np.testing.assert_array_equal(upsample_argmax_reference(logits, size), expected_labels(logits, size))


def python(script: str) -> str:
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_importing_and_labelling_an_array_needs_no_torch():
    script = """
import sys, numpy as np
from edgeseg.ops import upsample_argmax
assert upsample_argmax(np.zeros((1, 3, 4, 4), np.float32), (8, 8)).shape == (1, 8, 8)
print("torch" in sys.modules)"""
    assert python(script) == "False"


def test_without_the_library_arrays_and_tensors_still_get_labels():
    script = """
from edgeseg import kernels
kernels.library_path = lambda name: None
import numpy as np, torch
from edgeseg.ops import upsample_argmax
logits = np.arange(1 * 3 * 2 * 2, dtype=np.float32).reshape(1, 3, 2, 2)[:, ::-1]
assert (upsample_argmax(logits, (8, 8)) == 0).all()
assert (upsample_argmax(torch.from_numpy(logits.copy()), (8, 8)) == 0).all()
status = kernels.status()
assert not any(part["available"] for part in status.values()), status
try:
    kernels.load()
except kernels.KernelsUnavailableError as error:
    print(error)"""
    assert "reinstall edgeseg with a C++ compiler" in python(script)


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="no fork")
def test_works_in_a_forked_child():
    script = """
import os, numpy as np
from edgeseg.ops import upsample_argmax
logits = np.random.default_rng(0).standard_normal((1, 5, 64, 64), np.float32)
labels = upsample_argmax(logits, (256, 256), threads=4)
child = os.fork()
if child == 0:
    os._exit(0 if (upsample_argmax(logits, (256, 256), threads=4) == labels).all() else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"""
    assert python(script) == "0"
