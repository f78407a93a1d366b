"""Mixed precision by search: which blocks to take out of INT8 so that masks stay within a limit.

1. Plain INT8 is judged on all images. If it fits, that is all.
2. Each block is quantized alone, and the share of labels that changes is its damage. Alone, rather than all others
   quantized: damages of several broken blocks hide each other. The ranking may take RANKING_SHARE of the time, with
   fewer images if need be.
3. Blocks return to floating point, most damage per multiply-accumulate first, each step judged on all images, until it
   fits. When time runs short, several at once.
4. What the rest has made needless goes back into INT8, the costliest first, as long as it still fits. If step 3 found
   nothing, this begins with all of the network in floating point.
"""

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from edgeseg.precision.blocks import Block
from edgeseg.progress import Progress

RANKING_SHARE = 0.5


@dataclass(frozen=True)
class Outcome:
    """A mixture on the images."""

    drop: float  # points of mIoU or agreement-mIoU
    label_agreement: float  # share of pixels that keep FP32's label
    fits: bool
    int8_share: float  # of the multiply-accumulates


@dataclass(frozen=True)
class Step:
    """One mixture that was judged."""

    kept_high: tuple[str, ...]  # blocks out of INT8
    drop: float
    label_agreement: float
    int8_share: float
    fits: bool


@dataclass(frozen=True)
class RankedBlock:
    """What one block does to masks when it alone is quantized."""

    name: str
    operations: int
    macs: int
    changed_labels: float | None  # share of pixels; None: no time to measure it


@dataclass(frozen=True)
class Fallback:
    """The search, step by step."""

    max_drop: float  # points
    measure: str  # "mIoU" or "agreement-mIoU"
    images: int
    budget: float  # seconds
    seconds: float
    stopped: str  # "fits", "out of time", "nothing left in INT8"
    blocks: tuple[RankedBlock, ...]  # in the network's order
    steps: tuple[Step, ...]  # the first is plain INT8
    chosen: int | None  # index of the step that was taken; None: none fits

    @property
    def best(self) -> Step:
        """The step taken, or where none fits the one that loses least."""
        return self.steps[self.chosen] if self.chosen is not None else min(self.steps, key=lambda step: step.drop)

    def to_json(self) -> dict:
        return asdict(self)


def expressions_of(blocks: Sequence[Block]) -> list[str]:
    """For `quantize(exclude=...)`: all places of these blocks and nothing else."""
    return [rf"^{re.escape(key)}(:residual)?$" for block in blocks for key in block.keys]


def search_fallback(
    blocks: Sequence[Block],
    judge: Callable[[Sequence[Block]], Outcome],
    changed_labels: Callable[[Sequence[Block], float], float],
    *,
    max_drop: float,
    measure: str,
    images: int,
    budget: float,
    progress: Progress = Progress(),
) -> Fallback:
    """Look for the mixture with most of its work in INT8 that fits.

    Args:
        blocks: all of the network, in its order.
        judge: blocks kept high -> how that mixture does on all images.
        changed_labels: (blocks kept high, share of the images to use, 0 .. 1) -> share of pixels with another label.
        max_drop, measure, images: for the record.
        budget: seconds. No step begins after it; the one at work is finished.
    """
    search = _Search(tuple(blocks), judge, budget, progress)
    search.try_out(frozenset())
    ranked: dict[str, float] = {}
    stopped = "fits"
    if not search.steps[0].fits:
        ranked = search.rank(changed_labels)
        stopped = search.return_blocks(search.in_order(ranked))
        if stopped != "out of time":
            search.give_back(search.steps[-1].kept_high if stopped == "fits" else [block.name for block in blocks])
    fitting = [i for i, step in enumerate(search.steps) if step.fits]
    if fitting:
        stopped = "fits"
    return Fallback(
        max_drop=max_drop,
        measure=measure,
        images=images,
        budget=budget,
        seconds=round(search.elapsed(), 1),
        stopped=stopped,
        blocks=tuple(RankedBlock(b.name, len(b.keys), b.macs, ranked.get(b.name)) for b in blocks),
        steps=tuple(search.steps),
        chosen=max(fitting, key=lambda i: search.steps[i].int8_share) if fitting else None,
    )


class _Search:
    def __init__(
        self, blocks: tuple[Block, ...], judge: Callable[[Sequence[Block]], Outcome], budget: float, progress: Progress
    ):
        self.blocks = blocks
        self.judge = judge
        self.budget = budget
        self.progress = progress
        self.steps: list[Step] = []
        self.begin = time.monotonic()
        self.seconds_of_step = 0.0

    def elapsed(self) -> float:
        return time.monotonic() - self.begin

    def try_out(self, high: frozenset[str]) -> Step:
        begin = time.monotonic()
        kept = [block for block in self.blocks if block.name in high]
        outcome = self.judge(kept)
        self.seconds_of_step = time.monotonic() - begin
        names = tuple(block.name for block in kept)
        step = Step(names, outcome.drop, outcome.label_agreement, outcome.int8_share, outcome.fits)
        self.steps.append(step)
        return step

    def rank(self, changed_labels: Callable[[Sequence[Block], float], float]) -> dict[str, float]:
        """Block name -> share of labels that it alone changes, as far as time allows."""
        seconds = RANKING_SHARE * self.budget
        part = min(1.0, seconds / (len(self.blocks) * max(self.seconds_of_step, 1e-6)))
        ranked: dict[str, float] = {}
        with self.progress.task("INT8 loses too much: find what hurts", len(self.blocks)) as advance:
            for block in self.blocks:
                if self.elapsed() > seconds + self.seconds_of_step:
                    break
                ranked[block.name] = changed_labels([other for other in self.blocks if other is not block], part)
                advance(1)
        return ranked

    def in_order(self, ranked: dict[str, float]) -> list[Block]:
        """Most damage per multiply-accumulate first; those without a rank last, the cheap before the dear."""
        return sorted(self.blocks, key=lambda block: (-ranked.get(block.name, -1.0) / max(block.macs, 1), block.macs))

    def return_blocks(self, order: list[Block]) -> str:
        """Take blocks out of INT8 until it fits; why it stopped."""
        high: list[str] = []
        with self.progress.task("return blocks to floating point", len(order)) as advance:
            while len(high) < len(order) - 1:
                left = self.budget - self.elapsed()
                if left <= 0:
                    return "out of time"
                affordable = max(1, int(left / max(self.seconds_of_step, 1e-6)))
                at_once = -(-(len(order) - 1 - len(high)) // affordable)
                high += [block.name for block in order[len(high) : len(high) + at_once]]
                advance(at_once)
                if self.try_out(frozenset(high)).fits:
                    return "fits"
        return "nothing left in INT8"

    def give_back(self, kept_high: Sequence[str]) -> None:
        """Of a mixture that fits, put into INT8 again what it does not need."""
        high = set(kept_high)
        costly = sorted((block for block in self.blocks if block.name in high), key=lambda block: -block.macs)
        with self.progress.task("return what was needless to INT8", len(costly)) as advance:
            for block in costly if len(costly) > 1 else ():
                if self.elapsed() + self.seconds_of_step > self.budget:
                    return
                if self.try_out(frozenset(high - {block.name})).fits:
                    high.discard(block.name)
                advance(1)
