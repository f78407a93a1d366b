"""Ranges for a build from a folder of images: reused if nothing changed, else picked, migrated and measured."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from edgeseg.calibration.cache import cache_path, cached_scales, keep_scales
from edgeseg.calibration.collect import calibrate
from edgeseg.calibration.migration import Exponents, Kind, migration
from edgeseg.calibration.observers import Method
from edgeseg.calibration.picker import CANDIDATES_PER_IMAGE, class_histograms, pick
from edgeseg.calibration.scales import Scales
from edgeseg.progress import Progress, counted
from edgeseg.real_images import RealImages

if TYPE_CHECKING:
    import onnx

Migration = Literal["auto", "none", "smooth", "equalise", "both"]
KINDS: dict[str, tuple[Kind, ...]] = {
    "none": (),
    "smooth": ("smooth",),
    "equalise": ("equalise",),
    "both": ("smooth", "equalise"),
}
TRIED_ON = 4  # images on which a migration is measured and judged
LEAST_GAIN = 0.1  # of the squared error of the logits, that a migration must take away to be kept


@dataclass(frozen=True)
class Trial:
    """INT8 with one migration, against the float network on the same images."""

    name: str  # a key of KINDS
    exponents: Exponents
    error: float  # squared error of the logits, as a share of their square
    label_agreement: float  # share of the logits' pixels with the float network's label


def prepare_scales(
    model: "onnx.ModelProto",
    images: RealImages,
    classes: Sequence[str],
    *,
    method: Method,
    migrate: Migration,
    source_sha256: str,
    preprocess: Mapping[str, object],
    progress: Progress = Progress(),
) -> tuple[Scales, list[str]]:
    """The scales, and what to note about them.

    Args:
        model: float32 ONNX that will be quantized.
        images: the user's; where the folder has more than are wanted, those are chosen that cover the classes, and
            `images` is told which.
        classes: names, for the notes.
        method: of `calibrate`.
        migrate: "auto" tries smoothing, equalisation and both on a few images, and keeps what lowers the error.
        source_sha256, preprocess: what the scales must be refused without.
        progress: shown while it runs.
    """
    from edgeseg.precision.placement import find_placement

    candidates = images.candidates(CANDIDATES_PER_IMAGE)
    identity: dict[str, Any] = {"source_sha256": source_sha256, "preprocess": preprocess}
    settings = {"method": method, "migrate": migrate, "wanted": images.wanted, "edgeseg": _version()}
    path = cache_path(
        places=find_placement(model).keys, images=images.fingerprints(candidates), settings=settings, **identity
    )
    kept = cached_scales(path, **identity)
    if kept is not None:
        images.choose_fingerprints(candidates, kept.image_fingerprints)
        return kept, [f"scales reused: network, preprocessing, images and method are those of {path}", *kept.warnings]
    notes = _pick(model, images, candidates, classes, progress)
    exponents, migration_notes = _chosen_migration(model, images, migrate, method, progress)
    with progress.task("calibrate", images.count) as advance:
        batches = counted(images.calibration(), advance)
        scales = calibrate(model, batches, method=method, migration=exponents, **identity)
    scales = replace(scales, image_fingerprints=tuple(images.fingerprints()))
    keep_scales(scales, path)
    return scales, [f"calibrated on {images.source}", *notes, *migration_notes, *scales.warnings]


def try_migrations(
    model: "onnx.ModelProto", batches: Sequence[np.ndarray], names: Sequence[str], method: Method = "percentile"
) -> list[Trial]:
    """INT8 with each migration on a few images; one that leaves the graph as another does is tried once."""
    from edgeseg.backends.onnxruntime import session_from_model
    from edgeseg.precision.int8 import quantize

    with session_from_model(model) as session:
        expected = [session.infer_one(batch) for batch in batches]
    trials: list[Trial] = []
    for name in names:
        exponents = migration(model, batches, KINDS[name]) if KINDS[name] else {}
        if any(trial.exponents == exponents for trial in trials):
            continue
        quantized = quantize(model, calibrate(model, batches, method=method, migration=exponents))
        with session_from_model(quantized, as_written=True) as session:
            came = [session.infer_one(batch) for batch in batches]
        pairs = list(zip(came, expected, strict=True))
        error = float(np.mean([np.mean((a - b) ** 2) / max(float(np.mean(b**2)), 1e-30) for a, b in pairs]))
        agreement = float(np.mean([np.mean(a.argmax(1) == b.argmax(1)) for a, b in pairs]))
        trials.append(Trial(name, exponents, error, agreement))
    return trials


def best_trial(trials: Sequence[Trial]) -> Trial:
    """The first, or one that is better by a margin: less error by LEAST_GAIN, and no fewer labels."""
    plain = trials[0]
    better = [t for t in trials if t.error <= (1 - LEAST_GAIN) * plain.error]
    better = [t for t in better if t.label_agreement >= plain.label_agreement]
    return min(better, key=lambda trial: trial.error, default=plain)


def _chosen_migration(
    model: "onnx.ModelProto", images: RealImages, migrate: Migration, method: Method, progress: Progress
) -> tuple[Exponents, list[str]]:
    if migrate == "none":
        return {}, []
    batches = images.few(TRIED_ON)
    if migrate != "auto":
        exponents = migration(model, batches, KINDS[migrate])
        return exponents, [f"channels migrated ({migrate}): {len(exponents)} groups of activations rescaled"]
    with progress.task("try migrations"):
        trials = try_migrations(model, batches, tuple(KINDS), method)
    best = best_trial(trials)
    if len(trials) == 1:
        return {}, []
    tried = ", ".join(f"{t.name} {t.error:.2%} ({t.label_agreement:.2%} of labels)" for t in trials)
    note = f"migration {best.name}, {len(best.exponents)} groups rescaled; squared error of the logits: {tried}"
    return best.exponents, [note]


def _pick(
    model: "onnx.ModelProto", images: RealImages, candidates: Sequence[int], classes: Sequence[str], progress: Progress
) -> list[str]:
    if len(candidates) <= images.wanted:
        return []
    from edgeseg.backends.onnxruntime import session_from_model

    infer: Callable[[np.ndarray], np.ndarray]
    with session_from_model(model) as session, progress.task("pick images", len(candidates)) as advance:
        infer = session.infer_one
        histograms = class_histograms(infer, counted(images.load(candidates), advance), len(classes))
    picked = pick(histograms, images.wanted)
    images.choose([candidates[index] for index in picked.indices])
    return [picked.note(classes)]


def _version() -> str:
    import importlib.metadata

    return importlib.metadata.version("edgeseg")
