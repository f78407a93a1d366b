"""The gate: does the build label real images as the FP32 reference does?"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgeseg.failures import Finding
from edgeseg.failures.builds import EXAMINED, ROUNDING, Example, findings_of_build
from edgeseg.failures.numbers import LogitWatch
from edgeseg.metrics import Agreement, confusion_matrix
from edgeseg.preprocess import Preprocess

if TYPE_CHECKING:
    import onnx

Infer = Callable[[np.ndarray], np.ndarray]  # (N, 3, h, w) float32 -> (N, C, h / s, w / s) float32

# Points of agreement-mIoU that a build may lose by default. FP32 differs by rounding alone.
DEFAULT_MAX_DROP = {"fp32": 1.0, "fp16": 3.0, "int8": 15.0}
# The least share of pixels that keep their label, whatever --max-drop allows: below it masks are visibly wrong.
MIN_LABEL_AGREEMENT = {"fp32": 0.999, "fp16": 0.99, "int8": 0.93}


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
    failures: tuple[str, ...]  # why it does not pass; the findings that are errors come first
    passed: bool
    findings: tuple[Finding, ...] = ()  # silent failures by name, and what else was noticed

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
    preprocess: Preprocess | None = None,
    reference_model: "onnx.ModelProto | None" = None,
    noticed: Sequence[Finding] = (),
) -> Verification:
    """Compare labels at the network's input size on every image of `batches`, each (1, 3, h, w) float32.

    The reference's labels come from torch's interpolate and argmax, the build's from the tail it ships with. Where the
    two differ by more than rounding explains, the cause is looked for (`edgeseg.failures`).

    Args:
        preprocess: how the batches were made; ImageNet's normalisation by default.
        reference_model: the reference's ONNX, whose resizes are varied in search of a cause.
        noticed: findings made on the way to the gate, to be kept with its own; an error among them fails the build.
    """
    from edgeseg.ops.upsample_argmax import upsample_argmax

    limit = DEFAULT_MAX_DROP[precision] if max_drop is None else max_drop
    matrix = np.zeros((len(classes), len(classes)), np.int64)
    watch = LogitWatch()
    examples: list[Example] = []
    for batch in batches:
        reference_logits = reference(batch)
        expected = _reference_labels(reference_logits, batch.shape[-2:])
        logits = candidate(batch)
        labels = upsample_argmax(logits, batch.shape[-2:])
        watch.see(logits, labels, expected, reference_logits)
        matrix += confusion_matrix(labels, expected, len(classes))
        if len(examples) < EXAMINED and np.isfinite(logits).all():
            examples.append(Example(batch, expected[0], logits, reference_logits))
    if not watch.images:
        raise ValueError("verification needs at least one image")
    agreement = Agreement.from_confusion(matrix, classes)
    found = watch.findings()
    if examples and agreement.label_agreement < ROUNDING[precision]:
        how = preprocess or Preprocess((0, 0))
        found += findings_of_build(candidate, examples, matrix, classes, how, reference_model)
    found += noticed
    failures = [finding.message for finding in found if finding.severity == "error"]
    failures += _failures(agreement, limit, MIN_LABEL_AGREEMENT[precision])
    return Verification(
        executed_with=executed_with,
        reference=reference_name,
        image_source=image_source,
        images=watch.images,
        label_agreement=agreement.label_agreement,
        agreement_miou=agreement.agreement_miou,
        per_class_agreement=agreement.per_class_agreement,
        finite=not any(finding.name == "nan" for finding in found),
        max_drop=limit,
        failures=tuple(failures),
        passed=not failures,
        findings=tuple(found),
    )


def _failures(agreement: Agreement, limit: float, least: float) -> list[str]:
    failures = []
    if agreement.label_agreement < least:
        same = f"{agreement.label_agreement:.2%} of pixels keep the reference's label"
        failures.append(f"{same}, at least {least:.1%} wanted")
    lost = 100 * (1 - agreement.agreement_miou)
    if lost > limit:
        failures.append(f"{lost:.2f} points of agreement-mIoU lost, at most {limit:g} allowed")
    return failures


def _reference_labels(logits: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    import torch

    scores = torch.nn.functional.interpolate(torch.from_numpy(logits), size, mode="bilinear", align_corners=False)
    return scores.argmax(1).numpy().astype(np.uint8)
