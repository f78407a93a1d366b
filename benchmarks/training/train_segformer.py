"""Train a SegFormer from scratch on a folder of labelled images, on a CPU or a GPU; stop and start it as you like.

    python benchmarks/training/train_segformer.py --data CAMVID --output runs/camvid

CAMVID holds images/<split>/*.{jpg,png} and labels/<split>/*.png, one class id a pixel; ids of num_classes and above are
ignored. The run keeps last.pt (everything, for resuming) and best.safetensors (EMA weights of the best val mIoU).
"""

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import conv2d, cross_entropy, interpolate
from tqdm import tqdm

from edgeseg.models.segformer import VARIANTS, SegFormer, SegFormerHead, upsample

IGNORE = 255
MEAN = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)


class LowResolutionFuseHead(SegFormerHead):
    """Same parameters and same function as its parent, with each stage fused before it is upsampled: 1x1 convolutions
    and a bilinear upsampling commute. A training step takes half the time."""

    def forward(self, features: list[Tensor]) -> Tensor:
        size = features[0].shape[-2:]
        slices = self.fuse.weight.flatten(1).chunk(4, dim=1)[::-1]  # the concatenation is deepest first
        maps = [
            upsample(conv2d(x, (w @ p.weight)[:, :, None, None], w @ p.bias), size)
            for x, p, w in zip(features, self.projections, slices, strict=True)
        ]
        fused = torch.relu(self.fuse_norm(sum(maps)))
        return self.classifier(self.dropout(fused))


def main() -> None:
    args = parse_arguments()
    torch.manual_seed(args.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    args.output.mkdir(parents=True, exist_ok=True)
    train, val = (load_split(args.data, split, args.classes) for split in ("train", "val"))
    weights = class_weights([labels for _, labels in train], args.classes, args.weight_offset).to(device)

    model = SegFormer(VARIANTS[args.model], args.classes, head=LowResolutionFuseHead).to(device)
    ema = SegFormer(VARIANTS[args.model], args.classes, head=LowResolutionFuseHead).to(device).eval()
    ema.load_state_dict(model.state_dict())
    optimizer = torch.optim.AdamW(parameter_groups(model, args.weight_decay), args.learning_rate)
    start, best = resume(args.output / "last.pt", model, ema, optimizer)

    bar = tqdm(range(start, args.iterations), initial=start, total=args.iterations, unit="it", dynamic_ncols=True)
    for iteration in bar:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(iteration, args)
        loss = train_step(model, optimizer, *batch(train, args, device), weights, device)
        update_ema(ema, model, min(args.ema, (1 + iteration) / (10 + iteration)))
        if iteration % 20 == 0:
            bar.set_postfix(loss=f"{loss:.3f}", best=f"{best:.2f}")
        last = iteration + 1 == args.iterations
        if (iteration + 1) % args.evaluate_every == 0 or last:
            iou = evaluate(ema, val, args.classes, device)
            miou = 100 * float(np.nanmean(iou))
            log(args.output / "log.jsonl", iteration + 1, loss, miou, iou)
            if miou > best:
                best = miou
                save_weights(ema, args, best, iteration + 1)
            save_state(args.output / "last.pt", model, ema, optimizer, iteration + 1, best)
    print(f"best val mIoU {best:.2f}: {args.output / 'best.safetensors'}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--model", choices=VARIANTS, default="segformer-b0")
    parser.add_argument("--classes", type=int, default=11)
    parser.add_argument("--iterations", type=int, default=6000)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--crop", type=int, nargs=2, default=(224, 288), metavar=("H", "W"))
    parser.add_argument("--scale", type=float, nargs=2, default=(0.6, 1.6), metavar=("MIN", "MAX"))
    parser.add_argument("--learning-rate", type=float, default=1.2e-3)
    parser.add_argument("--warmup", type=int, default=200, help="iterations of linear warm-up")
    parser.add_argument("--weight-decay", type=float, default=0.01)
    parser.add_argument("--weight-offset", type=float, default=1.1, help="nearer 1: rare classes weigh more")
    parser.add_argument("--ema", type=float, default=0.999)
    parser.add_argument("--evaluate-every", type=int, default=250, metavar="ITERATIONS")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def load_split(root: Path, split: str, classes: int) -> list[tuple[Tensor, Tensor]]:
    """[(3, H, W) uint8 image, (H, W) uint8 labels with IGNORE]; all of it in memory."""
    pairs = []
    for path in sorted((root / "images" / split).iterdir()):
        image = torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1).contiguous()
        labels = torch.from_numpy(np.array(Image.open(root / "labels" / split / f"{path.stem}.png")))
        pairs.append((image, torch.where(labels < classes, labels, IGNORE).to(torch.uint8)))
    if not pairs:
        raise SystemExit(f"no images in {root / 'images' / split}")
    return pairs


def class_weights(labels: list[Tensor], classes: int, offset: float) -> Tensor:
    """1 / ln(offset + share of pixels), scaled to mean 1. On CamVid the rarest class weighs 3.5 times the commonest at
    an offset of 1.1, 13 times at 1.02 (ENet's)."""
    counts = torch.stack([torch.bincount(x.flatten().long(), minlength=256)[:classes] for x in labels]).sum(0)
    weights = 1 / torch.log(offset + counts / counts.sum())
    return (weights / weights.mean()).float()


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """No decay on biases and norms."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim <= 1]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]


def learning_rate(iteration: int, args: argparse.Namespace) -> float:
    """Linear warm-up times polynomial decay of power 0.9."""
    warm = min(1.0, (iteration + 1) / args.warmup)
    return args.learning_rate * warm * (1 - iteration / args.iterations) ** 0.9


def batch(pairs: list, args: argparse.Namespace, device: torch.device) -> tuple[Tensor, Tensor]:
    """(N, 3, h, w) normalised float32 crops and (N, h, w) int64 labels."""
    indices = torch.randint(len(pairs), (args.batch,))
    samples = [augment(*pairs[i], tuple(args.crop), tuple(args.scale)) for i in indices]
    images = torch.stack([image for image, _ in samples]).float().div_(255)
    images = ((colour_jitter(images) - MEAN) / STD).to(device, memory_format=torch.channels_last)
    return images, torch.stack([labels for _, labels in samples]).long().to(device)


def augment(image: Tensor, labels: Tensor, crop: tuple[int, int], scales: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """A random window resized to the crop: random scale (log-uniform), place and left-right flip."""
    low, high = map(math.log, scales)
    scale = math.exp(low + (high - low) * torch.rand(()).item())
    height, width = (min(full, round(c / scale)) for full, c in zip(labels.shape, crop, strict=True))
    top = int(torch.randint(labels.shape[0] - height + 1, ()))
    left = int(torch.randint(labels.shape[1] - width + 1, ()))
    image = image[None, :, top : top + height, left : left + width]
    labels = labels[None, None, top : top + height, left : left + width]
    image = interpolate(image, crop, mode="bilinear", align_corners=False, antialias=True)[0]
    labels = interpolate(labels, crop, mode="nearest-exact")[0, 0]
    return (image.flip(-1), labels.flip(-1)) if torch.rand(()) < 0.5 else (image, labels)


def colour_jitter(images: Tensor) -> Tensor:
    """Brightness, contrast and saturation, each by up to 40 %, for each image by itself."""
    brightness, contrast, saturation = 0.6 + 0.8 * torch.rand(3, len(images), 1, 1, 1)
    images = images * brightness
    images = (images - images.mean((1, 2, 3), keepdim=True)) * contrast + images.mean((1, 2, 3), keepdim=True)
    grey = images.mean(1, keepdim=True)
    return ((images - grey) * saturation + grey).clamp(0, 1)


def train_step(model, optimizer, images: Tensor, labels: Tensor, weights: Tensor, device: torch.device) -> float:
    model.train()
    with torch.autocast(device.type, torch.bfloat16, enabled=supports_bf16(device)):
        logits = model(images)
    logits = upsample(logits.float(), labels.shape[-2:])
    loss = cross_entropy(logits, labels, weights, ignore_index=IGNORE)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.item()


def supports_bf16(device: torch.device) -> bool:
    """bf16 pays on GPUs, and on CPUs that multiply it natively."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return torch.cpu._is_avx512_bf16_supported()


@torch.no_grad()
def update_ema(ema: nn.Module, model: nn.Module, decay: float) -> None:
    for averaged, value in zip(ema.state_dict().values(), model.state_dict().values(), strict=True):
        if averaged.is_floating_point():
            averaged.lerp_(value, 1 - decay)
        else:
            averaged.copy_(value)


@torch.no_grad()
def evaluate(model: nn.Module, pairs: list, classes: int, device: torch.device) -> np.ndarray:
    """IoU of each class, whole images, one confusion matrix over the split."""
    confusion = torch.zeros(classes * classes, dtype=torch.int64)
    for image, labels in tqdm(pairs, desc="val", leave=False):
        logits = model(((image[None].float() / 255 - MEAN) / STD).to(device))
        predicted = upsample(logits, labels.shape[-2:]).argmax(1)[0].cpu()
        valid = labels != IGNORE
        confusion += torch.bincount(labels[valid].long() * classes + predicted[valid], minlength=classes**2)
    matrix = confusion.view(classes, classes).double()
    return (matrix.diag() / (matrix.sum(0) + matrix.sum(1) - matrix.diag())).numpy()


def resume(path: Path, model: nn.Module, ema: nn.Module, optimizer) -> tuple[int, float]:
    """(first iteration, best mIoU so far); from the beginning where there is nothing to resume."""
    if not path.exists():
        return 0, 0.0
    state = torch.load(path, weights_only=True)
    model.load_state_dict(state["model"])
    ema.load_state_dict(state["ema"])
    optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["rng"])
    return state["iteration"], state["best"]


def save_state(path: Path, model: nn.Module, ema: nn.Module, optimizer, iteration: int, best: float) -> None:
    state = {
        "model": model.state_dict(),
        "ema": ema.state_dict(),
        "optimizer": optimizer.state_dict(),
        "rng": torch.get_rng_state(),
        "iteration": iteration,
        "best": best,
    }
    torch.save(state, path.with_suffix(".tmp"))
    path.with_suffix(".tmp").replace(path)


def save_weights(model: nn.Module, args: argparse.Namespace, miou: float, iteration: int) -> None:
    """float16 weights with what a reader needs to know in the header."""
    tensors = {k: v.half().cpu().contiguous() for k, v in model.state_dict().items() if v.is_floating_point()}
    header = {
        "model": args.model,
        "num_classes": str(args.classes),
        "val_miou": f"{miou:.2f}",
        "iteration": str(iteration),
    }
    temporary = args.output / "best.tmp"
    save_file(tensors, temporary, header)
    temporary.replace(args.output / "best.safetensors")


def log(path: Path, iteration: int, loss: float, miou: float, iou: np.ndarray) -> None:
    entry = {
        "iteration": iteration,
        "loss": round(loss, 4),
        "miou": round(miou, 2),
        "iou": [round(float(v), 4) for v in iou],
    }
    with path.open("a") as file:
        file.write(json.dumps(entry | {"time": round(time.time())}) + "\n")


if __name__ == "__main__":
    main()
