"""Scales kept from one build to the next, under a name made of everything that they depend on.

A change of the network, its rewrites, the preprocessing, one image, the method or this version gives another name, so
that stale scales are never found. What lies under the right name is checked all the same.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgeseg.calibration.scales import Scales
from edgeseg.errors import CalibrationError, EdgesegError


def cache_folder() -> Path:
    """Where scales are kept: `edgeseg/scales` in the user's cache folder (XDG base directory specification)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgeseg" / "scales"


def cache_path(
    *,
    source_sha256: str,
    places: Sequence[str],
    preprocess: Mapping[str, object],
    images: Sequence[str],
    settings: Mapping[str, object],
) -> Path:
    """The file for these ranges.

    Args:
        source_sha256: of the network's weights.
        places: keys that the scales will have, which tell a rewritten graph from the published one.
        preprocess: Preprocess.to_json(), the size included.
        images: fingerprints of the files, in order (`failures.overlap.fingerprint`).
        settings: method, number of images, migration, version: anything else that decides.
    """
    document = [source_sha256, list(places), dict(preprocess), list(images), dict(settings)]
    digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
    return cache_folder() / f"{digest[:32]}.json"


def cached_scales(path: Path, *, source_sha256: str, preprocess: Mapping[str, object]) -> Scales | None:
    """What was kept there; None where nothing was, or something that does not fit, which is then removed."""
    if not path.is_file():
        return None
    try:
        scales = Scales.load(path)
        scales.check(source_sha256=source_sha256, preprocess=preprocess)
    except CalibrationError:
        path.unlink(missing_ok=True)
        return None
    return scales


def keep_scales(scales: Scales, path: Path) -> bool:
    """Whether they could be written: a full or read-only disk is no reason to lose a build."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scales.save(path)
    except (OSError, EdgesegError):
        return False
    return True
