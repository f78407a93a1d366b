"""Label sets: what the class ids of a network or a data set are called, and the colours they are shown in."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

VOID = 255  # the label of pixels that count for nothing, in every array and PNG of this package

_FOLDER = Path(__file__).parent / "assets" / "label_sets"


@dataclass(frozen=True)
class LabelSet:
    """Names and RGB colours of the class ids 0 .. num_classes - 1. Id 255 is void and never a class."""

    name: str
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.classes) <= VOID:
            raise ValueError(
                f"a label set has 1 to {VOID} classes (ids are one byte, 255 is void), got {len(self.classes)}"
            )
        if len(self.palette) != len(self.classes):
            raise ValueError(f"{len(self.classes)} classes need as many colours, got {len(self.palette)}")
        for colour in self.palette:
            if len(colour) != 3 or not all(isinstance(v, int) and 0 <= v <= 255 for v in colour):
                raise ValueError(f"a colour is three integers from 0 to 255 (red, green, blue), got {colour}")
        twice = sorted({c for c in self.classes if self.classes.count(c) > 1})
        if twice:
            raise ValueError(f"class names must differ, got {', '.join(map(repr, twice))} more than once")

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    def colour_table(self) -> np.ndarray:
        """(256, 3) uint8: the colour of every possible id; black where there is no class."""
        table = np.zeros((256, 3), np.uint8)
        table[: self.num_classes] = self.palette
        return table

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "classes": list(self.classes), "palette": [list(c) for c in self.palette]}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "LabelSet":
        """The inverse of `to_json`. Raises ValueError where a key is missing or does not fit."""
        missing = [key for key in ("name", "classes", "palette") if key not in document]
        if missing:
            raise ValueError(f"a label set needs name, classes and palette; {', '.join(missing)} missing")
        palette = tuple((*colour,) for colour in document["palette"])
        return cls(str(document["name"]), tuple(map(str, document["classes"])), palette)


def generic_label_set(num_classes: int) -> LabelSet:
    """Names "class 0", "class 1", ... with the colours that PASCAL VOC gives to the same ids."""
    classes = tuple(f"class {i}" for i in range(num_classes))
    return LabelSet("generic", classes, tuple(map(voc_colour, range(num_classes))))


def voc_colour(label: int) -> tuple[int, int, int]:
    """Colour of an id in PASCAL VOC's scheme: its bits, dealt to red, green and blue in turn, highest colour bit first.

    Distinct for all ids from 0 to 255 (VOC development kit, VOCcolormap).
    """
    red = green = blue = 0
    for place in range(7, -1, -1):
        red |= (label & 1) << place
        green |= (label >> 1 & 1) << place
        blue |= (label >> 2 & 1) << place
        label >>= 3
    return red, green, blue


def _shipped(name: str) -> LabelSet:
    document = json.loads((_FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    colours = document["classes"]
    return LabelSet(document["name"], tuple(colours), tuple((*colour,) for colour in colours.values()))


LABEL_SETS: dict[str, LabelSet] = {
    name: _shipped(name) for name in ("camvid", "cityscapes", "ade20k", "voc", "coco-stuff")
}
