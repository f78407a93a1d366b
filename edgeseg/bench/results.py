"""What a benchmark measured, as data: JSON with a schema, from which every table and report is made."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from edgeseg.errors import InputError
from edgeseg.files import write_atomically

SCHEMA_VERSION = 1
KIND = "edgeseg-bench"


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one batch, image arrays in to label arrays out; interleaved with the other systems of the run."""

    p50: float
    p95: float
    p99: float
    low: float  # 95 % confidence interval of the median
    high: float
    runs: int
    is_noisy: bool  # the machine was too busy to believe the figure: the interval is wider than a tenth of the median

    def fps(self, batch: int) -> float:
        """Images a second at the median."""
        return 1000 * batch / self.p50


@dataclass(frozen=True)
class Stages:
    """Median milliseconds of one batch in each stage; None where it was not measured or does not exist apart."""

    preprocess: float | None = None
    engine: float | None = None
    tail: float | None = None  # upsampling and argmax
    copies: float | None = None  # between host and device


@dataclass(frozen=True)
class WorstImage:
    """One of the images with the lowest mIoU."""

    name: str
    miou: float  # fraction
    picture: str  # base64 JPEG: image, truth, labels of the FP32 network, labels of this row, side by side


@dataclass(frozen=True)
class Row:
    """One cell of the sweep: a system with one network at one precision, size and batch. None: not measured."""

    system: str  # "edgeseg", or a baseline such as "torch eager" or "onnxruntime, unmodified"
    model: str
    weights: str
    backend: str
    precision: str  # "fp32", "fp16", "int8", "mixed"
    height: int
    width: int
    batch: int
    num_classes: int
    params: int | None = None
    gmacs_published: float | None = None  # per image, 1e9 multiply-accumulates
    gmacs_deployed: float | None = None
    int8_share: float | None = None  # of the deployed multiply-accumulates; None where none is INT8 by design
    engine_bytes: int | None = None
    latency: Latency | None = None
    stages: Stages = field(default_factory=Stages)
    peak_memory_bytes: int | None = None  # resident memory of a process that runs nothing else; on a GPU the device's
    energy_joules: float | None = None  # per image, where the device has a sensor
    label_agreement: float | None = None  # fraction of pixels with the label of the FP32 network
    agreement_miou: float | None = None  # fraction
    miou: float | None = None  # fraction, on the labelled data
    per_class_iou: dict[str, float | None] | None = None
    worst_images: tuple[WorstImage, ...] = ()
    failure: str | None = None  # why the cell could not be measured, in one line
    notes: tuple[str, ...] = ()

    @property
    def key(self) -> tuple:
        """What makes two rows of two runs the same cell."""
        return self.system, self.model, self.weights, self.backend, self.precision, self.height, self.width, self.batch

    @property
    def fps(self) -> float | None:
        """Images a second at the median latency."""
        return self.latency.fps(self.batch) if self.latency else None


@dataclass(frozen=True)
class Results:
    """A whole run."""

    rows: tuple[Row, ...]
    environment: dict[str, Any]  # devices, versions, threads, clocks, governor, power mode, throttling
    arguments: dict[str, Any]  # the command that was given
    dataset: dict[str, Any] | None = None  # name, split, images; None where none was given
    classes: tuple[str, ...] = ()
    started: str = ""  # ISO 8601, UTC
    seconds: float = 0.0
    is_complete: bool = True  # False while a sweep is under way, or was stopped: --resume goes on

    def to_json(self) -> dict[str, Any]:
        return {"kind": KIND, "schema_version": SCHEMA_VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, data: Any, source: str = "the document") -> Results:
        """Raises InputError for anything that is not a result of this schema."""
        if not isinstance(data, dict) or data.get("kind") != KIND:
            raise InputError(f"{source} is not a result of `edgeseg bench --output`")
        if data.get("schema_version") != SCHEMA_VERSION:
            found = data.get("schema_version")
            raise InputError(
                f"{source} has schema version {found!r}, this edgeseg reads {SCHEMA_VERSION}; measure again"
            )
        try:
            known = {f.name for f in fields(cls)}
            rows = tuple(_row(row) for row in data["rows"])
            rest = {name: value for name, value in data.items() if name in known - {"rows", "classes"}}
            return cls(rows=rows, classes=tuple(data["classes"]), **rest)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{source} is damaged ({type(error).__name__}: {error}); measure again") from error

    def save(self, path: Path) -> None:
        """Written whole or not at all."""
        text = json.dumps(self.to_json(), indent=1, ensure_ascii=False, allow_nan=False)
        write_atomically(path, (text + "\n").encode())

    @classmethod
    def load(cls, path: Path) -> Results:
        """Raises InputError for a missing file and for anything that is not a result."""
        try:
            return cls.from_json(json.loads(path.read_text()), str(path))
        except FileNotFoundError as error:
            raise InputError(f"{path} does not exist; `edgeseg bench --output {path}` makes it") from error
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise InputError(f"{path} is not JSON ({error}); measure again") from error


def _row(data: dict[str, Any]) -> Row:
    return Row(
        **data
        | {
            "latency": Latency(**data["latency"]) if data.get("latency") else None,
            "stages": Stages(**data.get("stages") or {}),
            "worst_images": tuple(WorstImage(**image) for image in data.get("worst_images", ())),
            "notes": tuple(data.get("notes", ())),
        }
    )
