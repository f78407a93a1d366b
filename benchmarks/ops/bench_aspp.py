"""Times aspp against its five branches through torch (oneDNN, cuDNN) and a concatenation, in both layouts.

    python benchmarks/ops/bench_aspp.py --json aspp.json
    python benchmarks/ops/bench_aspp.py --channels 512 --cases 33x33-os16 --rounds 2     quick
    python benchmarks/ops/bench_aspp.py --device cuda

Baseline of every CPU ratio, int8's and bfloat16's too: oneDNN in float32, channels_last. How it is measured otherwise,
and what "of matmul" means, is said in bench_dilated_conv.py.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial

import torch
from bench_dilated_conv import (
    LAYOUTS,
    OUTPUTS,
    add_conv_arguments,
    check,
    inside,
    quantized,
    row_of,
    table,
    tensors,
)
from measuring import Method, compiled, write
from torch import Tensor
from torch.nn.functional import conv2d

from edgeseg import kernels
from edgeseg.ops import aspp, pack_weight, quantize_weight

CASES = {  # name: (H, W), rates
    "33x33-os16": ((33, 33), (6, 12, 18)),
    "33x33-os8-rates": ((33, 33), (12, 24, 36)),
    "64x128-os16-rates": ((64, 128), (6, 12, 18)),
    "64x128-os8": ((64, 128), (12, 24, 36)),
}


def five_branches(x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], rates: Sequence[int]) -> Tensor:
    """DeepLabV3's module with batch norms folded, as its users run it."""
    parts = [conv2d(x, weights[0], biases[0]).relu_()]
    for weight, bias, rate in zip(weights[1:-1], biases[1:-1], rates, strict=True):
        parts.append(conv2d(x, weight, bias, padding=rate, dilation=rate).relu_())
    mean = x.mean((2, 3), keepdim=True)
    parts.append(conv2d(mean, weights[-1], biases[-1]).relu_().expand_as(parts[0]))
    return torch.cat(parts, 1)


def measure(case: str, arguments: argparse.Namespace) -> dict[str, object]:
    (size, rates), device = CASES[case], arguments.device
    drawn = [tensors(arguments.channels, size, kernel, device) for kernel in (1, 3, 3, 3, 1)]
    x, weights, biases = drawn[0][0], [d[1] for d in drawn], [d[2] for d in drawn]
    wanted = five_branches(x.double(), [w.double() for w in weights], [b.double() for b in biases], rates)
    dilations = (1, *rates)
    methods: dict[str, Method] = {}
    work = torch.float16 if device == "cuda" else torch.float32
    for layout, memory_format in LAYOUTS.items():
        laid_out = [w.to(work, memory_format=memory_format) for w in weights]
        methods[f"torch {layout}"] = partial(
            five_branches, x.to(work, memory_format=memory_format), laid_out, [b.to(work) for b in biases], rates
        )
    nhwc = x.contiguous(memory_format=torch.channels_last)
    eight, x_scale = quantized(nhwc)
    pairs = [quantize_weight(weight) for weight in weights]
    eights, scales = [pack_weight(w) for w, _ in pairs], [scale * x_scale for _, scale in pairs]
    if device == "cuda":
        methods["torch compiled nhwc"] = partial(compiled(five_branches), *methods["torch nhwc"].args)  # type: ignore[attr-defined]
        methods["edgeseg f16"] = partial(aspp, nhwc.half(), [pack_weight(w.half()) for w in weights], biases, dilations)
        methods["edgeseg int8"] = partial(aspp, eight, eights, biases, dilations, scales=scales, out_dtype="float16")
    else:
        packed = [pack_weight(w) for w in weights]
        methods["edgeseg f32 torch"] = partial(aspp, nhwc, packed, biases, dilations)
        arrays = [pack_weight(w.numpy()) for w in weights], [b.numpy() for b in biases]
        methods["edgeseg f32 own"] = partial(aspp, nhwc.numpy(), *arrays, dilations, threads=arguments.threads)
        methods["edgeseg bf16 torch"] = partial(
            aspp, nhwc.bfloat16(), [w.bfloat16() for w in packed], biases, dilations
        )
        methods["edgeseg int8"] = partial(aspp, eight, eights, biases, dilations, scales=scales)
    for name, method in methods.items():
        result = method()
        y = result if isinstance(result, Tensor) else torch.from_numpy(result)
        check("f16" if device == "cuda" and "int8" not in name else name, y, wanted)
    shares = [inside(*size, rate) for rate in rates]
    macs = (1 + 9 * sum(shares)) * arguments.channels * OUTPUTS * size[0] * size[1]
    described = {"case": case, "rates": list(rates), "channels": arguments.channels, "inside": sum(shares) / len(rates)}
    return described | row_of(methods, macs, arguments)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_conv_arguments(parser, CASES)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.backends.cudnn.benchmark = True
    kernels.load()
    rows = [measure(case, arguments) for case in arguments.cases]
    print(table(rows, "rates"))
    write(arguments.json, arguments.device, arguments.threads, rows)


if __name__ == "__main__":
    main()
