"""What the numbers alone give away: NaN and infinity, one class everywhere, values that have run into their limit."""

from collections.abc import Mapping

import numpy as np

from edgeseg.failures import Finding

COLLAPSE_SHARE = 0.999  # of a mask's pixels; the reference has fewer of its commonest class
HALF_MAX = 65504.0  # float16's largest number
PLATEAU_SHARE = 1e-3  # of the logits at exactly the largest |value|: continuous sums hardly ever meet twice
LISTED_LAYERS = 3


class LogitWatch:
    """Looks at one image's logits and labels after the other."""

    def __init__(self) -> None:
        self.images = 0
        self._non_finite = 0
        self._collapsed = 0
        self._saturated = 0
        self._limit = 0.0

    def see(
        self, logits: np.ndarray, labels: np.ndarray, expected: np.ndarray, reference: np.ndarray | None = None
    ) -> None:
        """One image.

        Args:
            logits: the candidate's, float32, any shape.
            labels: made of them, uint8.
            expected: labels that are right, uint8; 255 does not count.
            reference: logits that are right, where there are any.
        """
        self.images += 1
        finite = bool(np.isfinite(logits).all())
        self._non_finite += not finite
        self._collapsed += _commonest(labels) > COLLAPSE_SHARE > _commonest(expected[expected != 255])
        if finite and logits.size:
            limit = float(np.abs(logits).max())
            if _is_saturated(logits, limit, reference):
                self._saturated += 1
                self._limit = max(self._limit, limit)

    def findings(self) -> list[Finding]:
        of = f"of {self.images} images"
        found = []
        if self._non_finite:
            message = (
                f"NaN or infinite logits on {self._non_finite} {of}: a layer overflows or divides by zero; "
                "build with --fp32 to see whether the precision does it, then keep the loud layers in FP32"
            )
            found.append(Finding("nan", "error", message))
        if self._collapsed:
            message = (
                f"one-class collapse: on {self._collapsed} {of} a single class covers the whole mask; "
                "activation ranges or preprocessing are far off: calibrate on images like the real ones"
            )
            found.append(Finding("one-class-collapse", "error", message))
        if self._saturated:
            message = (
                f"logit saturation: on {self._saturated} {of} logits pile up at their largest magnitude "
                f"{self._limit:.6g}, as where a number format ends; keep the layers before the output in FP32"
            )
            found.append(Finding("logit-saturation", "error", message, {"limit": self._limit}))
        return found


def fp16_range(peaks: Mapping[str, float], kept: int = 0) -> Finding:
    """The largest |activation| of every layer, as measured before the casts: what float16 has to hold.

    Args:
        peaks: layer or tensor -> max |x| on real images.
        kept: nodes that stay in float32 for it.
    """
    loudest = sorted(peaks, key=lambda name: -peaks[name])[:LISTED_LAYERS]
    names = ", ".join(f"{name} {peaks[name]:.4g}" for name in loudest) or "none measured"
    over = sum(peak > HALF_MAX for peak in peaks.values())
    would = f"{over} layers go beyond float16's {HALF_MAX:.0f}" if over else f"float16 ends at {HALF_MAX:.0f}"
    rest = f"; {kept} nodes stay in FP32" if kept else ""
    message = f"FP16 range: largest |activation| by layer: {names}; {would}{rest}"
    return Finding("fp16-range", "warning" if over else "note", message, {"peaks": dict(peaks)})


def _commonest(labels: np.ndarray) -> float:
    """The share of the commonest label; 0 of nothing."""
    return float(np.bincount(labels.ravel()).max() / labels.size) if labels.size else 0.0


def _is_saturated(logits: np.ndarray, limit: float, reference: np.ndarray | None) -> bool:
    if limit == HALF_MAX:
        return reference is None or float(np.abs(reference).max()) > limit
    if reference is None or limit == 0 or logits.size < 1 / PLATEAU_SHARE:
        return False
    largest = float(np.abs(reference).max())
    share, usual = (float(np.mean(np.abs(x) == top)) for x, top in ((logits, limit), (reference, largest)))
    return share > PLATEAU_SHARE and share > 10 * usual and largest > limit
