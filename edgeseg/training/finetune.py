"""`edgeseg finetune`: open the network and the data, train, keep the best weights."""

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate

from edgeseg.bundle import MANIFEST, load_bundle
from edgeseg.datasets import Dataset, open_dataset
from edgeseg.errors import BackendError, InputError
from edgeseg.files import write_atomically
from edgeseg.labels import VOID, LabelSet
from edgeseg.metrics import SegmentationMetrics, confusion_matrix
from edgeseg.models import MODELS, model_entry
from edgeseg.models.bundled import BUNDLED, DEFAULT_CHECKPOINTS
from edgeseg.ops.upsample_argmax import upsample_argmax
from edgeseg.preprocess import Preprocess
from edgeseg.progress import Progress
from edgeseg.training.data import LabelledImages, class_weights
from edgeseg.training.distillation import Loadable
from edgeseg.training.loop import fit
from edgeseg.training.options import Device, FinetuneOptions
from edgeseg.training.recipe import default_learning_rate, has_batch_norm, memory_format, parameter_groups, quicken_
from edgeseg.training.state import BEST, RunState, claim_folder, restore_state_

LARGEST_CROP = 512  # of a side, by default


def finetune(options: FinetuneOptions, progress: Progress = Progress()) -> dict[str, Any]:
    """Train a network of the zoo on labelled images; the JSON document of `edgeseg finetune`.

    The run's folder holds last.pt (for --resume), best.safetensors (the running mean of the weights at the best
    validation mIoU, which `edgeseg build --weights` takes), and log.jsonl.

    Raises:
        EdgesegError: weights, data or folder that do not fit; a loss that is not finite.
        KeyboardInterrupt: after Ctrl-C, when the state is on disk.
    """
    model, weights = source_of(options)
    train, val, label_set = open_splits(options.data)
    if options.threads:
        torch.set_num_threads(options.threads)
    device = chosen_device(options.device)
    network = _network(model, weights, label_set.num_classes, options.seed)
    size = model_entry(model).checked_size(options.size or _usual_size(weights, train))
    crop = model_entry(model).checked_size(options.crop or cropped(size))
    if options.batch < 2 and has_batch_norm(network):
        raise ValueError(f"{model} has batch norms, which need at least two images a batch; pass --batch 2 or more")
    claim_folder(options.output, resume=options.resume)
    quicken_(network).to(device, memory_format=memory_format(device))  # type: ignore[call-overload]
    rate = options.learning_rate or default_learning_rate(network, from_scratch=weights == "random")
    state = RunState(
        network=network,
        ema=copy.deepcopy(network).eval(),
        optimizer=torch.optim.AdamW(parameter_groups(network, options.weight_decay), rate),
        recipe={"model": model, "num_classes": label_set.num_classes, "seed": options.seed},
    )
    if options.resume:
        restore_state_(options.output, state)
    images = LabelledImages(train, size)
    with progress.task("count classes"):
        balance = class_weights(images.class_pixels(label_set.num_classes), options.weight_offset).to(device)
    samples = spread(val, options.val_images)

    def backward(network: nn.Module, inputs: Tensor, labels: Tensor) -> float:
        with torch.autocast(device.type, torch.bfloat16, enabled=_multiplies_bf16(device)):
            logits = network(inputs)
        loss = balanced_cross_entropy(logits.float(), labels, balance)
        loss.backward()
        return loss.item()

    def evaluate(network: nn.Module, samples: Sequence[Loadable] = samples) -> dict[str, object]:
        metrics = evaluate_network(network, samples, Preprocess(size), label_set, device, progress)
        iou = {name: None if v is None else round(100 * v, 2) for name, v in metrics.per_class_iou.items()}
        return {"miou": round(100 * metrics.miou, 3), "iou": iou, "val_images": len(samples)}

    def save_best(network: nn.Module, miou: float, iteration: int) -> None:
        header = {"model": model, "num_classes": str(label_set.num_classes), "label_set": label_set.name}
        header |= {"val_miou": f"{miou:.2f}", "iteration": str(iteration), "size": f"{size[0]}x{size[1]}"}
        header |= {"classes": json.dumps(label_set.classes), "palette": json.dumps(label_set.palette)}
        save_weights(options.output / BEST, network, header)

    stopped = fit(
        state,
        images,
        options,
        rate,
        crop,
        device,
        backward=backward,
        evaluate=evaluate,
        save_best=save_best,
        progress=progress,
    )
    if stopped.reason == "signal":
        raise KeyboardInterrupt
    best = options.output / BEST
    report = {
        "model": model,
        "weights": str(best) if best.is_file() else None,
        "stopped": stopped.reason,
        "iteration": stopped.iteration,
        "iterations": options.iterations,
        "learning_rate": rate,
        "best_miou": state.best if state.best >= 0 else None,  # percent, on val_images
        "val_images": len(samples),
        "seconds": round(state.seconds, 1),
    }
    return report


def open_splits(data: Path) -> tuple[Dataset, Dataset, LabelSet]:
    """Training and validation images of one data set, and their classes.

    Raises:
        InputError: a split is missing, or nobody named the classes.
    """
    train, val = open_dataset(data, "train"), open_dataset(data, "val")
    if train.label_set is None:
        raise InputError(
            f"{train.root} does not say what its classes are; put their names into {train.root / 'classes.json'}: "
            '["road", "sky", ...]'
        )
    return train, val, train.label_set


def spread(samples: Sequence[Loadable], count: int | None) -> Sequence[Loadable]:
    """So many of them, evenly spaced; all of them for None."""
    return samples if count is None else samples[:: max(1, len(samples) // count)][:count]


def cropped(size: tuple[int, int]) -> tuple[int, int]:
    """The default training crop for a network's input size."""
    return min(size[0], LARGEST_CROP), min(size[1], LARGEST_CROP)


def chosen_device(device: Device) -> torch.device:
    """BackendError where CUDA was asked for and is not there."""
    if device == "cuda" and not torch.cuda.is_available():
        raise BackendError("--device cuda, and this torch finds no GPU; pass --device cpu, or install torch with CUDA")
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")


def balanced_cross_entropy(logits: Tensor, labels: Tensor, balance: Tensor) -> Tensor:
    """Cross-entropy at the labels' size, classes weighted, void ignored; 0 for a batch that is all void."""
    logits = interpolate(logits, labels.shape[-2:], mode="bilinear", align_corners=False)
    sums = cross_entropy(logits, labels, balance, ignore_index=VOID, reduction="sum")
    counted = labels[labels != VOID]
    return sums / balance[counted].sum().clamp(min=torch.finfo(torch.float32).tiny)


@torch.no_grad()
def evaluate_network(
    network: nn.Module,
    samples: Sequence[Loadable],
    preprocess: Preprocess,
    label_set: LabelSet,
    device: torch.device,
    progress: Progress = Progress(),
) -> SegmentationMetrics:
    """As `edgeseg eval` does it: whole images at the network's size, labels at the target's, one confusion matrix."""
    network.eval()
    matrix = np.zeros((label_set.num_classes, label_set.num_classes), np.int64)
    with progress.task("validate", len(samples)) as advance:
        for sample in samples:
            image, target = sample.load()
            logits = network(torch.from_numpy(preprocess(image)).to(device)).float().cpu().numpy()
            labels = upsample_argmax(np.ascontiguousarray(logits), target.shape)[0]
            matrix += confusion_matrix(labels, target, label_set.num_classes)
            advance(1)
    return SegmentationMetrics.from_confusion(matrix, label_set.classes)


def save_weights(path: Path, network: nn.Module, header: dict[str, str]) -> None:
    """float16 safetensors with what a reader needs to know in the header; written whole or not at all."""
    from safetensors.torch import save

    state = network.state_dict()
    tensors = {name: value.half().cpu().contiguous() for name, value in state.items() if value.is_floating_point()}
    write_atomically(path, save(tensors, header), durable=True)


def source_of(options: FinetuneOptions) -> tuple[str, str]:
    """Name of the network and where its weights are."""
    name, weights = options.model, options.weights
    if name not in MODELS and (Path(name) / MANIFEST).is_file():
        model = load_bundle(Path(name)).manifest["model"]
        if model["name"] not in MODELS:
            raise InputError(
                f"{name} is a bundle of {model['name']}, which is no network of the zoo, and a bundle holds no weights "
                f"to train; pass --model with one of `edgeseg models`"
            )
        name, weights = model["name"], weights or model["weights"]
    model_entry(name)
    return name, weights or DEFAULT_CHECKPOINTS.get(name) or "random"


def _network(model: str, weights: str, num_classes: int, seed: int) -> nn.Module:
    from edgeseg.models import create_model
    from edgeseg.models.weights import load_weights, network_from_weights

    if weights == "random":
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return create_model(model, num_classes)
    loaded = load_weights(weights, model, num_classes)
    if loaded.format in getattr(model_entry(model), "caffe", ()):
        raise InputError(
            f"{weights} wants images as Caffe has them, and training feeds them as torchvision does; "
            f"start from other weights, or from scratch (--weights random)"
        )
    return network_from_weights(loaded)


def _usual_size(weights: str, train: Dataset) -> tuple[int, int]:
    """Of the checkpoint, else of the first training image."""
    if weights in BUNDLED:
        return BUNDLED[weights].size
    height, width = train[0].load_target().shape
    return height, width


def _multiplies_bf16(device: torch.device) -> bool:
    """bfloat16 pays on GPUs, and on CPUs that multiply it natively."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return torch.cpu._is_avx512_bf16_supported()
