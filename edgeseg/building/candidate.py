"""One precision from network to judged engine, with the search for what to keep out of INT8 where it is wanted."""

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgeseg.backends.base import BuildRequest, EngineFiles, Shape
from edgeseg.building.gate import Candidate, pass_gate
from edgeseg.building.judge import Judge
from edgeseg.building.options import Precision
from edgeseg.building.precision import Materials, reduced
from edgeseg.counting import int8_share
from edgeseg.precision.fallback import Fallback, Outcome, expressions_of, search_fallback
from edgeseg.sources import Batch
from edgeseg.verify import DEFAULT_MAX_DROP

if TYPE_CHECKING:
    import onnx

    from edgeseg.precision.blocks import Block

SEARCH_STEPS = 20  # that the time should suffice for, ranking included; with more images a step costs more
FEWEST_IMAGES = 4


def make_candidate(
    materials: Materials, judge: Judge | None, precision: Precision, folder: Path, *, search: bool
) -> Candidate:
    """Build, pass the gate, and where INT8 fails it and `search` is set, mix precisions until it passes.

    Args:
        judge: decides what fits; needed for `search`, and for a limit on mIoU by labels.

    Returns:
        A candidate that passed or not: `verification.passed`.
    """
    plain = _build(materials, judge, precision, folder)
    if precision != "int8" or plain.verification.passed or not search or judge is None:
        return plain
    return mix(materials, judge, plain)


def mix(materials: Materials, judge: Judge, plain: Candidate) -> Candidate:
    """INT8 again, in the same folder, without the blocks that a search says; `plain` with the search if none fits."""
    fallback, blocks = _search(materials, judge)
    if fallback.chosen is None:
        return replace(plain, fallback=fallback)
    kept = [block for block in blocks if block.name in fallback.best.kept_high]
    mixed = _build(materials, judge, "int8", plain.folder, expressions_of(kept))
    return replace(mixed, fallback=fallback, notes=[*mixed.notes, _in_words(fallback, materials)])


def _build(
    materials: Materials, judge: Judge | None, precision: Precision, folder: Path, exclude: Sequence[str] = ()
) -> Candidate:
    model, notes = reduced(materials, precision, exclude)
    engine = _engine(materials, model, precision, folder)
    if precision == "int8":
        materials.scales()[0].save(folder / "scales.json")
    verification, judgement = pass_gate(materials, judge, folder, engine, precision)
    return Candidate(precision, folder, engine, notes, share_in_int8(model), verification, judgement)


def _engine(materials: Materials, model: "onnx.ModelProto", precision: Precision, folder: Path) -> EngineFiles:
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString(deterministic=True))
    request = BuildRequest(
        onnx_path=path,
        precision=precision,
        compute_capabilities=materials.options.compute_capabilities,
        module=materials.network.module,
        module_recipe=materials.network.module_recipe,
        profiles=_profiles(model, materials.options.batch),
    )
    return materials.backend.build(request, folder, materials.progress)


def _search(materials: Materials, judge: Judge) -> "tuple[Fallback, Sequence[Block]]":
    from edgeseg.backends.onnxruntime import OnnxRuntimeSession, session_from_model
    from edgeseg.precision.blocks import find_blocks
    from edgeseg.precision.int8 import quantize

    options, backend = materials.options, materials.backend
    scales, _ = materials.scales()
    blocks = find_blocks(materials.model, dims=dict.fromkeys(_symbolic(materials.model), 1))
    limit = DEFAULT_MAX_DROP["int8"] if options.max_drop is None else options.max_drop

    def mixture(high: Sequence["Block"]) -> "onnx.ModelProto":
        return quantize(
            materials.model,
            scales,
            high_precision=backend.int8_high_precision,
            exclude=expressions_of(high),
            exclude_behind=backend.int8_exclude_behind,
        )

    def session(model: "onnx.ModelProto") -> OnnxRuntimeSession:
        own = backend.name == "onnxruntime"  # then exactly as the engine will run, its roundings included
        return session_from_model(model, precision="int8" if own else "fp32", as_written=not own)

    begin = time.monotonic()
    with session(mixture([])) as plain:
        loaded = time.monotonic()
        judge.judge(plain.infer_one, step=judge.count)  # one image
    seconds_of_image = time.monotonic() - loaded
    affordable = (options.fallback_budget / SEARCH_STEPS - (loaded - begin)) / seconds_of_image
    every = math.ceil(judge.count / min(max(affordable, FEWEST_IMAGES), judge.count))

    def outcome(high: Sequence["Block"]) -> Outcome:
        model = mixture(high)
        share = share_in_int8(model)
        opened = session(model)
        del model  # the session has its own copy
        with opened as mixed:
            found = judge.judge(mixed.infer_one, every)
        return Outcome(found.drop, found.label_agreement, found.fits(limit), share)

    def changed_labels(high: Sequence["Block"], part: float) -> float:
        with session(mixture(high)) as mixed:
            return 1 - judge.judge(mixed.infer_one, min(round(every / part), judge.count)).label_agreement

    fallback = search_fallback(
        blocks,
        outcome,
        changed_labels,
        max_drop=limit,
        measure=judge.measure,
        images=math.ceil(judge.count / every),
        budget=options.fallback_budget,
        progress=materials.progress,
    )
    return fallback, blocks


def _in_words(fallback: Fallback, materials: Materials) -> str:
    best = fallback.best
    return (
        f"mixed precision: {', '.join(best.kept_high)} kept in {materials.backend.int8_high_precision.upper()} "
        f"to stay within {fallback.max_drop:g} points of {fallback.measure}; "
        f"plain INT8 loses {fallback.steps[0].drop:.2f}"
    )


def share_in_int8(model: "onnx.ModelProto") -> float:
    """Of the multiply-accumulates, for one image."""
    return int8_share(model, dict.fromkeys(_symbolic(model), 1))


def _symbolic(model: "onnx.ModelProto") -> list[str]:
    return [dim.dim_param for dim in model.graph.input[0].type.tensor_type.shape.dim if dim.dim_param]


def _profiles(model: "onnx.ModelProto", batch: Batch) -> dict[str, tuple[Shape, Shape, Shape]]:
    """Smallest, usual and largest shape of the input, for backends that want them; nothing for a static batch."""
    if not isinstance(batch, tuple):
        return {}
    image = model.graph.input[0]
    rest = [dim.dim_value for dim in image.type.tensor_type.shape.dim[1:]]
    smallest, usual, largest = ((n, *rest) for n in batch)
    return {image.name: (smallest, usual, largest)}
