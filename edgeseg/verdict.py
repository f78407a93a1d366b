"""`--precision auto`: every precision built, judged and timed on this device; the fastest that passes, and why.

Timed: one precision replaces a higher one if it passes the gate and its latency, pair by pair of interleaved runs, is
lower by MARGIN or more; a tie stays with the more exact.

Where the engines cannot run here nothing is timed, and the rule is a cautious one. FP16 replaces FP32 if it passes.
INT8 replaces FP16 only if the engine tells its layers and has no more of them: each requantization that did not join
its neighbour is a pass over memory of its own, which int8 products seldom earn back.
"""

import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edgeseg.building.candidate import make_candidate, mix
from edgeseg.building.gate import Candidate, failure
from edgeseg.building.judge import Judge
from edgeseg.building.options import Precision
from edgeseg.building.precision import Materials
from edgeseg.errors import EdgesegError
from edgeseg.layer_counts import LayerCounts, count_layers
from edgeseg.timing import interleave

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")  # most exact first
MARGIN = 0.03  # of the latency: less is noise
RUNS = (5, 10)  # fewest and most of each, in about TIMING_SECONDS
TIMING_SECONDS = 20.0


@dataclass(frozen=True)
class Option:
    """One precision, as tried."""

    precision: Precision
    passed: bool
    remark: str  # why it was not built, does not pass, or was not looked into further; "" for a plain pass
    label_agreement: float | None = None
    drop: float | None = None  # points of mIoU by labels, else of agreement-mIoU
    latency: float | None = None  # of one image, as a multiple of the most exact one's; None: not timed
    engine_bytes: int | None = None
    int8_share: float | None = None  # of the multiply-accumulates
    kept_high: tuple[str, ...] = ()  # blocks out of INT8
    layers: LayerCounts | None = None  # None: the backend does not tell


@dataclass(frozen=True)
class Verdict:
    """What was tried, what was taken, and why."""

    chosen: Precision
    why: str
    timed: bool
    options: tuple[Option, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def reach_verdict(materials: Materials, judge: Judge | None, staging: Path) -> tuple[Candidate, Verdict]:
    """Build all precisions, keep the files of one in `staging`.

    Raises:
        VerificationError: none passes the gate.
        EdgesegError: none can be built; the error of FP32.
    """
    made, refused = _build_all(materials, judge, staging)
    times = _times(materials, made)
    if "int8" in made and not made["int8"].verification.passed:
        reason = _why_not_mixed(materials, judge, made, times)
        if not reason and judge is not None:
            made["int8"] = mix(materials, judge, made["int8"])
            if made["int8"].verification.passed:
                times = _times(materials, made)
        elif reason:
            refused["int8"] = reason
    passing = [p for p in PRECISIONS if p in made and made[p].verification.passed]
    if not passing:
        raise failure(next(iter(made.values())))
    layers = {p: _layers(materials, candidate) for p, candidate in made.items()}
    chosen = _fastest(passing, times) if times else _cautious(passing, layers)
    options = tuple(_option(p, made.get(p), refused.get(p, ""), times, layers.get(p)) for p in PRECISIONS)
    verdict = Verdict(chosen, _why(chosen, options, bool(times)), bool(times), options)
    return _keep(made[chosen], staging), verdict


def _build_all(
    materials: Materials, judge: Judge | None, staging: Path
) -> tuple[dict[Precision, Candidate], dict[Precision, str]]:
    """Candidates in folders of their own, and why there is none."""
    made: dict[Precision, Candidate] = {}
    refused: dict[Precision, str] = {}
    first: EdgesegError | None = None
    for precision in PRECISIONS:
        folder = staging / precision
        folder.mkdir()
        try:
            made[precision] = make_candidate(materials, judge, precision, folder, search=False)
        except EdgesegError as error:
            first = first or error
            refused[precision] = f"not built: {error}"
    if not made and first:
        raise first
    return made, refused


def _times(materials: Materials, made: Mapping[Precision, Candidate]) -> dict[str, list[float]]:
    """Milliseconds of one real image, interleaved; {} where the backend cannot run here."""
    if not materials.backend.probe().can_run:
        return {}
    image = next(iter(materials.images.verification()))
    with ExitStack() as stack:
        systems: dict[str, Callable[[], object]] = {}
        for precision, candidate in made.items():
            session = materials.backend.open(candidate.folder, candidate.engine.main, {"precision": precision})
            stack.enter_context(session)
            systems[precision] = partial(session.infer_one, image)
        one_round = sum(times[0] for times in interleave(systems, 1).values()) / 1000
        runs = int(np.clip(TIMING_SECONDS / (2 * one_round + 0.1 * len(systems)), *RUNS))
        with materials.progress.task("time the precisions side by side", runs) as advance:
            last = list(systems)[-1]
            return interleave(systems, runs, after=lambda name: advance(int(name == last)))


def _why_not_mixed(
    materials: Materials,
    judge: Judge | None,
    made: Mapping[Precision, Candidate],
    times: Mapping[str, list[float]],
) -> str:
    """Why a search for what to keep out of INT8 would be lost time: plain INT8 already is no faster."""
    passing = [p for p in PRECISIONS if p in made and made[p].verification.passed]
    if not passing:
        return ""
    failed = "; ".join(made["int8"].verification.failures)
    if times:
        rival = _fastest(passing, times)
        ratio = _ratio(times, "int8", rival)
        if ratio > 1 - MARGIN:
            return f"fails ({failed}), and at {ratio:.2f} of {rival.upper()}'s latency no mixture was looked for"
        return ""
    if _cautious([*passing, "int8"], {p: _layers(materials, c) for p, c in made.items()}) != "int8":
        return f"fails ({failed}), and its layers promise no gain, so no mixture was looked for"
    return ""


def _ratio(times: Mapping[str, list[float]], name: str, other: str) -> float:
    """Latency of one as a multiple of the other's: median of the pairs."""
    return float(np.median(np.array(times[name]) / np.array(times[other])))


def _fastest(passing: list[Precision], times: Mapping[str, list[float]]) -> Precision:
    best = passing[0]
    for precision in passing[1:]:
        if _ratio(times, precision, best) <= 1 - MARGIN:
            best = precision
    return best


def _cautious(passing: list[Precision], layers: Mapping[Precision, LayerCounts | None]) -> Precision:
    best = passing[0]
    for precision in passing[1:]:
        mine, theirs = layers.get(precision), layers.get(best)
        if precision == "fp16" or (mine and theirs and mine.layers <= theirs.layers):
            best = precision
    return best


def _layers(materials: Materials, candidate: Candidate) -> LayerCounts | None:
    """From the engine where it runs here, else from the build log."""
    backend = materials.backend
    if not backend.probe().can_run:
        found = candidate.engine.details.get("layers")
    else:
        with backend.open(candidate.folder, candidate.engine.main, {"precision": candidate.precision}) as session:
            found = session.layers()
    return count_layers(found, candidate.folder / "model.onnx") if found else None


def _option(
    precision: Precision,
    candidate: Candidate | None,
    remark: str,
    times: Mapping[str, list[float]],
    layers: LayerCounts | None,
) -> Option:
    if candidate is None:
        return Option(precision, False, remark)
    seen, labels = candidate.verification, candidate.judgement
    names = {candidate.engine.main, *candidate.engine.files}
    return Option(
        precision,
        seen.passed,
        remark or "; ".join(seen.failures),
        seen.label_agreement,
        labels["drop"] if labels else 100 * (1 - seen.agreement_miou),
        _ratio(times, precision, next(iter(times))) if times else None,
        sum((candidate.folder / name).stat().st_size for name in names),
        candidate.int8_share,
        candidate.fallback.best.kept_high if candidate.fallback and seen.passed else (),
        layers,
    )


def _why(chosen: Precision, options: tuple[Option, ...], timed: bool) -> str:
    """One sentence on the choice, one on each that was passed over."""
    taken = next(option for option in options if option.precision == chosen)
    most_exact = next(option for option in options if option.latency is not None or not timed)
    words = [f"{chosen.upper()} passes the gate"]
    if not timed:
        words[0] += " and was chosen by its layers and no clock: the engine cannot run here and was not timed"
    elif chosen == most_exact.precision:
        words[0] += f", and nothing below it that passes is faster by {MARGIN:.0%} or more"
    else:
        words[0] += f" and is the fastest: {taken.latency:.2f} of {most_exact.precision.upper()}'s latency"
    for option in options:
        if option is taken:
            continue
        name = option.precision.upper()
        if not option.passed:
            words.append(f"{name} {option.remark}" if option.remark.startswith("fails") else f"{name}: {option.remark}")
        elif option.latency is not None:
            words.append(f"{name} passes at {option.latency:.2f}, {option.drop:.2f} points lost")
        elif option.layers:
            words.append(f"{name} passes with {option.layers.layers} layers, {option.layers.unfused_qdq} of them Q/DQ")
        else:
            words.append(f"{name} passes")
    return ". ".join(words)


def _keep(chosen: Candidate, staging: Path) -> Candidate:
    """The chosen files in the bundle's folder, the others gone."""
    for path in list(chosen.folder.iterdir()):
        path.rename(staging / path.name)
    for precision in PRECISIONS:
        shutil.rmtree(staging / precision)
    return replace(chosen, folder=staging)
