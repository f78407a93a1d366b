"""The gate: does the build label real images as the FP32 reference does?"""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass

import numpy as np

from edgeseg.metrics import Agreement, confusion_matrix

Infer = Callable[[np.ndarray], np.ndarray]  # (N, 3, h, w) float32 -> (N, C, h / s, w / s) float32

# Points of agreement-mIoU that a build may lose by default. FP32 differs by rounding alone.
DEFAULT_MAX_DROP = {"fp32": 1.0, "fp16": 3.0, "int8": 15.0}
# The least share of pixels that keep their label, whatever --max-drop allows: below it masks are visibly wrong.
MIN_LABEL_AGREEMENT = {"fp32": 0.999, "fp16": 0.99, "int8": 0.93}
# A class is said to have collapsed onto another when the reference sees several and the build one.
COLLAPSE_SHARE = 0.999


@dataclass(frozen=True)
class Verification:
    """What the gate saw. Fractions between 0 and 1, except max_drop in points."""

    executed_with: str  # what computed the build's labels; not the engine itself where it cannot run here
    reference: str
    image_source: str
    images: int
    label_agreement: float  # share of pixels with the reference's label
    agreement_miou: float  # mIoU with the reference's labels as the truth
    per_class_agreement: dict[str, float | None]  # None: neither saw the class
    finite: bool
    max_drop: float
    failures: tuple[str, ...]
    passed: bool

    def to_json(self) -> dict:
        return asdict(self)


def verify(
    reference: Infer,
    candidate: Infer,
    batches: Iterable[np.ndarray],
    classes: tuple[str, ...],
    precision: str,
    *,
    max_drop: float | None = None,
    executed_with: str,
    reference_name: str,
    image_source: str,
) -> Verification:
    """Compare labels at the network's input size on every image of `batches`, each (1, 3, h, w) float32.

    The reference's labels come from torch's interpolate and argmax, the build's from the tail it ships with.
    """
    from edgeseg.ops.upsample_argmax import upsample_argmax

    limit = DEFAULT_MAX_DROP[precision] if max_drop is None else max_drop
    matrix = np.zeros((len(classes), len(classes)), np.int64)
    images = non_finite = collapsed = 0
    for batch in batches:
        expected = _reference_labels(reference(batch), batch.shape[-2:])
        logits = candidate(batch)
        labels = upsample_argmax(logits, batch.shape[-2:])
        non_finite += int(not np.isfinite(logits).all())
        collapsed += int(_share_of_commonest(labels) > COLLAPSE_SHARE > _share_of_commonest(expected))
        matrix += confusion_matrix(labels, expected, len(classes))
        images += 1
    if not images:
        raise ValueError("verification needs at least one image")
    agreement = Agreement.from_confusion(matrix, classes)
    failures = _failures(agreement, limit, MIN_LABEL_AGREEMENT[precision], images, non_finite, collapsed)
    return Verification(
        executed_with=executed_with,
        reference=reference_name,
        image_source=image_source,
        images=images,
        label_agreement=agreement.label_agreement,
        agreement_miou=agreement.agreement_miou,
        per_class_agreement=agreement.per_class_agreement,
        finite=non_finite == 0,
        max_drop=limit,
        failures=failures,
        passed=not failures,
    )


def _failures(
    agreement: Agreement, limit: float, least: float, images: int, non_finite: int, collapsed: int
) -> tuple[str, ...]:
    failures = []
    if non_finite:
        failures.append(f"NaN or infinite logits on {non_finite} of {images} images")
    if collapsed:
        failures.append(f"one-class collapse: on {collapsed} of {images} images a single class covers the whole mask")
    if agreement.label_agreement < least:
        same = f"{agreement.label_agreement:.2%} of pixels keep the reference's label"
        failures.append(f"{same}, at least {least:.1%} wanted")
    lost = 100 * (1 - agreement.agreement_miou)
    if lost > limit:
        failures.append(f"{lost:.2f} points of agreement-mIoU lost, at most {limit:g} allowed")
    return tuple(failures)


def _reference_labels(logits: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    import torch

    scores = torch.nn.functional.interpolate(torch.from_numpy(logits), size, mode="bilinear", align_corners=False)
    return scores.argmax(1).numpy().astype(np.uint8)


def _share_of_commonest(labels: np.ndarray) -> float:
    return float(np.bincount(labels.ravel()).max() / labels.size)
