"""Times blend_labels against numpy (as it is usually written, and in integers), torch, and OpenCV where it is.

    python benchmarks/ops/bench_blend_labels.py --json blend_labels.json
    python benchmarks/ops/bench_blend_labels.py --device cuda

"numpy float" is image * (1 - alpha) + palette[labels] * alpha; "numpy integer" is the same arithmetic as the kernel's
(edgeseg's own fallback, a few rows at a time). Bytes are compared with the integer formula before anything is timed.
"""

from __future__ import annotations

import argparse
from functools import partial

import numpy as np
import torch
from measuring import Method, add_arguments, compiled, memory_table, roof_gb_per_s, side_by_side, summary, write

from edgeseg.ops import blend_labels
from edgeseg.ops.blend_labels import blend_labels_reference

SIZES = {"1080p": (1080, 1920), "512x1024": (512, 1024), "2160p": (2160, 3840)}
CLASSES, ALPHA = 19, 0.5


def smooth_labels(height: int, width: int) -> np.ndarray:
    """Regions as a network's labels have them."""
    coarse = torch.randn(1, CLASSES, height // 120 + 1, width // 120 + 1, generator=torch.Generator().manual_seed(1))
    fine = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")
    return fine.argmax(1)[0].to(torch.uint8).numpy()


def noise_labels(height: int, width: int) -> np.ndarray:
    """No two neighbours alike: the worst case."""
    return np.random.default_rng(1).integers(0, CLASSES, (height, width), dtype=np.uint8)


LABELS = {"smooth": smooth_labels, "noise": noise_labels}


def numpy_float(image: np.ndarray, labels: np.ndarray, palette: np.ndarray) -> np.ndarray:
    return (image * (1 - ALPHA) + palette[labels] * ALPHA).astype(np.uint8)


def torch_float(image: torch.Tensor, labels: torch.Tensor, palette: torch.Tensor) -> torch.Tensor:
    return (image * (1 - ALPHA) + palette[labels.int()] * ALPHA).to(torch.uint8)


def opencv_method(image: np.ndarray, labels: np.ndarray, palette: np.ndarray) -> Method | None:
    """take, then addWeighted; None without OpenCV."""
    try:
        import cv2
    except ImportError:
        return None
    return lambda: cv2.addWeighted(image, 1 - ALPHA, palette.take(labels, axis=0), ALPHA, 0)


def measure(size: str, kind: str, cold: bool, arguments: argparse.Namespace) -> dict[str, object]:
    random = np.random.default_rng(2)
    labels = LABELS[kind](*SIZES[size])
    image = random.integers(0, 256, (*SIZES[size], 3), dtype=np.uint8)
    palette = random.integers(0, 256, (CLASSES, 3), dtype=np.uint8)
    tensors = [torch.from_numpy(array).to(arguments.device) for array in (image, labels, palette)]
    out = torch.empty_like(tensors[0])
    expected = blend_labels_reference(image, labels, palette, round(256 * ALPHA))
    if not np.array_equal(blend_labels(*tensors, ALPHA).cpu().numpy(), expected):
        raise AssertionError(f"{size} {kind}: not the formula's bytes")

    methods: dict[str, Method] = {
        "edgeseg torch": partial(blend_labels, *tensors, ALPHA),
        "edgeseg torch, out=": partial(blend_labels, *tensors, ALPHA, out=out),
        "torch float": partial(torch_float, *tensors),
    }
    if arguments.device == "cuda":
        methods["torch compiled"] = partial(compiled(torch_float), *tensors)
    else:
        arrays, out_array = (image, labels, palette), np.empty_like(image)
        methods["edgeseg numpy"] = partial(blend_labels, *arrays, ALPHA, threads=arguments.threads)
        methods["edgeseg numpy, out="] = partial(blend_labels, *arrays, ALPHA, out=out_array, threads=arguments.threads)
        methods["numpy float"] = partial(numpy_float, *arrays)
        methods["numpy integer"] = partial(blend_labels_reference, *arrays, round(256 * ALPHA))
        if opencv := opencv_method(*arrays):
            methods["opencv"] = opencv
    latency = summary(side_by_side(methods, rounds=arguments.rounds, device=arguments.device, cold=cold))
    fastest = min(value["p50"] for name, value in latency.items() if name.startswith("edgeseg"))
    num_bytes = 2 * image.nbytes + labels.nbytes
    return {
        "size": size,
        "labels": kind,
        "cold": cold,
        "latency_ms": latency,
        "ratio": {name: value["p50"] / fastest for name, value in latency.items() if not name.startswith("edgeseg")},
        "gb_per_s": num_bytes / fastest / 1e6,
        "roof_gb_per_s": roof_gb_per_s(num_bytes, arguments.device, cold),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--cases", nargs="+", choices=SIZES, default=list(SIZES))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = [
        measure(size, kind, cold, arguments) for size in arguments.cases for kind in LABELS for cold in (False, True)
    ]
    print(memory_table(rows, "size", "labels"))
    write(arguments.json, arguments.device, arguments.threads, rows)


if __name__ == "__main__":
    main()
