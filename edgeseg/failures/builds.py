"""Why a build labels differently from its reference: run only where the two differ by more than rounding explains."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgeseg.failures import Finding
from edgeseg.failures.classes import reordered
from edgeseg.failures.inputs import misfed
from edgeseg.failures.masks import FINE, Placed, misplaced
from edgeseg.failures.resizes import with_other_resizes
from edgeseg.ops.upsample_argmax import upsample_argmax
from edgeseg.preprocess import Preprocess

if TYPE_CHECKING:
    import onnx

Infer = Callable[[np.ndarray], np.ndarray]  # (N, 3, h, w) float32 -> (N, C, h / s, w / s) float32

# The share of pixels below which a build is looked into; good ones of the three precisions lie above.
ROUNDING = {"fp32": 0.9998, "fp16": 0.998, "int8": 0.99}
# A fault of a build is the difference to its reference, so a hypothesis must explain most of it.
LEAST_GAIN = 0.002
LEAST_SHARE = 0.5
EXAMINED = 3  # images


@dataclass(frozen=True)
class Example:
    """One image of the gate."""

    images: np.ndarray  # (1, 3, h, w) float32
    expected: np.ndarray  # (h, w) uint8, the reference's labels
    logits: np.ndarray  # (1, C, h / s, w / s) float32, the candidate's
    reference: np.ndarray  # the same, the reference's


def findings_of_build(
    candidate: Infer,
    examples: Sequence[Example],
    matrix: np.ndarray,
    classes: Sequence[str],
    preprocess: Preprocess,
    reference_model: "onnx.ModelProto | None" = None,
) -> list[Finding]:
    """What explains the disagreement.

    Args:
        candidate: the build; runs once for each example and each way to make an input.
        examples: EXAMINED of the gate's images or fewer, finite.
        matrix: (C, C) counts of (reference's class, build's class) over all images.
        classes: C names.
        preprocess: how the images were made.
        reference_model: the reference's ONNX; without it the resizes inside the network are not looked at.
    """
    limits = {"least_gain": LEAST_GAIN, "least_share": LEAST_SHARE}
    placed = [Placed(fine_labels(example.logits, example.expected.shape), example.expected) for example in examples]
    found = misplaced(placed, **limits) or reordered(matrix, classes, **limits)

    def agreement(number: int, images: np.ndarray) -> float:
        example = examples[number]
        logits = candidate(images)
        if _distance(logits, example) > _distance(example.logits, example):
            return 0.0  # labels may agree by chance; a fault that is undone brings the logits nearer as well
        return float((upsample_argmax(logits, example.expected.shape)[0] == example.expected).mean())

    if not found and reference_model is not None:
        found = _resized_otherwise(reference_model, examples)
    return found or misfed(preprocess, [example.images for example in examples], agreement, **limits)


def _resized_otherwise(model: "onnx.ModelProto", examples: Sequence[Example]) -> list[Finding]:
    def agreement(other: Sequence[np.ndarray]) -> float:
        pairs = zip(examples, other, strict=True)
        return float(np.mean([upsample_argmax(e.logits, e.expected.shape)[0] == labels for e, labels in pairs]))

    before = agreement([example.expected for example in examples])
    for convention, session in with_other_resizes(model):
        shares = agreement(
            [upsample_argmax(session.infer_one(e.images), e.expected.shape)[0] for e in examples],
        )
        if shares - before >= max(LEAST_GAIN, LEAST_SHARE * (1 - before)):
            message = (
                f"resize convention: the build labels as the reference would with {convention} resizes ({shares:.2%} "
                f"of pixels instead of {before:.2%}), which the file does not say; the backend or its import of Resize "
                "is wrong: choose another with --backend, or export the network again"
            )
            return [Finding("resize-convention", "error", message, {"convention": convention, "agreement": shares})]
    return []


def _distance(logits: np.ndarray, example: Example) -> float:
    """From the reference's logits."""
    return float(np.abs(logits - example.reference).mean())


def fine_labels(logits: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """(1, C, h, w) logits -> labels with FINE x FINE sub-pixels to a pixel of `size`."""
    return upsample_argmax(logits, (FINE * size[0], FINE * size[1]))[0]
