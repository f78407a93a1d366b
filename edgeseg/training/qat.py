"""`edgeseg finetune --qat`: the INT8 network trained with its own rounding, and built into a bundle.

The student is the Q/DQ graph that `edgeseg build --int8` deploys, as a torch module; the teacher is the same graph in
floating point, untrained. The loss is the teacher's opinion, so labels are not needed; they add cross-entropy.
"""

import copy
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from edgeseg.builder import build
from edgeseg.building.options import BuildOptions
from edgeseg.bundle import MANIFEST, load_bundle
from edgeseg.calibration import Scales, calibrate
from edgeseg.calibration.migration import migrated
from edgeseg.datasets import calibration_images, open_dataset
from edgeseg.errors import InputError
from edgeseg.files import write_atomically
from edgeseg.images import load_image
from edgeseg.labels import LABEL_SETS
from edgeseg.precision.int8 import quantize
from edgeseg.progress import Progress
from edgeseg.rewrites import rewrite
from edgeseg.sources import Network, network_from_name, network_from_onnx
from edgeseg.training.data import LabelledImages, class_weights
from edgeseg.training.distillation import Loadable, agreement_of, distillation, unlabelled
from edgeseg.training.finetune import balanced_cross_entropy, chosen_device, evaluate_network, source_of, spread
from edgeseg.training.loop import Evaluate, fit
from edgeseg.training.onnx_network import OnnxNetwork
from edgeseg.training.options import FinetuneOptions
from edgeseg.training.state import Log, RunState, claim_folder, restore_state_

MODEL, SCALES, BEFORE, BUNDLE = "best.onnx", "scales.json", "before.json", "bundle"
LEARNING_RATE = 5e-5
SCALE_FACTOR = 20.0  # learning rate of the scales' logarithms, as a multiple
HELD_OUT = 8  # of images without labels, one in so many validates


@dataclass(frozen=True)
class UnlabelledSample:
    """An image that the teacher alone labels."""

    path: Path

    def load(self) -> tuple[np.ndarray, np.ndarray]:
        image = load_image(self.path)
        return image, unlabelled(image)


def finetune_quantized(options: FinetuneOptions, progress: Progress = Progress()) -> dict[str, Any]:
    """Quantisation-aware training; the JSON document of `edgeseg finetune --qat`.

    The run's folder gets best.onnx (float, trained, rewritten), scales.json, the bundle of both, and what `fit` writes.

    Raises:
        EdgesegError: weights, data or folder that do not fit; an operator that cannot be trained; a loss that is not
            finite; a bundle that fails the gate.
        KeyboardInterrupt: after Ctrl-C, when the state is on disk.
    """
    if options.threads:
        torch.set_num_threads(options.threads)
    device = chosen_device(options.device)
    with progress.task("export to ONNX"):
        network = _open_network(options)
        model, _ = rewrite(network.onnx)
    train, val, has_labels = _splits(options, network)
    claim_folder(options.output, resume=options.resume)
    scales = _scales(options, network, model, progress)
    model, scales = migrated(model, scales.migration), replace(scales, migration={})  # what is trained has it inside
    student = OnnxNetwork(model, quantize(model, scales)).to(device)
    teacher = OnnxNetwork(model).to(device).eval().requires_grad_(False)
    rate = options.learning_rate or LEARNING_RATE
    state = RunState(
        network=student,
        ema=copy.deepcopy(student).eval(),
        optimizer=torch.optim.AdamW(_groups(student), rate, weight_decay=0.0),
        recipe={"qat": network.source_sha256, "size": list(network.preprocess.size), "seed": options.seed},
    )
    images = LabelledImages(train, network.preprocess.size)
    classes = network.label_set.classes
    with progress.task("count classes"):
        balance = class_weights(images.class_pixels(len(classes)), options.weight_offset).to(device)
    samples = spread(val, options.val_images)

    def backward(network: nn.Module, inputs: Tensor, labels: Tensor) -> float:
        total = 0.0
        for image, label in zip(inputs.split(1), labels.split(1), strict=True):  # the graph is for one image
            with torch.no_grad():
                target = teacher(image)
            logits = network(image)
            loss = distillation(logits, target)
            if has_labels:
                loss = loss + balanced_cross_entropy(logits, label, balance)
            (loss / len(inputs)).backward()
            total += loss.item()
        return total / len(inputs)

    def evaluate(module: nn.Module) -> dict[str, object]:
        if has_labels:
            metrics = evaluate_network(module, samples, network.preprocess, network.label_set, device, progress)
        else:
            metrics = agreement_of(module, teacher, samples, network.preprocess, classes, device, progress)
        iou = {name: None if v is None else round(100 * v, 2) for name, v in metrics.per_class_iou.items()}
        return {"miou": round(100 * metrics.miou, 3), "iou": iou, "val_images": len(samples)}

    def save_best(module: nn.Module, miou: float, iteration: int) -> None:
        assert isinstance(module, OnnxNetwork)
        content = module.trained_model().SerializeToString(deterministic=True)
        trained = replace(module.trained_scales(scales), source_sha256=hashlib.sha256(content).hexdigest())
        write_atomically(options.output / MODEL, content, durable=True)
        trained.save(options.output / SCALES)

    before = _before(options.output, teacher if has_labels else None, state.ema, evaluate, len(samples))
    if options.resume:
        restore_state_(options.output, state)
    if state.best < 0:  # training that helps nothing leaves what there was
        state.best = float(before["ptq"]["miou"])
        save_best(state.ema, state.best, 0)
    stopped = fit(
        state,
        images,
        options,
        rate,
        network.preprocess.size,
        device,
        backward=backward,
        evaluate=evaluate,
        save_best=save_best,
        progress=progress,
    )
    if stopped.reason == "signal":
        raise KeyboardInterrupt
    bundle = _bundle(options, network, progress)
    return {
        "model": network.name,
        "weights": str(options.output / MODEL),
        "scales": str(options.output / SCALES),
        "bundle": str(bundle),
        "stopped": stopped.reason,
        "iteration": stopped.iteration,
        "iterations": options.iterations,
        "learning_rate": rate,
        "figure": "mIoU" if has_labels else "agreement-mIoU",
        "fp32": before["fp32"],
        "ptq": before["ptq"],
        "best_miou": state.best,
        "val_images": len(samples),
        "seconds": round(state.seconds, 1),
    }


def _open_network(options: FinetuneOptions) -> Network:
    if options.onnx:
        return network_from_onnx(options.onnx, None, options.size, 1)
    name, weights = source_of(options)
    size = options.size
    if size is None and options.model != name:
        height, width = load_bundle(Path(options.model)).manifest["preprocess"]["size"]
        size = height, width
    return network_from_name(name, None if weights == "random" and options.weights is None else weights, None, size, 1)


def _splits(options: FinetuneOptions, network: Network) -> tuple[Sequence[Loadable], Sequence[Loadable], bool]:
    """Training and validation samples, and whether they have labels. A folder without labels is held out in part."""
    try:
        train, val = (open_dataset(options.data, split, network.label_set) for split in ("train", "val"))
        return train, val, True
    except InputError:
        if (options.data / "labels").is_dir():
            raise
    images = [UnlabelledSample(path) for path in calibration_images(options.data)]
    held_out = images[::HELD_OUT]
    rest = [sample for index, sample in enumerate(images) if index % HELD_OUT]
    if not rest:
        raise InputError(f"{options.data} has {len(images)} images; training needs at least two, better hundreds")
    return rest, held_out, False


def _scales(options: FinetuneOptions, network: Network, model: onnx.ModelProto, progress: Progress) -> Scales:
    """Where post-training quantisation would begin: the user's file, the bundle's, the package's, or new ones."""
    identity = {"source_sha256": network.source_sha256, "preprocess": network.preprocess.to_json()}
    path = options.scales
    if path is None and options.model and (Path(options.model) / MANIFEST).is_file():
        found = Path(options.model) / SCALES
        path = found if found.is_file() else None
    if path is None and network.bundled is not None:
        path = network.bundled.scales_path
    if path is not None:
        scales = Scales.load(path)
        scales.check(model=model, **identity)
        return scales
    paths = calibration_images(options.data)
    chosen = paths[:: max(1, len(paths) // options.calibration_images)][: options.calibration_images]
    with progress.task("calibrate", len(chosen)) as advance:
        batches = (network.preprocess(load_image(path)) for path in chosen)
        return calibrate(model, batches, progress=advance, **identity)


def _groups(student: OnnxNetwork) -> list[dict[str, Any]]:
    """Weights as they are; the scales are few and their gradients small, so they take larger steps."""
    return [
        {"params": list(student.parameters_of_graph)},
        {"params": list(student.quantizers.parameters()), "factor": SCALE_FACTOR},
    ]


def _before(
    folder: Path, teacher: nn.Module | None, student: nn.Module, evaluate: Evaluate, val_images: int
) -> dict[str, Any]:
    """Figures of the FP32 network and of post-training quantisation, on disk from the first part of a run on."""
    path = folder / BEFORE
    if path.is_file():
        document: dict[str, Any] = json.loads(path.read_text())
        if document["ptq"]["val_images"] == val_images:
            return document
    before = {"fp32": evaluate(teacher) if teacher else None, "ptq": evaluate(student)}
    Log(folder)(iteration=0, **before)
    write_atomically(path, json.dumps(before, indent=1).encode())
    return before


def _bundle(options: FinetuneOptions, network: Network, progress: Progress) -> Path:
    """By the way of every other build, gate included; the graph is rewritten already."""
    target = options.output / BUNDLE
    build(
        BuildOptions(
            onnx=options.output / MODEL,
            scales=options.output / SCALES,
            dataset=network.label_set.name if network.label_set.name in LABEL_SETS else None,
            precision="int8",
            backend=options.backend,
            calibration_data=options.data,
            rewrites=False,
            output=target,
            force=True,
        ),
        progress,
    )
    return target
