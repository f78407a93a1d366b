"""Real images for activation ranges and for the gate; never anything else."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from edgeseg.datasets import calibration_images
from edgeseg.failures.overlap import fingerprint
from edgeseg.images import load_image
from edgeseg.preprocess import Preprocess
from edgeseg.samples import sample_images

VERIFICATION_IMAGES = 16
FEWEST_HELD_BACK = 4  # images to spare; with fewer the gate sees calibration images


class RealImages:
    """Real images for ranges and for the gate: the user's folder, or the samples that ship with the package."""

    def __init__(self, folder: Path | None, count: int, preprocess: Preprocess):
        """`folder`: the user's images, or a data set whose training images are taken; at most `count` of them."""
        self.folder = folder
        self.preprocess = preprocess
        self.wanted = count
        self._all: Sequence[Path] = () if folder is None else calibration_images(folder)
        # The gate's images are set aside first, so that whatever is chosen for the ranges, they stay the same.
        spare = min(VERIFICATION_IMAGES, (len(self._all) - count) // 2)
        self._held_back = list(spread(range(len(self._all)), spare)) if spare >= FEWEST_HELD_BACK else []
        self._rest = sorted(set(range(len(self._all))) - set(self._held_back))
        self._chosen: Sequence[int] = spread(self._rest, count)

    @property
    def source(self) -> str:
        """The images for ranges, in words."""
        if self.folder is None:
            return "sample images of the package"
        return f"{len(self._chosen)} of {len(self._all)} images in {self.folder}"

    @property
    def verification_source(self) -> str:
        """The images of the gate, in words."""
        if not self._held_back:
            return self.source
        return f"{self.verification_count} images in {self.folder} that were not calibrated on"

    @property
    def count(self) -> int:
        return len(self._chosen) if self.folder else len(sample_images())

    def calibration(self) -> Iterator[np.ndarray]:
        """(1, 3, h, w) float32 batches."""
        yield from self._samples() if self.folder is None else self.load(self._chosen)

    def few(self, count: int) -> list[np.ndarray]:
        """Some of them, evenly spaced, held in memory."""
        return list(self.load(spread(self._chosen, count)))

    def verification(self) -> Iterator[np.ndarray]:
        """At most VERIFICATION_IMAGES, such as were not calibrated on where there are enough."""
        yield from self._samples() if self.folder is None else self.load(self._verified)

    @property
    def verification_count(self) -> int:
        return len(self._verified) if self.folder else len(sample_images())

    def candidates(self, factor: int) -> list[int]:
        """Numbers of at most `factor` times as many images as wanted, evenly spaced."""
        return list(spread(self._rest, factor * self.wanted))

    def choose(self, numbers: Sequence[int]) -> None:
        """Calibrate on these images."""
        self._chosen = list(numbers)

    def choose_fingerprints(self, numbers: Sequence[int], fingerprints: Sequence[str]) -> None:
        """Calibrate on those of the images that have these fingerprints."""
        wanted = set(fingerprints)
        self.choose([number for number in numbers if self._fingerprints[number] in wanted])

    def fingerprints(self, numbers: Sequence[int] | None = None) -> list[str]:
        """Of the image files; by default of those to calibrate on."""
        return [self._fingerprints[number] for number in (self._chosen if numbers is None else numbers)]

    def verification_fingerprints(self) -> list[str]:
        return self.fingerprints(self._verified)

    def load(self, numbers: Sequence[int]) -> Iterator[np.ndarray]:
        """(1, 3, h, w) float32 batches, one at a time."""
        for number in numbers:
            yield self.preprocess(load_image(self._all[number]))

    def _samples(self) -> Iterator[np.ndarray]:
        for _, image in sample_images():
            yield self.preprocess(image)

    @property
    def _verified(self) -> Sequence[int]:
        return spread(self._held_back or self._chosen, VERIFICATION_IMAGES)

    @cached_property
    def _fingerprints(self) -> "_Fingerprints":
        return _Fingerprints(self._all)


class _Fingerprints:
    """Fingerprint of every file, read when asked for."""

    def __init__(self, paths: Sequence[Path]):
        self._paths = paths
        self._known: dict[int, str] = {}

    def __getitem__(self, number: int) -> str:
        if number not in self._known:
            self._known[number] = fingerprint(self._paths[number])
        return self._known[number]


def spread(items: Sequence, count: int) -> Sequence:
    """At most `count` of them, evenly spaced."""
    if len(items) <= count:
        return items
    return [items[round(i * (len(items) - 1) / max(count - 1, 1))] for i in range(count)]
