"""What a labelled data set gives away about a bundle: `edgeseg eval` calls this once, after its own pass."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgeseg.calibration.scales import Scales
from edgeseg.datasets import Sample
from edgeseg.failures import Finding
from edgeseg.failures.builds import fine_labels
from edgeseg.failures.classes import reordered
from edgeseg.failures.inputs import misfed
from edgeseg.failures.masks import Placed, misplaced
from edgeseg.failures.numbers import COLLAPSE_SHARE, LogitWatch
from edgeseg.failures.overlap import calibrated_on_evaluation
from edgeseg.labels import VOID
from edgeseg.ops.upsample_argmax import upsample_argmax
from edgeseg.pipeline import Segmenter

EXAMINED = 3  # images
GOOD_ACCURACY = 0.95  # of pixels: nothing to look for above it
# The network errs by itself, so a hypothesis need explain only a part of the errors.
CLASS_LIMITS = {"least_gain": 0.05, "least_share": 0.25}
MASK_LIMITS = {"least_gain": 0.006, "least_share": 0.05}
INPUT_LIMITS = {"least_gain": 0.01, "least_share": 0.08}


def findings_of_evaluation(segmenter: Segmenter, samples: Sequence[Sample], matrix: np.ndarray) -> list[Finding]:
    """Warnings about a bundle on its data; whole-image inference on at most EXAMINED of the images.

    Args:
        segmenter: the loaded bundle.
        samples: all images that were evaluated.
        matrix: (C, C) counts of (true class, predicted class) over them.
    """
    classes = segmenter.label_set.classes
    found = _overlap(segmenter.bundle.path, samples)
    if not samples or matrix.sum() == 0:
        return found
    step = max(1, len(samples) // EXAMINED)
    examined = [sample.load() for sample in samples[::step][:EXAMINED]]
    inputs = [segmenter.preprocess(image) for image, _ in examined]
    infer: Callable[[np.ndarray], np.ndarray] = segmenter.session.infer_one
    logits = [infer(images) for images in inputs]
    watch = LogitWatch()
    for scores, (_, target) in zip(logits, examined, strict=True):
        # Collapse is a matter of the whole data set: one image may well show one class.
        watch.see(scores, target, target)
    found += watch.findings()
    found += _collapse(matrix, classes)
    if found or float(np.trace(matrix)) / float(matrix.sum()) > GOOD_ACCURACY:
        return found

    def agreement(number: int, images: np.ndarray) -> float:
        target = examined[number][1]
        labels = upsample_argmax(infer(images), target.shape)[0]
        return float((labels == target).sum() / max(1, int((target != VOID).sum())))

    placed = [
        Placed(fine_labels(scores, target.shape), target) for scores, (_, target) in zip(logits, examined, strict=True)
    ]
    # Wrong colours confuse classes as well: of two explanations the better one counts.
    causes = reordered(matrix, classes, **CLASS_LIMITS)
    causes += misfed(segmenter.preprocess, inputs, agreement, **INPUT_LIMITS)
    causes = sorted(causes, key=lambda cause: -float(str(cause.details["agreement"])))[:1]
    # Networks and label images have small offsets of their own: no more than a warning.
    return causes or [replace(finding, severity="warning") for finding in misplaced(placed, **MASK_LIMITS)]


def _overlap(bundle: Path, samples: Sequence[Sample]) -> list[Finding]:
    path = bundle / "scales.json"
    if not path.is_file():
        return []
    return calibrated_on_evaluation([sample.image_path for sample in samples], Scales.load(path).image_fingerprints)


def _collapse(matrix: np.ndarray, classes: Sequence[str]) -> list[Finding]:
    """One class over all images, where the truth has several."""
    predicted, true = matrix.sum(0) / matrix.sum(), matrix.sum(1) / matrix.sum()
    if not predicted.max() > COLLAPSE_SHARE > true.max():
        return []
    message = (
        f"one-class collapse: {predicted.max():.2%} of all pixels become {classes[int(predicted.argmax())]!r}, and the "
        "labels have several classes; check the weights, the preprocessing and the INT8 ranges"
    )
    return [Finding("one-class-collapse", "error", message)]
