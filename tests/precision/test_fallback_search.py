"""The search on its own, over blocks whose damages simply add up."""

import time
from collections.abc import Sequence

import pytest

from edgeseg.precision.blocks import Block
from edgeseg.precision.fallback import Fallback, Outcome, expressions_of, search_fallback


def search(damage: dict[str, float], macs: dict[str, int], limit: float, budget=60.0, seconds=0.0) -> Fallback:
    """`damage`: points that each block costs in INT8."""
    blocks = [Block(name, (f"Conv:{i}:1x1x1x1",), macs.get(name, 10)) for i, name in enumerate(damage)]
    total = sum(block.macs for block in blocks)

    def judge(high: Sequence[Block]) -> Outcome:
        time.sleep(seconds)
        low = [block for block in blocks if block not in high]
        drop = sum(damage[block.name] for block in low)
        return Outcome(drop, 1 - drop / 100, drop <= limit, sum(block.macs for block in low) / total)

    def changed(high: Sequence[Block], part: float) -> float:
        assert 0 < part <= 1 and len(high) == len(blocks) - 1
        return 1 - judge(high).label_agreement

    return search_fallback(blocks, judge, changed, max_drop=limit, measure="agreement-mIoU", images=4, budget=budget)


def test_nothing_to_do():
    found = search({"a": 1, "b": 2}, {}, limit=3)
    assert found.chosen == 0 and len(found.steps) == 1 and found.best.kept_high == ()
    assert all(block.changed_labels is None for block in found.blocks)


def test_the_culprit_alone():
    found = search({"a": 0.1, "b": 30, "c": 0.1, "d": 0.1}, {}, limit=1)
    assert found.best.kept_high == ("b",) and found.best.int8_share == 0.75 and found.stopped == "fits"
    assert [block.changed_labels for block in found.blocks] == pytest.approx([0.001, 0.3, 0.001, 0.001])


def test_what_was_cheap_and_needless_goes_back():
    found = search({"cheap": 0.5, "dear": 30}, {"cheap": 1, "dear": 1000}, limit=1)
    assert found.steps[1].kept_high == ("cheap",)  # more damage for each of its few operations
    assert found.best.kept_high == ("dear",)
    assert found.chosen == len(found.steps) - 1


def test_damage_per_operation_decides():
    found = search({"a": 5, "b": 5, "c": 0}, {"a": 1000, "b": 10, "c": 10}, limit=5)
    assert found.best.kept_high == ("b",)


def test_no_mixture_fits():
    found = search({"a": 5, "b": 6, "c": 7}, {}, limit=1)
    assert found.chosen is None and found.stopped == "nothing left in INT8"
    assert found.best.drop == 5 and len(found.best.kept_high) == 2


def test_time_runs_out():
    found = search(dict.fromkeys("abcdefgh", 5), {}, limit=1, budget=0.2, seconds=0.05)
    assert found.stopped in ("out of time", "nothing left in INT8")
    assert found.chosen is None and 2 <= len(found.steps) < 8
    assert any(block.changed_labels is None for block in found.blocks)


def test_short_of_time_several_return_at_once():
    names = "abcdefghijklmnop"
    found = search(dict.fromkeys(names, 1), {}, limit=3, budget=1.0, seconds=0.06)
    assert found.stopped == "fits" and found.best.drop <= 3
    assert len(found.steps[1].kept_high) > 1


def test_expressions_name_these_places_alone():
    import re

    (pattern,) = expressions_of([Block("b", ("Conv:1:8x3x3x3",), 1)])
    assert re.search(pattern, "Conv:1:8x3x3x3") and re.search(pattern, "Conv:1:8x3x3x3:residual")
    assert not re.search(pattern, "Conv:11:8x3x3x3") and not re.search(pattern, "Conv:1:8x3x3x31")
