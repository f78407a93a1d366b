"""Blocks of a network: runs of weighted operations that belong together by their names, or that simply follow."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

import onnx

from edgeseg.counting import macs_by_node, macs_of
from edgeseg.precision.placement import find_placement

MOST_BLOCKS = 30
ENOUGH_BLOCKS = 12  # with so many, runs of BLOCK_SIZE are left whole
BLOCK_SIZE = 5


@dataclass(frozen=True)
class Block:
    """Neighbouring weighted operations."""

    name: str  # "encoder.stages.1.blocks.0", or first and last place: "Conv:3:64x32x3x3 … Conv:5:64x64x3x3"
    keys: tuple[str, ...]  # of their places
    macs: int


def find_blocks(
    model: onnx.ModelProto, most: int = MOST_BLOCKS, dims: Mapping[str, int] | None = None
) -> tuple[Block, ...]:
    """The weighted operations of a float network in at most `most` runs, in order.

    The largest run is split, again and again, where the names of its nodes first differ: into encoder and head, then
    stages, then blocks. Where names tell nothing, or would make too many, it is cut into equal parts.
    """
    placement = find_placement(model)
    if not placement.ops:
        return ()
    nodes = model.graph.node
    paths = [_path(nodes[op.index]) for op in placement.ops]
    runs = [range(len(paths))]
    while len(runs) < most:
        longest = max(range(len(runs)), key=lambda i: len(runs[i]))
        if len(runs[longest]) <= (BLOCK_SIZE if len(runs) >= ENOUGH_BLOCKS else 1):
            break
        runs[longest : longest + 1] = _split(runs[longest], paths, most - len(runs) + 1)
    macs = macs_by_node(model, dims)
    blocks: list[Block] = []
    for run in runs:
        keys = tuple(placement.ops[i].key for i in run)
        name = _name([paths[i] for i in run], keys)
        if any(block.name == name for block in blocks):
            name = f"{name} ({keys[0]})"
        blocks.append(Block(name, keys, sum(macs_of(nodes[placement.ops[i].index], macs) for i in run)))
    return tuple(blocks)


def _path(node: onnx.NodeProto) -> tuple[str, ...]:
    """("encoder", "stages", "0", "proj") of "encoder.stages.0.proj/Conv" or "/encoder/stages.0/proj/Conv"."""
    parts = node.name.replace("/", ".").split(".")
    return tuple(part for part in parts if part and part != node.op_type)


def _split(run: range, paths: Sequence[tuple[str, ...]], most: int) -> list[range]:
    """Parts of a run of two or more, in order: 2 .. `most`."""
    common = _common([paths[i] for i in run])
    parts = [list(part) for _, part in groupby(run, key=lambda i: paths[i][: common + 1])]
    if len(parts) == 1:
        parts = [[i] for i in run]
    if len(parts) > most:
        bounds = [round(i * len(parts) / most) for i in range(most + 1)]
        parts = [[parts[a][0], parts[b - 1][-1]] for a, b in pairwise(bounds)]
    return [range(part[0], part[-1] + 1) for part in parts]


def _common(paths: Sequence[tuple[str, ...]]) -> int:
    """Length of the longest common beginning."""
    shortest, longest = min(paths), max(paths)
    return next((i for i, (a, b) in enumerate(zip(shortest, longest, strict=False)) if a != b), len(shortest))


def _name(paths: Sequence[tuple[str, ...]], keys: Sequence[str]) -> str:
    common = _common(paths)
    if common:
        return ".".join(paths[0][:common])
    return keys[0] if len(keys) == 1 else f"{keys[0]} … {keys[-1]}"
