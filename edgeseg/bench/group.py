"""One group of a sweep: its systems built, checked on real images, then timed side by side; one row each."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeseg.backends import BACKENDS
from edgeseg.bench.inputs import input_images
from edgeseg.bench.measure import batch_of, confusion_with, label_images, measure_side_by_side
from edgeseg.bench.memory import peak_memory
from edgeseg.bench.plan import BenchOptions, Cell, Group, refusal
from edgeseg.bench.results import Row
from edgeseg.bench.sensors import EnergySensor, find_energy_sensor
from edgeseg.bench.systems import BundleSystem, System, SystemSpec, open_system
from edgeseg.bundle import Bundle, check_identity, load_bundle
from edgeseg.errors import BackendError, BundleError, EdgesegError, VerificationError
from edgeseg.labels import LabelSet
from edgeseg.metrics import Agreement
from edgeseg.progress import Progress

if TYPE_CHECKING:
    from edgeseg.sources import Network


def measure_group(
    group: Group, cells: list[Cell], options: BenchOptions, folder: Path, progress: Progress
) -> tuple[list[Row], tuple[str, ...]]:
    """A row for each cell, in their order, with `failure` where there was one; and the names of the classes.

    Args:
        folder: where bundles and baselines are kept; those that are there from before are used again.
    """
    return _Measurement(group, cells, options, folder, progress).run()


class _Measurement:
    def __init__(self, group: Group, cells: list[Cell], options: BenchOptions, folder: Path, progress: Progress):
        self.group = group
        self.options = options
        self.folder = folder
        self.progress = progress
        self.cells = {cell.key: cell for cell in cells}
        self.rows = {cell.key: _empty_row(cell) for cell in cells}
        self.specs: dict[tuple, SystemSpec] = {}
        self.label_set: LabelSet | None = None

    def run(self) -> tuple[list[Row], tuple[str, ...]]:
        for key, cell in self.cells.items():
            self._attempt(key, partial(self._prepare, key, cell))
        with ExitStack() as stack:
            systems = self._open(stack)
            if systems:
                images = input_images(self.options, self.group.size)
                systems = self._check(systems, images)
                self._time(systems, images)
                self._weigh(systems, images)
                self._score(systems)
        return list(self.rows.values()), self.label_set.classes if self.label_set else ()

    # What each cell needs on disk

    def _prepare(self, key: tuple, cell: Cell) -> None:
        if cell.baseline:
            self._prepare_baseline(key, cell)
            return
        bundle = load_bundle(cell.bundle) if cell.bundle else self._build(cell)
        self.rows[key] = _row_of_bundle(self.rows[key], bundle)
        self.label_set = self.label_set or LabelSet.from_json(bundle.manifest["label_set"])
        status = BACKENDS[cell.backend].probe()
        if not status.can_run:
            raise BackendError(f"built and verified, not timed: {cell.backend} cannot run here ({status.reason})")
        self.specs[key] = self._spec("bundle", bundle.path, cell)

    def _build(self, cell: Cell) -> Bundle:
        from edgeseg.builder import BuildOptions, build

        options = BuildOptions(
            model=cell.model,
            weights=cell.weights or None,
            dataset=self.options.dataset,
            size=cell.size,
            batch=cell.batch,
            precision=cell.precision,  # type: ignore[arg-type]
            backend=cell.backend,
            calibration_data=self.options.calibration_data,
            calibration_images=self.options.calibration_images,
            rewrites=cell.backend != "torch",  # it runs the module itself
        )
        target = self.folder / _folder_name(cell, options)
        if target.is_dir():
            try:
                bundle = load_bundle(target)
                check_identity(bundle, BACKENDS[cell.backend].identity())
                return bundle
            except BundleError:
                pass  # of another version, or damaged: built again
        network = self._told_of_network(cell.key)
        with self.progress.task(f"build {_title(cell)}"):
            return build(replace(options, output=target, force=True), self.progress, network)

    def _prepare_baseline(self, key: tuple, cell: Cell) -> None:
        from edgeseg.bench.baselines import prepare_baseline
        from edgeseg.real_images import RealImages

        assert cell.baseline
        if reason := refusal(cell.baseline, cell.model):
            raise BackendError(reason)
        network = self._told_of_network(key)
        made_with = (self.options.dataset, self.options.calibration_data, self.options.calibration_images)
        spec = self._spec(cell.baseline, self.folder / _folder_name(cell, made_with), cell)
        images = RealImages(self.options.calibration_data, self.options.calibration_images, network.preprocess)
        with self.progress.task(f"prepare {_title(cell)}"):
            prepare_baseline(cell.baseline, network, spec, images.calibration)
        self.rows[key] = replace(self.rows[key], gmacs_deployed=self._published_gmacs)
        self.label_set = self.label_set or network.label_set
        self.specs[key] = spec

    def _told_of_network(self, key: tuple) -> Network:
        """The network; the cell's row says what is known of it even where the cell fails."""
        network = self.network
        self.rows[key] = replace(
            self.rows[key],
            num_classes=network.label_set.num_classes,
            params=network.params,
            gmacs_published=self._published_gmacs,
        )
        return network

    @cached_property
    def network(self) -> Network:
        """FP32, as published: what the baselines run and every label is compared with."""
        from edgeseg.sources import network_from_name

        group = self.group
        with self.progress.task(f"export {group.model}"):
            return network_from_name(
                group.model, group.weights or None, self.options.dataset, group.size, batch=group.batch
            )

    @cached_property
    def _published_gmacs(self) -> float:
        from edgeseg.counting import macs_of_onnx

        return macs_of_onnx(self.network.onnx) / self.group.batch / 1e9

    def _spec(self, kind: str, path: Path, cell: Cell) -> SystemSpec:
        return SystemSpec(kind, str(path), cell.size, cell.batch, self.options.threads, cell.precision)

    # Running them

    def _open(self, stack: ExitStack) -> dict[tuple, System]:
        systems: dict[tuple, System] = {}
        for key, spec in self.specs.items():
            with self.progress.task(f"open {_title(self.cells[key])}"):
                self._attempt(key, partial(self._open_one, key, spec, stack, systems))
        return systems

    def _open_one(self, key: tuple, spec: SystemSpec, stack: ExitStack, systems: dict[tuple, System]) -> None:
        systems[key] = stack.enter_context(open_system(spec))

    def _check(self, systems: Mapping[tuple, System], images: list[np.ndarray]) -> dict[tuple, System]:
        """Correct first: labels against the FP32 network's, which warms each up as well. Those that run."""
        reference = self._reference_labels(images)
        working: dict[tuple, System] = {}
        with self.progress.task("compare labels", len(systems)) as advance:
            for key, system in systems.items():
                self._attempt(key, partial(self._compare, key, system, images, reference, working))
                advance(1)
        return working

    def _compare(
        self,
        key: tuple,
        system: System,
        images: list[np.ndarray],
        reference: list[np.ndarray] | None,
        working: dict[tuple, System],
    ) -> None:
        labels = label_images(system, images, self.group.batch)
        row = replace(self.rows[key], engine_bytes=system.engine_bytes)
        if reference is not None:
            assert self.label_set
            matrix = confusion_with(labels, reference, self.label_set.num_classes)
            agreement = Agreement.from_confusion(matrix, self.label_set.classes)
            row = replace(row, label_agreement=agreement.label_agreement, agreement_miou=agreement.agreement_miou)
        self.rows[key] = row
        working[key] = system

    def _reference_labels(self, images: list[np.ndarray]) -> list[np.ndarray] | None:
        """Of the network as published in ONNX Runtime; None where all cells are finished bundles, whose own
        verification stands instead."""
        if all(cell.bundle for cell in self.cells.values()):
            return None
        from edgeseg.backends.onnxruntime import session_from_model
        from edgeseg.bench.baselines import add_tail

        network = self.network
        with session_from_model(add_tail(network.onnx, self.group.size)) as session:
            labels: list[np.ndarray] = []
            while len(labels) < len(images):
                batch = batch_of(images, self.group.batch, len(labels) // self.group.batch)
                labels += list(session.infer(np.concatenate([network.preprocess(image) for image in batch]))[:, 0])
        return labels[: len(images)]

    def _time(self, systems: Mapping[tuple, System], images: list[np.ndarray]) -> None:
        group, rounds = self.group, self.options.rounds
        named = {"\n".join(map(str, key)): key for key in systems}
        title = f"time {group.model} {group.size[0]}x{group.size[1]} batch {group.batch}"
        with self.progress.task(title, rounds * len(systems)) as advance:
            by_name = {name: systems[key] for name, key in named.items()}
            try:
                measured = measure_side_by_side(by_name, images, group.batch, rounds, advance)
            except Exception as error:  # a runtime that ran and now does not: nothing timed beside it counts
                for key in systems:
                    self.rows[key] = replace(self.rows[key], failure=f"timing stopped: {_one_line(error)}")
                return
        for name, (latency, stages) in measured.items():
            self.rows[named[name]] = replace(self.rows[named[name]], latency=latency, stages=stages)

    def _weigh(self, systems: Mapping[tuple, System], images: list[np.ndarray]) -> None:
        """Energy, where there is a sensor, and peak memory."""
        if self.options.energy_seconds > 0:
            for on_gpu in (False, True):
                chosen = {key: system for key, system in systems.items() if system.on_gpu == on_gpu}
                sensor = find_energy_sensor(gpu=on_gpu) if chosen else None
                if sensor:
                    with closing(sensor):
                        self._energy(sensor, chosen, images)
        if self.options.memory:
            with self.progress.task("peak memory", len(systems)) as advance:
                for key in systems:
                    row = self.rows[key]
                    try:
                        self.rows[key] = replace(row, peak_memory_bytes=peak_memory(self.specs[key]))
                    except EdgesegError as error:
                        self.rows[key] = replace(row, notes=(*row.notes, str(error)))
                    advance(1)

    def _energy(self, sensor: EnergySensor, systems: Mapping[tuple, System], images: list[np.ndarray]) -> None:
        batch = batch_of(images, self.group.batch, 0)
        with self.progress.task(f"energy by {sensor.name}", len(systems)) as advance:
            for key, system in systems.items():
                row = self.rows[key]
                note = f"energy of {sensor.measures} ({sensor.name}), idle power included"
                try:
                    joules, runs = sensor.of(partial(system, batch), self.options.energy_seconds)
                    image_joules = joules / runs / self.group.batch
                    self.rows[key] = replace(row, energy_joules=image_joules, notes=(*row.notes, note))
                except EdgesegError as error:
                    self.rows[key] = replace(row, notes=(*row.notes, str(error)))
                advance(1)

    def _score(self, systems: Mapping[tuple, System]) -> None:
        """mIoU by the very bundles that were timed."""
        if not self.options.data:
            return
        from edgeseg.datasets import open_dataset
        from edgeseg.evaluation import evaluate

        reference = self._reference_segmenter(systems)
        for key, system in systems.items():
            if not isinstance(system, BundleSystem):
                continue
            row, segmenter = self.rows[key], system.segmenter
            try:
                report = evaluate(
                    segmenter,
                    open_dataset(self.options.data, self.options.split, segmenter.label_set),
                    limit=self.options.limit,
                    worst=self.options.worst,
                    reference=reference if reference is not segmenter else None,
                    progress=self.progress,
                )
            except EdgesegError as error:
                self.rows[key] = replace(row, notes=(*row.notes, f"mIoU not measured: {error}"))
                continue
            self.rows[key] = replace(
                row,
                miou=_fraction(report["miou"]),
                per_class_iou={name: _fraction(iou) for name, iou in report["per_class_iou"].items()},
                worst_images=tuple(report.get("worst_images", ())),
            )

    def _reference_segmenter(self, systems: Mapping[tuple, System]) -> Callable[[np.ndarray], np.ndarray] | None:
        """An FP32 bundle of the group, whose labels stand beside the truth in the worst images."""
        for key, system in systems.items():
            if isinstance(system, BundleSystem) and self.cells[key].precision == "fp32":
                return system.segmenter
        return None

    def _attempt(self, key: tuple, step: Callable[[], Any]) -> None:
        """A cell that fails is a row that says why: runtimes and networks raise anything, and a sweep takes hours."""
        try:
            step()
        except Exception as error:
            row = replace(self.rows[key], failure=_one_line(error))
            if isinstance(error, VerificationError):
                gate = error.verification
                row = replace(row, label_agreement=gate.label_agreement, agreement_miou=gate.agreement_miou)
            self.rows[key] = row


def _empty_row(cell: Cell) -> Row:
    height, width = cell.size
    words = (cell.system, cell.model, cell.weights, cell.backend, cell.precision)
    return Row(*words, height=height, width=width, batch=cell.batch, num_classes=0)


def _row_of_bundle(row: Row, bundle: Bundle) -> Row:
    manifest, gate = bundle.manifest, bundle.verification
    share = manifest.get("int8_share")
    return replace(
        row,
        num_classes=len(manifest["label_set"]["classes"]),
        params=manifest["model"]["params"],
        gmacs_published=manifest["gmacs"]["published"],
        gmacs_deployed=manifest["gmacs"]["deployed"],
        int8_share=share,
        engine_bytes=bundle.engine_bytes,
        label_agreement=gate["label_agreement"],
        agreement_miou=gate["agreement_miou"],
        notes=tuple(manifest["notes"]),
    )


def _folder_name(cell: Cell, options: object) -> str:
    """Legible, and different whenever what is built would be."""
    weights = Path(cell.weights or "-")
    files = sorted(weights.glob("*")) if weights.is_dir() else [weights] if weights.is_file() else []
    state = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    digest = hashlib.sha256(repr((cell.key, options, state)).encode()).hexdigest()[:8]
    height, width = cell.size
    system = "".join(c if c.isalnum() else "-" for c in cell.system)
    return f"{cell.model}-{height}x{width}-b{cell.batch}-{cell.backend}-{cell.precision}-{system}-{digest}"


def _title(cell: Cell) -> str:
    words = (cell.model, cell.precision, cell.backend) if not cell.baseline else (cell.model, cell.system)
    return " ".join(words)


def _one_line(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:500]


def _fraction(value: float | None) -> float | None:
    return None if value is None or value != value else float(value)
