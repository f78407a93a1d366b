"""Samples: image and labels stay aligned, everything random is repeatable, void stays void."""

import numpy as np
import pytest
import torch

from edgeseg.datasets import open_dataset
from edgeseg.preprocess import Preprocess
from edgeseg.training.data import (
    LabelledImages,
    augment,
    class_weights,
    colour_jitter,
    normalise,
    training_batch,
)


def ramp(height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """An image whose channels are row and column, and labels that are the column's quarter."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    image = torch.stack([rows * 255 // height, columns * 255 // width, torch.zeros_like(rows)]).to(torch.uint8)
    return image, (columns * 4 // width).to(torch.uint8)


@pytest.mark.parametrize("crop", [(16, 24), (33, 47), (64, 96), (1, 1)])
def test_image_and_labels_stay_aligned(crop):
    image, labels = ramp(64, 96)
    for seed in range(20):
        torch.manual_seed(seed)
        window, classes = augment(image, labels, crop, (0.5, 2.0))
        assert window.shape == (3, *crop) and window.dtype == torch.uint8
        assert classes.shape == crop and classes.dtype == torch.uint8
        quarter = window[1].float() * 4 / 255  # the column, as the image still tells it
        assert ((classes <= quarter + 0.3) & (classes >= quarter - 1.3)).all()


def test_windows_differ_and_flip():
    image, labels = ramp(64, 96)
    torch.manual_seed(0)
    windows = [augment(image, labels, (16, 24), (0.5, 2.0))[0] for _ in range(16)]
    rises = [bool(w[1, 0, -1] > w[1, 0, 0]) for w in windows]
    assert 3 < sum(rises) < 13
    assert len({w.numpy().tobytes() for w in windows}) == 16


def test_colours_change_each_image_by_itself_and_stay_in_range():
    torch.manual_seed(0)
    images = torch.rand(1, 3, 8, 8).expand(4, -1, -1, -1)
    jittered = colour_jitter(images)
    assert jittered.min() >= 0 and jittered.max() <= 1
    assert not torch.allclose(jittered[0], jittered[1])


def test_normalise_equals_the_deployed_preprocessing(rng):
    image = rng.integers(0, 256, (32, 48, 3), np.uint8)
    pictures = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    np.testing.assert_allclose(normalise(pictures).numpy(), Preprocess((32, 48))(image), atol=2e-6)


def test_batches_depend_on_seed_and_iteration_alone(streets):
    images = LabelledImages(open_dataset(streets, "train"), (64, 96))
    torch.manual_seed(1)
    first = training_batch(images, 7, 0, 3, (32, 48), (0.6, 1.6))
    torch.manual_seed(2)
    again = training_batch(images, 7, 0, 3, (32, 48), (0.6, 1.6))
    other = training_batch(images, 8, 0, 3, (32, 48), (0.6, 1.6))
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])


def test_an_epoch_shows_every_image_once(streets):
    seen = []

    class Spy(LabelledImages):
        def __getitem__(self, index):
            seen.append(index)
            return super().__getitem__(index)

    images = Spy(open_dataset(streets, "train"), (64, 96))
    for iteration in range(5):
        training_batch(images, iteration, 0, 2, (8, 8), (1.0, 1.0))
    assert sorted(seen[:5]) == sorted(seen[5:]) == list(range(5))
    assert seen[:5] != seen[5:]


def test_images_come_at_the_networks_size_with_void_kept(streets):
    dataset = open_dataset(streets, "train")
    for memory in (0, 1 << 30):
        images = LabelledImages(dataset, (32, 40), in_memory_bytes=memory)
        image, labels = images[0]
        assert image.shape == (3, 32, 40) and labels.shape == (32, 40)
        assert set(labels.unique().tolist()) <= {*range(11), 255}
    assert images.class_pixels(11).sum() == sum((images[i][1] != 255).sum() for i in range(5))


def test_class_weights_by_hand():
    weights = class_weights(torch.tensor([90, 10, 0]), 1.1)
    expected = 1 / np.log(1.1 + np.array([0.9, 0.1, 0.0]))
    np.testing.assert_allclose(weights.numpy(), expected / expected.mean(), rtol=1e-6)
    assert torch.isfinite(class_weights(torch.zeros(3, dtype=torch.int64), 1.1)).all()
