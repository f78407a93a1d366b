"""The images that every system is given: real ones, at the network's input size."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import numpy as np
from PIL import Image

from edgeseg.bench.plan import BenchOptions
from edgeseg.datasets import calibration_images, open_dataset
from edgeseg.images import load_image
from edgeseg.samples import PHOTOGRAPHS, sample_images


def input_images(options: BenchOptions, size: tuple[int, int]) -> list[np.ndarray]:
    """(height, width, 3) uint8 RGB: of --data, else of --calibration-data, else the samples of the package.

    They are brought to the network's size beforehand, so that all systems do the same work: the baselines' graphs end
    at that size, whatever the image's own.
    """
    found: Sequence[np.ndarray]
    if options.data:
        samples = _spread(list(open_dataset(options.data, options.split))[: options.limit], options.images)
        found = [sample.load()[0] for sample in samples]
    elif options.calibration_data:
        paths = calibration_images(options.calibration_data)
        found = [load_image(path) for path in _spread(paths, options.images)]
    else:
        found = [image for _, image in islice(sample_images(), options.images)]
    return [_resized(image, size) for image in found]


def describe_inputs(options: BenchOptions) -> str:
    source = options.data or options.calibration_data or "the package's samples"
    return f"up to {options.images} images of {source}, at the network's input size"


def photograph(size: tuple[int, int]) -> np.ndarray:
    """One of the package's."""
    return _resized(load_image(PHOTOGRAPHS[0]), size)


def _resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if image.shape[:2] == size:
        return image
    return np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))


def _spread(items: Sequence, count: int) -> list:
    """At most `count` of them, evenly spaced."""
    if len(items) <= count:
        return list(items)
    return [items[i * len(items) // count] for i in range(count)]
