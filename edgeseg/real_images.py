"""Real images for activation ranges and for the gate; never anything else."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from edgeseg.datasets import calibration_images
from edgeseg.images import load_image
from edgeseg.preprocess import Preprocess
from edgeseg.samples import sample_images

VERIFICATION_IMAGES = 16


class RealImages:
    """Real images for ranges and for the gate: the user's folder, or the samples that ship with the package."""

    def __init__(self, folder: Path | None, count: int, preprocess: Preprocess):
        """`folder`: the user's images, or a data set whose training images are taken; at most `count` of them."""
        self.folder = folder
        self.preprocess = preprocess
        if folder is None:
            self.source = "sample images of the package"
            self._paths: Sequence[Path] = ()
        else:
            paths = calibration_images(folder)
            self._paths = _spread(paths, count)
            self.source = f"{len(self._paths)} of {len(paths)} images in {folder}"

    @property
    def count(self) -> int:
        return len(self._paths) if self.folder else len(sample_images())

    def calibration(self) -> Iterator[np.ndarray]:
        """(1, 3, h, w) float32 batches."""
        for image in self._load(self._paths):
            yield self.preprocess(image)

    def verification(self) -> Iterator[np.ndarray]:
        """At most VERIFICATION_IMAGES of them."""
        for image in self._load(_spread(self._paths, VERIFICATION_IMAGES)):
            yield self.preprocess(image)

    @property
    def verification_count(self) -> int:
        return min(self.count, VERIFICATION_IMAGES)

    def _load(self, paths: Sequence[Path]) -> Iterator[np.ndarray]:
        if self.folder is None:
            yield from (image for _, image in sample_images())
        else:
            yield from (load_image(path) for path in paths)


def _spread(items: Sequence, count: int) -> Sequence:
    """At most `count` of them, evenly spaced."""
    if len(items) <= count:
        return items
    return [items[round(i * (len(items) - 1) / max(count - 1, 1))] for i in range(count)]
