"""The product on one screen: image -> preprocess -> engine -> upsample + argmax -> labels. Needs no torch."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeseg.backends import BACKENDS
from edgeseg.backends.base import Session
from edgeseg.bundle import Bundle, check_identity, load_bundle
from edgeseg.crf import DenseCrf, refine
from edgeseg.errors import BackendError
from edgeseg.labels import LabelSet
from edgeseg.ops.upsample_argmax import upsample_argmax
from edgeseg.preprocess import Preprocess


@dataclass
class StageTimes:
    """Milliseconds of one image or batch in each stage. Where the GPU does all three in one go, it is the engine's."""

    preprocess: float
    engine: float
    tail: float


class Segmenter:
    """A loaded bundle: (H, W, 3) uint8 RGB image in, (H, W) uint8 labels out.

    >>> with edgeseg.load("segformer-b0-int8") as segmenter:
    ...     labels = segmenter(image)
    """

    def __init__(self, bundle: Bundle, session: Session, threads: int | None = None, crf: DenseCrf | None = None):
        self.bundle = bundle
        self.session = session
        self.threads = threads
        self.crf = crf
        self.preprocess = Preprocess.from_json(bundle.manifest["preprocess"])
        self.label_set = LabelSet.from_json(bundle.manifest["label_set"])
        self.times: StageTimes | None = None  # of the last call
        self._on_device = None if crf else session.on_device(self.preprocess)

    def __call__(self, image: np.ndarray, size: tuple[int, int] | None = None) -> np.ndarray:
        """Labels of every pixel, at the image's own size or, without a CRF, the one asked for (height, width)."""
        if self.crf and size not in (None, image.shape[:2]):
            raise ValueError(
                f"the CRF labels an image at its own size, {image.shape[:2]}, not at {size}; leave size out"
            )
        begin = time.perf_counter()
        if self._on_device:
            labels = self._on_device(image, size or image.shape[:2])
            self.times = StageTimes(0.0, 1000 * (time.perf_counter() - begin), 0.0)
            return labels
        images = self.preprocess(image)  # (1, 3, h, w)
        preprocessed = time.perf_counter()
        logits = self.session.infer_one(images)  # (1, num_classes, h / s, w / s)
        inferred = time.perf_counter()
        if self.crf:
            labels = refine(image, logits[0], self.crf)
        else:
            labels = upsample_argmax(logits, size or image.shape[:2], threads=self.threads)[0]  # (H, W)
        end = time.perf_counter()
        stages = (preprocessed - begin, inferred - preprocessed, end - inferred)
        self.times = StageTimes(*(1000 * seconds for seconds in stages))
        return labels

    def batch(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Labels of several images from one run of the engine, each at its own size.

        Raises:
            ValueError: the bundle was built for another number of images (`edgeseg build --batch`), or there is a CRF.
        """
        if self.crf:
            raise ValueError("the CRF takes one image at a time; call the segmenter itself for each")
        if not images:
            raise ValueError("a batch holds at least one image, got none")
        begin = time.perf_counter()
        prepared = np.concatenate([self.preprocess(image) for image in images])  # (N, 3, h, w)
        preprocessed = time.perf_counter()
        logits = self.session.infer(prepared)  # (N, num_classes, h / s, w / s)
        inferred = time.perf_counter()
        labels = [
            upsample_argmax(logits[i : i + 1], image.shape[:2], threads=self.threads)[0]
            for i, image in enumerate(images)
        ]
        end = time.perf_counter()
        stages = (preprocessed - begin, inferred - preprocessed, end - inferred)
        self.times = StageTimes(*(1000 * seconds for seconds in stages))
        return labels

    def close(self) -> None:
        self.session.close()

    def __enter__(self) -> "Segmenter":
        return self

    def __exit__(self, *_) -> None:
        self.close()


def load(path: str | Path, *, threads: int | None = None, crf: DenseCrf | None = None) -> Segmenter:
    """Open a bundle for running: every file is checked, and the backend must be the one it was made for.

    Args:
        path: a directory that `edgeseg build` wrote.
        threads: CPU threads for the engine and the tail; the backend's own choice by default.
        crf: refine the labels with a fully connected CRF, as DeepLab v1 and v2 do; seconds an image.

    Raises:
        BundleError: the bundle was altered, or made for another version or GPU.
        BackendError: the backend is not installed, or cannot run here.
    """
    bundle = load_bundle(Path(path))
    backend = BACKENDS[bundle.manifest["backend"]["backend"]]
    status = backend.probe()
    if not status.can_run:
        raise BackendError(f"{path} needs the backend {backend.name}, which cannot run here: {status.reason}")
    check_identity(bundle, backend.identity())
    session = backend.open(bundle.path, bundle.manifest["engine"]["file"], bundle.manifest, threads=threads)
    return Segmenter(bundle, session, threads, crf)
