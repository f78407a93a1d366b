"""normalize_image against the formula in float64, with the kernel and without it."""

import numpy as np
import pytest

from edgeseg import kernels
from edgeseg.ops import normalize_image

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def formula(image: np.ndarray) -> np.ndarray:
    return ((image.astype(np.float64) / 255 - MEAN) / STD).transpose(2, 0, 1)[None].astype(np.float32)


def image_of(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("kernel", [True, False])
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (33, 5), (64, 96), (131, 67)])
def test_equals_the_formula_to_the_last_bit(shape, kernel, monkeypatch):
    if not kernel:
        monkeypatch.setattr(kernels, "available", lambda: False)
    image = image_of(*shape)
    for threads in (None, 1, 3):
        tensor = normalize_image(image, MEAN, STD, threads=threads)
        assert tensor.dtype == np.float32 and tensor.flags.c_contiguous
        np.testing.assert_array_equal(tensor, formula(image))


def test_every_byte_in_every_channel():
    image = np.stack([np.roll(np.arange(256, dtype=np.uint8), shift) for shift in (0, 85, 170)], -1)[None]
    np.testing.assert_array_equal(normalize_image(image, MEAN, STD), formula(image))


def test_strided_image_is_read_right_and_left_alone():
    image = image_of(40, 60)
    view = image[::2, ::-3]
    before = image.copy()
    np.testing.assert_array_equal(normalize_image(view, MEAN, STD), formula(view))
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize(
    ("image", "mean", "std", "error", "match"),
    [
        (np.zeros((4, 4, 3), np.float32), MEAN, STD, TypeError, "uint8 numpy array, got float32"),
        ([[[0, 0, 0]]], MEAN, STD, TypeError, "uint8 numpy array, got list"),
        (np.zeros((4, 4), np.uint8), MEAN, STD, ValueError, r"must be \(H, W, 3\) RGB .* got \(4, 4\)"),
        (np.zeros((4, 4, 4), np.uint8), MEAN, STD, ValueError, r"got \(4, 4, 4\)"),
        (np.zeros((0, 4, 3), np.uint8), MEAN, STD, ValueError, r"at least 1, got \(0, 4, 3\)"),
        (np.zeros((4, 4, 3), np.uint8), MEAN, (1.0, 0.0, 1.0), ValueError, "no std 0"),
        (np.zeros((4, 4, 3), np.uint8), (0.5,), STD, ValueError, "three numbers each"),
    ],
)
def test_refuses(image, mean, std, error, match):
    with pytest.raises(error, match=match):
        normalize_image(image, mean, std)
