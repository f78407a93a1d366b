"""Counts of the catalogue's networks at the published sizes, made once from the networks themselves.

They ship so that listing the networks needs no torch. ``benchmarks/counting/ship_counts.py`` writes the file again;
a test compares every row with the network.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from edgeseg.files import write_atomically

COUNTS_FILE = Path(__file__).resolve().parent.parent / "assets" / "network_counts.json"
Key = tuple[str, tuple[int, int], int]  # name, (height, width), classes


@dataclass(frozen=True)
class ShippedCounts:
    """One network at one size and class count, without the heads that only training uses."""

    params: int
    published_macs: int
    deployed_macs: int | None  # of the rewritten ONNX graph; None where it has not been counted


@cache
def shipped_counts() -> dict[Key, ShippedCounts]:
    """What ships, by network, size and class count."""
    counts = {}
    for name, rows in _content()["counts"].items():
        for where, row in rows.items():
            height, width, classes = map(int, where.split("x"))
            counts[name, (height, width), classes] = ShippedCounts(**row)
    return counts


@cache
def shipped_names() -> dict[str, tuple[int, str]]:
    """For each network how many tensors it has, and the digest of their names: a checkpoint is recognised by them."""
    return {name: (count, digest) for name, (count, digest) in _content()["names"].items()}


def write_counts(counts: dict[Key, ShippedCounts], names: dict[str, tuple[int, str]]) -> None:
    """Puts rows into the file that ships, and keeps those of other networks in `names`."""
    for cached in (_content, shipped_counts, shipped_names):
        cached.cache_clear()  # another run may have written meanwhile
    rows: dict[str, dict[str, dict]] = {}
    for (name, (height, width), classes), row in sorted((shipped_counts() | counts).items()):
        if name in names:
            rows.setdefault(name, {})[f"{height}x{width}x{classes}"] = asdict(row)
    text = json.dumps({"counts": rows, "names": dict(sorted(names.items()))}, indent=1) + "\n"
    write_atomically(COUNTS_FILE, text.encode())
    for cached in (_content, shipped_counts, shipped_names):
        cached.cache_clear()


@cache
def _content() -> dict:
    return json.loads(COUNTS_FILE.read_text(encoding="utf-8"))
