"""One engine on this machine: builds SegFormer-B0, lets the gate judge it here, times it; prints one line of JSON.

python benchmarks/gpu/engine.py --backend tensorrt-rtx --precision int8 --size 512x1024
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np

import edgeseg
from edgeseg.backends import BACKENDS
from edgeseg.errors import EdgesegError
from edgeseg.samples import sample_images


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", choices=BACKENDS, required=True)
    parser.add_argument("--precision", choices=("fp32", "fp16", "int8"), required=True)
    parser.add_argument("--size", required=True, metavar="HxW")
    parser.add_argument("--repeats", type=int, default=200)
    arguments = parser.parse_args()
    status = BACKENDS[arguments.backend].probe()
    if not status.can_run:
        print(json.dumps({"error": status.reason}))
        return
    try:
        print(json.dumps(measure(arguments.backend, arguments.precision, arguments.size, arguments.repeats)))
    except EdgesegError as error:
        print(json.dumps({"error": str(error)}))


def measure(backend: str, precision: str, size: str, repeats: int) -> dict:
    """The gate's verdict on this device, and the medians of each stage in milliseconds."""
    height, width = map(int, size.split("x"))
    image = sample_images()[0][1]
    with tempfile.TemporaryDirectory() as folder:
        bundle = edgeseg.build(
            model="segformer-b0",
            size=(height, width),
            precision=precision,
            backend=backend,
            output=Path(folder) / "bundle",
        )
        with edgeseg.load(bundle.path) as segmenter:
            for _ in range(20):
                segmenter(image)
            times = []
            begin = time.perf_counter()
            for _ in range(repeats):
                segmenter(image)
                assert segmenter.times
                times.append(list(vars(segmenter.times).values()))
            seconds = time.perf_counter() - begin
        verification = bundle.verification  # before the folder goes
    stages = dict(zip(("preprocess", "engine", "tail"), np.median(times, axis=0).round(3).tolist(), strict=True))
    return {
        "stages_ms": stages,
        "fps": round(repeats / seconds, 1),
        "engine_bytes": bundle.engine_bytes,
        "verification": verification,
        "layers": bundle.manifest["engine"]["details"].get("layer_summary"),
    }


if __name__ == "__main__":
    main()
