"""How well labels agree with a ground truth, or with another network's labels: everything from one confusion matrix."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edgeseg.labels import VOID


def confusion_matrix(labels: np.ndarray, target: np.ndarray, num_classes: int, ignore_index: int = VOID) -> np.ndarray:
    """Count every pair (class in the target, class predicted); matrices of many images add up.

    Args:
        labels: predicted ids, integers of any shape.
        target: true ids, same shape; pixels of `ignore_index` are not counted, whatever was predicted there.
        num_classes: C, at most 255.
        ignore_index: an id from 0 to 255.

    Returns:
        (C, C) int64; entry [t, p] is the number of pixels of class t that were labelled p.

    Raises:
        ValueError: other shapes, or ids that are no class, which are named.
    """
    labels, target = np.asarray(labels), np.asarray(target)
    if labels.shape != target.shape:
        raise ValueError(f"labels and target must have one shape, got {labels.shape} and {target.shape}")
    if not 1 <= num_classes <= 255:
        raise ValueError(f"num_classes must be 1 to 255, got {num_classes}")
    if not 0 <= ignore_index <= 255:
        raise ValueError(f"ignore_index must be 0 to 255, got {ignore_index}")
    labels, target = _one_byte(labels, "labels"), _one_byte(target, "target")
    # Both ids in one number: a single count over the pixels, and all that follows reads 256 x 256 numbers.
    pairs = (target.astype(np.uint16) << 8) | labels
    counts = np.bincount(pairs.ravel(), minlength=65536).reshape(256, 256)
    counts[ignore_index] = 0
    _check_ids(counts.sum(1), num_classes, "target", ignore_index)
    _check_ids(counts.sum(0), num_classes, "labels", None)
    return np.ascontiguousarray(counts[:num_classes, :num_classes], dtype=np.int64)


@dataclass(frozen=True)
class SegmentationMetrics:
    """The four figures of Long, Shelhamer, Darrell (FCN, 2015, section 5) and IoU by class; fractions from 0 to 1.

    With n[t, p] the confusion matrix and IoU of class c = n[c, c] / (pixels of c in target or labels):
    a class that is in neither has no IoU (None) and is left out of the mean; one that was predicted where it is not
    counts as 0. Mean accuracy runs over the classes of the target. Without any pixel the figures are NaN.
    """

    miou: float
    pixel_accuracy: float
    mean_accuracy: float
    frequency_weighted_iou: float
    per_class_iou: dict[str, float | None]
    pixels: int

    @classmethod
    def from_confusion(cls, matrix: np.ndarray, classes: Sequence[str]) -> "SegmentationMetrics":
        """From a (C, C) matrix of `confusion_matrix` and C distinct names."""
        if matrix.shape != (len(classes), len(classes)):
            raise ValueError(f"{len(classes)} classes need a square confusion matrix of that size, got {matrix.shape}")
        correct = np.diag(matrix).astype(np.float64)
        in_target = matrix.sum(1).astype(np.float64)
        union = in_target + matrix.sum(0) - correct
        total = in_target.sum()
        with np.errstate(invalid="ignore"):  # 0 / 0 is NaN: the class that is not there
            iou = correct / union
            accuracy = correct / in_target
            return cls(
                miou=_mean(iou),
                pixel_accuracy=float(correct.sum() / total),
                mean_accuracy=_mean(accuracy),
                frequency_weighted_iou=float(np.nansum(in_target * iou) / total),
                per_class_iou={
                    name: None if np.isnan(value) else float(value) for name, value in zip(classes, iou, strict=True)
                },
                pixels=int(total),
            )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Agreement:
    """How far a build labels as its reference does. Not accuracy: both may be wrong together."""

    label_agreement: float  # share of pixels with the reference's label
    agreement_miou: float  # mIoU with the reference's labels as the target
    per_class_agreement: dict[str, float | None]  # None: neither saw the class
    pixels: int

    @classmethod
    def from_confusion(cls, matrix: np.ndarray, classes: Sequence[str]) -> "Agreement":
        """From a confusion matrix whose target was the reference's labels."""
        metrics = SegmentationMetrics.from_confusion(matrix, classes)
        return cls(metrics.pixel_accuracy, metrics.miou, metrics.per_class_iou, metrics.pixels)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def agreement(labels: np.ndarray, reference: np.ndarray, classes: Sequence[str]) -> Agreement:
    """Agreement of two label arrays of one shape; for many images add up confusion matrices instead."""
    return Agreement.from_confusion(confusion_matrix(labels, reference, len(classes)), classes)


def _mean(values: np.ndarray) -> float:
    present = values[~np.isnan(values)]
    return float(present.mean()) if present.size else float("nan")


def _one_byte(ids: np.ndarray, what: str) -> np.ndarray:
    if ids.dtype == np.uint8:
        return ids
    if not np.issubdtype(ids.dtype, np.integer):
        raise ValueError(f"{what} must be integer class ids, got {ids.dtype}")
    strange = np.unique(ids[(ids < 0) | (ids > 255)])
    if strange.size:
        raise ValueError(f"{what} must be ids from 0 to 255, got {_listed(strange)}")
    return ids.astype(np.uint8)


def _check_ids(counts: np.ndarray, num_classes: int, what: str, ignore_index: int | None) -> None:
    strange = np.flatnonzero(counts[num_classes:]) + num_classes
    if strange.size:
        ignored = "" if ignore_index is None else f" and {ignore_index} for void"
        raise ValueError(
            f"{what} holds the ids {_listed(strange)}, but there are {num_classes} classes "
            f"(0 to {num_classes - 1}{ignored}); map other ids first"
        )


def _listed(ids: np.ndarray) -> str:
    return ", ".join(map(str, ids[:8])) + (", ..." if ids.size > 8 else "")
