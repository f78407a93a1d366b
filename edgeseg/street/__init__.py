"""Street scenes drawn from a seed, with their labels: test data that no licence covers and no download needs.

A pin-hole camera looks along a street (X to the right, Y up, Z ahead, in metres); everything is a polygon or an ellipse
drawn from far to near, once into the picture and once, with its class id, into the label map.
"""

import numpy as np

from edgeseg.street.houses import blocks, ground
from edgeseg.street.scene import SCALE, Scene, developed
from edgeseg.street.traffic import street_furniture, traffic


def synthetic_street(seed: int, size: tuple[int, int] = (480, 640)) -> tuple[np.ndarray, np.ndarray]:
    """A street scene; the same seed and size give the same arrays.

    Args:
        seed: 0 to 2**32 - 1.
        size: (height, width) in pixels, at least 32 each.

    Returns:
        image: (H, W, 3) uint8 RGB. labels: (H, W) uint8, ids of the CamVid label set (0 to 10), no void.
    """
    height, width = size
    if min(size) < 32:
        raise ValueError(f"a street scene needs at least 32 x 32 pixels, got {height} x {width}")
    # RandomState, not default_rng: its streams are frozen, so that a seed means one scene in every numpy.
    scene = Scene.random(np.random.RandomState(seed), size)
    ground(scene)
    # Seen from within the street, nothing behind the pavements can hide what stands on them: two layers.
    for layer in (blocks(scene), [*street_furniture(scene), *traffic(scene)]):
        for _, draw in sorted(layer, key=lambda thing: -thing[0]):
            draw()
    return developed(scene), np.asarray(scene.labels)[::SCALE, ::SCALE].copy()
