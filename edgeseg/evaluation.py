"""mIoU of a bundle on a labelled data set: logits to each label's size, argmax, one confusion matrix."""

from pathlib import Path

import numpy as np

from edgeseg.datasets import Dataset
from edgeseg.errors import InputError
from edgeseg.files import make_folder
from edgeseg.images import save_labels
from edgeseg.metrics import SegmentationMetrics, confusion_matrix
from edgeseg.pipeline import Segmenter
from edgeseg.progress import Progress


def evaluate(
    segmenter: Segmenter,
    dataset: Dataset,
    *,
    save: Path | None = None,
    limit: int | None = None,
    progress: Progress = Progress(),
) -> dict:
    """The JSON document of `edgeseg eval`.

    Args:
        segmenter: a loaded bundle.
        dataset: images with labels in the same class ids as the bundle's.
        save: a folder for one label PNG an image, class ids as pixel values.
        limit: the first so many images only.

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
    with progress.task(f"evaluate on {dataset.split}", len(samples)) as advance:
        for sample in samples:
            image, target = sample.load()
            labels = segmenter(image)
            matrix += confusion_matrix(labels, target, len(classes))
            if save:
                make_folder(save)
                save_labels(save / f"{sample.name}.png", labels, segmenter.label_set)
            advance(1)
    return SegmentationMetrics.from_confusion(matrix, classes).to_json() | {
        "images": len(samples),
        "split": dataset.split,
    }
