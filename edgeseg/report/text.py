"""Numbers and names as the report prints them. Everything returned is escaped and may go into HTML as it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any

from edgeseg.bench.results import Row

NOT_MEASURED = '<span class="none">not measured</span>'


def significant(value: float, digits: int = 3) -> str:
    """1234.5 -> "1230", 12.345 -> "12.3", 0.01234 -> "0.0123"; never in powers of ten."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else escape(str(value))
    places = digits - 1 - math.floor(math.log10(abs(value)))
    return _grouped(round(value, places), max(places, 0))


def percent(fraction: float) -> str:
    return f"{100 * fraction:.2f}"


def number(value: float) -> str:
    """Two decimals below a hundred, one above: parameters, MACs and megabytes."""
    return _grouped(value, 2 if abs(value) < 100 else 1)


def _grouped(value: float, places: int) -> str:
    return f"{value:,.{places}f}".replace(",", "\u202f")  # a narrow space, which does not break


def size_of(row: Row) -> str:
    return f"{row.height}×{row.width}"


def system_of(row: Row) -> str:
    """ "edgeseg on openvino", or the baseline's own name; not escaped."""
    return f"{row.system} on {row.backend}" if row.system.startswith("edgeseg") else row.system


def name_of(row: Row, *, in_full: bool = True) -> str:
    """What tells a row from all others; not escaped."""
    parts = [row.model, row.precision, system_of(row)]
    if in_full:
        parts += [size_of(row), *([f"batch {row.batch}"] if row.batch != 1 else [])]
    return " · ".join(parts)


def unique(values: Sequence) -> list:
    """Each once, in order of appearance."""
    return list(dict.fromkeys(values))


def plain(value: Any) -> str:
    """A value of the environment."""
    if value is None or value == "":
        return NOT_MEASURED
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(plain, value)) if value else "none"
    if isinstance(value, dict):
        return ", ".join(f"{escape(str(key))} {plain(part)}" for key, part in value.items()) if value else "none"
    if isinstance(value, float):
        return significant(value, 4)
    return escape(str(value))
