"""The gate: it passes what is equal, and each injected fault is caught and named."""

import numpy as np
import pytest

from edgeseg.verify import verify

CLASSES = ("a", "b", "c")


def scenes(count: int = 4) -> list[np.ndarray]:
    """Images whose logits are read off their pixels: three vertical bands, smooth."""
    scenes = []
    for seed in range(count):
        noise = np.random.default_rng(seed).normal(0, 0.05, (1, 3, 32, 48)).astype(np.float32)
        bands = np.eye(3, dtype=np.float32)[np.arange(48) // 16].T[None, :, None, :]
        scenes.append(np.ascontiguousarray(noise + bands))
    return scenes


def logits(images: np.ndarray) -> np.ndarray:
    return images[:, :, ::4, ::4].copy()


def check(candidate, precision="fp32", **options):
    return verify(
        logits, candidate, scenes(), CLASSES, precision, executed_with="test", reference_name="test",
        image_source="test", **options,
    )  # fmt: skip


def test_equal_passes():
    result = check(logits)
    assert result.passed and result.label_agreement == 1 and result.agreement_miou == 1 and result.images == 4


def test_nan_is_named():
    def broken(images):
        out = logits(images)
        out[0, 1, 2, 3] = np.nan
        return out

    result = check(broken, max_drop=100)
    assert not result.passed and not result.finite
    assert any("NaN or infinite logits on 4 of 4 images" in f for f in result.failures)


def test_one_class_collapse_is_named():
    def collapsed(images):
        return logits(images) + np.array([0, 9, 0], np.float32)[None, :, None, None]

    result = check(collapsed, "int8", max_drop=100)
    assert any("one-class collapse: on 4 of 4 images" in f for f in result.failures)


def test_a_shifted_mask_fails():
    result = check(lambda images: np.roll(logits(images), 2, axis=-1), "int8")
    assert not result.passed


def test_swapped_channels_fail():
    result = check(lambda images: logits(images[:, ::-1]), "int8")
    assert not result.passed
    assert any("of pixels keep the reference's label" in f for f in result.failures)


def test_max_drop_is_the_limit():
    def one_column_off(images):
        out = logits(images)
        out[..., 4] = out[..., 3]
        return out

    loss = 100 * (1 - check(one_column_off, "int8").agreement_miou)
    assert 0 < loss < 25
    assert not any("agreement-mIoU" in f for f in check(one_column_off, "int8", max_drop=loss + 0.1).failures)
    assert any("agreement-mIoU" in f for f in check(one_column_off, "int8", max_drop=loss - 0.1).failures)


def test_no_images_is_an_error():
    with pytest.raises(ValueError, match="at least one image"):
        verify(logits, logits, [], CLASSES, "fp32", executed_with="", reference_name="", image_source="")
