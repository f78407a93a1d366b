"""`evaluate` on a tiny tree: the metrics by other means, the worst images and their pictures."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgeseg.datasets import Dataset, open_dataset
from edgeseg.evaluation import evaluate
from edgeseg.labels import generic_label_set
from edgeseg.worst_images import WorstImages, panels, save_pictures

LABELS = generic_label_set(3)


class Left:
    """Labels the left `share` of an image with its red value, the rest with class 2."""

    label_set = LABELS

    def __init__(self, share: float):
        self.share = share
        self.calls = 0

    def __call__(self, image: np.ndarray) -> np.ndarray:
        self.calls += 1
        labels = np.full(image.shape[:2], 2, np.uint8)
        columns = round(self.share * image.shape[1])
        labels[:, :columns] = image[:, :columns, 0]
        return labels


@pytest.fixture
def dataset(tmp_path) -> Dataset:
    """Four images whose red is the truth: the more of class 2 on the right, the better `Left` does; one is all void."""
    for name, columns in (("a", 10), ("b", 2), ("c", 6), ("d", 2), ("void", 4)):
        truth = np.full((8, 20), 2, np.uint8)
        truth[:, :10], truth[:, 10 : 10 + columns] = 0, 1
        image = np.stack([truth] * 3, axis=-1)
        if name == "void":
            truth[:] = 255
        for kind, array in (("images", image), ("labels", truth)):
            (tmp_path / kind / "val").mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(tmp_path / kind / "val" / f"{name}.png")
    return open_dataset(tmp_path, None, LABELS)


def test_worst_images_in_order(dataset):
    segmenter, reference = Left(0.5), Left(1.0)
    report = evaluate(segmenter, dataset, worst=3, reference=reference)
    assert [image.name for image in report["worst_images"]] == ["a", "c", "b"]  # of b and d, alike, the first
    assert [image.miou for image in report["worst_images"]] == pytest.approx([1 / 3, (1 + 0 + 4 / 10) / 3, 1.8 / 3])
    assert reference.calls == 3 and segmenter.calls == 5
    for image in report["worst_images"]:
        picture = Image.open(io.BytesIO(base64.b64decode(image.picture)))
        assert picture.format == "JPEG" and picture.size == (4 * 20 + 3 * 6, 8)
    without = evaluate(segmenter, dataset, worst=1)["worst_images"]
    assert Image.open(io.BytesIO(base64.b64decode(without[0].picture))).size == (3 * 20 + 2 * 6, 8)
    assert len(evaluate(segmenter, dataset, worst=99)["worst_images"]) == 4  # one has no pixel that counts


def test_report_without_them_is_as_it_was(dataset):
    report = evaluate(Left(1.0), dataset, limit=4)
    assert "worst_images" not in report
    assert (report["miou"], report["images"], report["split"]) == (1.0, 4, "val")


def test_panels_show_image_and_labels():
    image = np.full((40, 900, 3), 100, np.uint8)
    labels = np.zeros((40, 900), np.uint8)
    labels[:, 450:] = 255
    picture = panels(image, [labels], LABELS)
    assert picture.shape == (18, 2 * 400 + 6, 3)
    assert (picture[:, :400] == 100).all() and (picture[:, 400:406] == 255).all()
    assert (picture[:, 406 + 201 :] == 100).all()  # void keeps the image
    assert (picture[5, 410] < 100).all()  # class 0 is black in VOC's colours


def test_more_images_cost_no_more_memory():
    worst = WorstImages(2, LABELS)
    image, target = np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.uint8)
    for number in (3, 15, 0, 9, 12, 1):  # wrong pixels of 16
        confusion = np.array([[16 - number, number, 0], [0, 0, 0], [0, 0, 0]])
        worst.show(str(number), image, target, target, confusion)
        assert len(worst._heap) <= 2
    assert [picture.name for picture in worst.pictures()] == ["15", "12"]
    with pytest.raises(ValueError, match="must be 0 or more"):
        WorstImages(-1, LABELS)


def test_pictures_are_written(dataset, tmp_path: Path):
    images = evaluate(Left(0.5), dataset, worst=2)["worst_images"]
    entries = save_pictures(images, tmp_path / "worst")
    assert [Path(entry["picture"]).name for entry in entries] == ["01-a.jpg", "02-c.jpg"]
    assert all(Image.open(entry["picture"]).size[1] == 8 and "miou" in entry for entry in entries)
