"""Image array to label array, everything included: edgeseg against what people run today, side by side in one run.

    python benchmarks/end_to_end/bench_pipeline.py --output benchmarks/results/pipeline.json

One SegFormer with one set of weights (random, with the biases and statistics that a trained network has) in every
system. Baselines: `transformers` eager and compiled (model, resize, argmax), and ONNX Runtime and OpenVINO running the
unmodified network with resize and argmax in its graph. Runs are interleaved; medians and ratios are what counts.
"""

import argparse
import json
import logging
import platform
import sys
import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import edgeseg
from edgeseg.backends import BACKENDS
from edgeseg.doctor import examine
from edgeseg.preprocess import Preprocess
from edgeseg.samples import sample_images
from edgeseg.timing import interleave

System = Callable[[np.ndarray], np.ndarray]  # (H, W, 3) uint8 -> (H, W) integer labels
DEPTHS = {"b0": [2, 2, 2, 2], "b1": [2, 2, 2, 2], "b2": [3, 4, 6, 3], "b3": [3, 4, 18, 3]}


def main() -> None:
    args = parse_arguments()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    height, width = args.size
    image = np.asarray(resized(sample_images()[0][1], height, width))
    with tempfile.TemporaryDirectory() as folder:
        network = reference_network(args.variant, args.classes)
        systems = {**baselines(network, args, Path(folder)), **ours(network, args, Path(folder))}
        labels = {name: np.asarray(system(image)).astype(np.int64) for name, system in systems.items()}
        times = interleave({n: partial(s, image) for n, s in systems.items()}, args.repeats)
    reference = labels["transformers eager"]
    rows = [
        {
            "system": name,
            "median_ms": round(float(np.median(t)), 2),
            "p25_ms": round(float(np.percentile(t, 25)), 2),
            "p75_ms": round(float(np.percentile(t, 75)), 2),
            "label_agreement": float((labels[name] == reference).mean()),
        }
        for name, t in times.items()
    ]
    report = {"environment": environment(), "arguments": vars(args) | {"output": str(args.output)}, "rows": rows}
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(report, indent=2, default=str) + "\n")
    show(rows)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", choices=DEPTHS, default="b0")
    parser.add_argument("--size", type=int, nargs=2, default=(512, 512), metavar=("H", "W"))
    parser.add_argument("--classes", type=int, default=150)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--compile", action="store_true", help="also torch.compile (minutes of compilation)")
    parser.add_argument("--output", type=Path)
    return parser.parse_args()


def resized(image: np.ndarray, height: int, width: int):
    from PIL import Image

    return Image.fromarray(image).resize((width, height))


def reference_network(variant: str, classes: int) -> torch.nn.Module:
    """transformers' SegFormer with every bias and statistic filled, as a trained network has them."""
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    small = variant == "b0"
    config = SegformerConfig(
        depths=DEPTHS[variant],
        hidden_sizes=[32, 64, 160, 256] if small else [64, 128, 320, 512],
        decoder_hidden_size=256 if variant in ("b0", "b1") else 768,
        num_labels=classes,
    )
    torch.manual_seed(0)
    network = SegformerForSemanticSegmentation(config).eval()
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if name.endswith(("bias", "running_mean")):
                tensor.normal_(std=0.1)
            elif name.endswith("running_var"):
                tensor.uniform_(0.5, 2)
            elif tensor.ndim > 1:
                tensor.normal_(std=tensor[0].numel() ** -0.5)
    return network


class WithTail(torch.nn.Module):
    """Network, bilinear resize and argmax, as people put it into one graph."""

    def __init__(self, network: torch.nn.Module, size: tuple[int, int]):
        super().__init__()
        self.network = network
        self.size = tuple(size)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits = self.network(images).logits
        return torch.nn.functional.interpolate(logits, self.size, mode="bilinear", align_corners=False).argmax(1)


def baselines(network: torch.nn.Module, args: argparse.Namespace, folder: Path) -> dict[str, System]:
    import onnxruntime
    import openvino

    size = tuple(args.size)
    preprocess = Preprocess(size)
    whole = WithTail(network, size).eval()
    systems: dict[str, System] = {}

    def in_torch(module) -> System:
        @torch.inference_mode()
        def run(image: np.ndarray) -> np.ndarray:
            return module(torch.from_numpy(preprocess(image)))[0].numpy()

        return run

    systems["transformers eager"] = in_torch(whole)
    if args.compile:
        systems["transformers torch.compile"] = in_torch(torch.compile(whole))

    path = folder / "unmodified.onnx"
    example = torch.zeros(1, 3, *size)
    torch.onnx.export(whole, (example,), path, opset_version=18, dynamo=True, external_data=False, verbose=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    systems["ONNX Runtime, unmodified"] = lambda image: session.run(None, {name: preprocess(image)})[0][0]
    core = openvino.Core()
    for label, options in {
        "OpenVINO, unmodified": {},
        "OpenVINO f32, unmodified": {"INFERENCE_PRECISION_HINT": "f32"},
    }.items():
        compiled = core.compile_model(path, "CPU", {"PERFORMANCE_HINT": "LATENCY", **options})
        systems[label] = lambda image, run=compiled: run(preprocess(image))[0][0]
    return systems


def ours(network: torch.nn.Module, args: argparse.Namespace, folder: Path) -> dict[str, System]:
    network.save_pretrained(folder / "weights")
    systems: dict[str, System] = {}
    for backend in ("onnxruntime", "openvino"):
        if BACKENDS[backend].probe().can_run:
            bundle = edgeseg.build(
                model=f"segformer-{args.variant}",
                weights=str(folder / "weights"),
                size=tuple(args.size),
                backend=backend,
                output=folder / backend,
            )
            systems[f"edgeseg {backend}"] = edgeseg.load(bundle.path)
    return systems


def environment() -> dict:
    import onnxruntime
    import openvino
    import transformers

    return {
        "devices": examine()["devices"],
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "torch": torch.__version__,
        "torch_threads": torch.get_num_threads(),
        "transformers": transformers.__version__,
        "onnxruntime": onnxruntime.__version__,
        "openvino": openvino.__version__,
    }


def show(rows: list[dict]) -> None:
    ours = [row for row in rows if row["system"].startswith("edgeseg")]
    table = Table("system", "median ms", "p25 - p75", "same labels", *(f"÷ {row['system']}" for row in ours))
    for row in rows:
        ratios = (f"{row['median_ms'] / own['median_ms']:.2f}" for own in ours)
        spread = f"{row['p25_ms']} - {row['p75_ms']}"
        table.add_row(row["system"], str(row["median_ms"]), spread, f"{row['label_agreement']:.4%}", *ratios)
    Console().print(table)


if __name__ == "__main__":
    main()
