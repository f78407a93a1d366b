"""`edgeseg build`: network -> exact rewrites -> precision -> engine -> gate -> bundle; its steps are in building/."""

import importlib.metadata
import importlib.util
import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeseg.backends import choose_backend
from edgeseg.building.candidate import make_candidate
from edgeseg.building.gate import Candidate, failure
from edgeseg.building.judge import Judge, labelled_data
from edgeseg.building.options import BuildOptions, check_options, default_name, rebuild_command, recipe
from edgeseg.building.precision import Materials
from edgeseg.bundle import Bundle, write_json, writing_bundle
from edgeseg.errors import BackendError
from edgeseg.progress import Progress
from edgeseg.real_images import RealImages
from edgeseg.sources import Network, network_from_module, network_from_name, network_from_onnx
from edgeseg.verdict import Verdict, reach_verdict

if TYPE_CHECKING:
    import onnx

__all__ = ["BuildOptions", "build", "open_network", "rebuild_command"]

BUILD_PACKAGES = ("torch", "onnx", "onnxsim", "onnxscript", "onnx_ir", "safetensors")


def build(options: BuildOptions, progress: Progress = Progress(), network: Network | None = None) -> Bundle:
    """Make a bundle, or fail with nothing written.

    `network`: what the options' source became before, so that several builds of it need one export.

    Raises:
        VerificationError: the build does not pass the gate; `verification` on the exception holds what was seen.
        EdgesegError: anything else that can go wrong, with a message that says what to do.
    """
    begin = time.perf_counter()
    check_options(options)
    _require_build_packages()
    sought = "fp32" if options.precision == "auto" else options.precision
    backend, reason = choose_backend(options.backend, to_build=True, precision=sought)
    made_by = recipe(options, backend)
    target = options.output or Path(default_name(options, backend))
    with writing_bundle(target, same_recipe=made_by, force=options.force) as writer, ExitStack() as resources:
        with progress.task("export to ONNX"):
            network = network or open_network(options)
        images = RealImages(options.calibration_data, options.calibration_images, network.preprocess)
        with progress.task("exact rewrites"):
            model, reports, gmacs = _rewrite(network, options.rewrites)
        materials = Materials(network, model, backend, options, images, progress)
        judge = _judge(materials, resources)
        verdict: Verdict | None = None
        if options.precision == "auto":
            made, verdict = reach_verdict(materials, judge, writer.staging)
        else:
            search = options.max_drop is not None
            made = make_candidate(materials, judge, options.precision, writer.staging, search=search)
        if not made.verification.passed:
            raise failure(made)
        write_json(writer.staging / "verification.json", made.verification_json())
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
            **_precision(made, verdict),
            "backend": backend.identity(),
            "backend_reason": reason,
            "engine": {"file": made.engine.main, "files": list(made.engine.files), "details": made.engine.details},
            "rewrites": reports,
            "gmacs": gmacs,
            "recipe": made_by,
            "rebuild": rebuild_command(options, target),
            "notes": [*network.notes, *made.notes],
            "seconds": round(time.perf_counter() - begin, 2),
        }
        return writer.commit(manifest)


def _precision(made: Candidate, verdict: Verdict | None) -> dict[str, Any]:
    """What the manifest says about precision: "int8_share" of the multiply-accumulates, the search and the verdict."""
    found: dict[str, Any] = {"precision": made.precision}
    if made.precision == "int8":
        found["int8_share"] = made.int8_share
    if made.fallback:
        found["fallback"] = made.fallback.to_json()
    if verdict:
        found["verdict"] = verdict.to_json()
    return found


def _judge(materials: Materials, resources: ExitStack) -> Judge | None:
    """Where a limit is asked for, or a verdict, what decides whether a build is within it."""
    options, network = materials.options, materials.network
    if options.max_drop is None and options.precision != "auto":
        return None
    from edgeseg.backends.onnxruntime import session_from_model

    labelled = None
    if options.max_drop is not None:
        labelled = labelled_data(options.data, options.calibration_data, network.label_set)
    reference = resources.enter_context(session_from_model(network.onnx))
    return Judge(reference.infer_one, materials.images, network.label_set.classes, labelled)


def _require_build_packages() -> None:
    missing = [name for name in BUILD_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise BackendError(
            f"building needs {', '.join(missing)}, which this installation lacks (it can run bundles); "
            f"pip install 'edgeseg[build]'"
        )


def open_network(options: BuildOptions) -> Network:
    """The options' source as ONNX, which `build` takes as its `network`."""
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


def _tensor(value) -> dict:
    """Name and shape of a graph input or output; None where a dimension is dynamic."""
    dims = value.type.tensor_type.shape.dim
    return {"name": value.name, "shape": [d.dim_value if d.HasField("dim_value") else None for d in dims]}
