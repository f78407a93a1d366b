"""Activation ranges from real images: the float ONNX in ONNX Runtime, one observer for each place, one pass."""

import hashlib
import importlib.metadata
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from edgeseg.calibration.observers import Method, make_observer
from edgeseg.calibration.scales import Scale, Scales
from edgeseg.errors import CalibrationError

if TYPE_CHECKING:
    import onnx

FEW_IMAGES = 8
RECORDED_PEAK = 1024.0  # nodes above it are written down for FP16, whose safe limit is a multiple of this
NEIGHBOUR_CORRELATION = 0.25  # of adjacent pixels: 0 in white noise, above 0.8 in nearly every photograph
_PATIENCE = 8  # images without a picture in them, after which it is no use going on


def calibrate(
    model: "onnx.ModelProto",
    batches: Iterable[np.ndarray],
    *,
    method: Method = "percentile",
    percentile: float = 99.99,
    preprocess: Mapping[str, object] | None = None,
    source_sha256: str = "",
    migration: Mapping[str, tuple[int, ...]] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Scales:
    """The INT8 range of every activation that `edgeseg.precision.int8.quantize` will quantize.

    Args:
        model: float32 ONNX with one input (N, 3, H, W); rewritten already if the build is to be.
        batches: (N, 3, h, w) float32 network inputs made of real images, read once; 64 images are plenty.
        method: how a range follows from the values seen (see `observers`).
        percentile: of |x|, for the method of that name.
        preprocess: Preprocess.to_json() of the images; later uses must have the same.
        source_sha256: of the checkpoint or ONNX file the model came from; later uses must have the same.
        migration: exponents of `calibration.migration`; the ranges are those of the network after it.
        progress: called with the number of images done since the last call.

    Raises:
        ValueError: unknown method, a batch of the wrong shape, a network without weights to quantize.
        CalibrationError: no images; noise or constant images; activations that are not finite.
    """
    from edgeseg.calibration.migration import migrated
    from edgeseg.precision.placement import find_placement
    from edgeseg.precision.ranges import Runner, fitting, node_keys

    model = migrated(model, migration or {})
    make_observer(method, percentile)  # an unknown name fails before the network runs
    places = find_placement(model).tensors(model)
    if not places:
        raise ValueError(
            "the network has no Conv, ConvTranspose, Gemm or MatMul with float32 weights: nothing to quantize"
        )
    observers = {tensor: make_observer(method, percentile) for tensor in dict.fromkeys(places.values())}
    runner = Runner(model, list(observers), peaks=True)
    guard = PictureGuard()
    digest = hashlib.sha256()
    size = (0, 0)
    for images, count in fitting(batches, runner.input_shape):
        guard.see(images[0])
        digest.update(str(images.shape[1:]).encode() + images[0].tobytes())
        size = (images.shape[2], images.shape[3])
        for tensor, values in runner.run(images):
            try:
                observers[tensor].observe(values)
            except FloatingPointError as error:
                raise CalibrationError(
                    f"the float network itself gives {error} in {tensor} on calibration image {guard.images}; "
                    "check the weights and the preprocessing before lowering the precision"
                ) from error
        if progress is not None:
            progress(count)
    warnings = guard.finish()
    ranges = {tensor: Scale.from_amax(observer.amax()) for tensor, observer in observers.items()}
    keys = node_keys(model)
    loud = {name: peak for name, peak in runner.peaks.items() if peak > RECORDED_PEAK and name in keys}
    return Scales(
        scales={key: ranges[tensor] for key, tensor in places.items()},
        peaks={keys[name]: peak for name, peak in loud.items()},
        method=f"percentile {percentile:g}" if method == "percentile" else method,
        image_count=guard.images,
        images_sha256=digest.hexdigest(),
        preprocess=dict(preprocess or {}),
        source_sha256=source_sha256,
        input_size=size,
        edgeseg=importlib.metadata.version("edgeseg"),
        warnings=tuple(warnings),
        migration=dict(migration or {}),
    )


class PictureGuard:
    """Tells pictures from what people calibrate on by mistake: nothing, zeros, random numbers.

    Ranges from such data look fine and give an engine that is wrong on every real image.
    """

    def __init__(self) -> None:
        self.images = 0
        self._constant = 0
        self._noise = 0

    def see(self, image: np.ndarray) -> None:
        """Look at one (C, h, w) network input.

        Raises:
            CalibrationError: not one picture among the first images, or values that are not finite.
        """
        self.images += 1
        if not np.isfinite(image).all():
            raise CalibrationError(
                f"calibration image {self.images} holds NaN or infinity after preprocessing; check mean and std"
            )
        kind = kind_of_image(image)
        self._constant += kind == "constant"
        self._noise += kind == "noise"
        if self._constant + self._noise == self.images == _PATIENCE:
            self._refuse()

    def finish(self) -> list[str]:
        """What to tell a reader of the scales; CalibrationError if most images were not pictures."""
        if self.images == 0:
            raise CalibrationError(
                "no calibration image came; INT8 ranges need real images like those the network will see, about 64"
            )
        bad = self._constant + self._noise
        if 2 * bad > self.images:
            self._refuse()
        warnings = []
        if self.images < FEW_IMAGES:
            warnings.append(f"calibrated on {self.images} images only; 64 varied ones give steadier INT8 ranges")
        if bad:
            warnings.append(f"{bad} of {self.images} calibration images are constant or look like noise")
        return warnings

    def _refuse(self) -> None:
        raise CalibrationError(
            f"of {self.images} calibration images {self._constant} are constant and {self._noise} are random noise; "
            "ranges from such data are wrong on every real image. Give photographs like those the network will see"
        )


def kind_of_image(image: np.ndarray) -> str:
    """ "picture", "constant" or "noise" for a (C, h, w) image.

    Neighbouring pixels of a picture are alike: their correlation is near 1, and that of independent numbers is 0
    (within 1 / sqrt(pixels)). The better of both directions counts, so that a picture of stripes is a picture.
    """
    image = np.asarray(image, dtype=np.float64)
    channels = image - image.mean((1, 2), keepdims=True)
    variance = float(np.mean(channels**2))
    if variance <= 1e-10 * max(float(np.mean(image**2)), 1e-10):
        return "constant"
    pairs = [(channels[:, :, 1:], channels[:, :, :-1]), (channels[:, 1:], channels[:, :-1])]
    correlations = [float(np.mean(a * b)) / variance for a, b in pairs if a.size]
    return "picture" if max(correlations, default=1.0) > NEIGHBOUR_CORRELATION else "noise"
