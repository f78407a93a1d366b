"""Observers: from the values of one activation tensor, image after image, to the largest magnitude worth a step.

All observers see |x| only, since the scheme is symmetric. A histogram keeps no values: its memory is the same after one
image and after a thousand.
"""

import math
from typing import Literal

import numpy as np

Method = Literal["max", "percentile", "entropy", "mse"]

BINS = 4096
LEVELS = 127  # magnitudes that a symmetric signed INT8 can tell from zero
_CHUNK = 1 << 20  # values at a time, so that a large activation is not held twice


class MaxObserver:
    """amax = max |x|: nothing is clipped, and one outlier sets the step."""

    def __init__(self) -> None:
        self.peak = 0.0

    def observe(self, values: np.ndarray) -> None:
        """Take in a tensor of any shape, float32; an empty one counts for nothing. FloatingPointError: not finite."""
        if values.size == 0:
            return
        peak = max(float(values.max()), -float(values.min()))
        if not math.isfinite(peak):
            raise FloatingPointError("NaN" if math.isnan(peak) else "infinity")
        self.peak = max(self.peak, peak)

    def amax(self) -> float:
        return self.peak


class HistogramObserver(MaxObserver):
    """Counts |x| in `BINS` equal bins from 0; on a larger value the bins are merged two by two until it fits.

    A merge is exact: the counts are those that the wider bins would have had from the beginning.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts = np.zeros(BINS, dtype=np.int64)
        self.width = 0.0  # of one bin; 0 until a value other than 0 has come
        self._zeros = 0  # seen before that

    def observe(self, values: np.ndarray) -> None:
        super().observe(values)
        flat = values.reshape(-1)
        if self.peak == 0:
            self._zeros += flat.size
            return
        if self.width == 0:
            # Half a bin above the peak, so that the peak falls inside the last bin and not on its edge.
            self.width = self.peak / (BINS - 0.5)
            self.counts[0] = self._zeros
        while self.peak >= self.width * BINS:
            self.counts[: BINS // 2] = self.counts.reshape(-1, 2).sum(1)
            self.counts[BINS // 2 :] = 0
            self.width *= 2
        for start in range(0, flat.size, _CHUNK):
            magnitudes = np.abs(flat[start : start + _CHUNK])
            magnitudes /= np.float32(self.width) if magnitudes.dtype == np.float32 else self.width
            bins = np.minimum(magnitudes.astype(np.int32), BINS - 1)
            self.counts += np.bincount(bins, minlength=BINS)

    def used(self) -> np.ndarray:
        """Counts up to the last bin that holds something."""
        return self.counts[: int(np.flatnonzero(self.counts)[-1]) + 1]


class PercentileObserver(HistogramObserver):
    """amax = the magnitude that `percentile` percent of the values do not exceed (upper edge of its bin)."""

    def __init__(self, percentile: float = 99.99) -> None:
        super().__init__()
        if not 50 <= percentile <= 100:
            raise ValueError(f"percentile must be in 50 .. 100, got {percentile}")
        self.percentile = percentile

    def amax(self) -> float:
        if self.peak == 0:
            return 0.0
        cumulative = np.cumsum(self.counts)
        index = int(np.searchsorted(cumulative, self.percentile / 100 * cumulative[-1]))
        return min((index + 1) * self.width, self.peak)


class MseObserver(HistogramObserver):
    """amax that minimises the mean squared error of rounding to the 127 steps and of clipping, over 128 candidates."""

    CANDIDATES = 128

    def amax(self) -> float:
        if self.peak == 0:
            return 0.0
        counts = self.used()
        centres = (np.arange(len(counts)) + 0.5) * self.width
        candidates = self.peak * np.arange(1, self.CANDIDATES + 1) / self.CANDIDATES
        errors = []
        for candidate in candidates:
            step = candidate / LEVELS
            errors.append(counts @ (centres - step * np.minimum(np.rint(centres / step), LEVELS)) ** 2)
        return float(candidates[int(np.argmin(errors))])


class EntropyObserver(HistogramObserver):
    """amax whose 127 steps lose the least information: the smallest KL divergence (Migacz, GTC 2017).

    For every cut the reference distribution P is the histogram up to it, the clipped tail put into its last bin; Q is
    the histogram without the tail, averaged over 128 equal runs of bins, zeros kept.
    """

    LEVELS = LEVELS + 1
    STRIDE = 8  # cuts tried are this many bins apart

    def amax(self) -> float:
        if self.peak == 0:
            return 0.0
        counts = self.used().astype(np.float64)
        # The bin at zero holds what ReLU and GELU switched off; its count says nothing about the step.
        if len(counts) > 1:
            counts[0] = counts[1]
        cuts = [*range(self.LEVELS, len(counts), self.STRIDE), len(counts)]
        divergences = [self._divergence(counts, cut) for cut in cuts]
        best = cuts[int(np.argmin(divergences))]
        return min(best * self.width, self.peak)

    def _divergence(self, counts: np.ndarray, cut: int) -> float:
        kept = counts[:cut]
        reference = kept.copy()
        reference[-1] += counts[cut:].sum()
        run = np.arange(cut) * self.LEVELS // cut  # level of every bin
        totals = np.bincount(run, kept, self.LEVELS)
        filled = np.bincount(run, kept > 0, self.LEVELS)
        quantized = np.where(kept > 0, (totals / np.maximum(filled, 1))[run], 0.0)
        if quantized.sum() == 0:
            return float("inf")
        p = reference / reference.sum()
        q = quantized / quantized.sum()
        # Where the tail fell on an empty bin Q has none of P's mass: a small floor in place of an infinite divergence.
        where = p > 0
        return float((p[where] * np.log(p[where] / np.maximum(q[where], 1e-12))).sum())


OBSERVERS: dict[str, type[MaxObserver]] = {
    "max": MaxObserver,
    "percentile": PercentileObserver,
    "entropy": EntropyObserver,
    "mse": MseObserver,
}


def make_observer(method: str, percentile: float) -> MaxObserver:
    """One observer by name; ValueError names the choices."""
    if method not in OBSERVERS:
        raise ValueError(f"unknown calibration method {method!r}; one of {', '.join(OBSERVERS)}")
    return PercentileObserver(percentile) if method == "percentile" else OBSERVERS[method]()
