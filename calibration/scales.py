"""Scales: the INT8 ranges of a network, where they came from, and when they must not be used."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from edgeseg.errors import CalibrationError
from edgeseg.files import write_atomically

if TYPE_CHECKING:
    import onnx

SCHEMA_VERSION = 1
LEVELS = 127  # symmetric signed INT8: -127 .. 127, zero point 0


@dataclass(frozen=True)
class Scale:
    """One activation tensor's range: reals in -amax .. amax become integers in -127 .. 127."""

    scale: float  # amax / 127; real value of one step, > 0
    amax: float  # >= 0, in the tensor's own unit; 0 where calibration saw nothing but zeros

    @classmethod
    def from_amax(cls, amax: float) -> "Scale":
        return cls(amax / LEVELS if amax > 0 else 1 / LEVELS, amax)


@dataclass(frozen=True)
class Scales:
    """The ranges of every place that `edgeseg.precision.placement` finds, in the order of the graph."""

    scales: Mapping[str, Scale]  # place, such as "Conv:3:64x32x3x3" -> range
    peaks: Mapping[str, float]  # "Mul:17" -> its largest |output|, for the few nodes that float16 cannot hold safely
    method: str  # "max", "percentile 99.99", "entropy" or "mse"
    image_count: int
    images_sha256: str  # of the network inputs: their shapes and bytes, in order
    preprocess: Mapping[str, object]  # Preprocess.to_json() of the images; empty: not told
    source_sha256: str  # of the checkpoint or ONNX file; empty: not told
    input_size: tuple[int, int]  # (height, width) of the calibration images
    edgeseg: str  # version that made this
    warnings: tuple[str, ...] = ()  # what a reader should know before trusting them
    migration: Mapping[str, tuple[int, ...]] = field(
        default_factory=dict
    )  # applied before the ranges hold: `migration`
    image_fingerprints: tuple[str, ...] = ()  # of the image files (failures.overlap); empty: not told
    schema_version: int = SCHEMA_VERSION

    def check(
        self,
        *,
        model: "onnx.ModelProto | None" = None,
        source_sha256: str | None = None,
        preprocess: Mapping[str, object] | None = None,
    ) -> None:
        """Refuse to serve another network or other preprocessing than the ranges were measured with.

        Another input size is allowed: neither the places nor, on like images, the ranges depend on it.

        Raises:
            CalibrationError: naming both sides.
        """
        if source_sha256 is not None and source_sha256 != self.source_sha256:
            raise CalibrationError(
                f"the scales were measured on the network {_short(self.source_sha256)}, this one is "
                f"{_short(source_sha256)} (SHA-256 of the weights); calibrate again with images (--calibration-data)"
            )
        if preprocess is not None:
            self._check_preprocess(preprocess)
        if model is not None:
            from edgeseg.precision.placement import find_placement

            self.check_keys(find_placement(model).keys)

    def check_keys(self, keys: Iterable[str]) -> None:
        """The same against the places of a graph, already found."""
        wanted = tuple(keys)
        if set(wanted) == set(self.scales):
            return
        missing = [key for key in wanted if key not in self.scales]
        surplus = [key for key in self.scales if key not in set(wanted)]
        raise CalibrationError(
            f"the scales are for {len(self.scales)} places, the graph has {len(wanted)}: "
            f"without a scale {_some(missing)}; not in the graph {_some(surplus)}. They were made for another network "
            f"or for the same one with other rewrites; calibrate again with images (--calibration-data)"
        )

    def _check_preprocess(self, preprocess: Mapping[str, object]) -> None:
        # Through JSON, since a tuple is a list on disk.
        theirs, ours = (json.loads(json.dumps(dict(side))) for side in (self.preprocess, preprocess))
        names = sorted({*theirs, *ours} - {"size"})
        different = [name for name in names if theirs.get(name) != ours.get(name)]
        if different:
            raise CalibrationError(
                "the scales were measured with the preprocessing "
                + ", ".join(f"{name} {theirs.get(name)}" for name in different)
                + "; this build has "
                + ", ".join(f"{name} {ours.get(name)}" for name in different)
                + "; calibrate again with images (--calibration-data)"
            )

    def to_json(self) -> dict:
        lists = {name: list(getattr(self, name)) for name in ("input_size", "warnings", "image_fingerprints")}
        return {**asdict(self), **lists}

    @classmethod
    def from_json(cls, data: Mapping) -> "Scales":
        """Raises CalibrationError for a document that is not a scales file of this version."""
        version = data.get("schema_version") if isinstance(data, Mapping) else None
        if version != SCHEMA_VERSION:
            raise CalibrationError(
                f"a scales document of schema version {version!r} came, {SCHEMA_VERSION} is what this edgeseg reads; "
                "calibrate again with images (--calibration-data)"
            )
        try:
            scales = {key: Scale(float(item["scale"]), float(item["amax"])) for key, item in data["scales"].items()}
            result = cls(
                scales=scales,
                peaks={key: float(value) for key, value in data["peaks"].items()},
                method=data["method"],
                image_count=int(data["image_count"]),
                images_sha256=data["images_sha256"],
                preprocess=dict(data["preprocess"]),
                source_sha256=data["source_sha256"],
                input_size=(int(data["input_size"][0]), int(data["input_size"][1])),
                edgeseg=data["edgeseg"],
                warnings=tuple(data["warnings"]),
                migration={key: tuple(map(int, item)) for key, item in data.get("migration", {}).items()},
                image_fingerprints=tuple(data.get("image_fingerprints", ())),
            )
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise CalibrationError(
                f"the scales document is damaged ({type(error).__name__}: {error}); calibrate again with images"
            ) from error
        wrong = [key for key, item in scales.items() if not 0 < item.scale < float("inf")]
        if wrong:
            raise CalibrationError(f"scales must be positive and finite, not so: {_some(wrong)}; calibrate again")
        return result

    def save(self, path: Path) -> None:
        """Written whole or not at all."""
        write_atomically(path, (json.dumps(self.to_json(), indent=1) + "\n").encode())

    @classmethod
    def load(cls, path: Path) -> "Scales":
        """Raises CalibrationError for a missing file and for anything that is not a scales document."""
        try:
            return cls.from_json(json.loads(path.read_text()))
        except FileNotFoundError as error:
            raise CalibrationError(f"{path} does not exist; calibrate with images (--calibration-data)") from error
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise CalibrationError(f"{path} is not JSON ({error}); calibrate again with images") from error


def _short(digest: str) -> str:
    return f"{digest[:12]}…" if digest else "(not recorded)"


def _some(names: list[str]) -> str:
    """The first few of a list, in words."""
    return (", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")) if names else "nothing"
