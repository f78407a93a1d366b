"""What every backend answers: can it work here, make an engine from an ONNX, open the engine, run it.

A backend is one file that subclasses `Backend`, and one line in `BACKENDS`. Nothing heavy is imported until it is asked
to work: `import edgeseg.backends` needs numpy alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from edgeseg.errors import BackendError
from edgeseg.progress import Progress

if TYPE_CHECKING:
    from torch import nn

    from edgeseg.preprocess import Preprocess

Shape = tuple[int, ...]


@dataclass(frozen=True)
class BackendStatus:
    """What a backend can do on this machine."""

    installed: bool
    can_build: bool
    can_run: bool
    version: str = ""  # "" when not installed
    reason: str = ""  # why it cannot build or run; "" when it can do both
    warnings: tuple[str, ...] = ()  # known faults of this very version on this very machine


@dataclass(frozen=True)
class BuildRequest:
    """What to build. An option that a backend has no use for is an error there, never ignored."""

    onnx_path: Path
    precision: Literal["fp32", "fp16", "int8"] = "fp32"  # already in the ONNX; says how exact the rest must be
    compute_capabilities: tuple[str, ...] = ()  # TensorRT-RTX: GPUs to build for, as ("8.6", "8.9"); (): its default
    workspace_bytes: int | None = None  # TensorRT: scratch memory a kernel may ask for; None: a quarter of the GPU's
    optimization_level: int | None = None  # TensorRT: 0 (fast build) .. 5; None: its default
    threads: int | None = None  # TensorRT: host threads of the builder; None: its default
    profiles: Mapping[str, tuple[Shape, Shape, Shape]] = field(default_factory=dict)  # input: smallest, usual, largest
    timing_cache: Path | None = None  # TensorRT: folder of measured kernel times; None: the user's cache folder
    module: nn.Module | None = None  # torch: the network itself, FP32
    module_recipe: Mapping[str, Any] | None = None  # torch: keyword arguments of `create_model` that rebuild it (JSON)


@dataclass(frozen=True)
class EngineFiles:
    """What a build left in the folder."""

    main: str  # file name that `open` is given
    files: tuple[str, ...] = ()  # all files written, `main` included unless it was there before
    details: dict[str, Any] = field(default_factory=dict)  # JSON: what the builder had to say


class Session(ABC):
    """An opened engine. A context manager; one thread at a time."""

    backend: str
    input_name: str
    input_shape: tuple[int | None, ...]  # (N, 3, h, w); None where the engine takes any

    def __init__(self, backend: str, input_name: str, input_shape: tuple[int | None, ...]):
        self.backend = backend
        self.input_name = input_name
        self.input_shape = input_shape
        self._closed = False

    def infer(self, images: np.ndarray) -> np.ndarray:
        """Logits of a batch.

        Args:
            images: (N, 3, h, w) float32, normalised; any strides.

        Returns:
            (N, C, h / s, w / s) float32, the caller's own array.

        Raises:
            ValueError: images of another shape or type than the engine was built for.
            BackendError: the runtime failed.
        """
        if self._closed:
            raise ValueError(f"this {self.backend} session is closed; open the bundle again")
        self._check(images)
        return self._infer(np.ascontiguousarray(images))

    def infer_one(self, image: np.ndarray) -> np.ndarray:
        """`infer` for one (1, 3, h, w) image; a larger static batch is filled by repetition and cut again."""
        batch = self.input_shape[0] or 1
        return self.infer(np.repeat(image, batch, axis=0))[:1] if batch > 1 else self.infer(image)

    def on_device(self, prepare: Preprocess) -> Callable[[np.ndarray, tuple[int, int]], np.ndarray] | None:
        """Image and size to labels without leaving the device that the engine runs on; None where that is the CPU."""
        return None

    def layers(self) -> list[dict[str, Any]] | None:
        """The engine's own layers, one dict each; None where the runtime does not tell."""
        return None

    def close(self) -> None:
        """Give memory back; a second call does nothing."""
        if not self._closed:
            self._closed = True
            self._close()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def _infer(self, images: np.ndarray) -> np.ndarray:
        """`infer` for checked, contiguous images."""

    def _close(self) -> None:  # noqa: B027  most runtimes need nothing
        pass

    def _check(self, images: np.ndarray) -> None:
        wanted = ", ".join("N" if size is None else str(size) for size in self.input_shape)
        if not isinstance(images, np.ndarray) or images.dtype != np.float32:
            found = getattr(images, "dtype", type(images).__name__)
            raise ValueError(f"images must be a ({wanted}) float32 array, got {found}; use the bundle's preprocessing")
        fits = images.ndim == len(self.input_shape) and all(
            size in (None, found) for size, found in zip(self.input_shape, images.shape, strict=True)
        )
        if not fits or 0 in images.shape:
            raise ValueError(
                f"images must be ({wanted}), got {images.shape}; "
                f"use the bundle's preprocessing, or build for this size with --size and --batch"
            )


class Backend(ABC):
    """One way to run a network. Instances are stateless and live in `BACKENDS`."""

    name: str
    int8_high_precision: Literal["fp32", "fp16"] = "fp32"  # what an INT8 build computes the rest in
    int8_exclude_behind: tuple[str, ...] = ()  # operators behind which it gets INT8 wrong: left in floating point there

    @abstractmethod
    def probe(self) -> BackendStatus:
        """What it can do here. Never raises."""

    @abstractmethod
    def build(self, request: BuildRequest, folder: Path, progress: Progress = Progress()) -> EngineFiles:
        """Write the engine into `folder`; on any failure, Ctrl-C included, nothing of it stays.

        Raises:
            EngineBuildError: the builder refused the network; the message holds its own words.
            BackendError: the backend cannot build here.
            ValueError: an option that this backend does not have.
        """

    @abstractmethod
    def open(
        self, folder: Path, main: str, manifest: Mapping[str, Any] | None = None, *, threads: int | None = None
    ) -> Session:
        """Load an engine; it is native code or close to it, so the caller has checked its hash.

        Args:
            folder: where the bundle lies.
            main: `EngineFiles.main`.
            manifest: the bundle's; "precision" is what is read of it.
            threads: CPU threads; None is the runtime's own choice.

        Raises:
            BackendError: not installed, cannot run here, or the file is not an engine of this version.
        """

    @abstractmethod
    def identity(self) -> dict[str, str]:
        """What must be equal between build and load: {"backend", "version", ...}."""

    def slow_at(self, precision: str) -> str:
        """Why it is the wrong choice for this precision on this very machine; "" when it is not."""
        return ""

    def require(self, what: Literal["can_build", "can_run"]) -> BackendStatus:
        """The status, or BackendError with the reason why it cannot."""
        status = self.probe()
        if not getattr(status, what):
            verb = what.removeprefix("can_")
            raise BackendError(f"the backend {self.name} cannot {verb} here: {status.reason}")
        return status

    def _refuse_options(self, request: BuildRequest, *known: str) -> None:
        """ValueError for an option that is set and not among `known`."""
        optional = ("compute_capabilities", "workspace_bytes", "optimization_level", "threads", "timing_cache")
        for name in optional:
            if getattr(request, name) and name not in known:
                raise ValueError(f"the backend {self.name} has no {name}, got {getattr(request, name)}; leave it out")


def check_threads(threads: int | None) -> None:
    """ValueError unless None or at least 1."""
    if threads is not None and threads < 1:
        raise ValueError(f"threads must be at least 1, got {threads}")


def precision_of(manifest: Mapping[str, Any] | None) -> str:
    """The precision a bundle promises; "fp32", the strictest, where it says nothing."""
    return (manifest or {}).get("precision", "fp32")


def remove_files(*paths: Path) -> None:
    """Take back what a failed build wrote."""
    for path in paths:
        with suppress(OSError):
            path.unlink()


def engine_path(folder: Path, main: str) -> Path:
    """The engine's path; BackendError if it is missing."""
    path = folder / main
    if not path.is_file():
        raise BackendError(f"{path} does not exist; it is the engine that the bundle names. Build the bundle again")
    return path
