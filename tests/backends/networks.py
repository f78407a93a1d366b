"""Small networks as ONNX, with references that no backend has a part in."""

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from edgeseg.models import create_model

SIZE = (64, 96)
NUM_CLASSES = 11
RECIPE = {"name": "segformer-b0", "num_classes": NUM_CLASSES, "norm_eps": {"block": 1e-5, "embed": 1e-6}}


def random_segformer() -> nn.Module:
    """SegFormer-B0 in which nothing is trivially zero or one: biases and running statistics are drawn as well."""
    from edgeseg.models.segformer import NormEps

    module = create_model("segformer-b0", NUM_CLASSES, norm_eps=NormEps(**RECIPE["norm_eps"])).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        for block in module.modules():
            if isinstance(block, nn.BatchNorm2d):
                block.running_mean.copy_(torch.randn(block.num_features, generator=generator))
                block.running_var.copy_(torch.rand(block.num_features, generator=generator) + 0.5)
    return module


class HalfInside(nn.Module):
    """Float32 images and logits around a float16 network."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module

    def forward(self, images: Tensor) -> Tensor:
        return self.module(images.half()).float()


def export(module: nn.Module, path: Path, *, dynamic_batch: bool = False) -> Path:
    """By torch's older exporter, which takes a second where the newer takes ten."""
    axes = {"images": {0: "N"}, "logits": {0: "N"}} if dynamic_batch else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(),
            (torch.zeros(1, 3, *SIZE),),
            str(path),
            input_names=["images"],
            output_names=["logits"],
            opset_version=17,
            dynamic_axes=axes,
            dynamo=False,
        )
    return path


@dataclass(frozen=True)
class QuantizedNetwork:
    """A linear layer on 4x4 patches, between Q/DQ, whose partial sums overflow 16 bits: saturating arithmetic shows.

    Scales are powers of two, so that the reference is exact integer arithmetic.
    """

    weights: np.ndarray  # (C, 3 * 16) int8, all near +-127
    scale: float = 2.0**-4
    weight_scale: float = 2.0**-8

    def reference(self, images: np.ndarray) -> np.ndarray:
        """(N, 3, h, w) float32 -> (N, C, h / 4, w / 4) float32, through int64."""
        n, _, height, width = images.shape
        patches = images.reshape(n, 3, height // 4, 4, width // 4, 4).transpose(0, 1, 3, 5, 2, 4)
        integers = np.clip(np.rint(patches.reshape(n, 48, height // 4, width // 4) / self.scale), -128, 127)
        sums = np.einsum("ck,nkyx->ncyx", self.weights.astype(np.int64), integers.astype(np.int64))
        return (sums * (self.scale * self.weight_scale)).astype(np.float32)

    def save(self, path: Path, *, dynamic_batch: bool = False) -> Path:
        """As ONNX: patches as tokens, Q/DQ, MatMul with Q/DQ weights, map."""
        height, width = SIZE[0] // 4, SIZE[1] // 4
        batch = "N" if dynamic_batch else 1
        constants = {
            "weights": self.weights.T.astype(np.float32) * np.float32(self.weight_scale),
            "scale": np.float32(self.scale),
            "zero": np.int8(0),
            "weight_scale": np.full(len(self.weights), self.weight_scale, np.float32),
            "weight_zero": np.zeros(len(self.weights), np.int8),
            "split": np.array([-1, 3, height, 4, width, 4]),
            "join": np.array([-1, height * width, 48]),
            "map": np.array([-1, len(self.weights), height, width]),
        }
        nodes = [
            helper.make_node("Reshape", ["images", "split"], ["blocks"]),
            helper.make_node("Transpose", ["blocks"], ["ordered"], perm=[0, 2, 4, 1, 3, 5]),
            helper.make_node("Reshape", ["ordered", "join"], ["tokens"]),
            helper.make_node("QuantizeLinear", ["tokens", "scale", "zero"], ["tokens_q"]),
            helper.make_node("DequantizeLinear", ["tokens_q", "scale", "zero"], ["tokens_dq"]),
            helper.make_node("QuantizeLinear", ["weights", "weight_scale", "weight_zero"], ["weights_q"], axis=1),
            helper.make_node("DequantizeLinear", ["weights_q", "weight_scale", "weight_zero"], ["weights_dq"], axis=1),
            helper.make_node("MatMul", ["tokens_dq", "weights_dq"], ["scores"]),
            helper.make_node("Transpose", ["scores"], ["planes"], perm=[0, 2, 1]),
            helper.make_node("Reshape", ["planes", "map"], ["logits"]),
        ]
        graph = helper.make_graph(
            nodes,
            "quantized",
            [helper.make_tensor_value_info("images", TensorProto.FLOAT, [batch, 3, *SIZE])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, len(self.weights), height, width])],
            [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        onnx.checker.check_model(model)
        path.write_bytes(model.SerializeToString())
        return path


def random_images(batch: int = 1, seed: int = 0) -> np.ndarray:
    """(N, 3, h, w) float32, as normalised photographs are distributed."""
    return np.random.default_rng(seed).standard_normal((batch, 3, *SIZE)).astype(np.float32)
