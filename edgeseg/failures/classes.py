"""Class ids in another order: a permutation of the classes that restores agreement."""

from collections.abc import Sequence

import numpy as np

from edgeseg.failures import Finding

LISTED_CLASSES = 6


def reordered(matrix: np.ndarray, classes: Sequence[str], *, least_gain: float, least_share: float) -> list[Finding]:
    """Whether another order of the classes explains a confusion matrix.

    Args:
        matrix: (C, C) counts of (class in the truth, class predicted).
        classes: C names.
        least_gain: of label agreement, 0 .. 1, that the order must bring.
        least_share: of the disagreeing pixels that it must mend.
    """
    total = int(matrix.sum())
    if total == 0:
        return []
    order = best_order(matrix)
    before = float(np.trace(matrix)) / total
    after = float(matrix[order, np.arange(len(order))].sum()) / total
    if after - before < max(least_gain, least_share * (1 - before)):
        return []
    seen = (matrix.sum(0) > 0) & (matrix.sum(1)[order] > 0)
    moved = [(predicted, true) for predicted, true in enumerate(order.tolist()) if predicted != true]
    moved = [(predicted, true) for predicted, true in moved if seen[predicted]]
    if not moved:
        return []
    listed = ", ".join(f"{classes[p]!r} is really {classes[t]!r}" for p, t in moved[:LISTED_CLASSES])
    more = f" and {len(moved) - LISTED_CLASSES} more" if len(moved) > LISTED_CLASSES else ""
    offsets = {true - predicted for predicted, true in moved}
    offset = offsets.pop() if len(offsets) == 1 and len(moved) > 2 else 0
    hint = f" (all ids are off by {offset:+d}: a background class more or less)" if offset else ""
    message = (
        f"class order: predicted {listed}{more}{hint}; in that order {after:.2%} of pixels agree instead of "
        f"{before:.2%}: give the label set or palette that the network was trained with (--dataset, classes.json)"
    )
    mapping = {classes[predicted]: classes[true] for predicted, true in moved}
    return [Finding("class-order", "error", message, {"predicted_is_really": mapping, "agreement": after})]


def best_order(matrix: np.ndarray) -> np.ndarray:
    """(C,) the true class of each predicted one: greedily, the pair of the largest IoU first; the rest stay or fill."""
    counts = matrix.astype(np.float64)
    union = counts.sum(1)[:, None] + counts.sum(0)[None, :] - counts
    iou = np.divide(counts, union, out=np.zeros_like(counts), where=union > 0)
    order = np.full(len(counts), -1)
    while iou.size and iou.max() > 0:
        true, predicted = np.unravel_index(int(iou.argmax()), iou.shape)
        order[predicted] = true
        iou[true, :] = iou[:, predicted] = 0
    free = [true for true in range(len(order)) if true not in order]
    for position in np.flatnonzero(order < 0).tolist():
        order[position] = free.pop(free.index(position) if position in free else 0)
    return order
