"""The overlay against arithmetic done a pixel at a time, and a legend that is there, fits and can be read."""

import numpy as np
import pytest

from edgeseg.labels import LABEL_SETS, LabelSet
from edgeseg.overlay import class_shares, overlay, side_by_side

TWO = LabelSet("two", ("left", "right"), ((255, 0, 0), (0, 0, 255)))


def picture(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(height * width)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    labels = np.zeros((height, width), np.uint8)
    labels[:, width // 2 :] = 1
    return image, labels


@pytest.mark.parametrize("alpha", [0.0, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("size", [(1, 1), (3, 8), (31, 17)])
def test_blend_is_the_weighted_mean_and_void_stays(size, alpha):
    image, labels = picture(*size)
    labels[0, 0] = 255
    before = image.copy()
    blended = overlay(image, labels, TWO, alpha, legend=False, contours=False)
    for y, x in np.ndindex(size):
        colour = image[y, x] if labels[y, x] == 255 else np.array(TWO.palette[labels[y, x]])
        expected = (1 - alpha) * image[y, x].astype(float) + alpha * colour
        assert np.abs(blended[y, x] - expected).max() <= 0.5 + 1e-9  # to nearest
    assert blended.dtype == np.uint8 and blended is not image
    np.testing.assert_array_equal(image, before)


def test_views():
    image, labels = picture(20, 30)
    turned = overlay(image.transpose(1, 0, 2)[::-1], labels.T[::-1], TWO, legend=False, contours=False)
    upright = overlay(image, labels, TWO, legend=False, contours=False)
    np.testing.assert_array_equal(turned, upright.transpose(1, 0, 2)[::-1])


def test_contours_lie_between_classes_only():
    image, labels = picture(20, 30)
    labels[:5] = 255
    plain = overlay(image, labels, TWO, legend=False, contours=False)
    changed = (overlay(image, labels, TWO, legend=False) != plain).any(2)
    columns = set(np.flatnonzero(changed[6:].any(0)).tolist())
    assert columns == {14} and not changed[:5].any()  # left of the border, none on void


@pytest.mark.parametrize("size", [(120, 160), (480, 640), (1080, 1920), (3000, 4000)])
def test_legend_lists_present_classes_at_any_size(size):
    image, labels = picture(*size)
    plain = overlay(image, labels, TWO, legend=False)
    changed = (overlay(image, labels, TWO) != plain).any(2)
    rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
    height, width = rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1
    assert rows[-1] < size[0] - 1 and columns[-1] < size[1] - 1  # inside the picture
    assert height >= 30 and height > min(size) / 20  # two lines of ten pixels and more, growing with the picture
    assert width < 0.75 * size[1]


def test_legend_shows_the_classes_colours_in_order_of_share():
    image = np.zeros((480, 640, 3), np.uint8)
    labels = np.zeros((480, 640), np.uint8)
    labels[:100] = 1
    panel = overlay(image, labels, TWO, alpha=0.0, contours=False)
    red, blue = ((panel == colour).all(2) for colour in TWO.palette)
    assert np.flatnonzero(red.any(1))[-1] < np.flatnonzero(blue.any(1))[0]  # the larger class is above
    assert red.sum() > 60 and (panel > 200).all(2).any()  # a swatch to see, letters to read


def test_legend_of_more_classes_than_fit_says_how_many_more():
    label_set = LABEL_SETS["ade20k"]
    labels = (np.arange(240 * 320).reshape(240, 320) % 150).astype(np.uint8)
    image = np.zeros((240, 320, 3), np.uint8)
    panel = overlay(image, labels, label_set, alpha=0.0, contours=False)
    assert 100 < np.flatnonzero(panel.any((1, 2)))[-1] < 240


@pytest.mark.parametrize("size", [(1, 1), (8, 200), (200, 8), (20, 20)])
def test_no_legend_where_none_can_be_read(size):
    image, labels = picture(*size)
    np.testing.assert_array_equal(overlay(image, labels, TWO), overlay(image, labels, TWO, legend=False))


def test_picture_of_void_alone_is_left_as_it_is():
    image, labels = picture(200, 200)
    np.testing.assert_array_equal(overlay(image, np.full_like(labels, 255), TWO), image)


def test_class_shares():
    labels = np.array([[0, 1, 1, 255], [1, 1, 1, 255]], np.uint8)
    shares = class_shares(labels, TWO)
    assert list(shares.items()) == [("right", 5 / 8), ("left", 1 / 8)]


def test_side_by_side():
    red, green = np.full((4, 3, 3), (255, 0, 0), np.uint8), np.full((4, 5, 3), (0, 255, 0), np.uint8)
    row = side_by_side(red, green, gap=2)
    assert row.shape == (4, 10, 3)
    assert row[0, 2].tolist() == [255, 0, 0] and row[0, 3].tolist() == [255] * 3 and row[0, 5].tolist() == [0, 255, 0]
    with pytest.raises(ValueError, match=r"one height, got \[4, 5\]"):
        side_by_side(red, np.zeros((5, 3, 3), np.uint8))
    with pytest.raises(ValueError, match="at least one"):
        side_by_side()


def test_refuses():
    image, labels = picture(4, 6)
    with pytest.raises(ValueError, match=r"one size, got \(4, 5\) and \(4, 6\)"):
        overlay(image, labels[:, :5], TWO)
    with pytest.raises(ValueError, match="alpha must lie between 0 and 1, got 2"):
        overlay(image, labels, TWO, alpha=2)
    with pytest.raises(ValueError, match="ids 2, but the label set two has 2 classes"):
        overlay(image, labels * 2, TWO)
    with pytest.raises(ValueError, match=r"an image is \(H, W, 3\) uint8 RGB, got \(4, 6\)"):
        overlay(labels, labels, TWO)
