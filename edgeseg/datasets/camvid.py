"""CamVid (Brostow et al. 2009) with 11 classes and void 11, as in the SegNet tutorial (Badrinarayanan et al. 2017).

Two trees: the tutorial's `train/` with `trainannot/` (`val`, `test` likewise), and the plain `images/<split>` with
`labels/<split>`, which is told from others by the names of CamVid's sequences.
"""

import re
from pathlib import Path

import numpy as np

from edgeseg.datasets.base import PNG, Layout, files_by_stem, folders, table
from edgeseg.datasets.generic import CLASSES_FILE, Generic
from edgeseg.labels import LABEL_SETS, VOID, LabelSet

_SEQUENCES = re.compile(r"(0001TP|0006R0|0016E5|Seq05VD)_")
_TARGET_OF_ID = table({**{label: label for label in range(11)}, 11: VOID})


class _CamVidIds(Layout):
    name = "camvid"

    def label_set(self, home: Path) -> LabelSet | None:
        return LABEL_SETS["camvid"]

    def target_of_id(self, home: Path, label_set: LabelSet | None) -> np.ndarray:
        return _TARGET_OF_ID


class CamVidTutorial(_CamVidIds):
    looked_for = "train/ with trainannot/ (CamVid)"
    inside = ("CamVid", "camvid")

    def fits(self, home: Path) -> bool:
        return any(name.endswith("annot") and (home / name.removesuffix("annot")).is_dir() for name in folders(home))

    def splits(self, home: Path) -> list[str]:
        names = folders(home)
        return [name for name in names if f"{name}annot" in names]

    def images(self, home: Path, split: str) -> dict[str, Path]:
        return files_by_stem(home / split)

    def labels(self, home: Path, split: str) -> dict[str, Path]:
        return files_by_stem(home / f"{split}annot", PNG)


class CamVidPlain(_CamVidIds, Generic):
    name = "camvid"
    looked_for = ""  # the generic layout's words cover it

    def fits(self, home: Path) -> bool:
        if (
            not Generic.fits(self, home) or (home / CLASSES_FILE).exists()
        ):  # what the tree says beats what names suggest
            return False
        files = [stem for split in self.splits(home) for stem in self.images(home, split)]
        return bool(files) and all(_SEQUENCES.match(stem) for stem in files)
