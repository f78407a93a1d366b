"""Times dilated_conv with ReLU against torch's own convolution: oneDNN on CPU in both layouts, cuDNN on CUDA.

    python benchmarks/ops/bench_dilated_conv.py --json dilated_conv.json
    python benchmarks/ops/bench_dilated_conv.py --channels 512 --rounds 2     quick
    python benchmarks/ops/bench_dilated_conv.py --device cuda

Results are compared with float64's before anything is timed. A convolution of so many channels waits for arithmetic,
not for memory, so beside the ratios stands the speed in multiply-accumulates that have a tap inside the map, as a share
of what torch's float32 matrix product reaches in the same run (on CUDA: float16's). "own" is this library's float32
kernel, which arrays go through; float tensors on CPU go through oneDNN.
"""

from __future__ import annotations

import argparse
from functools import partial

import torch
from measuring import Method, add_arguments, side_by_side, summary, write
from torch.nn.functional import conv2d

from edgeseg import kernels
from edgeseg.ops import dilated_conv, pack_weight, quantize_weight

OUTPUTS = 256
CASES = {  # name: (H, W), dilations: ASPP at output stride 16 and 8, of a 513 x 513 image and of Cityscapes
    "33x33": ((33, 33), (6, 12, 18, 24, 36)),
    "64x128": ((64, 128), (6, 12, 18, 24, 36)),
}
LAYOUTS = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}


def inside(height: int, width: int, dilation: int) -> float:
    """Share of a 3x3 convolution's multiply-accumulates whose tap is inside the map."""
    along = [sum(max(0, side - abs(t) * dilation) for t in (-1, 0, 1)) / (3 * side) for side in (height, width)]
    return along[0] * along[1]


def tensors(channels: int, size: tuple[int, int], kernel: int, device: str) -> tuple[torch.Tensor, ...]:
    """x, weight and bias, so that results are about 1."""
    generator = torch.Generator().manual_seed(kernel)
    x = torch.randn(1, channels, *size, generator=generator)
    weight = torch.randn(OUTPUTS, channels, kernel, kernel, generator=generator) / (kernel * channels**0.5)
    return x.to(device), weight.to(device), torch.randn(OUTPUTS, generator=generator).to(device)


def quantized(x: torch.Tensor) -> tuple[torch.Tensor, float]:
    """x as int8 and its scale."""
    scale = float(x.abs().max()) / 127
    return (x / scale).round().char(), scale


def check(name: str, y: torch.Tensor, wanted: torch.Tensor) -> None:
    """AssertionError unless the difference is small for the method's precision; int8's includes quantisation."""
    bound = 0.15 if "int8" in name else 0.03 if "bf16" in name else 5e-3 if "f16" in name else 1e-4
    error = float((y.double() - wanted).abs().max())
    if not error < bound:
        raise AssertionError(f"{name}: {error:.2e} away from float64")


def matmul_method(device: str) -> tuple[str, Method, int]:
    """Torch's matrix product, as a roof of the arithmetic units, and its multiply-accumulates."""
    dtype = torch.float16 if device == "cuda" else torch.float32
    side = 4096 if device == "cuda" else 1024
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    return "matmul", partial(torch.mm, a, b), side**3


def row_of(methods: dict[str, Method], macs: float, arguments: argparse.Namespace) -> dict[str, object]:
    """Times the methods; ratios are to torch in float32 (CUDA: float16) channels_last, and to its better layout."""
    name, method, matmul_macs = matmul_method(arguments.device)
    latency = summary(side_by_side({**methods, name: method}, rounds=arguments.rounds, device=arguments.device))
    p50 = {name: value["p50"] for name, value in latency.items()}
    matmul = matmul_macs / p50.pop("matmul") / 1e6
    ours = [name for name in p50 if name.startswith("edgeseg")]
    best = min(value for name, value in p50.items() if name not in ours)
    return {
        "latency_ms": latency,
        "ratio": {name: {"torch nhwc": p50["torch nhwc"] / p50[name], "torch": best / p50[name]} for name in ours},
        "gmac_per_s": {name: macs / value / 1e6 for name, value in p50.items()},
        "matmul_gmac_per_s": matmul,
    }


def measure(case: str, dilation: int, arguments: argparse.Namespace) -> dict[str, object]:
    size, device = CASES[case][0], arguments.device
    x, weight, bias = tensors(arguments.channels, size, 3, device)
    wanted = conv2d(x.double(), weight.double(), bias.double(), padding=dilation, dilation=dilation).relu()
    options = {"dilation": dilation, "activation": "relu"}
    methods: dict[str, Method] = {}
    work = torch.float16 if device == "cuda" else torch.float32
    for layout, memory_format in LAYOUTS.items():
        operands = (
            x.to(work, memory_format=memory_format),
            weight.to(work, memory_format=memory_format),
            bias.to(work),
        )
        methods[f"torch {layout}"] = partial(
            lambda *o: conv2d(*o, padding=dilation, dilation=dilation).relu_(), *operands
        )
    nhwc = x.contiguous(memory_format=torch.channels_last)
    eight, x_scale = quantized(nhwc)
    eight_weight, weight_scale = quantize_weight(weight)
    eight_weight, scale = pack_weight(eight_weight), weight_scale * x_scale
    if device == "cuda":
        half = partial(dilated_conv, nhwc.half(), pack_weight(weight.half()), bias, **options)
        methods["edgeseg f16"] = half
        methods["edgeseg int8"] = partial(
            dilated_conv, eight, eight_weight, bias, scale=scale, out_dtype="float16", **options
        )
    else:
        threads = {"threads": arguments.threads}
        packed = pack_weight(weight)
        methods["edgeseg f32 torch"] = partial(dilated_conv, nhwc, packed, bias, **options)
        methods["edgeseg f32 own"] = partial(
            dilated_conv, nhwc.numpy(), pack_weight(weight.numpy()), bias.numpy(), **options, **threads
        )
        methods["edgeseg bf16 torch"] = partial(dilated_conv, nhwc.bfloat16(), packed.bfloat16(), bias, **options)
        methods["edgeseg int8"] = partial(dilated_conv, eight, eight_weight, bias, scale=scale, **options)
    for name, method in methods.items():
        result = method()
        y = result if isinstance(result, torch.Tensor) else torch.from_numpy(result)
        check("f16" if device == "cuda" and "int8" not in name else name, y, wanted)
    share = inside(*size, dilation)
    macs = 9 * arguments.channels * OUTPUTS * size[0] * size[1] * share
    described = {
        "case": case,
        "dilation": dilation,
        "channels": arguments.channels,
        "outputs": OUTPUTS,
        "inside": share,
    }
    return described | row_of(methods, macs, arguments)


def table(rows: list[dict], what: str) -> str:
    """Markdown; "of matmul" is the share of torch's matrix product's multiply-accumulates per second."""
    heads = ("case", what, "taps inside", "method", "ms", "vs torch nhwc", "vs torch, best", "of matmul")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in rows:
        for name, latency in row["latency_ms"].items():
            if name == "matmul":
                continue
            ratio = row["ratio"].get(name)
            cells = [row["case"], str(row[what]), f"{row['inside']:.2f}", name, f"{latency['p50']:.2f}"]
            cells += [f"{ratio['torch nhwc']:.2f}x", f"{ratio['torch']:.2f}x"] if ratio else ["", ""]
            cells += [f"{row['gmac_per_s'][name] / row['matmul_gmac_per_s']:.2f}"]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def add_conv_arguments(parser: argparse.ArgumentParser, cases: dict) -> None:
    add_arguments(parser)
    parser.add_argument("--cases", nargs="+", choices=cases, default=list(cases))
    parser.add_argument("--channels", type=int, default=2048, help="of x; fewer for a quick run")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_conv_arguments(parser, CASES)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.backends.cudnn.benchmark = True
    kernels.load()
    rows = [measure(case, dilation, arguments) for case in arguments.cases for dilation in CASES[case][1]]
    print(table(rows, "dilation"))
    write(arguments.json, arguments.device, arguments.threads, rows)


if __name__ == "__main__":
    main()
