"""Times pyramid_pooling against one adaptive_avg_pool2d a bin, in both layouts, and ONNX Runtime's average pools.

    python benchmarks/ops/bench_pyramid_pooling.py --json pyramid_pooling.json
    python benchmarks/ops/bench_pyramid_pooling.py --device cuda

Means are compared with float64's before anything is timed. Two ratios are given: to torch in the same layout, and to
torch in whichever layout suits it best. On CUDA the map is float16, in batches of 1 and 8.
"""

from __future__ import annotations

import argparse
from functools import partial

import numpy as np
import torch
from measuring import Method, add_arguments, compiled, roof_gb_per_s, side_by_side, summary, write
from torch.nn.functional import adaptive_avg_pool2d

from edgeseg.ops import pyramid_pooling

BINS = (1, 2, 3, 6)
CASES = {  # name: (C, H, W)
    "pspnet-473": (2048, 60, 60),
    "pspnet-512x1024": (2048, 64, 128),
    "mobilenet-512": (320, 64, 64),
    "resnet-50-33": (2048, 33, 33),
}
LAYOUTS = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}


def four_poolings(x: torch.Tensor) -> list[torch.Tensor]:
    return [adaptive_avg_pool2d(x, b) for b in BINS]


def onnxruntime_method(x: np.ndarray, threads: int) -> Method:
    """An AveragePool a bin; of sides that every bin divides."""
    import onnxruntime
    from onnx import TensorProto, helper

    nodes, outputs = [], []
    for b in BINS:
        window = [x.shape[2] // b, x.shape[3] // b]
        nodes.append(helper.make_node("AveragePool", ["x"], [f"bin{b}"], kernel_shape=window, strides=window))
        outputs.append(helper.make_tensor_value_info(f"bin{b}", TensorProto.FLOAT, [*x.shape[:2], b, b]))
    graph = helper.make_graph(
        nodes, "pyramid", [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)], outputs
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    return lambda: session.run(None, {"x": x})


def worst_error(x: torch.Tensor) -> float:
    """Greatest difference to float64, in units of the type's last place at 1 (the map is of standard deviation 1)."""
    pairs = zip(pyramid_pooling(x), four_poolings(x.double()), strict=True)
    return max(float((ours - right).abs().max()) for ours, right in pairs) / torch.finfo(x.dtype).eps


def measure(case: str, dtype: torch.dtype, batch: int, cold: bool, arguments: argparse.Namespace) -> dict[str, object]:
    x = torch.randn(batch, *CASES[case], generator=torch.Generator().manual_seed(1)).to(arguments.device, dtype)
    methods: dict[str, Method] = {}
    for layout, memory_format in LAYOUTS.items():
        laid_out = x.contiguous(memory_format=memory_format)
        error = worst_error(laid_out)
        if error > 8:
            raise AssertionError(f"{case} {dtype} {layout}: {error:.1f} units of the last place away from the means")
        methods[f"edgeseg {layout}"] = partial(pyramid_pooling, laid_out)
        methods[f"torch {layout}"] = partial(four_poolings, laid_out)
        if arguments.device == "cuda":
            methods[f"torch compiled {layout}"] = partial(compiled(four_poolings), laid_out)
        elif dtype == torch.float32:
            threads = arguments.threads
            array = laid_out.numpy()
            methods[f"edgeseg numpy {layout}"] = partial(pyramid_pooling, array, threads=threads)
    divided = all(side % b == 0 for side in CASES[case][1:] for b in BINS)
    if arguments.device == "cpu" and dtype == torch.float32 and divided:
        methods["onnxruntime"] = onnxruntime_method(x.numpy(), arguments.threads)
    latency = summary(side_by_side(methods, rounds=arguments.rounds, device=arguments.device, cold=cold))

    def fastest(kind: str, layout: str = "") -> float:
        return min(v["p50"] for name, v in latency.items() if name.startswith(kind) and name.endswith(layout))

    ratio = {}
    for layout in LAYOUTS:
        ratio[f"{layout} vs torch {layout}"] = fastest("torch", layout) / fastest("edgeseg", layout)
        ratio[f"{layout} vs best torch"] = fastest("torch") / fastest("edgeseg", layout)
    return {
        "case": case,
        "dtype": str(dtype).removeprefix("torch."),
        "shape": list(x.shape),
        "bins": list(BINS),
        "cold": cold,
        "latency_ms": latency,
        "ratio": ratio,
        "gb_per_s": {layout: x.nbytes / fastest("edgeseg", layout) / 1e6 for layout in LAYOUTS},
        "roof_gb_per_s": roof_gb_per_s(x.nbytes, arguments.device, cold),
    }


def table(rows: list[dict]) -> str:
    """Markdown; "of the roof" is the share of a plain copy's speed on as many bytes."""
    heads = ("case", "dtype", "cache", "layout", "edgeseg ms", "vs torch, same layout", "vs torch, best", "of the roof")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in rows:
        for layout in LAYOUTS:
            names = [name for name in row["latency_ms"] if name.startswith("edgeseg") and name.endswith(layout)]
            ours = min(row["latency_ms"][name]["p50"] for name in names)
            cells = [f"{row['case']} x{row['shape'][0]}", row["dtype"], "cold" if row["cold"] else "warm", layout]
            cells += [f"{ours:.3f}", f"{row['ratio'][f'{layout} vs torch {layout}']:.1f}x"]
            cells += [f"{row['ratio'][f'{layout} vs best torch']:.1f}x"]
            cells += [f"{row['gb_per_s'][layout] / row['roof_gb_per_s']:.2f}"]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    on_cuda = arguments.device == "cuda"
    rows = [
        measure(case, dtype, batch, cold, arguments)
        for case in arguments.cases
        for dtype in ((torch.float16,) if on_cuda else (torch.float32, torch.bfloat16, torch.float16))
        for batch in ((1, 8) if on_cuda else (1,))
        for cold in (False, True)
    ]
    print(table(rows))
    write(arguments.json, arguments.device, arguments.threads, rows)


if __name__ == "__main__":
    main()
