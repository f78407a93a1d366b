"""The images that a network labels worst, as pictures that show why."""

from __future__ import annotations

import base64
import heapq
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from edgeseg.bench.results import WorstImage
from edgeseg.files import make_folder, write_atomically
from edgeseg.labels import LabelSet
from edgeseg.metrics import SegmentationMetrics
from edgeseg.overlay import overlay, side_by_side

PANEL_WIDTH = 400  # pixels of one of the pictures in a row, at most
OPACITY = 0.65  # of the classes' colours over the image


@dataclass(order=True)
class _Candidate:
    badness: float  # -mIoU: the heap's smallest is the best of the worst, which goes first
    order: int  # of two equal ones the later goes
    name: str = field(compare=False)
    image: np.ndarray = field(compare=False)
    target: np.ndarray = field(compare=False)
    labels: np.ndarray = field(compare=False)


class WorstImages:
    """Keeps the `count` images of lowest mIoU of all that it is shown; so many are in memory, never more."""

    def __init__(self, count: int, label_set: LabelSet):
        if count < 0:
            raise ValueError(f"the number of worst images must be 0 or more, got {count}")
        self._count = count
        self._label_set = label_set
        self._heap: list[_Candidate] = []
        self._seen = 0

    def show(self, name: str, image: np.ndarray, target: np.ndarray, labels: np.ndarray, confusion: np.ndarray) -> None:
        """One image with its truth, its labels and the (C, C) confusion matrix of the two; without a pixel that counts
        (NaN) it is passed over."""
        self._seen += 1
        miou = SegmentationMetrics.from_confusion(confusion, self._label_set.classes).miou
        if self._count == 0 or np.isnan(miou):
            return
        candidate = _Candidate(-miou, -self._seen, name, image, target, labels)
        if len(self._heap) < self._count:
            heapq.heappush(self._heap, candidate)
        else:
            heapq.heappushpop(self._heap, candidate)

    def pictures(self, reference: Callable[[np.ndarray], np.ndarray] | None = None) -> list[WorstImage]:
        """The worst first. `reference`: a second network, run on these images alone and shown before the labels."""
        pictures = []
        for found in sorted(self._heap, reverse=True):
            maps = [found.target, found.labels]
            if reference:
                maps.insert(1, reference(found.image))
            picture = panels(found.image, maps, self._label_set)
            pictures.append(WorstImage(found.name, -found.badness, _jpeg(picture)))
        return pictures


def save_pictures(images: Sequence[WorstImage], folder: Path) -> list[dict[str, Any]]:
    """Write the pictures as JPEGs, numbered from the worst on; what the report says of them: name, mIoU, path."""
    make_folder(folder)
    saved = []
    for number, image in enumerate(images, 1):
        path = folder / f"{number:02d}-{image.name}.jpg"
        write_atomically(path, base64.b64decode(image.picture))
        saved.append({"name": image.name, "miou": image.miou, "picture": str(path)})
    return saved


def panels(image: np.ndarray, label_maps: Sequence[np.ndarray], label_set: LabelSet) -> np.ndarray:
    """(H, W, 3) uint8: the image and each of its label maps over it, side by side, reduced to PANEL_WIDTH each."""
    height, width = image.shape[:2]
    scale = min(1.0, PANEL_WIDTH / width)
    size = max(1, round(width * scale)), max(1, round(height * scale))  # Pillow's order
    small = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
    drawn = [small]
    for labels in label_maps:
        reduced = np.asarray(Image.fromarray(labels).resize(size, Image.Resampling.NEAREST))
        drawn.append(overlay(small, reduced, label_set, alpha=OPACITY, legend=False))
    return side_by_side(*drawn, gap=6)


def _jpeg(picture: np.ndarray) -> str:
    """base64 of a JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=85)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
