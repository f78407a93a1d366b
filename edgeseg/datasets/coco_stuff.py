"""COCO-Stuff 164k, 171 classes (Caesar et al. 2018): COCO 2017 images and its stuffthingmaps.

The maps hold 0 to 181 (the COCO label id less one) and 255 for unlabelled. Eleven of the ids have no annotation and are
left out, so that classes run from 0 to 170; `*_labelTrainIds.png`, where they were made, hold classes already.
"""

from pathlib import Path

import numpy as np

from edgeseg.datasets.base import PNG, Layout, files_by_stem, folders, table
from edgeseg.labels import LABEL_SETS, LabelSet

# street sign, hat, shoe, eye glasses, plate, mirror, window, desk, door, blender, hair brush (COCO-Stuff's labels.txt)
_WITHOUT_ANNOTATION = (11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90)
_IDS = [label for label in range(182) if label not in _WITHOUT_ANNOTATION]
_TARGET_OF_ID = table({label: target for target, label in enumerate(_IDS)})
_TRAIN_IDS_ENDING = "_labelTrainIds"
_MAPS = ("stuffthingmaps", "annotations")


class COCOStuff(Layout):
    name = "coco-stuff"
    looked_for = "images/train2017|val2017 with stuffthingmaps/ or annotations/<split>/*.png (COCO-Stuff)"
    inside = ("coco", "coco_stuff164k")
    train_ids_ending = _TRAIN_IDS_ENDING

    def fits(self, home: Path) -> bool:
        return any((home / maps / split).is_dir() for maps in _MAPS for split in self.splits(home))

    def splits(self, home: Path) -> list[str]:
        return [name for name in folders(home / "images") if name.endswith("2017")]

    def images(self, home: Path, split: str) -> dict[str, Path]:
        return files_by_stem(home / "images" / split)

    def labels(self, home: Path, split: str) -> dict[str, Path]:
        found: dict[str, Path] = {}
        for maps in reversed(_MAPS):  # stuffthingmaps, and official ids, win where there are several
            files = files_by_stem(home / maps / split, PNG)
            found.update((stem.removesuffix(_TRAIN_IDS_ENDING), path) for stem, path in files.items())
            found.update((stem, path) for stem, path in files.items() if not stem.endswith(_TRAIN_IDS_ENDING))
        return found

    def label_set(self, home: Path) -> LabelSet | None:
        return LABEL_SETS["coco-stuff"]

    def target_of_id(self, home: Path, label_set: LabelSet | None) -> np.ndarray:
        return _TARGET_OF_ID
