"""What the data sets have in common: samples that load when asked for, and the small contract of a folder layout."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import overload

import numpy as np

from edgeseg.errors import InputError
from edgeseg.images import IMAGE_EXTENSIONS, load_image, load_labels, natural_key
from edgeseg.labels import VOID, LabelSet

UNKNOWN = -1  # in a table: an id that the data set does not define


@dataclass(frozen=True)
class Sample:
    """One picture and its label image; nothing is read before `load`."""

    name: str  # the image's file name without its suffix
    image_path: Path
    label_path: Path
    target_of_id: np.ndarray = field(
        repr=False, compare=False
    )  # (256,) int16: class of each stored id, 255, or UNKNOWN

    def load(self) -> tuple[np.ndarray, np.ndarray]:
        """(H, W, 3) uint8 RGB and (H, W) uint8 class ids, 255 where the benchmark does not count.

        Raises:
            InputError: an unreadable file, two sizes, or ids that the data set does not define.
        """
        image, target = load_image(self.image_path), self.load_target()
        if image.shape[:2] != target.shape:
            raise InputError(
                f"{self.label_path} is {_size(target)}, its image {self.image_path.name} is {_size(image)} "
                "(EXIF orientation applied); both must have one size: make them anew at one size"
            )
        return image, target

    def load_target(self) -> np.ndarray:
        """(H, W) uint8 class ids alone."""
        ids = load_labels(self.label_path)
        target = self.target_of_id[ids]
        if (target == UNKNOWN).any():
            strange = ", ".join(map(str, np.unique(ids[target == UNKNOWN])[:8]))
            known = np.flatnonzero(self.target_of_id != UNKNOWN)
            raise InputError(
                f"{self.label_path} holds the ids {strange}, which are none of the data set ({_ranges(known)}); "
                'is it another label set? Void ids of your own go into classes.json: {"classes": [...], "void": [...]}'
            )
        return target.astype(np.uint8)


class Dataset(Sequence[Sample]):
    """The samples of one split, in natural order of their names."""

    def __init__(
        self, samples: list[Sample], *, root: Path, layout: str, split: str, label_set: LabelSet | None
    ) -> None:
        self._samples = samples
        self.root = root
        self.layout = layout  # "camvid", "generic", ...
        self.split = split  # as its folder or list is called
        self.label_set = label_set  # None: a generic tree whose classes nobody named

    def __len__(self) -> int:
        return len(self._samples)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        return self._samples[index]

    def __iter__(self) -> Iterator[Sample]:
        return iter(self._samples)


class Layout:
    """A way to lay out images and labels in folders. A new one overrides the methods that raise."""

    name: str
    looked_for: str  # the folders, for the message that no layout was recognised
    inside: tuple[str, ...] = ()  # customary folders around it, as its archive unpacks
    train_ids_ending: str | None = None  # of label files that hold classes already, where others hold ids

    def fits(self, home: Path) -> bool:
        """Is this folder the root of such a tree?"""
        raise NotImplementedError

    def splits(self, home: Path) -> list[str]:
        """Those with images."""
        raise NotImplementedError

    def images(self, home: Path, split: str) -> dict[str, Path]:
        """Image files by a key that their labels share."""
        raise NotImplementedError

    def labels(self, home: Path, split: str) -> dict[str, Path]:
        """Label files by the same key."""
        raise NotImplementedError

    def label_set(self, home: Path) -> LabelSet | None:
        """What the tree itself says its classes are."""
        raise NotImplementedError

    def target_of_id(self, home: Path, label_set: LabelSet | None) -> np.ndarray:
        """(256,) int16 table from the ids in its label images to classes, 255 or UNKNOWN."""
        raise NotImplementedError

    def samples(self, home: Path, split: str, label_set: LabelSet | None) -> list[Sample]:
        """Every image of a split with its label image.

        Raises:
            InputError: no image, or images without labels.
        """
        images, labels = self.images(home, split), self.labels(home, split)
        _check_pairs(images, labels, home, split)
        of_ids = self.target_of_id(home, label_set)
        of_train_ids = identity(label_set.num_classes if label_set else VOID)
        samples = []
        for key, path in images.items():
            ready = self.train_ids_ending is not None and labels[key].stem.endswith(self.train_ids_ending)
            samples.append(Sample(path.stem, path, labels[key], of_train_ids if ready else of_ids))
        return samples

    def home(self, root: Path) -> Path | None:
        """The root of the tree: the folder itself or a customary one within."""
        return next((home for home in (root, *(root / name for name in self.inside)) if self.fits(home)), None)


def table(classes_of_ids: dict[int, int]) -> np.ndarray:
    """(256,) int16: the given ids' classes, 255 for 255, UNKNOWN for all others."""
    target_of_id = np.full(256, UNKNOWN, np.int16)
    target_of_id[VOID] = VOID
    for label, target in classes_of_ids.items():
        target_of_id[label] = target
    return target_of_id


def identity(num_classes: int) -> np.ndarray:
    """Ids are classes already."""
    return table({label: label for label in range(num_classes)})


def folders(parent: Path) -> list[str]:
    """Names of the folders in a folder, sorted; none where there is no such folder."""
    if not parent.is_dir():
        return []
    return sorted(path.name for path in parent.iterdir() if path.is_dir() and not path.name.startswith("."))


def files_by_stem(folder: Path, suffixes: frozenset[str] = IMAGE_EXTENSIONS, *, ending: str = "") -> dict[str, Path]:
    """Files of a folder in natural order, by name without suffix and without `ending`, which they must have."""
    found: dict[str, Path] = {}
    if not folder.is_dir():
        return found
    for path in sorted(folder.iterdir(), key=natural_key):
        if path.suffix.lower() not in suffixes or path.name.startswith(".") or not path.stem.endswith(ending):
            continue
        key = path.stem.removesuffix(ending)
        if key in found:
            raise InputError(
                f"{found[key]} and {path.name} share one name, so that labels cannot tell them apart; rename one"
            )
        found[key] = path
    return found


PNG = frozenset({".png"})


def _check_pairs(images: dict[str, Path], labels: dict[str, Path], home: Path, split: str) -> None:
    if not images:
        raise InputError(f"the split {split!r} of {home} holds no image; choose another with --split")
    missing = [path.name for key, path in images.items() if key not in labels]
    if missing:
        which = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise InputError(
            f"{len(missing)} of {len(images)} images of the split {split!r} of {home} have no label image ({which}); "
            "each needs a PNG of its own name"
        )


def _size(array: np.ndarray) -> str:
    return f"{array.shape[0]} x {array.shape[1]}"


def _ranges(ids: np.ndarray) -> str:
    """[0, 1, 2, 5] as "0-2, 5"."""
    runs = np.split(ids, np.flatnonzero(np.diff(ids) != 1) + 1)
    return ", ".join(f"{run[0]}-{run[-1]}" if run.size > 1 else str(run[0]) for run in runs)
