"""Pictures that ship with the package: two photographs (credits beside them) and street scenes drawn from a seed."""

from functools import cache
from pathlib import Path

import numpy as np

from edgeseg.images import load_image
from edgeseg.street import synthetic_street

__all__ = ["PHOTOGRAPHS", "sample_images", "synthetic_street"]

_FOLDER = Path(__file__).parent / "assets" / "images"
PHOTOGRAPHS = tuple(_FOLDER / name for name in ("china.jpg", "flower.jpg"))
_SEEDS = range(6)


def sample_images() -> list[tuple[str, np.ndarray]]:
    """Names and (H, W, 3) uint8 RGB pictures: the photographs, then six street scenes of 480 x 640."""
    return [(name, image.copy()) for name, image in _samples()]


@cache  # drawing takes a second, and a build asks several times
def _samples() -> list[tuple[str, np.ndarray]]:
    photographs = [(path.stem, load_image(path)) for path in PHOTOGRAPHS]
    return photographs + [(f"street-{seed}", synthetic_street(seed)[0]) for seed in _SEEDS]
