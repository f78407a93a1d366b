"""ADE20K scene parsing, 150 categories (Zhou et al. 2017), as ADEChallengeData2016 unpacks.

Stored ids run from 1 to 150; 0 is "other objects", which the benchmark does not count.
"""

from pathlib import Path

import numpy as np

from edgeseg.datasets.base import PNG, Layout, files_by_stem, folders, table
from edgeseg.labels import LABEL_SETS, VOID, LabelSet

_SPLITS = ("training", "validation")
_TARGET_OF_ID = table({0: VOID, **{label: label - 1 for label in range(1, 151)}})


class ADE20K(Layout):
    name = "ade20k"
    looked_for = "images/training|validation with annotations/training|validation (ADE20K)"
    inside = ("ADEChallengeData2016",)

    def fits(self, home: Path) -> bool:
        return any((home / "images" / split).is_dir() and (home / "annotations" / split).is_dir() for split in _SPLITS)

    def splits(self, home: Path) -> list[str]:
        return folders(home / "images")

    def images(self, home: Path, split: str) -> dict[str, Path]:
        return files_by_stem(home / "images" / split)

    def labels(self, home: Path, split: str) -> dict[str, Path]:
        return files_by_stem(home / "annotations" / split, PNG)

    def label_set(self, home: Path) -> LabelSet | None:
        return LABEL_SETS["ade20k"]

    def target_of_id(self, home: Path, label_set: LabelSet | None) -> np.ndarray:
        return _TARGET_OF_ID
