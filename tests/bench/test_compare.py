"""What counts as a change, and what as noise."""

import pytest

from edgeseg.bench.compare import Limits, compare, differing_conditions
from tests.bench.rows import latency, results, row


def only(before, after, limits=Limits()):
    (change,) = compare(results(before), results(after), limits)
    return change


@pytest.mark.parametrize(
    ("before", "after", "speed"),
    [
        (latency(20), latency(20), "same within noise"),
        (latency(20), latency(20.5), "same within noise"),  # the intervals do not meet, but it is under 5 %
        (latency(20), latency(25), "slower"),
        (latency(25), latency(20), "faster"),
        (latency(20, spread=0.2), latency(25, spread=0.2), "same within noise"),  # further apart, intervals meet
    ],
)
def test_speed(before, after, speed):
    change = only(row(latency=before), row(latency=after))
    assert change.speed == speed
    assert bool(change.regressions) == (speed == "slower")
    assert change.ratio_low <= change.latency_ratio <= change.ratio_high


def test_the_threshold_is_the_users():
    assert only(row(latency=latency(20)), row(latency=latency(25)), Limits(latency=0.5)).regressions == ()


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ({"miou": 0.578}, {"miou": 0.570}, "0.80 points of mIoU lost"),
        ({"agreement_miou": 0.99}, {"agreement_miou": 0.95}, "4.00 points of agreement-mIoU lost"),
        ({"engine_bytes": 100}, {"engine_bytes": 120}, "engine 20 % larger"),
        ({}, {"failure": "out of memory", "latency": None}, "fails now: out of memory"),
    ],
)
def test_what_becomes_worse_is_named(before, after, said):
    assert only(row(**before), row(**after)).regressions == (said,)
    assert not only(row(**after), row(**before)).regressions


def test_what_was_not_measured_is_neither_better_nor_worse():
    change = only(row(miou=0.5), row(miou=None, latency=None))
    assert (change.speed, change.miou, change.latency_ratio, change.regressions) == (None, None, None, ())


def test_cells_are_matched_by_key_whatever_their_order():
    first, second, third = row(precision="fp32"), row(precision="fp16"), row(precision="int8")
    changes = compare(results(first, second), results(third, first))
    assert [(change.key[4], change.presence) for change in changes] == [
        ("fp32", "both"),
        ("fp16", "only in the first"),
        ("int8", "only in the second"),
    ]
    assert not any(change.regressions for change in changes)


def test_other_conditions_are_named_and_load_is_none_of_them():
    before = results(versions={"torch": "2.12", "numpy": "2"}, cpu={"threads": 1, "mhz": 1000}, devices=[{"name": "A"}])
    after = results(versions={"torch": "2.13", "numpy": "2"}, cpu={"threads": 2, "mhz": 2000}, devices=[{"name": "B"}])
    lines = differing_conditions(before, after)
    assert sorted(lines) == ["device: A → B", "threads: 1 → 2", "torch: 2.12 → 2.13"]
    assert differing_conditions(before, before) == []
