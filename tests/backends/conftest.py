"""The networks, exported once for all backends, each when first asked for."""

from copy import deepcopy
from functools import cached_property
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from .networks import HalfInside, QuantizedNetwork, export, random_segformer


class Networks:
    def __init__(self, folder: Path):
        self._folder = folder

    @cached_property
    def module(self) -> nn.Module:
        """FP32, in eval mode."""
        return random_segformer()

    @cached_property
    def fp32(self) -> Path:
        return export(self.module, self._folder / "fp32.onnx")

    @cached_property
    def dynamic(self) -> Path:
        """FP32, any batch."""
        return export(self.module, self._folder / "dynamic.onnx", dynamic_batch=True)

    @cached_property
    def fp16(self) -> Path:
        return export(HalfInside(deepcopy(self.module).half()), self._folder / "fp16.onnx")

    @cached_property
    def quantized(self) -> QuantizedNetwork:
        rng = np.random.default_rng(3)
        weights = rng.choice([-1, 1], (8, 48)) * rng.integers(100, 128, (8, 48))
        return QuantizedNetwork(weights.astype(np.int8))

    @cached_property
    def int8(self) -> Path:
        return self.quantized.save(self._folder / "int8.onnx")

    @cached_property
    def dynamic_int8(self) -> Path:
        return self.quantized.save(self._folder / "dynamic_int8.onnx", dynamic_batch=True)

    def logits(self, images: np.ndarray) -> np.ndarray:
        """torch's, which every backend is held against."""
        with torch.inference_mode():
            return self.module(torch.from_numpy(images)).numpy()


@pytest.fixture(scope="session")
def networks(tmp_path_factory) -> Networks:
    return Networks(tmp_path_factory.mktemp("networks"))
