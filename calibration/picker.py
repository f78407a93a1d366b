"""Which images to calibrate on: a few that together show what the network can see.

Evenly spaced frames of a drive show road and sky a hundred times and a bicycle never. The FP32 network labels the
candidates, and the images are chosen by what it saw: the class that the choice has least of comes next, and of the
images with that class the one least like those chosen already.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

CANDIDATES_PER_IMAGE = 4  # candidates looked at for each image wanted
SEEN_SHARE = 1e-3  # of an image's pixels: a class below it does not count as shown


@dataclass(frozen=True)
class Pick:
    """What was chosen, and what it covers."""

    indices: tuple[int, ...]  # of the candidates, ascending
    candidates: int
    images_with_class: tuple[int, ...]  # (C,) chosen images that show each class
    only_elsewhere: tuple[int, ...]  # classes that a candidate shows and no chosen image does: more than images

    def note(self, classes: Sequence[str]) -> str:
        """One line for people."""
        shown = sum(count > 0 for count in self.images_with_class)
        never = [name for name, count in zip(classes, self.images_with_class, strict=True) if count == 0]
        words = f"calibration images picked: {len(self.indices)} of {self.candidates}, showing {shown} of "
        return words + f"{len(classes)} classes" + (f"; never {', '.join(never)}" if never else "")


def class_histograms(
    infer: Callable[[np.ndarray], np.ndarray], batches: Iterable[np.ndarray], num_classes: int
) -> np.ndarray:
    """(images, C) share of every class in the network's own labels, at the logits' size.

    Args:
        infer: (1, 3, h, w) float32 -> (1, C, h / s, w / s) logits.
        batches: (1, 3, h, w) network inputs, read once.
    """
    rows = []
    for batch in batches:
        labels = infer(batch)[0].argmax(0)
        rows.append(np.bincount(labels.ravel(), minlength=num_classes) / labels.size)
    return np.reshape(rows, (-1, num_classes))


def pick(histograms: np.ndarray, count: int) -> Pick:
    """`count` rows that cover the classes, rarest first, and lie far from each other.

    Args:
        histograms: (images, C) shares, as `class_histograms` makes them.
        count: at least 1; all rows where there are no more.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    shows = histograms >= SEEN_SHARE  # (images, C)
    left = np.ones(len(histograms), bool)
    shown = np.zeros(histograms.shape[1], np.int64)
    distance = np.full(len(histograms), np.inf)  # to the nearest chosen one, L1
    chosen: list[int] = []
    while len(chosen) < min(count, len(histograms)):
        available = (shows & left[:, None]).sum(0)  # images left, by class
        wanted = [c for c in np.flatnonzero(available) if shown[c] == shown[available > 0].min()]
        rarest = min(wanted, key=lambda c: available[c], default=None)
        with_class = left if rarest is None else left & shows[:, rarest]
        spread = np.where(np.isinf(distance), shows.sum(1), distance)  # the first: the image of most classes
        best = int(np.argmax(np.where(with_class, spread, -1)))
        chosen.append(best)
        left[best] = False
        shown += shows[best]
        distance = np.minimum(distance, np.abs(histograms - histograms[best]).sum(1))
    elsewhere = np.flatnonzero((shows.sum(0) > 0) & (shown == 0))
    return Pick(tuple(sorted(chosen)), len(histograms), tuple(shown.tolist()), tuple(elsewhere.tolist()))
