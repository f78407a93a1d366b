"""`edgeseg build`: network -> exact rewrites -> precision -> engine -> gate -> bundle."""

import importlib.metadata
import importlib.util
import shlex
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from edgeseg.backends import choose_backend
from edgeseg.backends.base import Backend, BuildRequest, Shape
from edgeseg.bundle import Bundle, BundleWriter, write_json, writing_bundle
from edgeseg.errors import BackendError, CalibrationError, VerificationError
from edgeseg.progress import Progress
from edgeseg.real_images import RealImages
from edgeseg.sources import Batch, Network, network_from_module, network_from_name, network_from_onnx
from edgeseg.verify import Verification, verify

if TYPE_CHECKING:
    import onnx

Precision = Literal["fp32", "fp16", "int8"]
REBUILD_OPTIONS = (
    *("model", "onnx", "onnx_output", "module", "weights", "dataset", "size", "batch", "max_drop", "backend"),
    *("calibration_data", "calibration_images", "calibration_method", "scales"),
)
BUILD_PACKAGES = ("torch", "onnx", "onnxsim", "onnxscript", "onnx_ir", "safetensors")


@dataclass(frozen=True)
class BuildOptions:
    """What to build; the command line's options."""

    model: str | None = None
    onnx: Path | None = None
    module: str | None = None  # PACKAGE:FACTORY
    weights: str | None = None
    dataset: str | None = None
    size: tuple[int, int] | None = None  # (height, width); the checkpoint's or the network's own by default
    batch: Batch = 1
    precision: Precision = "fp32"
    max_drop: float | None = None  # points of agreement-mIoU
    backend: str = "auto"
    calibration_data: Path | None = None
    scales: Path | None = None  # INT8 ranges of an earlier calibration, such as a bundle's scales.json
    calibration_images: int = 64
    calibration_method: Literal["max", "percentile", "entropy", "mse"] = "percentile"
    rewrites: bool = True
    output: Path | None = None
    force: bool = False
    compute_capabilities: tuple[str, ...] = ()  # tensorrt-rtx: the GPUs to build for, such as ("8.6", "8.9")
    onnx_output: str | None = None  # which output of an ONNX with several


def build(options: BuildOptions, progress: Progress = Progress()) -> Bundle:
    """Make a bundle, or fail with nothing written.

    Raises:
        VerificationError: the build does not pass the gate; `verification` on the exception holds what was seen.
        EdgesegError: anything else that can go wrong, with a message that says what to do.
    """
    begin = time.perf_counter()
    _check(options)
    _require_build_packages()
    backend, reason = choose_backend(options.backend, to_build=True, precision=options.precision)
    recipe = _recipe(options, backend)
    target = options.output or Path(_default_name(options, backend))
    with writing_bundle(target, same_recipe=recipe, force=options.force) as writer:
        with progress.task("export to ONNX"):
            network = _open_network(options)
        images = RealImages(options.calibration_data, options.calibration_images, network.preprocess)
        with progress.task("exact rewrites"):
            model, reports, gmacs = _rewrite(network, options.rewrites)
        model, scales_note = _apply_precision(model, network, options, backend, images, writer.staging, progress)
        model_path = writer.staging / "model.onnx"
        model_path.write_bytes(model.SerializeToString(deterministic=True))
        request = BuildRequest(
            onnx_path=model_path,
            precision=options.precision,
            compute_capabilities=options.compute_capabilities,
            module=network.module,
            module_recipe=network.module_recipe,
            profiles=_profiles(model, options.batch),
        )
        engine = backend.build(request, writer.staging, progress)
        manifest: dict[str, Any] = {
            "edgeseg": importlib.metadata.version("edgeseg"),
            "model": {
                "name": network.name,
                "weights": network.weights,
                "source_sha256": network.source_sha256,
                "params": network.params,
            },
            "label_set": network.label_set.to_json(),
            "preprocess": network.preprocess.to_json(),
            "input": _tensor(model.graph.input[0]),
            "output": _tensor(model.graph.output[0]),
            "precision": options.precision,
            "backend": backend.identity(),
            "backend_reason": reason,
            "engine": {"file": engine.main, "files": list(engine.files), "details": engine.details},
            "rewrites": reports,
            "gmacs": gmacs,
            "recipe": recipe,
            "rebuild": rebuild_command(options, target),
            "notes": [*network.notes, *scales_note],
        }
        verification = _verify(network, backend, engine.main, manifest, options, images, writer, progress)
        write_json(writer.staging / "verification.json", verification.to_json())
        manifest["seconds"] = round(time.perf_counter() - begin, 2)
        return writer.commit(manifest)


def _check(options: BuildOptions) -> None:
    given = [name for name in ("model", "onnx", "module") if getattr(options, name)]
    if len(given) != 1:
        raise ValueError(f"pass exactly one of --model, --onnx and --module, got {' and '.join(given) or 'none'}")
    if options.calibration_images < 1:
        raise ValueError(f"--calibration-images must be at least 1, got {options.calibration_images}")
    if options.scales and options.precision != "int8":
        raise ValueError(f"--scales are INT8 ranges, the build is {options.precision}; add --int8 or leave them out")
    if options.onnx and options.weights:
        raise ValueError("an ONNX file brings its own weights; leave out --weights or --onnx")


def _require_build_packages() -> None:
    missing = [name for name in BUILD_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise BackendError(
            f"building needs {', '.join(missing)}, which this installation lacks (it can run bundles); "
            f"pip install 'edgeseg[build]'"
        )


def _open_network(options: BuildOptions) -> Network:
    if options.model:
        return network_from_name(options.model, options.weights, options.dataset, options.size, options.batch)
    if options.onnx:
        return network_from_onnx(options.onnx, options.dataset, options.size, options.batch, options.onnx_output)
    assert options.module
    return network_from_module(options.module, options.weights, options.dataset, options.size, options.batch)


def _rewrite(network: Network, enabled: bool) -> tuple["onnx.ModelProto", list[dict], dict[str, float]]:
    from edgeseg.rewrites import rewrite

    model, reports = rewrite(network.onnx) if enabled else (network.onnx, [])
    gmacs = {
        "published": _macs_per_image(network.onnx) / 1e9,
        "deployed": _macs_per_image(model) / 1e9,
    }
    return model, [asdict(report) for report in reports], gmacs


def _macs_per_image(model: "onnx.ModelProto") -> float:
    from edgeseg.counting import macs_of_onnx

    batch = model.graph.input[0].type.tensor_type.shape.dim[0]
    if batch.dim_param:
        return macs_of_onnx(model, {batch.dim_param: 1})
    return macs_of_onnx(model) / batch.dim_value


def _apply_precision(
    model: "onnx.ModelProto",
    network: Network,
    options: BuildOptions,
    backend: Backend,
    images: RealImages,
    staging: Path,
    progress: Progress,
) -> tuple["onnx.ModelProto", list[str]]:
    """Casts or Q/DQ into the ONNX; the scales file goes into the bundle."""
    if options.precision == "fp32":
        return model, []
    if options.precision == "fp16":
        from edgeseg.precision.fp16 import cast_to_fp16

        with progress.task("measure activation ranges", images.count) as advance:
            model, report = cast_to_fp16(model, _counted(images.calibration(), advance))
        return model, list(report.notes)

    from edgeseg.precision.int8 import quantize

    scales, notes = _scales(model, network, options, images, progress)
    scales.save(staging / "scales.json")
    with progress.task("insert Q/DQ"):
        quantized = quantize(
            model,
            scales,
            high_precision=backend.int8_high_precision,
            exclude_behind=backend.int8_exclude_behind,
        )
    return quantized, notes


def _scales(model: "onnx.ModelProto", network: Network, options: BuildOptions, images: RealImages, progress: Progress):
    """The user's file, new ones from the user's images, or those that ship; never from anything else."""
    from edgeseg.calibration import calibrate
    from edgeseg.calibration.scales import Scales

    identity = {"source_sha256": network.source_sha256, "preprocess": network.preprocess.to_json()}
    if options.scales is not None:
        scales = Scales.load(options.scales)
        scales.check(**identity)  # the places are checked by `quantize`
        return scales, [f"scales of {options.scales}", *scales.warnings]
    if options.calibration_data is not None:
        with progress.task("calibrate", images.count) as advance:
            batches = _counted(images.calibration(), advance)
            scales = calibrate(model, batches, method=options.calibration_method, **identity)
        return scales, [f"calibrated on {images.source}", *scales.warnings]
    if network.bundled is None:
        raise CalibrationError(
            f"INT8 needs activation ranges, and {network.weights} ships with none; pass --calibration-data DIR, "
            f"a folder of about {options.calibration_images} images like those the network will see"
        )
    scales = Scales.load(network.bundled.scales_path if options.rewrites else network.bundled.plain_scales_path)
    scales.check(**identity)  # the places are checked by `quantize`
    return scales, [f"scales that ship with {network.weights}"]


def _verify(
    network: Network,
    backend: Backend,
    engine_file: str,
    manifest: dict,
    options: BuildOptions,
    images: RealImages,
    writer: BundleWriter,
    progress: Progress,
) -> Verification:
    from edgeseg.backends.onnxruntime import session_from_model

    status = backend.probe()
    if status.can_run:
        session = backend.open(writer.staging, engine_file, manifest)
        executed_with = f"{backend.name} {status.version}"
    else:
        session = session_from_model(writer.staging / "model.onnx")
        executed_with = (
            f"onnxruntime, on the engine's own ONNX: the {backend.name} engine cannot run here ({status.reason})"
        )
    reference = session_from_model(network.onnx)
    with session, reference, progress.task("verify", images.verification_count) as advance:
        verification = verify(
            reference.infer_one,
            session.infer_one,
            _counted(images.verification(), advance),
            network.label_set.classes,
            options.precision,
            max_drop=options.max_drop,
            executed_with=executed_with,
            reference_name="FP32 network as published, onnxruntime",
            image_source=images.source,
        )
    if not verification.passed:
        raise VerificationError(
            f"the {options.precision} build fails the gate and was not kept: {'; '.join(verification.failures)}. "
            f"Calibrate on images like the real ones (--calibration-data), choose a higher precision, "
            f"or allow more with --max-drop",
            verification,
        )
    return verification


def _recipe(options: BuildOptions, backend: Backend) -> dict:
    """What makes two builds the same bundle: a rebuild by the same recipe may replace the old one."""
    return {
        "network": options.model or str(options.onnx or options.module),
        "precision": options.precision,
        "backend": backend.name,
    }


def _default_name(options: BuildOptions, backend: Backend) -> str:
    network = options.model or (options.onnx.stem if options.onnx else (options.module or "").partition(":")[2])
    return f"{network}-{options.precision}-{backend.name}"


def rebuild_command(options: BuildOptions, target: Path) -> str:
    """The command line that makes this bundle again: every option that is not at its default."""
    defaults = BuildOptions()
    words = ["edgeseg", "build"]
    for name in REBUILD_OPTIONS:
        value = getattr(options, name)
        if value != getattr(defaults, name):
            words += [f"--{name.replace('_', '-')}", _spelled(name, value)]
    for capability in options.compute_capabilities:
        words += ["--compute-capability", capability]
    words += [f"--{options.precision}"]
    if not options.rewrites:
        words += ["--no-rewrites"]
    return shlex.join([*words, "-o", str(target)])


def _spelled(name: str, value: Any) -> str:
    """An option's value as the command line takes it."""
    if isinstance(value, tuple):
        return ("x" if name == "size" else ":").join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _profiles(model: "onnx.ModelProto", batch: Batch) -> dict[str, tuple[Shape, Shape, Shape]]:
    """Smallest, usual and largest shape of the input, for backends that want them; nothing for a static batch."""
    if not isinstance(batch, tuple):
        return {}
    image = _tensor(model.graph.input[0])
    smallest, usual, largest = ((n, *image["shape"][1:]) for n in batch)
    return {image["name"]: (smallest, usual, largest)}


def _tensor(value) -> dict:
    """Name and shape of a graph input or output; None where a dimension is dynamic."""
    dims = value.type.tensor_type.shape.dim
    return {"name": value.name, "shape": [d.dim_value if d.HasField("dim_value") else None for d in dims]}


def _counted(batches: Iterator[np.ndarray], advance) -> Iterator[np.ndarray]:
    for batch in batches:
        yield batch
        advance(1)
