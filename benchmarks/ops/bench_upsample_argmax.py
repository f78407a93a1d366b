"""Times upsample_argmax against the fastest way that torch and ONNX Runtime offer for the same labels.

    python benchmarks/ops/bench_upsample_argmax.py --json upsample_argmax.json

Every method runs in every round, rounds are interleaved, and the median is reported: on a shared machine ratios hold
where absolute times do not. Labels are compared before anything is timed. Torch is taken at its best of four (argmax or
max, NCHW or channels_last), as its users would if they knew.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as functional

from edgeseg import kernels
from edgeseg.ops import upsample_argmax

CASES = {  # name: (C, h, w), (H, W)
    "ade20k-512": ((150, 128, 128), (512, 512)),
    "cityscapes-1024x2048": ((19, 256, 512), (1024, 2048)),
    "camvid-360x480-x8": ((11, 45, 60), (360, 480)),
    "ade20k-683x512": ((150, 128, 128), (683, 512)),
}


def smooth_logits(shape: tuple[int, int, int], seed: int) -> np.ndarray:
    """Large regions with ragged borders, like a network's logits: a coarse random field, upsampled, plus noise."""
    generator = torch.Generator().manual_seed(seed)
    classes, height, width = shape
    coarse = torch.randn(1, classes, max(2, height // 42), max(2, width // 42), generator=generator) * 4
    fine = functional.interpolate(coarse, (height, width), mode="bicubic", align_corners=False)
    return (fine + 0.05 * torch.randn(1, *shape, generator=generator)).numpy().copy()


def noise_logits(shape: tuple[int, int, int], seed: int) -> np.ndarray:
    """White noise: nearly no cell agrees with itself and nearly no class can be pruned. The worst case."""
    return torch.randn(1, *shape, generator=torch.Generator().manual_seed(seed)).numpy()


LOGITS = {"smooth": smooth_logits, "noise": noise_logits}


def mixed_cells(logits: np.ndarray) -> float:
    """Share of cells whose four corners do not have one best class: what cannot be filled."""
    best = logits.argmax(1)
    corners = best[:, :-1, :-1], best[:, :-1, 1:], best[:, 1:, :-1], best[:, 1:, 1:]
    return float(1 - np.logical_and.reduce([corners[0] == corner for corner in corners[1:]]).mean())


def torch_methods(logits: np.ndarray, size: tuple[int, int]) -> dict[str, Callable[[], object]]:
    def upsampled(tensor: torch.Tensor) -> torch.Tensor:
        return functional.interpolate(tensor, size, mode="bilinear", align_corners=False)

    methods: dict[str, Callable[[], object]] = {}
    for layout, memory_format in (("nchw", torch.contiguous_format), ("nhwc", torch.channels_last)):
        tensor = torch.from_numpy(logits).contiguous(memory_format=memory_format)
        methods[f"torch argmax {layout}"] = partial(lambda logits: upsampled(logits).argmax(1), tensor)
        methods[f"torch max {layout}"] = partial(lambda logits: upsampled(logits).max(1).indices, tensor)
    return methods


def onnxruntime_method(logits: np.ndarray, size: tuple[int, int], threads: int) -> Callable[[], object]:
    """Resize + ArgMax in one ONNX graph."""
    import onnxruntime
    from onnx import TensorProto, helper

    shape = [*logits.shape[:2], *size]
    graph = helper.make_graph(
        [
            helper.make_node(
                "Resize",
                ["logits", "", "", "sizes"],
                ["upsampled"],
                mode="linear",
                coordinate_transformation_mode="half_pixel",
            ),
            helper.make_node("ArgMax", ["upsampled"], ["labels"], axis=1, keepdims=0),
        ],
        "tail",
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, logits.shape)],
        [helper.make_tensor_value_info("labels", TensorProto.INT64, [shape[0], *size])],
        [helper.make_tensor("sizes", TensorProto.INT64, [4], shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    return lambda: session.run(None, {"logits": logits})[0]


def disagreement(logits: np.ndarray, labels: np.ndarray, size: tuple[int, int]) -> int:
    """Pixels whose label is not within float32 rounding of the best score in float64."""
    upsampled = functional.interpolate(torch.from_numpy(logits).double(), size, mode="bilinear", align_corners=False)
    chosen = upsampled.gather(1, torch.from_numpy(labels.astype(np.int64))[:, None])[:, 0]
    return int((upsampled.max(1).values - chosen > 1e-6 * upsampled.abs().max()).sum())


def measure(case: str, kind: str, rounds: int, threads: int) -> dict[str, object]:
    shape, size = CASES[case]
    logits = LOGITS[kind](shape, seed=1)
    wrong = disagreement(logits, upsample_argmax(logits, size), size)
    if wrong:
        raise AssertionError(f"{case} {kind}: {wrong} labels are not the best class")

    tensor = torch.from_numpy(logits)
    ours: dict[str, Callable[[], object]] = {
        "edgeseg numpy": lambda: upsample_argmax(logits, size, threads=threads),
        "edgeseg torch": lambda: upsample_argmax(tensor, size),
    }
    theirs = torch_methods(logits, size) | {"onnxruntime": onnxruntime_method(logits, size, threads)}
    methods = ours | theirs
    times: dict[str, list[float]] = {name: [] for name in methods}
    for round_number in range(rounds + 1):  # the first warms up
        for name, method in methods.items():
            repeats = 5 if name in ours else 1
            for _ in range(repeats):
                begin = time.perf_counter()
                method()
                if round_number:
                    times[name].append(1e3 * (time.perf_counter() - begin))
    medians = {name: statistics.median(values) for name, values in times.items()}
    best_torch = min(medians[name] for name in theirs if name.startswith("torch"))
    fastest = min(medians[name] for name in ours)
    return {
        "case": case,
        "logits": kind,
        "shape": [1, *shape],
        "size": list(size),
        "mixed_cells": mixed_cells(logits),
        "threads": threads,
        "latency_ms": {name: {"p50": medians[name], "min": min(times[name])} for name in methods},
        "ratio": {"torch": best_torch / fastest, "onnxruntime": medians["onnxruntime"] / fastest},
        "read_write_gb_per_s": (logits.nbytes + size[0] * size[1]) / fastest / 1e6,
    }


def table(rows: list[dict]) -> str:
    lines = ["| case | logits | mixed cells | edgeseg ms | torch ms | ORT ms | vs torch | vs ORT |", "|---" * 8 + "|"]
    for row in rows:
        p50 = {name: latency["p50"] for name, latency in row["latency_ms"].items()}
        ours = min(p50["edgeseg numpy"], p50["edgeseg torch"])
        torch_best = min(value for name, value in p50.items() if name.startswith("torch"))
        lines.append(
            f"| {row['case']} | {row['logits']} | {100 * row['mixed_cells']:.1f} % | {ours:.2f} | {torch_best:.1f} "
            f"| {p50['onnxruntime']:.1f} | {row['ratio']['torch']:.0f}x | {row['ratio']['onnxruntime']:.0f}x |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path, help="where to write the result")
    arguments = parser.parse_args()

    torch.set_num_threads(arguments.threads)
    rows = [measure(case, kind, arguments.rounds, arguments.threads) for case in arguments.cases for kind in LOGITS]
    environment = {
        "machine": platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "instruction_set": kernels.cpu_instruction_set(),
        "threads": arguments.threads,
    }
    print(table(rows))
    if arguments.json:
        arguments.json.write_text(json.dumps({"environment": environment, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
