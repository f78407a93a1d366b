"""The gate of a build: the engine's labels, or where it cannot run here its ONNX's, against the FP32 network."""

from dataclasses import dataclass, replace
from pathlib import Path

from edgeseg.backends.base import EngineFiles, Session
from edgeseg.building.judge import Judge, Judgement
from edgeseg.building.options import Precision
from edgeseg.building.precision import Materials
from edgeseg.errors import VerificationError
from edgeseg.precision.fallback import Fallback
from edgeseg.progress import counted
from edgeseg.verify import MIN_LABEL_AGREEMENT, Verification, verify

NO_LIMIT = 100.0  # points of agreement-mIoU


@dataclass(frozen=True)
class Candidate:
    """A build at one precision, in its folder, before or after it is chosen."""

    precision: Precision
    folder: Path
    engine: EngineFiles
    notes: list[str]
    int8_share: float  # of the multiply-accumulates
    verification: Verification
    judgement: dict | None = None  # by labels, where there are some
    fallback: Fallback | None = None  # the search, where there was one

    def verification_json(self) -> dict:
        found = self.verification.to_json()
        if self.judgement:
            found["labelled"] = self.judgement
        if self.fallback:
            found["fallback"] = self.fallback.to_json()
        return found


def open_session(materials: Materials, folder: Path, engine: EngineFiles, precision: Precision) -> tuple[Session, str]:
    """What computes the build's labels, and its name in words."""
    from edgeseg.backends.onnxruntime import session_from_model

    backend = materials.backend
    status = backend.probe()
    if status.can_run:
        return backend.open(folder, engine.main, {"precision": precision}), f"{backend.name} {status.version}"
    words = f"onnxruntime, on the engine's own ONNX: the {backend.name} engine cannot run here ({status.reason})"
    return session_from_model(folder / "model.onnx", as_written=True), words


def pass_gate(
    materials: Materials, judge: Judge | None, folder: Path, engine: EngineFiles, precision: Precision
) -> tuple[Verification, dict | None]:
    """What the gate saw, and how the labels judge it where `judge` has some. Never raises for a build that fails."""
    from edgeseg.backends.onnxruntime import session_from_model

    images, options, network = materials.images, materials.options, materials.network
    by_labels = judge is not None and judge.labelled is not None
    session, executed_with = open_session(materials, folder, engine, precision)
    reference = session_from_model(network.onnx)
    with session, reference, materials.progress.task("verify", images.verification_count) as advance:
        verification = verify(
            reference.infer_one,
            session.infer_one,
            counted(images.verification(), advance),
            network.label_set.classes,
            precision,
            max_drop=NO_LIMIT if by_labels else options.max_drop,  # then mIoU by the labels has one
            executed_with=executed_with,
            reference_name="FP32 network as published, onnxruntime",
            image_source=images.verification_source,
            preprocess=network.preprocess,
            reference_model=network.onnx,
            noticed=materials.noticed.get(precision, ()),
        )
        if not by_labels:
            return verification, None
        assert judge is not None and options.max_drop is not None
        judgement = judge.judge(session.infer_one)
    return _with_labels(verification, judgement, options.max_drop), judge.to_json(judgement, options.max_drop)


def failure(candidate: Candidate) -> VerificationError:
    """The error of a build that does not pass, with what to do."""
    verification, fallback = candidate.verification, candidate.fallback
    what = f"the {candidate.precision} build fails the gate and was not kept: {'; '.join(verification.failures)}. "
    if fallback is None:
        search = ", let --max-drop D look for what to keep out of INT8" if candidate.precision == "int8" else ""
        what += (
            f"Calibrate on images like the real ones (--calibration-data){search}, choose a higher precision, "
            f"or allow more with --max-drop"
        )
        return VerificationError(what, verification)
    best = fallback.best
    kept = f"{len(best.kept_high)} of {len(fallback.blocks)} blocks in floating point"
    told = f"{kept} and {best.int8_share:.0%} of the multiply-accumulates in INT8"
    if fallback.chosen is not None:
        what += (
            f"On the {fallback.images} images of the search its ONNX fits with {told}; here it does not. "
            f"Let the search see more images (--fallback-budget), or ask it for less than is allowed"
        )
    else:
        what += (
            f"No mixture that was tried keeps {MIN_LABEL_AGREEMENT['int8']:.0%} of the labels and loses "
            f"{fallback.max_drop:g} points of {fallback.measure} or less ({fallback.stopped} after "
            f"{fallback.seconds:.0f} s); the best, with {told}, loses {best.drop:.2f} and keeps "
            f"{best.label_agreement:.2%} of the labels. Give it more time (--fallback-budget), allow more, "
            f"or build with --fp16"
        )
    return VerificationError(what, verification, fallback.to_json())


def _with_labels(verification: Verification, judgement: Judgement, max_drop: float) -> Verification:
    if judgement.drop <= max_drop:
        return verification
    lost = f"{judgement.drop:.2f} points of mIoU lost against the labels, at most {max_drop:g} allowed"
    return replace(verification, failures=(*verification.failures, lost), passed=False)
