"""Other ways to label an image than the whole of it in one go: sliding windows, several scales, mirror images.

As the authors of the published figures do it. Windows overlap and their logits are averaged (mmsegmentation, SegFormer
on Cityscapes); over scales and mirror images the softmax is averaged at the image's own size (mmsegmentation, PSPNet).
Where a scaled image is smaller than a window, the window is filled up with the mean colour around it (PSPNet). Resizing
is the bundle's own: Pillow's bilinear for images, half-pixel bilinear for logits.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edgeseg.crf.mean_field import mean_field
from edgeseg.crf.refine import upsample
from edgeseg.ops.preprocess import preprocess
from edgeseg.ops.upsample_argmax import upsample_argmax
from edgeseg.pipeline import Segmenter, StageTimes

SIZE_DIVISOR = 32  # of a whole image at a scale, rounded up, as in SegFormer's own test pipeline
BAND_ELEMENTS = 1 << 24  # of softmaxes that are made at a time


@dataclass(frozen=True)
class Slide:
    """Windows that slide over an image; the last of a row or column is moved back to end where the image ends."""

    window: tuple[int, int]  # (height, width) in pixels
    stride: tuple[int, int]

    def __post_init__(self) -> None:
        for window, stride in zip(self.window, self.stride, strict=True):
            if not 1 <= stride <= window:
                raise ValueError(
                    f"strides must be from 1 to the window's own size {_text(self.window)}, so that no pixel is left "
                    f"out, got {_text(self.stride)}"
                )

    @classmethod
    def parse(cls, text: str) -> Slide:
        """'768:512', '512x1024:256x512' or a mixture: window, colon, stride; height before width."""
        match = re.fullmatch(r"(\d+)(?:x(\d+))?:(\d+)(?:x(\d+))?", text.strip().lower())
        if not match:
            raise ValueError(f"windows are WINDOW:STRIDE such as 768:512 or 512x1024:256x512, got {text!r}")
        height, width, down, right = match.groups()
        return cls((int(height), int(width or height)), (int(down), int(right or down)))

    def starts(self, size: tuple[int, int]) -> list[tuple[int, int]]:
        """Upper left corners of the windows on an image of at least the window's size."""
        rows, columns = (
            [min(i * stride, length - window) for i in range(-(-(length - window) // stride) + 1)]
            for length, window, stride in zip(size, self.window, self.stride, strict=True)
        )
        return [(top, left) for top in rows for left in columns]


class InferenceMode:
    """A segmenter that labels an image from several runs of its engine.

    >>> mode = InferenceMode(segmenter, slide=Slide((768, 768), (512, 512)), scales=(0.75, 1.0, 1.25), flip=True)
    >>> labels = mode(image)
    """

    def __init__(
        self,
        segmenter: Segmenter,
        *,
        slide: Slide | None = None,
        scales: tuple[float, ...] = (1.0,),
        flip: bool = False,
        short_side: int | None = None,
    ):
        """
        Args:
            segmenter: a loaded bundle. With a CRF, that refines the averaged probabilities.
            slide: the windows. An engine of one size, which most are, takes windows of that size alone. None: the
                whole image is one window.
            scales: what the image's size is multiplied by, at each of which it is labelled. With None for `slide` an
                engine of one size takes no other than 1.
            flip: each scale is labelled mirrored as well.
            short_side: the image is scaled to this shorter side first, keeping its shape. None: with windows its own
                size, without the network's input size.

        Raises:
            ValueError: what the engine cannot do; the message says what it can.
        """
        if not scales or not all(np.isfinite(scale) and 0 < scale <= 8 for scale in scales):
            raise ValueError(f"scales must be above 0 and at most 8, got {', '.join(map(str, scales)) or 'none'}")
        if short_side is not None and not 1 <= short_side <= 16384:
            raise ValueError(f"the short side must be from 1 to 16384 pixels, got {short_side}")
        _check_engine(segmenter, slide, scales, short_side)
        self.segmenter = segmenter
        self.label_set = segmenter.label_set
        self.slide = slide
        self.scales = scales
        self.flip = flip
        self.short_side = short_side
        self.times: StageTimes | None = None  # of the last image: all its scales and windows together

    def describe(self) -> dict[str, Any]:
        """JSON for a report."""
        return {
            "slide": asdict(self.slide) if self.slide else None,
            "scales": list(self.scales),
            "flip": self.flip,
            "short_side": self.short_side,
            "crf": self.segmenter.crf is not None,
        }

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 RGB -> (H, W) uint8 labels."""
        begin = time.perf_counter()
        self.times = StageTimes(0.0, 0.0, 0.0)
        maps = self._logits(image)
        if self.segmenter.crf:
            probabilities = np.concatenate([band for _, band in _mean_softmax(maps, image.shape[:2])], axis=1)
            labels = mean_field(image, probabilities, self.segmenter.crf).argmax(0).astype(np.uint8)
        elif len(maps) == 1:  # softmax keeps the order of classes
            labels = upsample_argmax(maps[0][None], image.shape[:2], threads=self.segmenter.threads)[0]
        else:
            labels = np.empty(image.shape[:2], np.uint8)
            for rows, band in _mean_softmax(maps, image.shape[:2]):
                labels[rows] = band.argmax(0)
        self.times.tail = 1000 * (time.perf_counter() - begin) - self.times.preprocess - self.times.engine
        return labels

    def probabilities(self, image: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 RGB -> (num_classes, H, W) float32, before a CRF."""
        self.times = StageTimes(0.0, 0.0, 0.0)
        return np.concatenate([band for _, band in _mean_softmax(self._logits(image), image.shape[:2])], axis=1)

    def _logits(self, image: np.ndarray) -> list[np.ndarray]:
        """(C, h, w) logits of each scale and mirror image, at the scaled image's size."""
        maps = []
        for scale in self.scales:
            begin = time.perf_counter()
            prepare = self.segmenter.preprocess
            scaled = preprocess(image, self._scaled_size(image.shape[:2], scale), prepare.mean, prepare.std)
            assert self.times
            self.times.preprocess += 1000 * (time.perf_counter() - begin)
            maps.append(self._slide(scaled))
            if self.flip:
                maps.append(self._slide(scaled[..., ::-1])[..., ::-1])
        return maps

    def _scaled_size(self, size: tuple[int, int], scale: float) -> tuple[int, int]:
        base: tuple[float, float] = size
        if self.short_side:
            base = size[0] * self.short_side / min(size), size[1] * self.short_side / min(size)
        elif not self.slide:
            base = self.segmenter.preprocess.size
        height, width = (max(1, int(scale * length + 0.5)) for length in base)
        if self.slide or (scale == 1 and not self.short_side):
            return height, width
        return -(-height // SIZE_DIVISOR) * SIZE_DIVISOR, -(-width // SIZE_DIVISOR) * SIZE_DIVISOR

    def _slide(self, images: np.ndarray) -> np.ndarray:
        """(1, 3, h, w) -> (C, h, w): the mean of all windows' logits at each pixel."""
        height, width = images.shape[2:]
        if self.slide is None:
            return upsample(self._infer(images), (height, width))
        window = self.slide.window
        down, right = max(window[0] - height, 0), max(window[1] - width, 0)  # what is missing to a window
        above, before = down // 2, right // 2
        images = np.pad(images, ((0, 0), (0, 0), (above, down - above), (before, right - before)))  # 0 is the mean
        total: np.ndarray | None = None
        count = np.zeros(images.shape[2:], np.float32)
        for top, left in self.slide.starts(images.shape[2:]):
            here = np.s_[top : top + window[0], left : left + window[1]]
            logits = upsample(self._infer(images[(..., *here)]), window)
            if total is None:
                total = np.zeros((len(logits), *images.shape[2:]), np.float32)
            total[(slice(None), *here)] += logits
            count[here] += 1
        assert total is not None
        total /= count
        return total[:, above : above + height, before : before + width]

    def _infer(self, images: np.ndarray) -> np.ndarray:
        begin = time.perf_counter()
        logits = self.segmenter.session.infer_one(images)[0]
        assert self.times
        self.times.engine += 1000 * (time.perf_counter() - begin)
        return logits


def _check_engine(segmenter: Segmenter, slide: Slide | None, scales: tuple[float, ...], short_side: int | None) -> None:
    height, width = segmenter.session.input_shape[2:]
    if height is None or width is None:  # it takes any size
        return
    only = f"the engine takes {height}x{width} and no other size"
    if slide and slide.window != (height, width):
        raise ValueError(
            f"{only}, the windows are {_text(slide.window)}; slide windows of {height}x{width}, or build with "
            f"--size {_text(slide.window)}"
        )
    wanted = "scales other than 1" if any(scale != 1 for scale in scales) else "a short side" if short_side else ""
    if wanted and not slide:
        stride = f"{-(-2 * height // 3)}x{-(-2 * width // 3)}"
        raise ValueError(
            f"{only}, so {wanted} can only be had with windows of that size over the scaled image: "
            f"add --slide {height}x{width}:{stride}"
        )


def _mean_softmax(maps: list[np.ndarray], size: tuple[int, int]) -> Iterator[tuple[slice, np.ndarray]]:
    """Bands of rows, and the mean of the maps' softmaxes there: (C, rows, W) float32. Never all scales at full size."""
    step = max(1, BAND_ELEMENTS // (len(maps[0]) * size[1]))
    for first in range(0, size[0], step):
        rows = slice(first, min(first + step, size[0]))
        mean = np.zeros((), np.float32)
        for logits in maps:
            scores = upsample(logits, size, rows)
            scores -= scores.max(0)
            np.exp(scores, out=scores)
            scores /= scores.sum(0)
            mean = mean + scores
        yield rows, mean / np.float32(len(maps))


def _text(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
