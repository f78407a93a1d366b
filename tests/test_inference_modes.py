"""Sliding windows, scales and mirror images against a naive torch implementation of the same definition."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import interpolate, pad

from edgeseg.backends.base import Session
from edgeseg.bundle import Bundle
from edgeseg.crf import DenseCrf, dense_crf
from edgeseg.inference_modes import InferenceMode, Slide
from edgeseg.labels import generic_label_set
from edgeseg.pipeline import Segmenter
from edgeseg.preprocess import Preprocess
from edgeseg.samples import synthetic_street

CLASSES = 5
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def network() -> torch.nn.Module:
    """Stride 4, and neither symmetrical nor the same at the border: windows and mirror images make a difference."""
    torch.manual_seed(3)
    convolutions = [torch.nn.Conv2d(3, 8, 7, 4, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, CLASSES, 3, 1, 1)]
    return torch.nn.Sequential(*convolutions).eval()


class Engine(Session):
    """The network, of one input size or of any."""

    def __init__(self, net: torch.nn.Module, size: tuple[int | None, int | None]):
        super().__init__("a test", "images", (1, 3, *size))
        self.net = net
        self.runs: list[tuple[int, ...]] = []

    def _infer(self, images: np.ndarray) -> np.ndarray:
        self.runs.append(images.shape[2:])
        with torch.inference_mode():
            return self.net(torch.from_numpy(images)).numpy()


def segmenter(size=(32, 48), *, dynamic: bool = False, crf: DenseCrf | None = None) -> Segmenter:
    prepare, label_set = Preprocess(size, MEAN, STD), generic_label_set(CLASSES)
    bundle = Bundle(Path(), {"preprocess": prepare.to_json(), "label_set": label_set.to_json()})
    return Segmenter(bundle, Engine(network(), (None, None) if dynamic else size), threads=1, crf=crf)


def naive(image: np.ndarray, sizes: list[tuple[int, int]], slide: Slide | None, *, flip: bool) -> torch.Tensor:
    """(C, H, W) mean of the softmaxes at the image's size; every window by its own loop, counts by addition."""
    net, total = network(), torch.zeros(CLASSES, *image.shape[:2], dtype=torch.float64)
    for size in sizes:
        scaled = Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR)
        for is_mirrored in (False, True)[: 1 + flip]:
            x = torch.from_numpy(np.array(scaled)).permute(2, 0, 1)[None] / 255
            x = (x - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
            x = x.flip(3) if is_mirrored else x
            window = slide.window if slide else size
            stride = slide.stride if slide else size
            down, right = max(0, window[0] - size[0]), max(0, window[1] - size[1])
            x = pad(x, (right // 2, right - right // 2, down // 2, down - down // 2))
            scores, count = torch.zeros(1, CLASSES, *x.shape[2:]), torch.zeros(x.shape[2:])
            top = 0
            while True:
                y, left = min(top, x.shape[2] - window[0]), 0
                while True:
                    z = min(left, x.shape[3] - window[1])
                    with torch.inference_mode():
                        logits = net(x[:, :, y : y + window[0], z : z + window[1]])
                    logits = interpolate(logits, window, mode="bilinear", align_corners=False)
                    scores[:, :, y : y + window[0], z : z + window[1]] += logits
                    count[y : y + window[0], z : z + window[1]] += 1
                    if z + window[1] == x.shape[3]:
                        break
                    left += stride[1]
                if y + window[0] == x.shape[2]:
                    break
                top += stride[0]
            scores = (scores / count)[:, :, down // 2 : down // 2 + size[0], right // 2 : right // 2 + size[1]]
            scores = scores.flip(3) if is_mirrored else scores
            full = interpolate(scores, image.shape[:2], mode="bilinear", align_corners=False)
            total += full[0].softmax(0).double()
    return total / (len(sizes) * (1 + flip))


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return synthetic_street(5, (75, 101))[0]


WINDOWS = Slide((32, 48), (20, 31))
CASES: dict[str, tuple[dict[str, Any], list[tuple[int, int]], Slide | None]] = {
    "windows": ({"slide": WINDOWS}, [(75, 101)], WINDOWS),
    "windows without overlap": ({"slide": Slide((32, 48), (32, 48))}, [(75, 101)], Slide((32, 48), (32, 48))),
    "short side": ({"slide": WINDOWS, "short_side": 60}, [(60, 81)], WINDOWS),
    "smaller than a window": ({"slide": WINDOWS, "short_side": 21}, [(21, 28)], WINDOWS),
    "scales": ({"slide": WINDOWS, "scales": (0.25, 1.0, 1.5)}, [(19, 25), (75, 101), (113, 152)], WINDOWS),
    "mirrored": ({"flip": True}, [(32, 48)], None),
    "all of it": (
        {"slide": WINDOWS, "scales": (0.5, 1.25), "flip": True, "short_side": 64}, [(32, 43), (80, 108)], WINDOWS
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_against_torch(case, image):
    options, sizes, slide = CASES[case]
    mode = InferenceMode(segmenter(), **options)
    wanted = naive(image, sizes, slide, flip=options.get("flip", False))
    assert np.abs(mode.probabilities(image) - wanted.numpy()).max() < 2e-5
    labels = mode(image)
    assert labels.shape == (75, 101) and labels.dtype == np.uint8
    best = wanted.topk(2, dim=0).values
    is_clear = (best[0] - best[1] > 1e-4).numpy()
    assert is_clear.mean() > 0.95 and (labels == wanted.argmax(0).numpy())[is_clear].all()
    assert mode.times and mode.times.engine > 0 and mode.times.tail > 0


def test_engine_of_any_size(image):
    """Whole images at scales of the network's size, rounded up to multiples of 32; windows of any size."""
    found = segmenter((40, 64), dynamic=True)
    mode = InferenceMode(found, scales=(1.0, 2.1), flip=True)
    wanted = naive(image, [(40, 64), (96, 160)], None, flip=True)
    assert np.abs(mode.probabilities(image) - wanted.numpy()).max() < 2e-5
    assert isinstance(found.session, Engine) and found.session.runs == [(40, 64)] * 2 + [(96, 160)] * 2
    slide = Slide((24, 40), (24, 40))
    wanted = naive(image, [(75, 101)], slide, flip=False)
    assert np.abs(InferenceMode(found, slide=slide).probabilities(image) - wanted.numpy()).max() < 2e-5
    wanted = naive(image, [(96, 96)], None, flip=False)
    assert np.abs(InferenceMode(found, short_side=70).probabilities(image) - wanted.numpy()).max() < 2e-5


def test_bands_make_no_difference(image, monkeypatch):
    mode = InferenceMode(segmenter(), flip=True)
    whole, labels = mode.probabilities(image), mode(image)
    monkeypatch.setattr("edgeseg.inference_modes.BAND_ELEMENTS", CLASSES * 101 * 7)
    assert (mode.probabilities(image) == whole).all() and (mode(image) == labels).all()


def test_windows_reach_every_pixel_and_no_further():
    for size in ((32, 48), (33, 48), (52, 79), (51, 200), (320, 48)):
        covered = np.zeros(size, int)
        for top, left in WINDOWS.starts(size):
            assert 0 <= top <= size[0] - 32 and 0 <= left <= size[1] - 48
            covered[top : top + 32, left : left + 48] += 1
        assert covered.min() >= 1
    # mmsegmentation's count for SegFormer on Cityscapes
    assert Slide((1024, 1024), (768, 768)).starts((1024, 2048)) == [(0, 0), (0, 768), (0, 1024)]


def test_crf_refines_the_average(image):
    crf = DenseCrf(iterations=2)
    mode = InferenceMode(segmenter(crf=crf), slide=WINDOWS)
    assert (mode(image) == dense_crf(image, mode.probabilities(image), iterations=2)).all()
    windows = {"window": (32, 48), "stride": (20, 31)}
    wanted = {"slide": windows, "scales": [1.0], "flip": False, "short_side": None, "crf": True}
    assert mode.describe() == wanted


def test_one_pixel():
    dot = np.full((1, 1, 3), 9, np.uint8)
    for options in ({"slide": WINDOWS, "scales": (0.5, 2.0)}, {"flip": True}):
        assert InferenceMode(segmenter(), **options)(dot).shape == (1, 1)


def test_parse():
    assert Slide.parse("768:512") == Slide((768, 768), (512, 512))
    assert Slide.parse(" 512X1024:256x512") == Slide((512, 1024), (256, 512))
    assert Slide.parse("512x1024:256") == Slide((512, 1024), (256, 256))


@pytest.mark.parametrize("text", ["", "768", "768:", ":5", "axb:4", "768x768x3:4", "-5:3"])
def test_parse_refuses(text):
    with pytest.raises(ValueError, match="windows are WINDOW:STRIDE such as 768:512"):
        Slide.parse(text)


@pytest.mark.parametrize("text", ["64:65", "64:0", "64x32:32x33"])
def test_strides_that_leave_gaps(text):
    with pytest.raises(ValueError, match="strides must be from 1 to the window's own size"):
        Slide.parse(text)


def test_what_an_engine_of_one_size_cannot_do():
    with pytest.raises(ValueError, match=r"takes 32x48 and no other size, the windows are 64x64; .* --size 64x64"):
        InferenceMode(segmenter(), slide=Slide((64, 64), (32, 32)))
    with pytest.raises(ValueError, match=r"scales other than 1 can only .* add --slide 32x48:22x32"):
        InferenceMode(segmenter(), scales=(1.0, 0.5))
    with pytest.raises(ValueError, match="a short side can only be had with windows"):
        InferenceMode(segmenter(), short_side=64)
    for scales in ((), (0.0,), (float("nan"),), (9.0,)):
        with pytest.raises(ValueError, match="scales must be above 0 and at most 8"):
            InferenceMode(segmenter(), scales=scales)
    with pytest.raises(ValueError, match="short side must be from 1 to 16384"):
        InferenceMode(segmenter(), short_side=0)
