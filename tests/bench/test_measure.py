"""Statistics against their definitions, and the order in which systems and images are run. No clock is tested."""

import math
from collections.abc import Sequence

import numpy as np
import pytest

from edgeseg.bench.measure import (
    batch_of,
    confusion_with,
    label_images,
    latency_of,
    measure_side_by_side,
    median_interval,
    median_stages,
)
from edgeseg.bench.results import Stages
from edgeseg.bench.systems import System


def coverage(count: int, low: int, high: int) -> float:
    """P(x_(low) < median < x_(high)), 0-based: the number of values below the median is binomial(count, 1/2)."""
    return sum(math.comb(count, below) for below in range(low + 1, high + 1)) / 2**count


@pytest.mark.parametrize("count", [6, 7, 10, 30, 101])
def test_the_interval_covers_the_median_and_a_narrower_one_would_not(count):
    interval = median_interval(count)
    assert interval is not None
    low, high = interval
    assert coverage(count, low, high) >= 0.95
    assert coverage(count, low + 1, high - 1) < 0.95


@pytest.mark.parametrize(("count", "expected"), [(6, (0, 5)), (9, (1, 7)), (10, (1, 8)), (20, (5, 14)), (30, (9, 20))])
def test_the_interval_is_that_of_the_printed_tables(count, expected):
    assert median_interval(count) == expected


@pytest.mark.parametrize("count", [1, 2, 5])
def test_too_few_values_have_no_interval_and_give_their_range(count):
    assert median_interval(count) is None
    latency = latency_of([float(i + 1) for i in range(count)])
    assert (latency.low, latency.high) == (1, count)


def test_latency_is_made_of_values_that_occurred():
    times = [float(i) for i in range(1, 101)]
    latency = latency_of(times[::-1])
    assert (latency.p50, latency.p95, latency.p99, latency.runs) == (50.5, 95, 99, 100)
    assert latency.fps(4) == pytest.approx(4000 / 50.5)


def test_noise_is_an_interval_wider_than_a_tenth_of_the_median():
    assert not latency_of([100.0] * 20 + [500.0]).is_noisy  # one late run is no noise
    assert latency_of([100.0, 120.0] * 10).is_noisy


def test_batches_go_round():
    images = [np.full((1, 1, 3), i, np.uint8) for i in range(3)]
    found = [[int(image[0, 0, 0]) for image in batch_of(images, 2, index)] for index in range(4)]
    assert found == [[0, 1], [2, 0], [1, 2], [0, 1]]


class Recorder(System):
    """Labels with the image's own first value, and remembers what it was given."""

    def __init__(self, name: str, calls: list):
        self.name, self.calls = name, calls

    def __call__(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        self.calls.append((self.name, [int(image[0, 0, 0]) for image in images]))
        self.stages = Stages(engine=float(len(self.calls)))
        return [image[..., 0] for image in images]


def test_each_round_gives_all_systems_the_same_next_images():
    calls: list = []
    images = [np.full((2, 2, 3), i, np.uint8) for i in range(3)]
    systems = {name: Recorder(name, calls) for name in "ab"}
    steps: list[int] = []
    measured = measure_side_by_side(systems, images, 1, 4, steps.append)
    by_system = [[given for name, given in calls if name == wanted] for wanted in "ab"]
    assert by_system[0] == by_system[1] == [[0], [0], [1], [1], [2], [2], [0], [0]]  # untimed, then timed
    assert sum(steps) == 8
    assert measured["a"][0].runs == 4
    assert measured["a"][1].engine == np.median([2, 6, 10, 14])  # of the timed runs alone


@pytest.mark.parametrize("batch", [1, 2, 3, 5])
def test_every_image_is_labelled_once_whatever_the_batch(batch):
    images = [np.full((2, 2, 3), i, np.uint8) for i in range(4)]
    labels = label_images(Recorder("a", []), images, batch)
    assert [int(one[0, 0]) for one in labels] == [0, 1, 2, 3]


def test_confusion_counts_reference_by_found():
    reference, found = np.array([[0, 0, 1]]), np.array([[0, 1, 1]], np.int64)
    np.testing.assert_array_equal(confusion_with([found], [reference], 2), [[1, 1], [0, 1]])


def test_a_stage_that_nobody_measured_stays_none():
    assert median_stages([Stages(engine=2.0), Stages(engine=4.0)]) == Stages(engine=3.0)
    assert median_stages([]) == Stages()
