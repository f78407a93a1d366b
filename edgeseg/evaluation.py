"""mIoU of a bundle on a labelled data set: logits to each label's size, argmax, one confusion matrix."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from edgeseg.datasets import Dataset
from edgeseg.datasets.base import Sample
from edgeseg.errors import InputError
from edgeseg.failures.labelled import findings_of_evaluation
from edgeseg.files import make_folder
from edgeseg.images import save_labels
from edgeseg.inference_modes import InferenceMode
from edgeseg.labels import LabelSet
from edgeseg.metrics import SegmentationMetrics, confusion_matrix
from edgeseg.pipeline import Segmenter
from edgeseg.progress import Progress
from edgeseg.worst_images import WorstImages


class Labeller(Protocol):
    """A loaded bundle (`edgeseg.pipeline.Segmenter`), or one in an `edgeseg.inference_modes.InferenceMode`."""

    label_set: LabelSet

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 RGB -> (H, W) uint8 labels."""


def evaluate(
    segmenter: Labeller,
    dataset: Dataset,
    *,
    save: Path | None = None,
    limit: int | None = None,
    worst: int = 0,
    reference: Callable[[np.ndarray], np.ndarray] | None = None,
    progress: Progress = Progress(),
) -> dict[str, Any]:
    """The JSON document of `edgeseg eval`.

    Args:
        segmenter: a loaded bundle.
        dataset: images with labels in the same class ids as the bundle's.
        save: a folder for one label PNG an image, class ids as pixel values.
        limit: the first so many images only.
        worst: so many images of lowest mIoU become "worst_images" of the report, the worst first: a list of
            `edgeseg.bench.results.WorstImage`, each with a picture of the image, the truth, and the labels.
        reference: another segmenter, such as the FP32 network; its labels stand in those pictures before the labels.

    Raises:
        InputError: the data set's classes are not the network's.
    """
    classes = segmenter.label_set.classes
    if dataset.label_set is not None and len(dataset.label_set.classes) != len(classes):
        raise InputError(
            f"{dataset.root} has labels of the {len(dataset.label_set.classes)} classes of {dataset.label_set.name}, "
            f"the bundle predicts {len(classes)} ({segmenter.label_set.name}); evaluate it on data of its own classes"
        )
    samples = list(dataset)[:limit]
    matrix = np.zeros((len(classes), len(classes)), np.int64)
    worst_images = WorstImages(worst, segmenter.label_set)
    with progress.task(f"evaluate on {dataset.split}", len(samples)) as advance:
        for sample in samples:
            image, target = sample.load()
            labels = segmenter(image)
            confusion = confusion_matrix(labels, target, len(classes))
            matrix += confusion
            worst_images.show(sample.name, image, target, labels, confusion)
            if save:
                make_folder(save)
                save_labels(save / f"{sample.name}.png", labels, segmenter.label_set)
            advance(1)
    report = SegmentationMetrics.from_confusion(matrix, classes).to_json() | {
        "images": len(samples),
        "split": dataset.split,
        "findings": _findings(segmenter, samples, matrix),
    }
    return report | {"worst_images": worst_images.pictures(reference)} if worst else report


def _findings(segmenter: Labeller, samples: list[Sample], matrix: np.ndarray) -> list[dict[str, Any]]:
    """Of the bundle itself, however its images were cut up; none for what is no bundle."""
    bundle = segmenter.segmenter if isinstance(segmenter, InferenceMode) else segmenter
    if not isinstance(bundle, Segmenter):
        return []
    return [asdict(finding) for finding in findings_of_evaluation(bundle, samples, matrix)]
