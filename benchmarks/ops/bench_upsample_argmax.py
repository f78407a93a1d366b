"""Times upsample_argmax against the fastest way that torch and ONNX Runtime offer for the same labels.

    python benchmarks/ops/bench_upsample_argmax.py --json upsample_argmax.json
    python benchmarks/ops/bench_upsample_argmax.py --device cuda

Labels are compared before anything is timed. Torch is taken at its best of four (argmax or max, NCHW or channels_last),
as its users would if they knew, and compiled. On CUDA the logits are float16, in batches of 1 and 8, and one thread per
pixel as deployments commonly have it is in the table.
"""

from __future__ import annotations

import argparse
import ctypes
import subprocess
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as functional
from measuring import Method, add_arguments, compiled, roof_gb_per_s, side_by_side, summary, write

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


def torch_methods(logits: torch.Tensor, size: tuple[int, int]) -> dict[str, Method]:
    def by_argmax(tensor: torch.Tensor) -> torch.Tensor:
        return functional.interpolate(tensor, size, mode="bilinear", align_corners=False).argmax(1)

    def by_max(tensor: torch.Tensor) -> torch.Tensor:
        return functional.interpolate(tensor, size, mode="bilinear", align_corners=False).max(1).indices

    methods: dict[str, Method] = {}
    for layout, memory_format in (("nchw", torch.contiguous_format), ("nhwc", torch.channels_last)):
        tensor = logits.contiguous(memory_format=memory_format)
        methods[f"torch argmax {layout}"] = partial(by_argmax, tensor)
        methods[f"torch max {layout}"] = partial(by_max, tensor)
    if logits.is_cuda:
        methods["torch compiled"] = partial(compiled(by_argmax), logits)
    return methods


def onnxruntime_method(logits: np.ndarray, size: tuple[int, int], threads: int) -> Method:
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


def naive_kernel() -> Callable[[torch.Tensor, tuple[int, int]], Method]:
    """One thread per pixel, compiled here by nvcc for the GPU at hand."""
    source = Path(__file__).with_name("naive_upsample_argmax.cu")
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "naive.so"
        command = ["nvcc", "-O3", "-arch=native", "-shared", "-Xcompiler=-fPIC", "-o", str(library), str(source)]
        subprocess.run(command, check=True)
        function = ctypes.CDLL(str(library)).naive_upsample_argmax
    function.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p, *[ctypes.c_int] * 6, ctypes.c_void_p]

    def method(logits: torch.Tensor, size: tuple[int, int]) -> Method:
        labels = torch.empty((logits.shape[0], *size), dtype=torch.int32, device="cuda")
        is_half = logits.dtype == torch.float16

        def run() -> torch.Tensor:
            stream = torch.cuda.current_stream().cuda_stream
            failed = function(logits.data_ptr(), is_half, labels.data_ptr(), *logits.shape, *size, stream)
            if failed:
                raise RuntimeError(f"the naive kernel failed with CUDA error {failed}")
            return labels

        return run

    return method


def disagreement(logits: torch.Tensor, labels: torch.Tensor, size: tuple[int, int]) -> int:
    """Pixels whose label is not within float32 rounding of the best score in float64."""
    wrong = 0
    for scores, chosen in zip(logits.split(1), labels.split(1), strict=True):
        upsampled = functional.interpolate(scores.double(), size, mode="bilinear", align_corners=False)
        value = upsampled.gather(1, chosen.long()[:, None])[:, 0]
        wrong += int((upsampled.max(1).values - value > 1e-6 * upsampled.abs().max()).sum())
    return wrong


def measure(case: str, kind: str, batch: int, cold: bool, arguments: argparse.Namespace) -> dict[str, object]:
    shape, size = CASES[case]
    array = np.concatenate([LOGITS[kind](shape, seed=1 + n) for n in range(batch)])
    on_cuda = arguments.device == "cuda"
    logits = torch.from_numpy(array).cuda().half() if on_cuda else torch.from_numpy(array)
    wrong = disagreement(logits, upsample_argmax(logits, size), size)
    if wrong:
        raise AssertionError(f"{case} {kind}: {wrong} labels are not the best class")

    ours: dict[str, Method] = {"edgeseg torch": lambda: upsample_argmax(logits, size)}
    theirs = torch_methods(logits, size)
    if on_cuda:
        theirs["naive kernel"] = arguments.naive(logits, size)
    else:
        ours["edgeseg numpy"] = lambda: upsample_argmax(array, size, threads=arguments.threads)
        theirs["onnxruntime"] = onnxruntime_method(array, size, arguments.threads)
    latency = summary(side_by_side(ours | theirs, rounds=arguments.rounds, device=arguments.device, cold=cold))
    fastest = min(latency[name]["p50"] for name in ours)
    best_torch = min(value["p50"] for name, value in latency.items() if name.startswith("torch"))
    other = "naive kernel" if on_cuda else "onnxruntime"
    num_bytes = logits.nbytes + batch * size[0] * size[1]
    rate, roof = num_bytes / fastest / 1e6, roof_gb_per_s(num_bytes, arguments.device, cold)
    return {
        "case": case,
        "logits": kind,
        "dtype": str(logits.dtype).removeprefix("torch."),
        "shape": [batch, *shape],
        "size": list(size),
        "cold": cold,
        "mixed_cells": mixed_cells(array),
        "latency_ms": latency,
        "ratio": {"torch": best_torch / fastest, other: latency[other]["p50"] / fastest},
        "gb_per_s": rate,
        "roof_gb_per_s": roof,
    }


def table(rows: list[dict]) -> str:
    """Markdown; "of the roof" is the share of a plain copy's speed on as many bytes, 1 being the best there can be."""
    heads = ("case", "logits", "cache", "mixed cells", "edgeseg ms", *(f"vs {name}" for name in rows[0]["ratio"]))
    lines = [f"| {' | '.join((*heads, 'GB/s', 'of the roof'))} |", "|---" * (len(heads) + 2) + "|"]
    for row in rows:
        ours = min(value["p50"] for name, value in row["latency_ms"].items() if name.startswith("edgeseg"))
        cells = [f"{row['case']} x{row['shape'][0]}", row["logits"], "cold" if row["cold"] else "warm"]
        cells += [f"{100 * row['mixed_cells']:.1f} %", f"{ours:.3f}", *(f"{r:.1f}x" for r in row["ratio"].values())]
        cells += [f"{row['gb_per_s']:.1f}", f"{row['gb_per_s'] / row['roof_gb_per_s']:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.naive = naive_kernel() if arguments.device == "cuda" else None
    rows = [
        measure(case, kind, batch, cold, arguments)
        for case in arguments.cases
        for kind in LOGITS
        for batch in ((1, 8) if arguments.device == "cuda" else (1,))
        for cold in (False, True)
    ]
    print(table(rows))
    write(arguments.json, arguments.device, arguments.threads, rows)


if __name__ == "__main__":
    main()
