"""Metrics against loops over pixels and against an example worked by hand."""

import math

import numpy as np
import pytest

from edgeseg.metrics import SegmentationMetrics, agreement, confusion_matrix


def naive_confusion(labels, target, num_classes, ignore_index=255):
    matrix = [[0] * num_classes for _ in range(num_classes)]
    for predicted, true in zip(labels.ravel().tolist(), target.ravel().tolist(), strict=True):
        if true != ignore_index:
            matrix[true][predicted] += 1
    return np.array(matrix)


def naive_metrics(labels, target, num_classes, ignore_index=255):
    """The FCN paper's definitions, from sets of pixels rather than a matrix."""
    pixels = [p for p in range(target.size) if target.flat[p] != ignore_index]
    true = [{p for p in pixels if target.flat[p] == c} for c in range(num_classes)]
    found = [{p for p in pixels if labels.flat[p] == c} for c in range(num_classes)]
    ious = [len(t & f) / len(t | f) if t | f else None for t, f in zip(true, found, strict=True)]
    accuracies = [len(t & f) / len(t) for t, f in zip(true, found, strict=True) if t]
    known = [iou for iou in ious if iou is not None]
    return {
        "miou": sum(known) / len(known),
        "pixel_accuracy": sum(len(t & f) for t, f in zip(true, found, strict=True)) / len(pixels),
        "mean_accuracy": sum(accuracies) / len(accuracies),
        "frequency_weighted_iou": sum(len(t) * iou for t, iou in zip(true, ious, strict=True) if t and iou)
        / len(pixels),
        "ious": ious,
    }


@pytest.mark.parametrize(
    ("shape", "num_classes"), [((1, 1), 1), ((7, 9), 3), ((33, 65), 19), ((2, 5, 4), 150), ((16, 16), 255)]
)
def test_against_loops(shape, num_classes):
    rng = np.random.default_rng(num_classes)
    target = rng.integers(0, max(1, num_classes - 1), shape, dtype=np.uint8)  # the last class is never true
    labels = np.where(rng.random(shape) < 0.6, target, rng.integers(0, num_classes, shape)).astype(np.uint8)
    target[rng.random(shape) < 0.2] = 255
    if (target == 255).all():
        target.flat[0] = 0
    matrix = confusion_matrix(labels, target, num_classes)
    assert matrix.dtype == np.int64 and matrix.sum() == (target != 255).sum()
    np.testing.assert_array_equal(matrix, naive_confusion(labels, target, num_classes))

    names = [f"c{i}" for i in range(num_classes)]
    metrics, expected = SegmentationMetrics.from_confusion(matrix, names), naive_metrics(labels, target, num_classes)
    for key in ("miou", "pixel_accuracy", "mean_accuracy", "frequency_weighted_iou"):
        assert getattr(metrics, key) == pytest.approx(expected[key], abs=1e-12), key
    for name, iou in zip(names, expected["ious"], strict=True):
        assert metrics.per_class_iou[name] == (None if iou is None else pytest.approx(iou, abs=1e-12))


def test_worked_by_hand():
    """Ten pixels: 4 sky (3 found), 4 road (2 found, 1 as sky, 1 as car), 2 void; the car is nowhere."""
    target = np.array([0, 0, 0, 0, 1, 1, 1, 1, 255, 255], np.uint8)
    labels = np.array([0, 0, 0, 1, 1, 1, 0, 2, 0, 2], np.uint8)
    matrix = confusion_matrix(labels, target, 4)
    assert matrix.tolist() == [[3, 1, 0, 0], [1, 2, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    metrics = SegmentationMetrics.from_confusion(matrix, ["sky", "road", "car", "tree"])
    # sky: 3 / (4 + 4 - 3); road: 2 / (4 + 3 - 2); car: predicted once where it is not; tree: in neither
    assert metrics.per_class_iou == {"sky": 0.6, "road": 0.4, "car": 0.0, "tree": None}
    assert metrics.miou == pytest.approx((0.6 + 0.4 + 0.0) / 3)
    assert metrics.pixel_accuracy == pytest.approx(5 / 8)
    assert metrics.mean_accuracy == pytest.approx((3 / 4 + 2 / 4) / 2)  # sky and road are all that is true
    assert metrics.frequency_weighted_iou == pytest.approx((4 * 0.6 + 4 * 0.4) / 8)
    assert metrics.pixels == 8


def test_matrices_of_many_images_add_up():
    rng = np.random.default_rng(0)
    labels, target = rng.integers(0, 5, (2, 6, 8, 8), dtype=np.uint8)
    parts = sum(confusion_matrix(a, b, 5) for a, b in zip(labels, target, strict=True))
    np.testing.assert_array_equal(parts, confusion_matrix(labels, target, 5))


def test_views_and_wider_integers():
    rng = np.random.default_rng(0)
    labels, target = rng.integers(0, 3, (2, 12, 14), dtype=np.uint8)
    expected = naive_confusion(labels.T[::2], target.T[::2], 3)
    np.testing.assert_array_equal(confusion_matrix(labels.T[::2], target.T[::2].astype(np.int64), 3), expected)


def test_another_ignore_index_and_what_was_predicted_there():
    matrix = confusion_matrix(np.array([0, 1, 200]), np.array([0, 1, 11]), 2, ignore_index=11)
    assert matrix.tolist() == [[1, 0], [0, 1]]


def test_nothing_to_count():
    for shape in ((0,), (2, 2)):
        matrix = confusion_matrix(np.zeros(shape, np.uint8), np.full(shape, 255, np.uint8), 2)
        metrics = SegmentationMetrics.from_confusion(matrix, ["a", "b"])
        assert metrics.pixels == 0 and math.isnan(metrics.miou) and math.isnan(metrics.pixel_accuracy)
        assert metrics.per_class_iou == {"a": None, "b": None}


def test_a_handful_of_pixels_does_not_decide_agreement_miou():
    reference = np.zeros((200, 200), np.uint8)
    reference[:100] = 1
    reference[0, :3] = 2  # 3 of 40000: less than one in ten thousand
    labels = np.where(reference == 2, 1, reference)
    result = agreement(labels, reference, ["a", "b", "c"])
    assert result.per_class_agreement["c"] == 0
    assert result.agreement_miou == pytest.approx((1 + 19997 / 20000) / 2)


def test_a_rare_class_that_spreads_counts():
    reference = np.zeros((200, 200), np.uint8)
    reference[0, :3] = 1
    labels = np.where(np.arange(200) < 100, 1, reference).astype(np.uint8)
    result = agreement(labels, reference, ["a", "b"])
    assert result.agreement_miou == pytest.approx((0.5 + 3 / 20000) / 2, abs=1e-4)


def test_agreement_is_the_same_arithmetic_with_the_reference_as_target():
    reference, labels = np.array([0, 0, 1, 1], np.uint8), np.array([0, 1, 1, 1], np.uint8)
    result = agreement(labels, reference, ["a", "b", "c"])
    assert result.label_agreement == 0.75 and result.agreement_miou == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert result.per_class_agreement == {"a": 0.5, "b": pytest.approx(2 / 3), "c": None}
    assert agreement(reference, reference, ["a", "b"]).agreement_miou == 1.0


@pytest.mark.parametrize(
    ("labels", "target", "message"),
    [
        ([0, 1], [0, 1, 1], r"one shape, got \(2,\) and \(3,\)"),
        ([0, 0], [0, 11], "target holds the ids 11, but there are 3 classes"),
        ([0, 7], [0, 0], "labels holds the ids 7, but"),
        ([0, 255], [0, 0], "labels holds the ids 255"),
        ([0, 0], [0, -1], "target must be ids from 0 to 255, got -1"),
        ([0, 0.5], [0, 0], "labels must be integer class ids, got float64"),
    ],
)
def test_refuses(labels, target, message):
    with pytest.raises(ValueError, match=message):
        confusion_matrix(np.array(labels), np.array(target), 3)


def test_refuses_wrong_counts():
    ones = np.ones((2, 2), np.uint8)
    with pytest.raises(ValueError, match="num_classes must be 1 to 255, got 256"):
        confusion_matrix(ones, ones, 256)
    with pytest.raises(ValueError, match="ignore_index must be 0 to 255, got -1"):
        confusion_matrix(ones, ones, 2, ignore_index=-1)
    with pytest.raises(ValueError, match="3 classes need a square confusion matrix"):
        SegmentationMetrics.from_confusion(np.zeros((2, 2), np.int64), ["a", "b", "c"])
