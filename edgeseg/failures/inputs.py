"""Pictures handed to the network in another colour order or normalisation than it was trained with."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from edgeseg.failures import Finding
from edgeseg.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess

Colours = tuple[float, float, float]

# What networks are trained with: (x / 255 - mean) / std.
USUAL: dict[str, tuple[Colours, Colours]] = {
    "ImageNet's mean and std": (IMAGENET_MEAN, IMAGENET_STD),
    "0 .. 1": ((0, 0, 0), (1, 1, 1)),
    "-1 .. 1": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "0 .. 255": ((0, 0, 0), (1 / 255, 1 / 255, 1 / 255)),
    "0 .. 255 less ImageNet's mean (Caffe)": (IMAGENET_MEAN, (1 / 255, 1 / 255, 1 / 255)),
}


@dataclass(frozen=True)
class Hypothesis:
    """Another way to make the network's input, from the input as it is made now."""

    order: str  # "RGB", "BGR" (the network's) or "stored BGR" (the images'; the mean stays with the position)
    normalisation: str  # a key of USUAL; "" for the present one
    apply: Callable[[np.ndarray], np.ndarray]  # (N, 3, h, w) float32 -> the same


def hypotheses(preprocess: Preprocess) -> list[Hypothesis]:
    """Every usual normalisation but the present one, each in both colour orders, and the present one swapped."""
    mean, std = preprocess.mean, preprocess.std
    found = [Hypothesis(order, "", _remaking(preprocess, mean, std, order)) for order in ("stored BGR", "BGR")]
    for name, (mean, std) in USUAL.items():
        if not (np.allclose(mean, preprocess.mean, atol=1e-3) and np.allclose(std, preprocess.std, rtol=1e-2)):
            for order in ("RGB", "BGR"):
                found.append(Hypothesis(order, name, _remaking(preprocess, mean, std, order)))
    return found


def misfed(
    preprocess: Preprocess,
    images: Sequence[np.ndarray],
    agreement: Callable[[int, np.ndarray], float],
    *,
    least_gain: float,
    least_share: float,
) -> list[Finding]:
    """Whether the labels agree better when the input is made in another way.

    Args:
        preprocess: how `images` were made.
        images: network inputs, (1, 3, h, w) float32.
        agreement: number of an image, input for it -> share of pixels with the right label. It runs the network: for
            every image once, for the first with every hypothesis, and for the others with the one that did best there.
        least_gain: of that share, 0 .. 1, that another input must bring.
        least_share: of the disagreeing pixels that another input must mend.
    """
    plain = [agreement(number, image) for number, image in enumerate(images)]
    tried = [(agreement(0, hypothesis.apply(images[0])), hypothesis) for hypothesis in hypotheses(preprocess)]
    first, found = max(tried, key=lambda pair: pair[0])
    if first <= plain[0] + least_gain / 2:
        return []
    best = [first] + [agreement(i, found.apply(image)) for i, image in enumerate(images) if i > 0]
    before, after = float(np.mean(plain)), float(np.mean(best))
    if after - before < max(least_gain, least_share * (1 - before)):
        return []
    numbers = f"{after:.2%} of pixels instead of {before:.2%}"
    details = {"order": found.order, "normalisation": found.normalisation, "agreement": after}
    order = "blue first (BGR)" if found.order == "BGR" else ""
    fed = " and ".join(filter(None, (order, found.normalisation and f"normalised as {found.normalisation}")))
    if found.normalisation:
        mean, std = preprocess.mean, preprocess.std
        message = (
            f"wrong normalisation: labels agree better when the input is {fed} ({numbers}); "
            f"now it has mean {_short(mean)} and std {_short(std)}: give the network's own, or build them into it"
        )
        return [Finding("wrong-normalisation", "error", message, details)]
    message = (
        f"swapped channels: labels agree better when red and blue change places ({numbers}); either the images are "
        "stored as BGR or the network was trained on BGR: save them as RGB, or swap its first layer's input channels"
    )
    return [Finding("swapped-channels", "error", message, details)]


def _remaking(preprocess: Preprocess, mean: Colours, std: Colours, order: str) -> Callable:
    old_mean, old_std, new_mean, new_std = (
        np.reshape(np.array(values, np.float32), (1, 3, 1, 1))
        for values in (preprocess.mean, preprocess.std, mean, std)
    )

    def remake(images: np.ndarray) -> np.ndarray:
        pixels = images * old_std + old_mean  # 0 .. 1
        if order == "stored BGR":
            pixels = pixels[:, ::-1]
        remade = (pixels - new_mean) / new_std
        return np.ascontiguousarray(remade[:, ::-1] if order == "BGR" else remade, dtype=np.float32)

    return remake


def _short(values: Sequence[float]) -> str:
    return "(" + ", ".join(f"{value:.4g}" for value in values) + ")"
