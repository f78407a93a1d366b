"""One interface to everything that is measured: uint8 images in, labels out, whatever is between."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeseg.bench.results import Stages

if TYPE_CHECKING:
    from edgeseg.backends import Session
    from edgeseg.pipeline import Segmenter


class System(ABC):
    """Labels a batch of images; a context manager."""

    engine_bytes: int | None = None
    on_gpu = False
    stages = Stages()  # of the last batch, in milliseconds

    @abstractmethod
    def __call__(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """(H, W, 3) uint8 RGB images -> (H, W) labels."""

    def close(self) -> None:  # noqa: B027  most need nothing
        """Give memory back."""

    def __enter__(self) -> System:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True)
class SystemSpec:
    """All that another process needs to open the same system again; JSON both ways."""

    kind: str  # "bundle", or a key of BASELINES
    path: str  # the bundle, or the baseline's folder
    size: tuple[int, int]
    batch: int
    threads: int | None = None
    precision: str = "fp32"

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> SystemSpec:
        data: dict[str, Any] = json.loads(text)
        return cls(**data | {"size": tuple(data["size"])})


def open_system(spec: SystemSpec) -> System:
    """Raises what loading raises: BundleError, BackendError, and whatever a baseline's library has."""
    if spec.kind == "bundle":
        return BundleSystem(Path(spec.path), spec.threads)
    from edgeseg.bench.baselines import open_baseline

    return open_baseline(spec)


def is_on_gpu(session: Session) -> bool:
    return session.backend.startswith("tensorrt") or getattr(session, "provider", "") == "CUDAExecutionProvider"


class BundleSystem(System):
    """A bundle, as `edgeseg.load` opens it."""

    def __init__(self, path: Path, threads: int | None = None):
        from edgeseg.pipeline import load

        self.segmenter: Segmenter = load(path, threads=threads)
        self.engine_bytes = self.segmenter.bundle.engine_bytes
        self.on_gpu = is_on_gpu(self.segmenter.session)

    def __call__(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        labels = [self.segmenter(images[0])] if len(images) == 1 else self.segmenter.batch(images)
        times = self.segmenter.times
        assert times
        # 0 where the GPU does all three in one go
        self.stages = Stages(times.preprocess or None, times.engine, times.tail or None)
        return labels

    def close(self) -> None:
        self.segmenter.close()
