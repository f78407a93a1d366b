"""Timing several ways of doing one thing, side by side."""

import time
from collections.abc import Callable, Mapping


def interleave(
    systems: Mapping[str, Callable[[], object]], repeats: int, after: Callable[[str], None] | None = None
) -> dict[str, list[float]]:
    """Milliseconds of each system, each in turn, so that drift meets all of them alike.

    `after` is told the system's name behind each timed run.

    A pause and an untimed run stand before each timed one: the threads of the system before spin for a while after
    their work and would take cores from the next.
    """
    times: dict[str, list[float]] = {name: [] for name in systems}
    for _ in range(repeats):
        for name, system in systems.items():
            time.sleep(0.1)
            system()
            begin = time.perf_counter()
            system()
            times[name].append(1000 * (time.perf_counter() - begin))
            if after:
                after(name)
    return times
