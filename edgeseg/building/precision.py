"""Casts or Q/DQ into the ONNX, and where the INT8 ranges come from."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgeseg.backends.base import Backend
from edgeseg.building.options import BuildOptions, Precision
from edgeseg.errors import CalibrationError
from edgeseg.failures import Finding
from edgeseg.failures.numbers import fp16_range
from edgeseg.failures.overlap import verified_on_calibration
from edgeseg.progress import Progress, counted
from edgeseg.real_images import RealImages
from edgeseg.sources import Network

if TYPE_CHECKING:
    import onnx

    from edgeseg.calibration.scales import Scales


@dataclass
class Materials:
    """What every precision of one build starts from."""

    network: Network
    model: "onnx.ModelProto"  # FP32, rewritten
    backend: Backend
    options: BuildOptions
    images: RealImages
    progress: Progress
    noticed: dict[Precision, list[Finding]] = field(default_factory=dict)  # on the way to the gate
    _scales: "tuple[Scales, list[str]] | None" = field(default=None, repr=False)

    def scales(self) -> "tuple[Scales, list[str]]":
        """The INT8 ranges and what to note about them; found once."""
        if self._scales is None:
            self._scales = _find_scales(self)
        return self._scales


def reduced(
    materials: Materials, precision: Precision, exclude: Sequence[str] = ()
) -> tuple["onnx.ModelProto", list[str]]:
    """The network at a precision, and notes.

    Args:
        exclude: INT8: expressions for what stays in floating point, as in `quantize`.
    """
    if precision == "fp32":
        return materials.model, []
    images, progress = materials.images, materials.progress
    if precision == "fp16":
        from edgeseg.precision.fp16 import cast_to_fp16

        with progress.task("measure activation ranges", images.count) as advance:
            model, report = cast_to_fp16(materials.model, counted(images.calibration(), advance))
        materials.noticed[precision] = [fp16_range(report.peaks, len(report.kept))]
        return model, list(report.notes)

    from edgeseg.precision.int8 import quantize

    scales, notes = materials.scales()
    materials.noticed[precision] = verified_on_calibration(
        images.verification_fingerprints(), scales.image_fingerprints
    )
    with progress.task("insert Q/DQ"):
        model = quantize(
            materials.model,
            scales,
            high_precision=materials.backend.int8_high_precision,
            exclude=exclude,
            exclude_behind=materials.backend.int8_exclude_behind,
        )
    return model, notes


def _find_scales(materials: Materials) -> "tuple[Scales, list[str]]":
    """The user's file, new ones from the user's images, or those that ship; never from anything else."""
    from edgeseg.calibration.prepare import prepare_scales
    from edgeseg.calibration.scales import Scales

    network, options, images = materials.network, materials.options, materials.images
    identity: dict[str, Any] = {"source_sha256": network.source_sha256, "preprocess": network.preprocess.to_json()}
    if options.scales is not None:
        scales = Scales.load(options.scales)
        scales.check(**identity)  # the places are checked by `quantize`
        return scales, [f"scales of {options.scales}", *scales.warnings]
    if options.calibration_data is not None:
        return prepare_scales(
            materials.model,
            images,
            network.label_set.classes,
            method=options.calibration_method,
            migrate=options.migrate,
            progress=materials.progress,
            **identity,
        )
    if network.bundled is None:
        raise CalibrationError(
            f"INT8 needs activation ranges, and {network.weights} ships with none; pass --calibration-data DIR, "
            f"a folder of about {options.calibration_images} images like those the network will see"
        )
    scales = Scales.load(network.bundled.scales_path if options.rewrites else network.bundled.plain_scales_path)
    scales.check(**identity)  # the places are checked by `quantize`
    return scales, [f"scales that ship with {network.weights}"]
