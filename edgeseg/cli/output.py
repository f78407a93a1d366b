"""What the commands share: JSON on stdout, tables for people, and the parsing of sizes."""

import json
import math
import re

import typer

JSON_OPTION = typer.Option(False, "--json", help="Print one JSON document on stdout.")


def print_json(document: object) -> None:
    """One document, NaN as null."""
    print(json.dumps(_without_nan(document), indent=2, ensure_ascii=False))


def _without_nan(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {k: _without_nan(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(v) for v in value]
    return value


def parse_size(text: str | None) -> tuple[int, int] | None:
    """'512x1024' -> (512, 1024), height first."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)[xX](\d+)", text.strip())
    size = (int(match[1]), int(match[2])) if match else (0, 0)
    if not all(32 <= side <= 16384 for side in size):
        raise typer.BadParameter(f"a size is HEIGHTxWIDTH such as 512x1024, each from 32 to 16384; got {text!r}")
    return size


def parse_batch(text: str) -> int | tuple[int, int, int]:
    """'4' -> 4; '1:4:8' -> (1, 4, 8): smallest, usual and largest of a dynamic batch."""
    parts = text.split(":")
    if all(p.isdigit() and int(p) >= 1 for p in parts):
        numbers = [int(p) for p in parts]
        if len(numbers) == 1:
            return numbers[0]
        if len(numbers) == 3 and numbers == sorted(numbers):
            return numbers[0], numbers[1], numbers[2]
    raise typer.BadParameter(f"a batch is a number such as 4, or SMALLEST:USUAL:LARGEST such as 1:4:8; got {text!r}")


def parse_scales(text: str) -> tuple[float, ...]:
    """'0.75,1,1.25' -> (0.75, 1.0, 1.25)."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"scales are numbers such as 0.75,1,1.25; got {text!r}") from None


def human_bytes(count: float) -> str:
    """1234567 -> '1.2 MB'."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError
