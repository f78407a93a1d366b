"""upsample_argmax against torch's interpolate and argmax, in every way that there is to compute it.

"lanes16" is the AVX-512 code (16 cells at once) compiled to baseline instructions, so that its tiles, shuffles and
edges are tested on machines without AVX-512; only the instructions differ from what an AVX-512 machine runs. "emulated"
is the CUDA kernels' code run on the CPU, "cuda" the kernels themselves, on a GPU.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from edgeseg import kernels
from edgeseg.ops import upsample_argmax
from edgeseg.ops.upsample_argmax import run_cuda_kernel, run_kernel

from .ways import needs_emulation

INSTRUCTION_SETS = [
    name
    for name, number in kernels.INSTRUCTION_SETS.items()
    if kernels.available() and kernels.load().edgeseg_can_run(number)
]

WAYS = [
    *INSTRUCTION_SETS,
    pytest.param("emulated", marks=needs_emulation),
    pytest.param("cuda", marks=pytest.mark.cuda),
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


def run(logits, size, way, threads=1, align_corners=False, margin=False):
    """The kernel with everything forced; the sentinels show labels and margins that nobody wrote."""
    if way == "cuda":
        on_gpu = torch.from_numpy(np.ascontiguousarray(logits)).cuda()
        found = upsample_argmax(on_gpu, size, align_corners=align_corners, margin=margin)
        return tuple(tensor.cpu().numpy() for tensor in found) if margin else found.cpu().numpy()
    logits = np.ascontiguousarray(logits)
    labels = np.full((logits.shape[0], *size), 254, np.uint8 if logits.shape[1] <= 255 else np.int32)
    margins = np.full(labels.shape, -7, np.float32)
    addresses = (logits.ctypes.data, str(logits.dtype), labels.ctypes.data, margins.ctypes.data if margin else None)
    if way == "emulated":
        run_cuda_kernel(*addresses, logits.shape, size, align_corners, library="edgeseg_emulated")
    else:
        run_kernel(*addresses, logits.shape, size, align_corners, threads, way)
    return (labels, margins) if margin else labels


def expected_labels(logits: np.ndarray, size: tuple[int, int], align_corners: bool = False) -> np.ndarray:
    scores = torch.from_numpy(logits).float()
    return interpolate(scores, size, mode="bilinear", align_corners=align_corners).argmax(1).numpy()


def expected_margins(logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The difference of the last two of numpy's sort, which puts NaN last."""
    scores = interpolate(torch.from_numpy(logits), size, mode="bilinear", align_corners=False).numpy()
    ranked = np.sort(np.concatenate((np.full_like(scores[:, :1], -np.inf), scores), 1), 1)
    with np.errstate(invalid="ignore"):
        return ranked[:, -1] - ranked[:, -2]


def assert_best(logits: np.ndarray, labels: np.ndarray, size: tuple[int, int], align_corners: bool = False) -> None:
    """Every label's score is the best to within float32 rounding of the scores: labels agree where it matters."""
    assert labels.dtype == (np.uint8 if logits.shape[1] <= 255 else np.int32)
    assert labels.shape == (logits.shape[0], *size)
    assert labels.size == 0 or labels.max() < logits.shape[1]
    upsampled = interpolate(torch.from_numpy(logits).double(), size, mode="bilinear", align_corners=align_corners)
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


@pytest.mark.parametrize("way", WAYS)
class TestKernel:
    @pytest.mark.parametrize(("shape", "size"), GENERAL)
    def test_any_size(self, shape, size, way):
        for logits in (np.random.default_rng(0).standard_normal(shape, np.float32), regions(shape, 1)):
            assert_best(logits, run(logits, size, way), size)

    @pytest.mark.parametrize("scale", [2, 4, 8])
    @pytest.mark.parametrize("shape", [(1, 4, 9, 40), (2, 19, 16, 33), (1, 150, 7, 21), (1, 3, 5, 3)])
    def test_exact_with_ties(self, shape, scale, way):
        """Integers and quarters are exact in every step at these scales: all labels, thousands of ties included."""
        size = (scale * shape[2], scale * shape[3])
        random = np.random.default_rng(2)
        for values in (
            random.integers(-2, 3, shape),
            random.integers(-9, 10, shape) / 4,
            np.rint(4 * regions(shape, 3)) / 4,
        ):
            logits = values.astype(np.float32)
            np.testing.assert_array_equal(run(logits, size, way), expected_labels(logits, size))

    def test_all_scores_equal_is_class_0(self, way):
        for value in (0.0, -1e30, 1e-42, -0.0):
            logits = np.full((1, 9, 6, 20), value, np.float32)
            assert not run(logits, (24, 80), way).any()

    def test_negative_zero_ties_with_zero(self, way):
        logits = np.zeros((1, 4, 6, 20), np.float32)
        logits[:, 0] = -0.0
        assert not run(logits, (24, 80), way).any()

    @pytest.mark.parametrize("scale", [1, 2, 4, 8])
    @pytest.mark.parametrize("share", [0.002, 0.05, 1.0])
    def test_not_finite(self, scale, share, way):
        """NaN wins, the first one; an infinity under a weight of 0 is a NaN: as torch, at every pixel."""
        random = np.random.default_rng(4)
        for shape in ((2, 6, 13, 37), (1, 6, 3, 2)):
            logits = random.integers(-2, 3, shape).astype(np.float32)
            special = np.array([np.nan, np.inf, -np.inf, -0.0], np.float32)[random.integers(0, 4, shape)]
            logits = np.where(random.random(shape) < share, special, logits)
            size = (scale * shape[2], scale * shape[3])
            np.testing.assert_array_equal(run(logits, size, way), expected_labels(logits, size))

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_one_class_not_finite_everywhere(self, value, way):
        logits = regions((1, 5, 10, 24), 5)
        logits[:, 2] = value
        np.testing.assert_array_equal(run(logits, (40, 96), way), expected_labels(logits, (40, 96)))

    def test_a_class_that_no_corner_prefers_can_win_between(self, way):
        """Second everywhere, first in the middle: what argmax before upsampling loses, and pruning must not."""
        logits = np.array([[8, 0] * 16, [0, 8] * 16, [7, 7] * 16], np.float32).reshape(1, 3, 1, 32)
        labels = run(logits, (1, 128), way)
        assert (labels == 2).sum() == 31 * 2  # at 3/8 and 5/8 of each cell; at 1/8 and 7/8 it ties with a lower class
        np.testing.assert_array_equal(labels, expected_labels(logits, (1, 128)))

    def test_huge_and_tiny_values(self, way):
        random = np.random.default_rng(6)
        for scale in (2.0**126, 2.0**100, 2.0**-100):
            logits = (scale * random.integers(-2, 3, (1, 6, 9, 21))).astype(np.float32)
            np.testing.assert_array_equal(run(logits, (36, 84), way), expected_labels(logits, (36, 84)))

    def test_labels_do_not_depend_on_threads(self, way):
        logits = regions((2, 19, 67, 45), 7)
        once = run(logits, (268, 200), way, threads=1)
        for threads in (2, 3, 8):
            np.testing.assert_array_equal(run(logits, (268, 200), way, threads), once)

    def test_random_sizes(self, way):
        random = np.random.default_rng(8)
        for seed in range(40 if way != "emulated" else 8):
            n, classes = int(random.integers(1, 3)), int(random.integers(1, 12))
            h, w, height, width = (int(side) for side in random.integers(1, [24, 60, 90, 200]))
            logits = regions((n, classes, h, w), seed, noise=0.3)
            assert_best(logits, run(logits, (height, width), way), (height, width))

    @pytest.mark.parametrize(("shape", "size"), [*GENERAL, ((1, 3, 5, 9), (1, 1)), ((1, 3, 1, 1), (1, 1))])
    def test_align_corners(self, shape, size, way):
        logits = regions(shape, 16)
        assert_best(logits, run(logits, size, way, align_corners=True), size, align_corners=True)

    def test_align_corners_with_exact_weights(self, way):
        """From 5 to 17 pixels every weight is a quarter: all labels, ties and NaN included."""
        random = np.random.default_rng(17)
        logits = random.integers(-2, 3, (2, 6, 5, 9)).astype(np.float32)
        logits[0, 3, 2, 4], logits[1, 1, 0, 0] = np.nan, np.inf
        found = run(logits, (17, 33), way, align_corners=True)
        np.testing.assert_array_equal(found, expected_labels(logits, (17, 33), align_corners=True))

    @pytest.mark.parametrize(("shape", "size"), GENERAL)
    def test_float16(self, shape, size, way):
        logits = regions(shape, 18).astype(np.float16)
        assert_best(logits.astype(np.float32), run(logits, size, way), size)

    def test_every_float16(self, way):
        """All 65536 of them as the only class that is not 0, at its own place: subnormal, infinite and NaN too."""
        values = np.arange(1 << 16, dtype=np.uint16).view(np.float16).reshape(1, 1, 256, 256)
        logits = np.concatenate((np.zeros_like(values), values), 1)
        np.testing.assert_array_equal(run(logits, (256, 256), way), expected_labels(logits, (256, 256)))

    @pytest.mark.parametrize(("shape", "size"), [*GENERAL, ((1, 300, 5, 7), (11, 20)), ((1, 4, 8, 33), (32, 132))])
    def test_margin(self, shape, size, way):
        logits = regions(shape, 19)
        labels, margins = run(logits, size, way, margin=True)
        assert_best(logits, labels, size)
        np.testing.assert_allclose(margins, expected_margins(logits, size), rtol=0, atol=1e-5)

    def test_margin_of_ties_nan_and_infinities(self, way):
        random = np.random.default_rng(20)
        shape = (2, 6, 13, 37)
        logits = random.integers(-2, 3, shape).astype(np.float32)
        special = np.array([np.nan, np.inf, -np.inf, -0.0], np.float32)[random.integers(0, 4, shape)]
        logits = np.where(random.random(shape) < 0.05, special, logits)
        for size in ((52, 148), (13, 37), (26, 74)):
            labels, margins = run(logits, size, way, margin=True)
            np.testing.assert_array_equal(labels, expected_labels(logits, size))
            np.testing.assert_array_equal(margins, expected_margins(logits, size))

    @pytest.mark.parametrize("classes", [256, 400])
    def test_more_classes_than_a_byte(self, classes, way):
        logits = regions((2, classes, 6, 21), 21, noise=0.5)
        for size in ((24, 84), (13, 29)):
            assert_best(logits, run(logits, size, way), size)
        ties = np.zeros((1, classes, 3, 5), np.float32)
        ties[:, 300 % classes :] = 1
        assert (run(ties, (12, 20), way) == 300 % classes).all()


def test_instruction_sets_agree():
    """All of them on one input: at most rounding apart, and this input has no close calls."""
    logits = regions((1, 30, 40, 53), 9)
    first, *others = (run(logits, (160, 212), name) for name in INSTRUCTION_SETS)
    for labels in others:
        assert (labels != first).mean() < 1e-4
