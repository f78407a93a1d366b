"""Interleaving: who runs when. Nothing here looks at a clock."""

from edgeseg.timing import interleave


def test_each_in_turn_with_an_untimed_run_first():
    calls: list[str] = []
    times = interleave({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2)
    assert calls == ["a", "a", "b", "b"] * 2
    assert {name: len(own) for name, own in times.items()} == {"a": 2, "b": 2}
