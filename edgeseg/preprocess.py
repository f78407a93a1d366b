"""Image -> network input: resize, normalise, NCHW. Calibration, the gate, evaluation and running all use this one."""

from dataclasses import asdict, dataclass

import numpy as np

from edgeseg.ops.preprocess import preprocess

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocess:
    """How an image becomes a network's input; saved in the bundle."""

    size: tuple[int, int]  # (height, width) of the network's input
    mean: tuple[float, float, float] = IMAGENET_MEAN  # of R, G, B in 0..1
    std: tuple[float, float, float] = IMAGENET_STD

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 RGB -> (1, 3, height, width) float32, (x / 255 - mean) / std.

        The resize is Pillow's bilinear, to the bit: half-pixel centres, antialiased when it shrinks, columns before
        rows. The identity where the size is right already.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(f"an image must be (H, W, 3) uint8 RGB, got {image.shape} {image.dtype}")
        return preprocess(image, self.size, self.mean, self.std)

    def to_json(self) -> dict:
        return {
            **asdict(self),
            "layout": "NCHW",
            "color": "RGB",
            "resize": "bilinear, half-pixel, antialiased (Pillow)",
        }

    @classmethod
    def from_json(cls, data: dict) -> "Preprocess":
        return cls(tuple(data["size"]), tuple(data["mean"]), tuple(data["std"]))
