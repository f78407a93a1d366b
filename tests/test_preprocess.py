"""Preprocessing against Pillow's resize and torch's arithmetic."""

import numpy as np
import pytest
import torch
from PIL import Image

from edgeseg import kernels
from edgeseg.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess


def normalised(image: np.ndarray) -> torch.Tensor:
    x = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].double() / 255
    mean, std = (torch.tensor(v, dtype=torch.float64).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return (x - mean) / std


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (64, 48)])
def test_without_a_resize_it_is_the_formula(rng, size):
    image = rng.integers(0, 256, (*size, 3), np.uint8)
    images = Preprocess(size)(image)
    assert images.shape == (1, 3, *size) and images.dtype == np.float32 and images.flags.c_contiguous
    np.testing.assert_allclose(images, normalised(image).numpy(), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("source", "size"), [((40, 60), (20, 30)), ((33, 47), (64, 96)), ((1, 1), (32, 32))])
def test_the_resize_is_bilinear_antialiased(rng, source, size):
    image = rng.integers(0, 256, (*source, 3), np.uint8)
    x = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    resized = torch.nn.functional.interpolate(x, size, mode="bilinear", align_corners=False, antialias=True)
    ours = Preprocess(size, (0, 0, 0), (1, 1, 1))(image) * 255
    assert np.abs(ours - resized.numpy()).max() <= 1.5  # Pillow rounds to uint8 after each of two passes


@pytest.mark.parametrize("kernel", [True, False])
def test_it_is_pillow_and_the_formula_to_the_bit(rng, monkeypatch, kernel):
    if not kernel:
        monkeypatch.setattr(kernels, "available", lambda: False)
    for source, (height, width) in (((72, 96), (36, 48)), ((54, 96), (26, 51)), ((20, 31), (40, 50)), ((8, 9), (8, 9))):
        image = rng.integers(0, 256, (*source, 3), np.uint8)
        resized = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
        np.testing.assert_array_equal(
            Preprocess((height, width))(image), normalised(resized).numpy().astype(np.float32)
        )


def test_portraits_too_are_resized_columns_first(rng):
    """Whatever Pillow is installed: from version 13 on it begins with the rows of such an image."""
    image = rng.integers(0, 256, (90, 40, 3), np.uint8)
    columns = Image.fromarray(image).resize((35, 90), Image.Resampling.BILINEAR)
    resized = np.asarray(columns.resize((35, 30), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(Preprocess((30, 35))(image), normalised(resized).numpy().astype(np.float32))


def test_non_contiguous_image(rng):
    image = rng.integers(0, 256, (20, 30, 3), np.uint8)
    np.testing.assert_array_equal(Preprocess((20, 30))(image[:, ::-1]), Preprocess((20, 30))(image[:, ::-1].copy()))


@pytest.mark.parametrize("image", [np.zeros((4, 4)), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3))])
def test_what_is_no_image_is_said(image):
    with pytest.raises(ValueError, match=r"must be \(H, W, 3\) uint8 RGB, got"):
        Preprocess((4, 4))(image)


def test_json_round_trip():
    preprocess = Preprocess((12, 34), (0.1, 0.2, 0.3), (1, 2, 3))
    assert Preprocess.from_json(preprocess.to_json()) == preprocess
