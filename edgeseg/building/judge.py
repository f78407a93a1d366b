"""What a build does to masks, in points of mIoU: against labels where there are some, else against FP32's own masks."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from edgeseg.datasets import Dataset, open_dataset
from edgeseg.errors import InputError
from edgeseg.labels import LabelSet
from edgeseg.metrics import Agreement, SegmentationMetrics, confusion_matrix
from edgeseg.ops.upsample_argmax import upsample_argmax
from edgeseg.real_images import RealImages, spread
from edgeseg.verify import MIN_LABEL_AGREEMENT

Infer = Callable[[np.ndarray], np.ndarray]  # (1, 3, h, w) float32 -> (1, C, h / s, w / s) float32
LABELLED_IMAGES = 64  # evenly spaced, of those that the data set has


@dataclass(frozen=True)
class Judgement:
    """One build on the judge's images."""

    drop: float  # points of mIoU lost against FP32, or of agreement-mIoU
    label_agreement: float  # share of pixels with the label that FP32 gives
    finite: bool
    miou: float | None = None  # against the labels; None without
    reference_miou: float | None = None

    def fits(self, max_drop: float) -> bool:
        """Within the limit, and at the gate's least share of labels."""
        return self.finite and self.drop <= max_drop and self.label_agreement >= MIN_LABEL_AGREEMENT["int8"]


class Judge:
    """The FP32 network's masks, made once, and the comparison of other networks' masks with them."""

    def __init__(self, reference: Infer, images: RealImages, classes: tuple[str, ...], labelled: Dataset | None):
        """`labelled`: judge by mIoU on it; without, by agreement-mIoU on the images of the gate."""
        self.classes = classes
        self.labelled = labelled
        self.measure = "agreement-mIoU" if labelled is None else "mIoU"
        self._images = images
        self._samples = spread(list(labelled), LABELLED_IMAGES) if labelled else []
        self.count = len(self._samples) or images.verification_count
        self.source = f"{self.count} images of {labelled.split} in {labelled.root}" if labelled else images.source
        self._reference = reference
        self._masks: dict[int, np.ndarray] = {}

    def judge(self, infer: Infer, step: int = 1) -> Judgement:
        """Every `step`-th image through a network."""
        size = len(self.classes)
        with_truth, of_reference, agreement = (np.zeros((size, size), np.int64) for _ in range(3))
        finite = True
        for index, batch, target in self._examples(step):
            shape = batch.shape[-2:] if target is None else target.shape
            if index not in self._masks:
                self._masks[index] = upsample_argmax(self._reference(batch), shape)[0]
            logits = infer(batch)
            finite = finite and bool(np.isfinite(logits).all())
            mask = upsample_argmax(logits, shape)[0]
            agreement += confusion_matrix(mask, self._masks[index], size)
            if target is not None:
                with_truth += confusion_matrix(mask, target, size)
                of_reference += confusion_matrix(self._masks[index], target, size)
        agreed = Agreement.from_confusion(agreement, self.classes)
        if self.labelled is None:
            return Judgement(100 * (1 - agreed.agreement_miou), agreed.label_agreement, finite)
        miou, reference_miou = (
            SegmentationMetrics.from_confusion(matrix, self.classes).miou for matrix in (with_truth, of_reference)
        )
        return Judgement(100 * (reference_miou - miou), agreed.label_agreement, finite, miou, reference_miou)

    def to_json(self, judgement: Judgement, max_drop: float) -> dict:
        """For verification.json."""
        return {
            **asdict(judgement),
            "max_drop": max_drop,
            "measure": self.measure,
            "images": self.count,
            "image_source": self.source,
        }

    def _examples(self, step: int) -> Iterator[tuple[int, np.ndarray, np.ndarray | None]]:
        if self.labelled is None:
            for index, batch in enumerate(self._images.verification()):
                if index % step == 0:
                    yield index, batch, None
        for index in range(0, len(self._samples), step):
            image, target = self._samples[index].load()
            yield index, self._images.preprocess(image), target


def labelled_data(data: Path | None, calibration_data: Path | None, label_set: LabelSet) -> Dataset | None:
    """The data set to judge by: the one given for it, or the labelled split beside the calibration images.

    Raises:
        InputError: `data` is no labelled data set of the network's classes.
    """
    if data is not None:
        return open_dataset(data, None, label_set)
    if calibration_data is None:
        return None
    try:
        return open_dataset(calibration_data, None, label_set)
    except InputError:  # images alone
        return None
