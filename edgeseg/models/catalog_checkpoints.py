"""Which network of the catalogue a checkpoint holds. Names and shapes decide, never the name of the file."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from functools import cache
from hashlib import sha256
from typing import Any

from torch import Tensor

from edgeseg.models.catalog import CATALOG
from edgeseg.models.checkpoints import IDENTITY, CheckpointFormat
from edgeseg.models.network_entry import NetworkEntry
from edgeseg.models.shapes import expected_shapes
from edgeseg.models.shipped_counts import shipped_names

TITLES = {"huggingface": "Hugging Face", "nvlabs": "NVlabs"}  # other formats are called by their names
PREFIXES = ("", "backbone.")  # a backbone alone is saved without the whole network's prefix
ALIKE = 0.5  # share of a network's names, or of the file's, from which a file is taken to be meant for it


@cache
def formats_of(entry: NetworkEntry) -> tuple[CheckpointFormat, ...]:
    """The formats of one network, its own first."""
    tables, adapters = dict(entry.tables), dict(entry.adapters)
    formats = []
    for name in entry.formats:
        table = _attribute(tables[name]) if name in tables else IDENTITY
        adapt = _attribute(adapters[name]) if name in adapters else None
        dead = () if name == "edgeseg" else entry.dead
        formats.append(CheckpointFormat(name, TITLES.get(name, name), table, dead=dead, adapt=adapt))
    return tuple(formats)


def _attribute(path: str) -> Any:
    """Of "module:name"."""
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)


def recognise(tensors: Mapping[str, Tensor], model: str | None = None) -> tuple[NetworkEntry, CheckpointFormat] | None:
    """The network whose names these are, every one of them; of several such the one whose shapes agree most, and of
    several such `model`, the one asked for."""
    digests: dict[tuple, str] = {}
    found: list[tuple[NetworkEntry, CheckpointFormat]] = []
    for entry in CATALOG:
        for format in formats_of(entry):
            key = (id(format.table), format.dead, entry.elastic)  # most networks share a format
            if key not in digests:
                digests[key] = digest(_ours(entry, format, tensors))
            if digests[key] == _digest_of(entry):
                found.append((entry, format))
                break
    if len(found) < 2:
        return found[0] if found else None
    return max(found, key=lambda pair: (_agreeing_shapes(pair[0], pair[1], tensors), pair[0].name == model))


def nearest(tensors: Mapping[str, Tensor]) -> tuple[NetworkEntry, CheckpointFormat] | None:
    """The network that shares most names with the file; None where none shares half of them.

    It builds those with about as many tensors, which takes seconds: for files that fit nothing.
    """
    pairs = [(entry, format) for entry in CATALOG for format in formats_of(entry) if _may_be_alike(entry, tensors)]
    best = max(pairs, key=lambda pair: _alike(pair[0], pair[1], tensors), default=None)
    return best if best and _alike(best[0], best[1], tensors) >= ALIKE else None


def best_format(entry: NetworkEntry, tensors: Mapping[str, Tensor]) -> tuple[CheckpointFormat, float]:
    """The format of this network that fits the file's names best, and how well: 0 to 1."""
    format = max(formats_of(entry), key=lambda format: _alike(entry, format, tensors))
    return format, _alike(entry, format, tensors)


def is_backbone(entry: NetworkEntry, tensors: Mapping[str, Tensor]) -> bool:
    """Whether the file holds half of the network's backbone or more, and nothing of its head."""
    expected = expected_shapes(entry.name, 1)
    backbone = {name for name in expected if name.startswith("backbone.")}
    for prefix in PREFIXES:
        known = {prefix + name for name in tensors} & expected.keys()
        if backbone and len(known) >= ALIKE * len(backbone) and known <= backbone:
            return True
    return False


def digest(names: Iterable[str]) -> str:
    """Of a network's names, whatever their order."""
    return sha256("\n".join(sorted(names)).encode()).hexdigest()[:16]


def _digest_of(entry: NetworkEntry) -> str:
    """Shipped, so that recognising a file builds no network; a row that is newer than the file is built."""
    if entry.name in shipped_names():
        return shipped_names()[entry.name][1]
    return digest(expected_shapes(entry.name, 1))


def _may_be_alike(entry: NetworkEntry, tensors: Mapping[str, Tensor]) -> bool:
    """Whether the file has enough tensors to share `ALIKE` of the names, counters and training's heads aside."""
    if entry.name not in shipped_names():
        return True
    count, alive = shipped_names()[entry.name][0], sum(not n.endswith(".num_batches_tracked") for n in tensors)
    return ALIKE * count <= alive <= 2 * count / ALIKE


def _ours(entry: NetworkEntry, format: CheckpointFormat, tensors: Mapping[str, Tensor]) -> set[str]:
    """The file's names in ours; those that the format does not know stay, and fit no network."""
    alive = [name for name in tensors if not format.is_dead(name)]
    ours = {ours for name in alive for ours in format.targets(name) or [f"?{name}"]}
    return ours - set(entry.elastic)


def _alike(entry: NetworkEntry, format: CheckpointFormat, tensors: Mapping[str, Tensor]) -> float:
    """Shared names over all names of both sides (Jaccard's index)."""
    ours, expected = _ours(entry, format, tensors), expected_shapes(entry.name, 1).keys()
    return len(ours & expected) / len(ours | expected)


def _agreeing_shapes(entry: NetworkEntry, format: CheckpointFormat, tensors: Mapping[str, Tensor]) -> int:
    expected = expected_shapes(entry.name, 1)
    translated = {
        ours: part.shape
        for name, tensor in tensors.items()
        if not format.is_dead(name)
        for ours, part in format.translate(name, tensor).items()
    }
    return sum(translated.get(name) == shape for name, shape in expected.items())
