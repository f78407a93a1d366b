"""The pictures that ship: sound, credited, small; and street scenes that are a function of their seed."""

import numpy as np
import pytest

from edgeseg.labels import LABEL_SETS
from edgeseg.samples import PHOTOGRAPHS, sample_images, synthetic_street


def test_photographs_are_small_and_credited():
    credits = (PHOTOGRAPHS[0].parent / "CREDITS.md").read_text(encoding="utf-8")
    shipped = [path for path in PHOTOGRAPHS[0].parent.iterdir() if path.suffix != ".md"]
    assert sorted(shipped) == sorted(PHOTOGRAPHS)
    for path in shipped:
        assert path.stat().st_size < 250_000 and path.name in credits
    assert "creativecommons.org/licenses/by/2.0" in credits


def test_sample_images():
    samples = sample_images()
    assert len(samples) == 8 and len({name for name, _ in samples}) == 8
    for name, image in samples:
        assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3, name
        assert min(image.shape[:2]) >= 400 and image.std() > 25, name  # a picture, not a surface
        image[:] = 0  # the caller's to change
    assert all(image.any() for _, image in sample_images())


def test_street_is_a_function_of_seed_and_size():
    image, labels = synthetic_street(3)
    again, labels_again = synthetic_street(3)
    np.testing.assert_array_equal(image, again)
    np.testing.assert_array_equal(labels, labels_again)
    assert (image != synthetic_street(4)[0]).mean() > 0.5


@pytest.mark.parametrize("size", [(32, 32), (97, 131), (360, 480), (400, 160)])
def test_street_sizes(size):
    image, labels = synthetic_street(0, size)
    assert image.shape == (*size, 3) and labels.shape == size
    assert image.dtype == labels.dtype == np.uint8 and image.flags.c_contiguous and labels.flags.writeable
    assert labels.max() < LABEL_SETS["camvid"].num_classes


def test_streets_hold_every_class_and_look_like_streets():
    scenes = [synthetic_street(seed)[1] for seed in range(6)]
    counts = np.bincount(np.stack(scenes).ravel(), minlength=11) / (6 * scenes[0].size)
    assert (counts > 0.001).all(), dict(zip(LABEL_SETS["camvid"].classes, counts.round(4), strict=True))
    for labels in scenes:
        assert (labels[-20:] == 3).mean() > 0.5  # road ahead
        assert len(np.unique(labels)) >= 8
        assert np.argwhere(labels == 0)[:, 0].max() < np.argwhere(labels == 3)[:, 0].min() + 30  # sky above the road


def test_labels_lie_on_their_things():
    """Class borders are edges of the picture: the mean step across a border is several times the mean step inside."""
    image, labels = synthetic_street(1)
    steps = np.abs(np.diff(image.astype(int), axis=1)).sum(2)
    border = np.diff(labels.astype(int), axis=1) != 0
    assert steps[border].mean() > 3 * steps[~border].mean()


def test_refuses_tiny_scenes():
    with pytest.raises(ValueError, match="at least 32 x 32 pixels, got 31 x 64"):
        synthetic_street(0, (31, 64))
