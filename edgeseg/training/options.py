"""What to train, on what and for how long; the command line's options. Importing this needs no torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Device = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True)
class FinetuneOptions:
    """None stands for a default that depends on the network or the data (see `edgeseg.training.recipe`)."""

    data: Path  # a labelled data set with training and validation splits; for QAT a folder of images does
    output: Path  # the run's folder
    model: str = ""  # a key of MODELS, or the folder of a bundle
    onnx: Path | None = None  # QAT: anyone's network in place of `model`
    qat: bool = False  # quantisation-aware training
    scales: Path | None = None  # QAT: ranges to begin with; a bundle's, the package's or new ones by default
    calibration_images: int = 64  # QAT: for new ones
    backend: str = "auto"  # QAT: of the bundle that is built
    weights: str | None = None  # as `edgeseg build` takes them; "random" trains from scratch
    size: tuple[int, int] | None = None  # (height, width) that the network is meant for; the images' own by default
    crop: tuple[int, int] | None = None  # (height, width) of a training sample
    iterations: int = 4000
    batch: int = 8
    learning_rate: float | None = None
    weight_decay: float = 0.01
    warmup: int = 200  # iterations of linear warm-up
    scale: tuple[float, float] = (0.6, 1.6)  # random enlargement of a sample, smallest and largest
    weight_offset: float = 1.1  # of the class weights; nearer 1: rare classes weigh more
    ema: float = 0.999  # decay of the weights' running mean, which is what is evaluated and saved
    evaluate_every: int = 250  # iterations
    val_images: int | None = None  # so many of the validation images while training; all of them at the end
    save_every: float = 180.0  # seconds between states on disk
    time_limit: float | None = None  # seconds; then the run stops and can be resumed
    threads: int | None = None
    device: Device = "auto"
    seed: int = 0
    resume: bool = False

    def __post_init__(self) -> None:
        if bool(self.model) == bool(self.onnx):
            raise ValueError(f"pass one of --model and --onnx, got {'both' if self.model else 'none'}")
        if not self.qat and (self.onnx or self.scales):
            raise ValueError(f"--{'onnx' if self.onnx else 'scales'} is for quantisation-aware training; add --qat")
        if self.qat and self.crop:
            raise ValueError("--qat trains on whole images at the network's --size; leave out --crop")
        for name in ("iterations", "batch", "evaluate_every", "calibration_images"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(self, name)}")
        for name in ("learning_rate", "time_limit"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"--{name.replace('_', '-')} must be above 0, got {value:g}")
        low, high = self.scale
        if not 0 < low <= high:
            raise ValueError(f"scale must be 0 < smallest <= largest, got {low:g} and {high:g}")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema must be from 0 to below 1, got {self.ema:g}")
        if not self.weight_offset > 1:
            raise ValueError(f"the offset of class weights must be above 1 (they are 1 / ln), got {self.weight_offset}")
