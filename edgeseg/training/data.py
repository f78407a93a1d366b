"""Training samples: labelled images at the network's size, random windows of them, flips and colours.

Everything random is a function of the seed and the iteration, so that a resumed run sees what an unbroken one would.
"""

import hashlib
import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from edgeseg.preprocess import IMAGENET_MEAN, IMAGENET_STD
from edgeseg.training.distillation import Loadable

IN_MEMORY_BYTES = 2 << 30  # above it images are read again for every sample


class LabelledImages:
    """The images of a split, resized to the network's input as a deployed network will see them."""

    def __init__(
        self, samples: Sequence[Loadable], size: tuple[int, int], *, in_memory_bytes: int = IN_MEMORY_BYTES
    ) -> None:
        """`size`: (height, width). Images stay in memory when all of them fit into `in_memory_bytes`."""
        self._samples = list(samples)
        self._size = size
        fits = 4 * size[0] * size[1] * len(self._samples) <= in_memory_bytes
        self._kept: dict[int, tuple[Tensor, Tensor]] | None = {} if fits else None

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """(3, H, W) uint8 RGB and (H, W) uint8 labels with 255 for void."""
        if self._kept is not None and index in self._kept:
            return self._kept[index]
        image, labels = self._samples[index].load()
        if labels.shape != self._size:
            shape = (self._size[1], self._size[0])  # Pillow's order
            image = np.asarray(Image.fromarray(image).resize(shape, Image.Resampling.BILINEAR))
            labels = np.asarray(Image.fromarray(labels).resize(shape, Image.Resampling.NEAREST))
        pair = torch.from_numpy(image.copy()).permute(2, 0, 1).contiguous(), torch.from_numpy(labels.copy())
        if self._kept is not None:
            self._kept[index] = pair
        return pair

    def class_pixels(self, num_classes: int) -> Tensor:
        """(num_classes,) int64: labelled pixels of each class."""
        counts = torch.zeros(256, dtype=torch.int64)
        for index in range(len(self)):
            counts += torch.bincount(self[index][1].flatten().long(), minlength=256)
        return counts[:num_classes]


def training_batch(
    images: LabelledImages, iteration: int, seed: int, batch: int, crop: tuple[int, int], scales: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    """The samples of one iteration: (N, 3, h, w) float32 RGB in 0..1, and (N, h, w) int64 labels.

    Every image comes once in an epoch, in an order that the epoch decides. torch's global generator is seeded for the
    iteration, which makes the network's dropout repeatable too.
    """
    first = iteration * batch
    indices = [_order(len(images), seed, n // len(images))[n % len(images)] for n in range(first, first + batch)]
    torch.manual_seed(_seed(seed, "iteration", iteration))
    samples = [augment(*images[index], crop, scales) for index in indices]
    pictures = colour_jitter(torch.stack([image for image, _ in samples]).float() / 255)
    return pictures, torch.stack([labels for _, labels in samples]).long()


def normalise(pictures: Tensor) -> Tensor:
    """(N, 3, h, w) RGB in 0..1 -> network input, as `edgeseg.preprocess` makes it."""
    mean, std = (pictures.new_tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (pictures - mean) / std


def augment(image: Tensor, labels: Tensor, crop: tuple[int, int], scales: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """A random window resized to the crop: random scale (log-uniform), place and left-right flip.

    Args:
        image: (3, H, W) uint8. labels: (H, W) uint8.
        crop: (height, width) of the result.
        scales: smallest and largest enlargement; a window never exceeds the image.

    Returns:
        (3, *crop) uint8 by antialiased bilinear interpolation, and (*crop) uint8 by nearest neighbour.
    """
    low, high = map(math.log, scales)
    scale = math.exp(low + (high - low) * torch.rand(()).item())
    height, width = (max(1, min(full, round(c / scale))) for full, c in zip(labels.shape, crop, strict=True))
    top = int(torch.randint(labels.shape[0] - height + 1, ()))
    left = int(torch.randint(labels.shape[1] - width + 1, ()))
    image = image[None, :, top : top + height, left : left + width]
    labels = labels[None, None, top : top + height, left : left + width]
    image = interpolate(image, crop, mode="bilinear", align_corners=False, antialias=True)[0]
    labels = interpolate(labels, crop, mode="nearest-exact")[0, 0]
    return (image.flip(-1), labels.flip(-1)) if torch.rand(()) < 0.5 else (image, labels)


def colour_jitter(images: Tensor) -> Tensor:
    """Brightness, contrast and saturation of (N, 3, h, w) in 0..1, each by up to 40 %, for each image by itself."""
    brightness, contrast, saturation = 0.6 + 0.8 * torch.rand(3, len(images), 1, 1, 1)
    images = images * brightness
    mean = images.mean((1, 2, 3), keepdim=True)
    images = (images - mean) * contrast + mean
    grey = images.mean(1, keepdim=True)
    return ((images - grey) * saturation + grey).clamp(0, 1)


def class_weights(pixels: Tensor, offset: float) -> Tensor:
    """(C,) float32: 1 / ln(offset + share of pixels), scaled to mean 1 (ENet, Paszke et al. 2016, section 5.1).

    On street scenes the rarest class weighs 3.5 times the commonest at an offset of 1.1, 13 times at ENet's 1.02.
    """
    weights = 1 / torch.log(offset + pixels.double() / pixels.sum().clamp(min=1))
    return (weights / weights.mean()).float()


@lru_cache(maxsize=2)
def _order(count: int, seed: int, epoch: int) -> list[int]:
    generator = torch.Generator().manual_seed(_seed(seed, "epoch", epoch))
    order: list[int] = torch.randperm(count, generator=generator).tolist()
    return order


def _seed(seed: int, kind: str, number: int) -> int:
    """A hash, since generators seeded with neighbouring numbers begin alike."""
    return int.from_bytes(hashlib.sha256(f"{seed} {kind} {number}".encode()).digest()[:7], "big")
