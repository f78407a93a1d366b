"""Mean-field inference in a fully connected CRF.

Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials. Krähenbühl, Koltun. NIPS 2011.
https://arxiv.org/abs/1210.5644

Every pixel is connected with every other. Labels that differ cost (equation 3, Potts model)

    gaussian_weight * exp(-|p_i - p_j|^2 / (2 gaussian_std^2))
    + bilateral_weight * exp(-|p_i - p_j|^2 / (2 bilateral_std^2) - |I_i - I_j|^2 / (2 color_std^2))

with positions p in pixels and colours I in grey levels. As in the authors' code, with which DeepLab's parameters were
found, each kernel K is normalised to D^-1/2 K D^-1/2, D = diag(K 1), and a pixel counts as its own neighbour. The
update of algorithm 1, for all pixels at once: Q_i(l) ~ p_i(l) exp(sum over kernels of weight * (K Q(l))_i).

No package is used: those on PyPI (pydensecrf and its forks) ship no wheels for the Pythons that edgeseg runs on.
Measured at 512x512 on one core (AMD Zen 3): 1.3 to 1.8 s where 5 classes take part, 4.7 to 6.1 s where 21 do.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edgeseg.crf.lattice import PermutohedralLattice

MAX_CLASSES = 255
SMALLEST_PROBABILITY = 1e-5  # a network's 0 is no certainty
LARGEST_EXCESS = 1e-2  # of the sum of probabilities over 1: they may be float16
REACH = 5  # standard deviations after which the Gaussian is cut: 4e-6


@dataclass(frozen=True)
class DenseCrf:
    """The parameters; the defaults are those of DeepLab v2 with ResNet-101.

    DeepLab v1 searched bilateral_weight in 3..6, bilateral_std in 30..100 and color_std in 3..6, with gaussian_std 3.
    """

    iterations: int = 10
    gaussian_weight: float = 3.0
    gaussian_std: float = 1.0  # pixels
    bilateral_weight: float = 4.0
    bilateral_std: float = 67.0  # pixels
    color_std: float = 3.0  # grey levels, 0..255
    negligible: float = 1e-3  # classes less probable than this at every pixel take no part; 0: all do; at most 1 / 255

    def __post_init__(self) -> None:
        if self.iterations < 0:
            raise ValueError(f"iterations must be 0 or more, got {self.iterations}")
        for name, value in asdict(self).items():
            is_std = name.endswith("_std")
            if not np.isfinite(value) or value < 0 or (is_std and value == 0):
                raise ValueError(f"{name} must be finite and {'above 0' if is_std else 'not below 0'}, got {value}")
        if self.negligible > 1 / MAX_CLASSES:  # of 255 classes at least one is that probable
            raise ValueError(f"negligible must be at most 1 / {MAX_CLASSES}, got {self.negligible}")


def dense_crf(image: np.ndarray, probabilities: np.ndarray, **parameters: Any) -> np.ndarray:
    """Labels that follow the edges of the image: the largest marginals of `mean_field`.

    Args:
        image: (H, W, 3) uint8, any order of channels.
        probabilities: (C, H, W) float, 0..1, 1 <= C <= 255; what the network makes of the image.
        parameters: fields of `DenseCrf`, such as ``iterations=10, bilateral_std=67``.

    Returns:
        (H, W) uint8; of equal marginals the lowest class.

    Raises:
        ValueError: for shapes that do not fit, or values that are no probabilities.

    Example:
        >>> labels = dense_crf(image, probabilities, iterations=5)
    """
    return mean_field(image, probabilities, DenseCrf(**parameters)).argmax(0).astype(np.uint8)


def mean_field(image: np.ndarray, probabilities: np.ndarray, parameters: DenseCrf = DenseCrf()) -> np.ndarray:
    """(C, H, W) float32 marginals Q, which sum to 1 at every pixel; arguments and errors as for `dense_crf`.

    The time is linear in pixels and in the classes that take part. A class that is less probable than `negligible`
    everywhere takes none and gets 0: its own Q would hardly exceed that bound.
    """
    _check(image, probabilities)
    takes_part = probabilities.max((1, 2)) >= parameters.negligible
    unary = np.log(np.maximum(probabilities[takes_part], SMALLEST_PROBABILITY, dtype=np.float32))
    q = _softmax(unary.copy())
    kernels = _kernels(image, parameters) if parameters.iterations else []
    for _ in range(parameters.iterations):
        scores = unary.copy()
        for weight, kernel in kernels:
            for score, share in zip(scores, q, strict=True):
                score += weight * kernel(share)
        q = _softmax(scores)
    marginals = np.zeros(probabilities.shape, np.float32)
    marginals[takes_part] = q
    return marginals


def _kernels(image: np.ndarray, parameters: DenseCrf) -> list[tuple[np.float32, _NormalisedKernel]]:
    """Weights and kernels; one of weight 0 is not made."""
    kernels = []
    if parameters.gaussian_weight:
        gaussian = _Gaussian(parameters.gaussian_std, image.shape[:2])
        kernels.append((np.float32(parameters.gaussian_weight), _NormalisedKernel(gaussian)))
    if parameters.bilateral_weight:
        bilateral = _Bilateral(image, parameters.bilateral_std, parameters.color_std)
        kernels.append((np.float32(parameters.bilateral_weight), _NormalisedKernel(bilateral)))
    return kernels


def _check(image: np.ndarray, probabilities: np.ndarray) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
        raise ValueError(f"image must be (H, W, 3) uint8 with H and W at least 1, got {image.shape} {image.dtype}")
    if probabilities.ndim != 3 or probabilities.shape[1:] != image.shape[:2]:
        raise ValueError(
            f"probabilities must be (C, H, W) = (C, {image.shape[0]}, {image.shape[1]}) as the image is, "
            f"got {probabilities.shape}; resize the network's scores to the image and take their softmax"
        )
    if not 1 <= len(probabilities) <= MAX_CLASSES:
        raise ValueError(f"probabilities must have 1 to {MAX_CLASSES} classes, got {len(probabilities)}")
    low, high = probabilities.min(), probabilities.max()
    if not (low >= 0 and high <= 1 + LARGEST_EXCESS):  # written so that NaN fails
        raise ValueError(
            f"probabilities must be from 0 to 1, got {low} to {high}; take the scores' softmax over classes"
        )
    sums = probabilities.sum(0, dtype=np.float32)
    if np.abs(sums - 1).max() > LARGEST_EXCESS:
        raise ValueError(
            f"probabilities must sum to 1 over the classes, got {sums.min()} to {sums.max()}; take the scores' softmax"
        )


def _softmax(scores: np.ndarray) -> np.ndarray:
    """Over the first axis, in place."""
    scores -= scores.max(0)
    np.exp(scores, out=scores)
    scores /= scores.sum(0)
    return scores


class _NormalisedKernel:
    """D^-1/2 K D^-1/2 on one class' map; the kernel's own scale cancels."""

    def __init__(self, kernel: _Gaussian | _Bilateral):
        self.kernel = kernel
        self.norm = 1 / np.sqrt(kernel(np.ones(kernel.shape, np.float32)))

    def __call__(self, share: np.ndarray) -> np.ndarray:
        return self.norm * self.kernel(self.norm * share)


class _Gaussian:
    """The kernel of positions alone: two passes of a cut Gaussian, zero outside the image."""

    def __init__(self, std: float, shape: tuple[int, int]):
        self.shape = shape
        distances = np.arange(min(int(REACH * std) + 1, max(shape)))
        self.taps = np.exp(-0.5 * (distances / std) ** 2).astype(np.float32)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        for _ in range(2):
            filtered = x.copy()  # the tap at distance 0 is 1
            for distance, tap in enumerate(self.taps[1:], 1):
                weighted = tap * x
                filtered[distance:] += weighted[:-distance]
                filtered[:-distance] += weighted[distance:]
            x = np.ascontiguousarray(filtered.T)
        return x


class _Bilateral:
    """The kernel of positions and colours, on the permutohedral lattice."""

    def __init__(self, image: np.ndarray, std: float, color_std: float):
        self.shape = image.shape[:2]
        features = np.concatenate([np.moveaxis(image, 2, 0) / color_std, np.indices(self.shape) / std])
        self.lattice = PermutohedralLattice(features.reshape(5, -1).astype(np.float32))

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return self.lattice.filter(x.ravel()).reshape(self.shape)
