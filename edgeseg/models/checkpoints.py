"""Checkpoint formats: how a source names the tensors of a network, and what it stores without using.

A table has one row per module, theirs on the left, ours on the right. `{i}` is a stage counted from 0, `{I}` the same
counted from 1, `{j}` a block, `{rest}` whatever stands there. Where one of their tensors holds several of ours, they
are stacked along the first axis in the order given.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

Table = dict[str, str | tuple[str, ...]]
IDENTITY: Table = {"{rest}": "{rest}"}
PLACEHOLDERS = (("i", "[0-3]"), ("I", "[1-4]"), ("j", r"\d+"), ("rest", ".*"))


@dataclass(frozen=True)
class CheckpointFormat:
    """One source of checkpoints."""

    name: str
    title: str
    table: Table
    norm_eps: Any = None  # of the family's own type, where sources train with different ones
    dead: tuple[str, ...] = ()  # beginnings of names that the network never runs, at inference
    pointwise: tuple[str, ...] = ()  # endings of modules stored as 1x1 convolutions that are linear layers here
    adapt: Callable[[str, Tensor], Tensor] | None = None  # their name and tensor -> our values, where they differ

    def is_dead(self, name: str) -> bool:
        """Whether a tensor is one that inference never reads."""
        return name.endswith(".num_batches_tracked") or name.startswith(self.dead)

    def targets(self, name: str) -> list[str]:
        """Our names for what their tensor `name` holds; empty when the table does not know it."""
        if self.table is IDENTITY:
            return [name]
        module, _, suffix = name.replace(".in_proj_", ".in_proj.").rpartition(".")
        for pattern, _, targets in self._rows:
            if match := pattern.fullmatch(module):
                return [_joined(_fill(target, match), suffix) for target in targets]
        return []

    def source(self, name: str) -> str:
        """Their name for our tensor `name`, for error messages; ours where the table has none."""
        module, _, suffix = name.rpartition(".")
        for _, template, targets in self._rows:
            for target in targets:
                if match := _pattern(target).fullmatch(module):
                    return _joined(_fill(template, match), suffix).replace(".in_proj.", ".in_proj_")
        return name

    def translate(self, name: str, tensor: Tensor) -> dict[str, Tensor]:
        """Our tensors of their tensor; empty when the table does not know it. Shapes are the caller's to check."""
        targets = self.targets(name)
        if name.removesuffix(".weight").endswith(self.pointwise) and tensor.shape[2:] == (1, 1):
            tensor = tensor.flatten(1)
        if len(targets) > 1 and tensor.ndim and tensor.shape[0] % len(targets) == 0:
            return dict(zip(targets, tensor.chunk(len(targets)), strict=True))
        return dict.fromkeys(targets, tensor)

    @cached_property
    def _rows(self) -> list[tuple[re.Pattern, str, tuple[str, ...]]]:
        rows = []
        for template, value in self.table.items():
            rows.append((_pattern(template), template, (value,) if isinstance(value, str) else value))
        return rows


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a file in our names. Nothing is known yet about their shapes."""

    path: Path
    format: CheckpointFormat
    tensors: dict[str, Tensor]  # our name -> tensor
    surplus: tuple[str, ...] = ()  # their names that mean nothing to us
    doubled: tuple[str, ...] = ()  # their names for tensors that were there already


def translate(path: Path, tensors: Mapping[str, Tensor], format: CheckpointFormat) -> Checkpoint:
    """Gives the tensors of a file our names."""
    ours: dict[str, Tensor] = {}
    surplus, doubled = [], []
    for name, tensor in tensors.items():
        values = format.adapt(name, tensor) if format.adapt else tensor
        if format.is_dead(name):
            continue
        translated = format.translate(name, values)
        if not translated:
            surplus.append(name)
        elif translated.keys() & ours.keys():
            doubled.append(name)
        ours |= translated
    return Checkpoint(path, format, ours, tuple(surplus), tuple(doubled))


def _joined(module: str, suffix: str) -> str:
    return f"{module}.{suffix}" if module else suffix


def _pattern(template: str) -> re.Pattern:
    escaped = re.escape(template)
    for placeholder, values in PLACEHOLDERS:
        escaped = escaped.replace(rf"\{{{placeholder}\}}", f"(?P<{placeholder}>{values})")
    return re.compile(escaped)


def _fill(template: str, match: re.Match) -> str:
    """The other side's name for what `match` found."""
    found = match.groupdict()
    stage = int(found.get("i") or int(found.get("I") or 1) - 1)
    return template.format(i=stage, I=stage + 1, j=found.get("j"), rest=found.get("rest"))
