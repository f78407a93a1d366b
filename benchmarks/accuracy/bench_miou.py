"""mIoU, agreement, MACs, size and speed of the shipped network in every precision, on a labelled data set.

    python benchmarks/accuracy/bench_miou.py --data CAMVID --output benchmarks/results/miou.json

Speed is image array to label array, as a multiple of the FP32 network in torch eager (the torch backend, with the same
preprocessing and tail), all of them interleaved in one run.
"""

import argparse
import json
import tempfile
from functools import partial
from pathlib import Path

import numpy as np

import edgeseg
from edgeseg.datasets import open_dataset
from edgeseg.doctor import examine
from edgeseg.evaluation import evaluate
from edgeseg.progress import RichProgress
from edgeseg.timing import interleave

BUILDS = (("torch", "fp32"), *((b, p) for b in ("onnxruntime", "openvino") for p in ("fp32", "fp16", "int8")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()

    rows, segmenters = [], []
    with tempfile.TemporaryDirectory() as folder:
        for backend, precision in BUILDS:
            bundle = edgeseg.build(
                model="segformer-b0",
                precision=precision,
                backend=backend,
                rewrites=backend != "torch",
                output=Path(folder) / f"{backend}-{precision}",
            )
            segmenter = edgeseg.load(bundle.path)
            dataset = open_dataset(args.data, args.split, segmenter.label_set)
            scores = evaluate(segmenter, dataset, progress=RichProgress())
            segmenters.append(segmenter)
            rows.append(
                {
                    "backend": backend,
                    "precision": precision,
                    "miou": scores["miou"],
                    "per_class_iou": scores["per_class_iou"],
                    "gmacs": bundle.manifest["gmacs"]["deployed"],
                    "engine_bytes": bundle.engine_bytes,
                }
            )
        image, _ = dataset[0].load()
        names = [f"{row['backend']}-{row['precision']}" for row in rows]
        systems = {name: partial(segmenter, image) for name, segmenter in zip(names, segmenters, strict=True)}
        for row, times in zip(rows, interleave(systems, args.repeats).values(), strict=True):
            row["median_ms"] = round(float(np.median(times)), 2)
    report = {"environment": examine()["devices"], "images": len(dataset), "split": dataset.split, "rows": rows}
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(report, indent=2) + "\n")
    print(markdown(rows))


def markdown(rows: list[dict]) -> str:
    eager = rows[0]["median_ms"]
    lines = ["| backend | precision | mIoU | GMACs | engine | speed, torch eager = 1 |", "|---|---|---|---|---|---|"]
    for row in rows:
        lines.append(
            f"| {row['backend']} | {row['precision'].upper()} | {100 * row['miou']:.2f} | {row['gmacs']:.2f} "
            f"| {row['engine_bytes'] / 1e6:.1f} MB | {eager / row['median_ms']:.2f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
