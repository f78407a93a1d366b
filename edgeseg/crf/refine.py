"""From a network's logits to labels that follow the image's edges."""

from __future__ import annotations

import numpy as np

from edgeseg.crf.mean_field import DenseCrf, mean_field


def refine(image: np.ndarray, logits: np.ndarray, parameters: DenseCrf = DenseCrf()) -> np.ndarray:
    """(C, h, w) logits of an (H, W, 3) uint8 image -> (H, W) uint8 labels.

    As DeepLab does it: logits are upsampled to the image (bilinear, half-pixel centres), their softmax is the CRF's
    unary term.
    """
    scores = upsample(np.asarray(logits, np.float32), image.shape[:2])
    scores -= scores.max(0)
    np.exp(scores, out=scores)
    scores /= scores.sum(0)
    return mean_field(image, scores, parameters).argmax(0).astype(np.uint8)


def upsample(scores: np.ndarray, size: tuple[int, int], rows: slice = slice(None)) -> np.ndarray:
    """(C, h, w) -> (C, *size) float32; equals torch's interpolate(mode="bilinear", align_corners=False).

    `rows`: of the result, those alone.
    """
    for axis, length in zip((1, 2), size, strict=True):
        last = scores.shape[axis] - 1
        pixels = np.arange(length)[rows] if axis == 1 else np.arange(length)
        source = np.clip((pixels + 0.5) * (scores.shape[axis] / length) - 0.5, 0, last)
        low = np.minimum(source.astype(np.intp), max(last - 1, 0))
        share = (source - low).astype(np.float32)
        if axis == 1:
            share = share[:, None]
        upper = scores.take(np.minimum(low + 1, last), axis)
        lower = scores.take(low, axis)
        scores = lower + share * (upper - lower)
    return scores
