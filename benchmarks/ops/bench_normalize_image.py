"""Times normalize_image against numpy's table look-up and torch's arithmetic, interleaved; medians.

python benchmarks/ops/bench_normalize_image.py
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from edgeseg.ops import normalize_image
from edgeseg.ops.normalize_image import normalization_table

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def by_numpy(image: np.ndarray) -> np.ndarray:
    table = normalization_table(MEAN, STD)
    return np.stack([table[c].take(image[:, :, c]) for c in range(3)])[None]


def by_torch(image: np.ndarray) -> torch.Tensor:
    scaled = torch.from_numpy(image).permute(2, 0, 1)[None].float().div_(255)
    return scaled.sub_(torch.tensor(MEAN)[:, None, None]).div_(torch.tensor(STD)[:, None, None]).contiguous()


def main() -> None:
    print("| size | edgeseg ms | numpy ms | torch ms |\n|---|---|---|---|")
    for height, width in ((512, 512), (1024, 2048)):
        image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
        methods: dict[str, Callable[[], object]] = {
            "edgeseg": partial(normalize_image, image, MEAN, STD),
            "numpy": partial(by_numpy, image),
            "torch": partial(by_torch, image),
        }
        if not np.array_equal(normalize_image(image, MEAN, STD), by_numpy(image)):
            raise AssertionError("edgeseg and numpy differ")
        times: dict[str, list[float]] = {name: [] for name in methods}
        for _ in range(30):
            for name, method in methods.items():
                begin = time.perf_counter()
                method()
                times[name].append(1e3 * (time.perf_counter() - begin))
        medians = " | ".join(f"{statistics.median(values):.2f}" for values in times.values())
        print(f"| {height}x{width} | {medians} |")


if __name__ == "__main__":
    main()
