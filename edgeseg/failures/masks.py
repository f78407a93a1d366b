"""Masks moved or stretched against the truth: what is left of a resize with another convention.

With output pixel y of H and stride s, half-pixel centres read the source at (y + 0.5) / s - 0.5. Pixel corners
(asymmetric) read at y / s: everything moves by (s - 1) / 2 pixels. align_corners reads at y (h - 1) / (H - 1): the
middle stays, and the borders move by (s - 1) / 2 outwards.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgeseg.failures import Finding
from edgeseg.labels import VOID

LARGEST_SHIFT = 8  # pixels; (s - 1) / 2 of strides up to 16
STRETCHES = (0.5, 1.0, 1.5, 2.0, 3.0, 3.5, 4.0, 6.0, 7.5, 8.0)  # pixels at the border
FINE = 3  # sub-pixels to a pixel, odd, so that one lies on the pixel's centre
_PIXELS = 1 << 14  # looked at in one image


@dataclass(frozen=True)
class Placed:
    """Candidate labels of one image on a grid FINE times as dense, and the labels they should equal."""

    fine: np.ndarray  # (FINE * H, FINE * W) uint8
    truth: np.ndarray  # (H, W) uint8, 255 does not count


def misplaced(images: Sequence[Placed], *, least_gain: float, least_share: float) -> list[Finding]:
    """Whether the masks agree better when moved or stretched.

    Args:
        images: a few, with structure in them.
        least_gain: of label agreement, 0 .. 1, that a move must bring.
        least_share: of the disagreeing pixels that a move must mend.
    """
    grids = [_Grid(image) for image in images if min(image.truth.shape) > 4 * LARGEST_SHIFT]
    if not grids:
        return []
    plain = _mean(grids, 0, 0)
    whole = range(-LARGEST_SHIFT, LARGEST_SHIFT + 1)
    shifts = [(float(dy), float(dx)) for dy in whole for dx in whole]
    best = max(shifts, key=lambda shift: _mean(grids, *shift))
    steps = [(0, 0), (0, 1), (1, 0), (0, -1), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1)]  # of equals the first wins
    shift = max(((best[0] + i / FINE, best[1] + j / FINE) for i, j in steps), key=lambda shift: _mean(grids, *shift))
    stretch = max((sign * e for e in STRETCHES for sign in (1, -1)), key=lambda e: _mean(grids, 0, 0, e))
    moved, stretched = _mean(grids, *shift), _mean(grids, 0, 0, stretch)
    # What reading between the pixels mends by smoothing noise, the opposite move mends as well.
    opposite = _mean(grids, 0, 0, -stretch) if stretched > moved else _mean(grids, -shift[0], -shift[1])
    gain = max(moved, stretched) - max(plain, opposite)
    if gain < least_gain or gain < least_share * (1 - plain):
        return []
    numbers = f"{max(moved, stretched):.2%} of pixels instead of {plain:.2%}"
    advice = "make every resize use half-pixel centres (align_corners=False), of images, of labels and in the network"
    if stretched > moved:
        message = (
            f"stretched masks: they agree better when stretched by {stretch:+.1f} pixels at the borders ({numbers}), "
            f"which align_corners does against half-pixel centres; {advice}"
        )
        return [Finding("stretched-masks", "error", message, {"border_pixels": stretch, "agreement": stretched})]
    dy, dx = (round(value, 2) for value in shift)
    message = (
        f"shifted masks: they agree better when shifted by (dy, dx) = ({dy:g}, {dx:g}) pixels ({numbers}); {advice}"
    )
    return [Finding("shifted-masks", "error", message, {"dy": dy, "dx": dx, "agreement": moved})]


class _Grid:
    """The pixels of one image that are compared: evenly spread, away from the border, not void."""

    def __init__(self, image: Placed):
        self.fine = image.fine
        self.height, self.width = image.truth.shape
        step = max(1, int(np.sqrt(image.truth.size / _PIXELS)))
        border = LARGEST_SHIFT + 1
        self.ys = np.arange(border, self.height - border, step)
        self.xs = np.arange(border, self.width - border, step)
        self.truth = image.truth[np.ix_(self.ys, self.xs)]
        self.valid = max(1, int((self.truth != VOID).sum()))

    def agreement(self, dy: float, dx: float, stretch: float) -> float:
        """Label agreement when pixel (y, x) takes the label at (y - dy, x - dx), stretched about the middle."""
        rows = _fine_index(self.ys, dy, stretch, self.height)
        columns = _fine_index(self.xs, dx, stretch, self.width)
        return int((self.fine[np.ix_(rows, columns)] == self.truth).sum()) / self.valid


def _fine_index(pixels: np.ndarray, shift: float, stretch: float, size: int) -> np.ndarray:
    source = pixels - shift - stretch * ((2 * pixels + 1) / size - 1)
    return np.clip(np.rint(FINE * source).astype(np.int64) + FINE // 2, 0, FINE * size - 1)


def _mean(grids: "Sequence[_Grid]", dy: float, dx: float, stretch: float = 0.0) -> float:
    return sum(grid.agreement(dy, dx, stretch) for grid in grids) / len(grids)
