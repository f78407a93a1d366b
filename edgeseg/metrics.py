"""How well labels agree with a ground truth, or with another network's labels: everything from one confusion matrix."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edgeseg.ops.confusion_matrix import confusion_matrix

__all__ = ["Agreement", "SegmentationMetrics", "agreement", "confusion_matrix"]

RARE = 1e-4  # share of the pixels


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
    agreement_miou: float  # mIoU with the reference's labels as the target, classes of RARE pixels left out
    per_class_agreement: dict[str, float | None]  # None: neither saw the class
    pixels: int

    @classmethod
    def from_confusion(cls, matrix: np.ndarray, classes: Sequence[str]) -> "Agreement":
        """From a confusion matrix whose target was the reference's labels.

        A class that both see on less than RARE of the pixels has an IoU that a handful of them decides: it stays in
        `per_class_agreement` and does not count in the mean.
        """
        metrics = SegmentationMetrics.from_confusion(matrix, classes)
        union = matrix.sum(0) + matrix.sum(1) - np.diag(matrix)
        iou = np.array([np.nan if v is None else v for v in metrics.per_class_iou.values()])
        seen = _mean(np.where(union < RARE * matrix.sum(), np.nan, iou))
        return cls(metrics.pixel_accuracy, seen, metrics.per_class_iou, metrics.pixels)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def agreement(labels: np.ndarray, reference: np.ndarray, classes: Sequence[str]) -> Agreement:
    """Agreement of two label arrays of one shape; for many images add up confusion matrices instead."""
    return Agreement.from_confusion(confusion_matrix(labels, reference, len(classes)), classes)


def _mean(values: np.ndarray) -> float:
    present = values[~np.isnan(values)]
    return float(present.mean()) if present.size else float("nan")
