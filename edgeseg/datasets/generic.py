"""The plain layout: `images/<split>` and `labels/<split>`, one PNG of class ids for each image, 255 for void.

Optional `classes.json` in the root: a list of names, or {"classes": [...], "palette": [[r, g, b], ...], "void": [ids]}.
Without splits (images and labels directly in the two folders) the only split is called "all".
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from edgeseg.datasets.base import PNG, Layout, files_by_stem, folders, identity
from edgeseg.errors import InputError
from edgeseg.labels import VOID, LabelSet, voc_colour

CLASSES_FILE = "classes.json"
UNSPLIT = "all"


class Generic(Layout):
    name = "generic"
    looked_for = "images/<split>/*.jpg|png with labels/<split>/*.png"

    def fits(self, home: Path) -> bool:
        return (home / "images").is_dir() and (home / "labels").is_dir()

    def splits(self, home: Path) -> list[str]:
        return folders(home / "images") or ([UNSPLIT] if files_by_stem(home / "images") else [])

    def images(self, home: Path, split: str) -> dict[str, Path]:
        return files_by_stem(self._folder(home, "images", split))

    def labels(self, home: Path, split: str) -> dict[str, Path]:
        return files_by_stem(self._folder(home, "labels", split), PNG)

    def label_set(self, home: Path) -> LabelSet | None:
        document = _classes_document(home)
        return None if document is None else _label_set(document, home)

    def target_of_id(self, home: Path, label_set: LabelSet | None) -> np.ndarray:
        target_of_id = identity(label_set.num_classes if label_set else VOID)
        target_of_id[_void_ids(home, label_set)] = VOID
        return target_of_id

    def _folder(self, home: Path, kind: str, split: str) -> Path:
        folder = home / kind / split
        return folder if split != UNSPLIT or folder.is_dir() else home / kind


def _classes_document(home: Path) -> dict[str, Any] | None:
    path = home / CLASSES_FILE
    if not path.is_file():
        return None
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON ({error}); give a list of class names") from error
    if isinstance(document, list):
        document = {"classes": document}
    names = document.get("classes") if isinstance(document, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f'{path} must hold a list of class names or {{"classes": [names]}}; write one of these')
    return document


def _label_set(document: dict[str, Any], home: Path) -> LabelSet:
    names = tuple(document["classes"])
    try:
        palette = tuple((*colour,) for colour in document.get("palette", map(voc_colour, range(len(names)))))
        return LabelSet(str(document.get("name", home.name)), names, palette)
    except (TypeError, ValueError) as error:
        raise InputError(f"{home / CLASSES_FILE}: {error}") from error


def _void_ids(home: Path, label_set: LabelSet | None) -> list[int]:
    """What counts for nothing besides 255: what classes.json names, and CamVid's own 11."""
    document = _classes_document(home)
    if document is None:
        return [label_set.num_classes] if label_set is not None and label_set.name == "camvid" else []
    void = document.get("void", [])
    if not isinstance(void, list) or not all(isinstance(label, int) and 0 <= label <= 255 for label in void):
        raise InputError(f'{home / CLASSES_FILE}: "void" must be a list of ids from 0 to 255, got {void}')
    return void
