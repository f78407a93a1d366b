"""Put a trained checkpoint into the package: its weights, and the INT8 scales of its graph with and without rewrites.

python benchmarks/training/ship_checkpoint.py runs/camvid/best.safetensors --data CAMVID
"""

import argparse
import shutil
from pathlib import Path

from edgeseg.calibration import calibrate
from edgeseg.datasets import calibration_images
from edgeseg.images import load_image
from edgeseg.models.bundled import ASSETS, BUNDLED
from edgeseg.progress import RichProgress
from edgeseg.rewrites import rewrite
from edgeseg.sources import network_from_name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="the data set; its training images are used")
    parser.add_argument("--name", choices=BUNDLED, default="segformer-b0-camvid")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--method", choices=("max", "percentile", "entropy", "mse"), default="percentile")
    args = parser.parse_args()

    bundled = BUNDLED[args.name]
    shutil.copyfile(args.weights, ASSETS / bundled.file)
    network = network_from_name(bundled.model, args.name, None, None, 1)
    paths = calibration_images(args.data)
    images = [load_image(path) for path in paths[:: max(1, len(paths) // args.images)][: args.images]]
    graphs = {bundled.scales_file: rewrite(network.onnx)[0], bundled.plain_scales_file: network.onnx}
    for file, model in graphs.items():
        with RichProgress().task(file, len(images)) as advance:
            scales = calibrate(
                model,
                (network.preprocess(image) for image in images),
                method=args.method,
                preprocess=network.preprocess.to_json(),
                source_sha256=network.source_sha256,
                progress=advance,
            )
        scales.save(ASSETS / file)
        print(f"{ASSETS / file}: {len(scales.scales)} places from {scales.image_count} images")


if __name__ == "__main__":
    main()
