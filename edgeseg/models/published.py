"""What publications print about the networks, and under which licence their checkpoints are. Needs no torch."""

from __future__ import annotations

from edgeseg.models.entry import PublishedResult

PAPER = "SegFormer paper (NeurIPS 2021), main table; FPS: batch 1, one V100, PyTorch"
MMSEG = "mmsegmentation 1.2.2, model zoo"
TORCHVISION = "torchvision, segmentation weights (COCO train, VOC labels)"

LICENCES = {
    "mmsegmentation": "Apache-2.0",
    "torchvision": "BSD-3-Clause",
    "pytorch-fcn": "MIT (the code's); the weights are those of the FCN paper's authors",
    "deeplab-pytorch": "MIT",
    "gscnn": "CC BY-NC-SA 4.0 (non-commercial)",
    "dynamic-routing": "Apache-2.0",
    "nvlabs": "NVIDIA Source Code License (non-commercial)",
    "huggingface": "the model card's; nvidia/segformer-*: NVIDIA Source Code License (non-commercial)",
}
"""Of published checkpoints, by format. The data sets that they were trained on have terms of their own."""

Figures = tuple[float | None, float | None, float | None]


def results(ade20k: Figures | None, cityscapes: Figures | None, source: str = PAPER) -> tuple[PublishedResult, ...]:
    """(mIoU, GFLOPs, FPS) at ADE20K's 512x512 and Cityscapes' 1024x2048; None where nothing is printed."""
    rows = (("ade20k", (512, 512), ade20k), ("cityscapes", (1024, 2048), cityscapes))
    return tuple(PublishedResult(dataset, size, *row, source) for dataset, size, row in rows if row)


SEGFORMER_RESULTS: dict[str, tuple[PublishedResult, ...]] = {
    "segformer-b0": (
        *results((37.4, 8.4, 50.5), (76.2, 125.5, 15.2)),
        PublishedResult("cityscapes", (768, 1536), 75.3, 51.7, 26.3, PAPER),
        PublishedResult("cityscapes", (640, 1280), 73.7, 31.5, 37.1, PAPER),
        PublishedResult("cityscapes", (512, 1024), 71.9, 17.7, 47.6, PAPER),
    ),
    "segformer-b4": results((51.1, 95.7, 15.4), (83.8, 1240.6, 3.0)),
    "segformer-b5": (
        PublishedResult("ade20k", (640, 640), 51.8, 183.3, 9.8, PAPER),
        PublishedResult("cityscapes", (1024, 2048), 84.0, 1447.6, 2.5, PAPER),
    ),
    "segformer-b0-mmseg": results((37.41, None, None), (76.54, None, None), MMSEG),
    "segformer-b1-mmseg": results((40.97, None, None), (78.56, None, None), MMSEG),
    "segformer-b2-mmseg": results((45.58, None, None), (81.08, None, None), MMSEG),
    "segformer-b3-mmseg": results((47.82, None, None), (81.94, None, None), MMSEG),
    "segformer-b4-mmseg": results((48.46, None, None), (81.89, None, None), MMSEG),
    "segformer-b5-mmseg": results((49.13, None, None), (82.25, None, None), MMSEG),
}
