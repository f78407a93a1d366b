"""A small labelled data set on disk: drawn streets, eleven classes, two splits."""

import json
from pathlib import Path

import pytest
from PIL import Image

from edgeseg.labels import LABEL_SETS
from edgeseg.samples import synthetic_street

SIZE = (64, 96)


@pytest.fixture(scope="session")
def streets(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("streets")
    (root / "classes.json").write_text(json.dumps(list(LABEL_SETS["camvid"].classes)))
    for split, seeds in (("train", range(5)), ("val", range(5, 8))):
        for kind in ("images", "labels"):
            (root / kind / split).mkdir(parents=True)
        for seed in seeds:
            image, labels = synthetic_street(seed, SIZE)
            Image.fromarray(image).save(root / "images" / split / f"{seed}.png")
            Image.fromarray(labels).save(root / "labels" / split / f"{seed}.png")
    return root
