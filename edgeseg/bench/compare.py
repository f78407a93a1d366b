"""Two results side by side: what changed beyond noise, and whether it became worse."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from edgeseg.bench.results import Results, Row


@dataclass(frozen=True)
class Limits:
    """What is too small to call a change."""

    latency: float = 0.05  # share of the median, besides the intervals: what runs on one machine differ by anyway
    miou: float = 0.001  # fraction: 0.1 points
    agreement: float = 0.005  # fraction of agreement-mIoU
    engine_bytes: float = 0.05  # share


@dataclass(frozen=True)
class Change:
    """One cell in two results. None: one of them did not measure it."""

    key: tuple
    latency_ratio: float | None  # median of the second by the median of the first: above 1 is slower
    ratio_low: float | None  # the interval that follows from the two medians' intervals
    ratio_high: float | None
    speed: str | None  # "faster", "slower", "same within noise"
    miou: float | None  # second minus first, fraction
    agreement_miou: float | None
    engine_bytes_ratio: float | None
    presence: str  # "both", "only in the first", "only in the second"
    regressions: tuple[str, ...]  # what became worse, in words

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def compare(before: Results, after: Results, limits: Limits = Limits()) -> list[Change]:
    """Cells of both by key, in the order of the first."""
    first = {row.key: row for row in before.rows}
    second = {row.key: row for row in after.rows}
    return [_change(key, first.get(key), second.get(key), limits) for key in {**first, **second}]


def differing_conditions(before: Results, after: Results) -> list[str]:
    """What differs between the two besides edgeseg: a change of speed may come from there."""
    lines = []
    for name in ("devices", "versions", "cpu", "gpu", "power_mode", "omp_num_threads"):
        old, new = (results.environment.get(name) for results in (before, after))
        if isinstance(old, dict) and isinstance(new, dict):
            keys = [key for key in {**old, **new} if key not in ("mhz", "load_1min", "throttled")]
            lines += [f"{key}: {old.get(key)} → {new.get(key)}" for key in keys if old.get(key) != new.get(key)]
        elif name == "devices":
            names = [", ".join(device["name"] for device in found or ()) for found in (old, new)]
            lines += [f"device: {names[0]} → {names[1]}"] if names[0] != names[1] else []
        elif old != new:
            lines.append(f"{name}: {old} → {new}")
    return lines


def _change(key: tuple, before: Row | None, after: Row | None, limits: Limits) -> Change:
    if before is None or after is None:
        presence = "only in the second" if before is None else "only in the first"
        return Change(key, None, None, None, None, None, None, None, presence, ())
    ratio, low, high = _latency_ratio(before, after)
    speed = _speed(ratio, low, high, limits.latency)
    miou = _difference(before.miou, after.miou)
    agreement = _difference(before.agreement_miou, after.agreement_miou)
    size = after.engine_bytes / before.engine_bytes if before.engine_bytes and after.engine_bytes else None
    worse = []
    if after.failure and not before.failure:
        worse.append(f"fails now: {after.failure}")
    if speed == "slower":
        worse.append(f"{ratio:.2f} times as slow")
    if miou is not None and miou < -limits.miou:
        worse.append(f"{-100 * miou:.2f} points of mIoU lost")
    if agreement is not None and agreement < -limits.agreement and not after.failure:
        worse.append(f"{-100 * agreement:.2f} points of agreement-mIoU lost")
    if size is not None and size > 1 + limits.engine_bytes:
        worse.append(f"engine {100 * (size - 1):.0f} % larger")
    return Change(key, ratio, low, high, speed, miou, agreement, size, "both", tuple(worse))


def _latency_ratio(before: Row, after: Row) -> tuple[float | None, float | None, float | None]:
    old, new = before.latency, after.latency
    if old is None or new is None or min(old.low, new.low) <= 0:
        return None, None, None
    return new.p50 / old.p50, new.low / old.high, new.high / old.low


def _speed(ratio: float | None, low: float | None, high: float | None, limit: float) -> str | None:
    """A change is called one where the intervals do not meet, and the medians are further apart than `limit`."""
    if ratio is None or low is None or high is None:
        return None
    if low > 1 and ratio > 1 + limit:
        return "slower"
    if high < 1 and ratio < 1 / (1 + limit):
        return "faster"
    return "same within noise"


def _difference(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else after - before
