"""PASCAL VOC segmentation, background and 20 classes (Everingham et al. 2015), as VOCdevkit/VOC2012 unpacks.

Label images are palette PNGs of ids; 255 is the border around objects, which the benchmark does not count.
"""

from pathlib import Path

import numpy as np

from edgeseg.datasets.base import PNG, Layout, files_by_stem, identity
from edgeseg.errors import InputError
from edgeseg.labels import LABEL_SETS, LabelSet

_LISTS = Path("ImageSets") / "Segmentation"


class VOC(Layout):
    name = "voc"
    looked_for = "JPEGImages with SegmentationClass and ImageSets/Segmentation/<split>.txt (PASCAL VOC)"
    inside = ("VOC2012", "VOCdevkit/VOC2012", "VOC2007", "VOCdevkit/VOC2007")

    def fits(self, home: Path) -> bool:
        return all((home / name).is_dir() for name in ("JPEGImages", "SegmentationClass", _LISTS))

    def splits(self, home: Path) -> list[str]:
        return sorted(path.stem for path in (home / _LISTS).glob("*.txt"))

    def images(self, home: Path, split: str) -> dict[str, Path]:
        lines = (home / _LISTS / f"{split}.txt").read_text(encoding="utf-8").splitlines()
        stems = dict.fromkeys(line.split()[0] for line in lines if line.strip())
        there = files_by_stem(home / "JPEGImages")
        missing = [stem for stem in stems if stem not in there]
        if missing:
            raise InputError(
                f"{len(missing)} of {len(stems)} images of {split}.txt are not in {home / 'JPEGImages'} "
                f"({', '.join(missing[:3])}); unpack the whole archive"
            )
        return {stem: there[stem] for stem in stems}

    def labels(self, home: Path, split: str) -> dict[str, Path]:
        return files_by_stem(home / "SegmentationClass", PNG)

    def label_set(self, home: Path) -> LabelSet | None:
        return LABEL_SETS["voc"]

    def target_of_id(self, home: Path, label_set: LabelSet | None) -> np.ndarray:
        return identity(21)
