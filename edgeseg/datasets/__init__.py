"""Labelled data sets, recognised by their folders: generic, CamVid, ADE20K, Cityscapes, PASCAL VOC, COCO-Stuff."""

from pathlib import Path

from edgeseg.datasets.ade20k import ADE20K
from edgeseg.datasets.base import Dataset, Layout, Sample
from edgeseg.datasets.camvid import CamVidPlain, CamVidTutorial
from edgeseg.datasets.cityscapes import Cityscapes
from edgeseg.datasets.coco_stuff import COCOStuff
from edgeseg.datasets.generic import CLASSES_FILE, UNSPLIT, Generic
from edgeseg.datasets.voc import VOC
from edgeseg.errors import InputError
from edgeseg.images import find_images
from edgeseg.labels import LabelSet

__all__ = ["LAYOUTS", "Dataset", "Sample", "calibration_images", "open_dataset"]

# The first that fits is taken, the plain layout last.
LAYOUTS: tuple[Layout, ...] = (Cityscapes(), VOC(), ADE20K(), COCOStuff(), CamVidTutorial(), CamVidPlain(), Generic())

# One part of the data under its several names, so that "val" means ADE20K's "validation" too.
_TRAINING = ("train", "training", "train2017")
_VALIDATION = ("val", "validation", "val2017")


def open_dataset(root: Path, split: str | None = None, label_set: LabelSet | None = None) -> Dataset:
    """The samples of a labelled data set; its layout is recognised by its folders.

    Args:
        root: the data set's folder.
        split: "train", "val", ...; None takes the validation split, or the only one.
        label_set: the network's classes; a data set with others is refused.

    Raises:
        InputError: no known layout, no such split, images without labels, or other classes than the network's.
    """
    root = Path(root)
    layout, home = _recognised(root)
    split = _chosen(layout.splits(home), split, home, (*_VALIDATION, UNSPLIT))
    classes = _agreed(layout.label_set(home), label_set, home)
    samples = layout.samples(home, split, classes)
    return Dataset(samples, root=home, layout=layout.name, split=split, label_set=classes)


def calibration_images(root: Path) -> list[Path]:
    """Image files to find activation ranges on: a data set's training images, else all images below a folder.

    A data set's label images are images too; calibrating on them would ruin every range, so they are never returned.

    Raises:
        InputError: no folder, or no image in it.
    """
    root = Path(root)
    try:
        layout, home = _recognised(root)
    except InputError:
        return find_images([root], recursive=True)
    splits = layout.splits(home)
    split = _chosen(splits, None, home, (*_TRAINING, *_VALIDATION, UNSPLIT, *splits))
    return list(layout.images(home, split).values())


def _recognised(root: Path) -> tuple[Layout, Path]:
    if not root.is_dir():
        raise InputError(f"{root} is not a folder; give the root of a data set")
    for layout in LAYOUTS:
        home = layout.home(root)
        if home is not None:
            return layout, home
    wanted = "; ".join(layout.looked_for for layout in LAYOUTS if layout.looked_for)
    found = ", ".join(sorted(path.name for path in root.iterdir())[:8]) or "nothing"
    raise InputError(f"{root} is no data set in a known layout. Looked for: {wanted}. Found: {found}")


def _chosen(splits: list[str], split: str | None, home: Path, preferred: tuple[str, ...]) -> str:
    if not splits:
        raise InputError(f"{home} has no split with images; put them into images/<split>")
    if split is None:
        known = [name for name in preferred if name in splits]
        if known or len(splits) == 1:
            return known[0] if known else splits[0]
        raise InputError(f"{home} has the splits {', '.join(splits)}; choose one with --split")
    if split in splits:
        return split
    group = next((names for names in (_TRAINING, _VALIDATION) if split in names), ())
    alias = next((name for name in group if name in splits), None)
    if alias is None:
        raise InputError(f"{home} has no split {split!r}; it has {', '.join(splits)}: choose one of these with --split")
    return alias


def _agreed(own: LabelSet | None, wanted: LabelSet | None, home: Path) -> LabelSet | None:
    """One label set from what the data set says and what the network has."""
    if own is None or wanted is None:
        return own or wanted
    if own.num_classes != wanted.num_classes:
        raise InputError(
            f"{home} has {own.num_classes} classes ({own.name}), but the network {wanted.num_classes} ({wanted.name}); "
            f"give the data it was trained for, or name the classes in {home / CLASSES_FILE}"
        )
    if wanted.name == "generic":  # a network that does not know its names takes the data's
        return own
    same = sum(_plain(a) == _plain(b) for a, b in zip(own.classes, wanted.classes, strict=True))
    if 2 * same < own.num_classes:
        differing = next((a, b) for a, b in zip(own.classes, wanted.classes, strict=True) if _plain(a) != _plain(b))
        raise InputError(
            f"{home} and the network name their {own.num_classes} classes differently ({differing[0]!r} against "
            f"{differing[1]!r} and others); give the data that the network was trained for"
        )
    return wanted


def _plain(name: str) -> str:
    return "".join(filter(str.isalnum, name.casefold()))
