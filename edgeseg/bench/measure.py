"""Times of several systems side by side, and what they say: medians with intervals, tails, noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle, islice

import numpy as np

from edgeseg.bench.results import Latency, Stages
from edgeseg.bench.systems import System
from edgeseg.metrics import confusion_matrix
from edgeseg.timing import interleave

NOISY = 0.1  # an interval wider than this share of the median is not to be believed
CONFIDENCE = 0.95


def median_interval(count: int, confidence: float = CONFIDENCE) -> tuple[int, int] | None:
    """Indices of the sorted sample between which its median lies with at least this probability.

    By order statistics, for any distribution (David and Nagaraja, Order Statistics, 7.1): of n independent values the
    number below the median is binomial(n, 1/2), so [x_(k), x_(n+1-k)] covers it with 1 - 2 P(B < k). None: too few
    values (below 6 for 95 %).
    """
    below, tail = 0, 0.0
    while True:
        tail += math.comb(count, below) / 2**count
        if 2 * tail > 1 - confidence:
            break
        below += 1
    return (below - 1, count - below) if below else None


def latency_of(times: Sequence[float]) -> Latency:
    """Statistics of milliseconds. Percentiles are values that occurred (nearest rank); with too few values for an
    interval it is the whole range."""
    ordered = sorted(times)
    low, high = median_interval(len(ordered)) or (0, len(ordered) - 1)
    median = float(np.median(ordered))
    return Latency(
        p50=_rounded(median),
        p95=_rounded(_percentile(ordered, 0.95)),
        p99=_rounded(_percentile(ordered, 0.99)),
        low=_rounded(ordered[low]),
        high=_rounded(ordered[high]),
        runs=len(ordered),
        is_noisy=ordered[high] - ordered[low] > NOISY * median,
    )


def measure_side_by_side(
    systems: Mapping[str, System],
    images: Sequence[np.ndarray],
    batch: int,
    rounds: int,
    advance: Callable[[int], None] = lambda steps: None,
) -> dict[str, tuple[Latency, Stages]]:
    """One run of each in turn, every round on the next images; `advance(1)` after each timed run."""
    stages: dict[str, list[Stages]] = {name: [] for name in systems}
    done = 0

    def after(name: str) -> None:
        nonlocal done
        stages[name].append(systems[name].stages)
        done += 1
        advance(1)

    def run(system: System) -> object:
        return system(batch_of(images, batch, done // len(systems)))

    calls = {name: (lambda system=system: run(system)) for name, system in systems.items()}
    times = interleave(calls, rounds, after) if systems else {}
    return {name: (latency_of(own), median_stages(stages[name])) for name, own in times.items()}


def batch_of(images: Sequence[np.ndarray], batch: int, index: int) -> list[np.ndarray]:
    """The `index`-th batch of them, beginning again after the last."""
    start = index * batch % len(images)
    return list(islice(cycle(images), start, start + batch))


def label_images(system: System, images: Sequence[np.ndarray], batch: int) -> list[np.ndarray]:
    """Labels of each image; this warms the system up as well."""
    labels: list[np.ndarray] = []
    for index in range(math.ceil(len(images) / batch)):
        labels += system(batch_of(images, batch, index))
    return labels[: len(images)]


def confusion_with(labels: Sequence[np.ndarray], reference: Sequence[np.ndarray], num_classes: int) -> np.ndarray:
    """(C, C) counts over all images, the reference's labels as the truth."""
    matrix = np.zeros((num_classes, num_classes), np.int64)
    for found, wanted in zip(labels, reference, strict=True):
        matrix += confusion_matrix(found.astype(np.uint8), wanted.astype(np.uint8), num_classes)
    return matrix


def median_stages(stages: Sequence[Stages]) -> Stages:
    """Each stage's own median; None where it was not measured."""

    def median(name: str) -> float | None:
        times = [value for one in stages if (value := getattr(one, name)) is not None]
        return _rounded(float(np.median(times))) if times else None

    return Stages(*(median(name) for name in ("preprocess", "engine", "tail", "copies")))


def _percentile(ordered: Sequence[float], share: float) -> float:
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def _rounded(milliseconds: float) -> float:
    """To a microsecond, below which no clock here means anything."""
    return round(float(milliseconds), 3)
