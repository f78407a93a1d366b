"""Times confusion_matrix against numpy's and torch's bincount.

    python benchmarks/ops/bench_confusion_matrix.py --json confusion_matrix.json
    python benchmarks/ops/bench_confusion_matrix.py --device cuda

"numpy bincount" is the usual num_classes * target + labels in int64 over the valid pixels; "numpy pairs" is edgeseg's
own fallback, both ids in one 16-bit number. Counts are compared before anything is timed.
"""

from __future__ import annotations

import argparse
from functools import partial

import numpy as np
import torch
from measuring import Method, add_arguments, memory_table, roof_gb_per_s, side_by_side, summary, write

from edgeseg.ops import confusion_matrix
from edgeseg.ops.confusion_matrix import confusion_matrix_reference

CASES = {"cityscapes-1024x2048": (19, 1024, 2048), "ade20k-512x683": (150, 512, 683), "camvid-360x480": (11, 360, 480)}


def smooth_maps(classes: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A target in regions with a border of void, and labels that differ from it along the regions' edges."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.randn(1, classes, height // 60 + 1, width // 60 + 1, generator=generator)
    target = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").argmax(1)[0]
    labels = target.roll((2, 3), (0, 1)).to(torch.uint8).numpy()
    target = target.to(torch.uint8).numpy()
    target[-height // 20 :] = 255
    return labels, target


def noise_maps(classes: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """No two neighbours alike: the worst case."""
    labels, target = np.random.default_rng(1).integers(0, classes, (2, height, width), dtype=np.uint8)
    return labels, target


MAPS = {"smooth": smooth_maps, "noise": noise_maps}


def by_bincount(labels, target, classes: int, bincount):
    """numpy arrays with numpy.bincount, tensors with torch.bincount."""
    valid = target != 255
    as_index = classes * target[valid].astype(np.int64) if bincount is np.bincount else classes * target[valid].long()
    return bincount(as_index + labels[valid], minlength=classes**2).reshape(classes, classes)


def measure(case: str, kind: str, cold: bool, arguments: argparse.Namespace) -> dict[str, object]:
    classes = CASES[case][0]
    labels, target = MAPS[kind](*CASES[case])
    tensors = [torch.from_numpy(array).to(arguments.device) for array in (labels, target)]
    expected = by_bincount(labels, target, classes, np.bincount)
    if not np.array_equal(confusion_matrix(*tensors, classes).cpu().numpy(), expected):
        raise AssertionError(f"{case} {kind}: other counts than numpy's")

    methods: dict[str, Method] = {
        "edgeseg torch": partial(confusion_matrix, *tensors, classes, strict=False),
        "torch bincount": partial(by_bincount, *tensors, classes, torch.bincount),
    }
    if arguments.device == "cpu":
        methods["edgeseg numpy"] = partial(confusion_matrix, labels, target, classes, threads=arguments.threads)
        methods["numpy bincount"] = partial(by_bincount, labels, target, classes, np.bincount)
        methods["numpy pairs"] = partial(confusion_matrix_reference, labels, target, classes, 255)
    latency = summary(side_by_side(methods, rounds=arguments.rounds, device=arguments.device, cold=cold))
    fastest = min(value["p50"] for name, value in latency.items() if name.startswith("edgeseg"))
    num_bytes = labels.nbytes + target.nbytes
    return {
        "case": case,
        "maps": kind,
        "cold": cold,
        "latency_ms": latency,
        "ratio": {name: value["p50"] / fastest for name, value in latency.items() if not name.startswith("edgeseg")},
        "gb_per_s": num_bytes / fastest / 1e6,
        "roof_gb_per_s": roof_gb_per_s(num_bytes, arguments.device, cold),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = [measure(case, kind, cold, arguments) for case in arguments.cases for kind in MAPS for cold in (False, True)]
    print(memory_table(rows, "case", "maps"))
    write(arguments.json, arguments.device, arguments.threads, rows)


if __name__ == "__main__":
    main()
