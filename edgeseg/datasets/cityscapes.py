"""Cityscapes, 19 evaluated classes (Cordts et al. 2016): `leftImg8bit` with the fine annotations of `gtFine`.

`*_gtFine_labelIds.png` hold 34 ids, of which 19 count; `*_gtFine_labelTrainIds.png`, where there are any, hold classes.
"""

from pathlib import Path

import numpy as np

from edgeseg.datasets.base import PNG, Layout, files_by_stem, folders, table
from edgeseg.labels import LABEL_SETS, VOID, LabelSet

# Ids of the classes in train-id order (cityscapesScripts, helpers/labels.py); the rest of 0 to 33 is void.
_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
_TARGET_OF_ID = table({**dict.fromkeys(range(34), VOID), **{label: target for target, label in enumerate(_IDS)}})
_IDS_ENDING = "_gtFine_labelIds"
_TRAIN_IDS_ENDING = "_gtFine_labelTrainIds"


class Cityscapes(Layout):
    name = "cityscapes"
    looked_for = "leftImg8bit/<split>/<city> with gtFine/<split>/<city> (Cityscapes)"
    inside = ("cityscapes", "Cityscapes")
    train_ids_ending = _TRAIN_IDS_ENDING

    def fits(self, home: Path) -> bool:
        return (home / "leftImg8bit").is_dir() and (home / "gtFine").is_dir()

    def splits(self, home: Path) -> list[str]:
        return folders(home / "leftImg8bit")

    def images(self, home: Path, split: str) -> dict[str, Path]:
        return _of_cities(home / "leftImg8bit" / split, "_leftImg8bit")

    def labels(self, home: Path, split: str) -> dict[str, Path]:
        return {
            **_of_cities(home / "gtFine" / split, _TRAIN_IDS_ENDING),
            **_of_cities(home / "gtFine" / split, _IDS_ENDING),  # the official files, where both are there
        }

    def label_set(self, home: Path) -> LabelSet | None:
        return LABEL_SETS["cityscapes"]

    def target_of_id(self, home: Path, label_set: LabelSet | None) -> np.ndarray:
        return _TARGET_OF_ID


def _of_cities(folder: Path, ending: str) -> dict[str, Path]:
    suffixes = PNG if ending.startswith("_gt") else PNG | {".jpg", ".jpeg"}  # images are often recompressed
    return {
        f"{city}/{stem}": path
        for city in folders(folder)
        for stem, path in files_by_stem(folder / city, suffixes, ending=ending).items()
    }
