"""Times preprocess against what people do: torch, OpenCV and Pillow, each followed by its fastest normalisation.

    python benchmarks/ops/bench_preprocess.py --json preprocess.json
    python benchmarks/ops/bench_preprocess.py --device cuda

Torch is taken at its best of resizing bytes, as they lie or planar, and floats; normalised by addcmul or in place.
OpenCV (where it is installed) never antialiases: it is compared in mode bilinear, and beside antialias for what that
costs. "pillow" is `Image.resize` and the 256-entry table by numpy, which is what edgeseg did before it had this kernel.
Results are compared before anything is timed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from measuring import Method, add_arguments, compiled, roof_gb_per_s, side_by_side, summary, write
from PIL import Image
from torch.nn.functional import interpolate

from edgeseg.ops import preprocess
from edgeseg.ops.preprocess import normalization_table
from edgeseg.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess

MEAN, STD = np.array(IMAGENET_MEAN), np.array(IMAGENET_STD)
SCALE, BIAS = (1 / (255 * STD)).astype(np.float32), (-MEAN / STD).astype(np.float32)
CASES = {  # (H, W), (height, width), images
    "1080p-512x1024": ((1080, 1920), (512, 1024), 1),
    "1080p-512x1024-batch4": ((1080, 1920), (512, 1024), 4),
    "camvid-360x480": ((720, 960), (360, 480), 1),
    "photo-512x512": ((375, 500), (512, 512), 1),
    "1024x2048-same": ((1024, 2048), (1024, 2048), 1),
}
TOLERANCE = 1.5  # levels: other libraries round weights, and results to integers


def torch_methods(images: torch.Tensor, size: tuple[int, int], antialias: bool) -> dict[str, Method]:
    scale, bias = (torch.from_numpy(values)[:, None, None].to(images.device) for values in (SCALE, BIAS))

    def resize(planes: torch.Tensor) -> torch.Tensor:
        if size == tuple(images.shape[1:3]):
            return planes
        return interpolate(planes, size, mode="bilinear", align_corners=False, antialias=antialias)

    def in_place(planes: torch.Tensor) -> torch.Tensor:
        return planes.float().mul(scale).add_(bias).contiguous()

    def fused(planes: torch.Tensor) -> torch.Tensor:
        return torch.addcmul(bias, planes.to(torch.float32, memory_format=torch.contiguous_format), scale)

    planes = images.permute(0, 3, 1, 2)  # bytes as they lie: channels_last
    methods: dict[str, Method] = {"torch float": lambda: fused(resize(planes.float()))}
    if images.is_cuda:  # which resizes no bytes
        return methods | {"torch compiled": compiled(lambda: fused(resize(planes.float())))}
    return methods | {
        "torch bytes, in place": lambda: in_place(resize(planes)),
        "torch bytes, addcmul": lambda: fused(resize(planes)),
        "torch planar bytes": lambda: in_place(resize(planes.contiguous())),
    }


def numpy_normalisations(
    resize: Callable[[np.ndarray], np.ndarray], images: np.ndarray, name: str
) -> dict[str, Method]:
    """Three ways to write (x / 255 - mean) / std with the channels first."""
    table = normalization_table(IMAGENET_MEAN, IMAGENET_STD)

    def broadcast(image: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray((resize(image) * SCALE + BIAS).transpose(2, 0, 1))

    def by_plane(image: np.ndarray) -> np.ndarray:
        small = resize(image)
        planes = np.empty((3, *small.shape[:2]), np.float32)
        for c in range(3):
            np.multiply(small[:, :, c], SCALE[c], out=planes[c])
            planes[c] += BIAS[c]
        return planes

    def by_table(image: np.ndarray) -> np.ndarray:
        small = resize(image)
        return np.stack([table[c].take(small[:, :, c]) for c in range(3)])

    return {
        f"{name}, {way.__name__}": partial(lambda way: np.stack([way(image) for image in images]), way)
        for way in (broadcast, by_plane, by_table)
    }


def pillow_methods(images: np.ndarray, size: tuple[int, int]) -> dict[str, Method]:
    def resize(image: np.ndarray) -> np.ndarray:
        return np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))

    return numpy_normalisations(resize, images, "pillow")


def opencv_methods(images: np.ndarray, size: tuple[int, int], threads: int) -> dict[str, Method]:
    """INTER_LINEAR; nothing without OpenCV."""
    try:
        import cv2
    except ImportError:
        return {}
    cv2.setNumThreads(threads)
    return numpy_normalisations(lambda image: cv2.resize(image, size[::-1]), images, "opencv")


def levels_apart(ours: object, theirs: object) -> float:
    """The greatest difference of two results in levels of 0..255."""
    first, second = (np.asarray(value.cpu() if isinstance(value, torch.Tensor) else value) for value in (ours, theirs))
    return float((np.abs(first - second) * STD[:, None, None] * 255).max())


def measure(case: str, mode: str, cold: bool, arguments: argparse.Namespace) -> dict[str, object]:
    source, size, count = CASES[case]
    coarse = torch.rand(count, 3, source[0] // 8, source[1] // 8, generator=torch.Generator().manual_seed(1))
    smooth = interpolate(coarse, source, mode="bicubic").mul(255).clamp(0, 255).byte()  # as photographs: no white noise
    images = smooth.permute(0, 2, 3, 1).contiguous().numpy()
    tensor = torch.from_numpy(images).to(arguments.device)
    ours: dict[str, Method] = {
        f"edgeseg torch{suffix}": partial(preprocess, tensor, size, IMAGENET_MEAN, IMAGENET_STD, mode=mode, dtype=dtype)
        for suffix, dtype in (("", "float32"), (" f16", "float16"))
    }
    theirs = torch_methods(tensor, size, mode == "antialias")
    others: dict[str, Method] = {}
    if arguments.device == "cpu":
        options = {"mode": mode, "threads": arguments.threads}
        ours["edgeseg numpy"] = partial(preprocess, images, size, IMAGENET_MEAN, IMAGENET_STD, **options)
        if mode == "antialias":
            product = Preprocess(size)
            ours["edgeseg Preprocess"] = lambda: [product(image) for image in images]
            theirs |= pillow_methods(images, size)
        others = opencv_methods(images, size, arguments.threads)
        theirs |= others if mode == "bilinear" else {}
    result = ours["edgeseg torch"]()
    for name, method in theirs.items():
        if levels_apart(result, method()) > TOLERANCE:
            raise AssertionError(f"{case} {mode}: {name} differs by {levels_apart(result, method()):.2f} levels")
    methods = ours | theirs | others
    latency = summary(side_by_side(methods, rounds=arguments.rounds, device=arguments.device, cold=cold))
    fastest = min(latency[name]["p50"] for name in ours if not name.endswith("f16"))
    ratio = {
        library: min(value["p50"] for name, value in latency.items() if name.startswith(library)) / fastest
        for library in ("torch", "opencv", "pillow")
        if any(name.startswith(library) for name in latency)
    }
    num_bytes = images.nbytes + count * 12 * size[0] * size[1]
    return {
        "case": case,
        "mode": mode,
        "cold": cold,
        "latency_ms": latency,
        "ratio": ratio,
        "gb_per_s": num_bytes / fastest / 1e6,
        "roof_gb_per_s": roof_gb_per_s(num_bytes, arguments.device, cold),
    }


def table(rows: list[dict]) -> str:
    """Markdown; "of the roof" is the share of a plain copy's speed on as many bytes."""
    libraries = [library for library in ("torch", "opencv", "pillow") if any(library in row["ratio"] for row in rows)]
    heads = (
        "case",
        "mode",
        "cache",
        "edgeseg ms",
        "f16 ms",
        *(f"vs {library}" for library in libraries),
        "of the roof",
    )
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in rows:
        ours = {name: value["p50"] for name, value in row["latency_ms"].items() if name.startswith("edgeseg")}
        cells = [row["case"], row["mode"], "cold" if row["cold"] else "warm"]
        cells += [f"{min(value for name, value in ours.items() if not name.endswith('f16')):.3f}"]
        cells += [f"{ours['edgeseg torch f16']:.3f}"]
        cells += [f"{row['ratio'][library]:.1f}x" if library in row["ratio"] else "–" for library in libraries]
        cells += [f"{row['gb_per_s'] / row['roof_gb_per_s']:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = [
        measure(case, mode, cold, arguments)
        for case in arguments.cases
        for mode in ("antialias", "bilinear")
        for cold in (False, True)
    ]
    print(table(rows))
    write(arguments.json, arguments.device, arguments.threads, rows)


if __name__ == "__main__":
    main()
