"""Hand-made graphs and how two of them are compared. Expected values come from ONNX Runtime without optimisations, or
from torch: neither shares code with the rules."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import NodeProto, TensorProto, helper, numpy_helper
from torch import nn
from torch.nn.functional import interpolate

from edgeseg.counting import macs_of_onnx
from edgeseg.rewrites import rewrite
from edgeseg.rewrites.graph import Graph

Shape = Sequence[int | str]


def node(op_type: str, inputs: str, output: str, **attributes) -> NodeProto:
    """node("Conv", "x w b", "y"): names separated by spaces, "-" for an input that is left out."""
    names = ["" if name == "-" else name for name in inputs.split()]
    return helper.make_node(op_type, names, output.split(), name=f"{output}_node", **attributes)


def model(
    nodes: Sequence[NodeProto],
    inputs: Mapping[str, Shape],
    outputs: Sequence[str],
    weights: Mapping[str, np.ndarray],
    opset: int = 18,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    made = onnx.shape_inference.infer_shapes(made)
    onnx.checker.check_model(made, full_check=True)
    return made


def weights_for(rng: np.random.Generator, **shapes: Sequence[int]) -> dict[str, np.ndarray]:
    """Random float32 weights, none of them zero on average: zero biases would hide errors."""
    return {name: (rng.standard_normal(shape) + 0.3).astype(np.float32) for name, shape in shapes.items()}


def norm_weights(rng: np.random.Generator, channels: int, prefix: str = "bn") -> dict[str, np.ndarray]:
    """gamma, beta, mean, variance, far from the identity."""
    return {
        f"{prefix}_gamma": rng.uniform(-2, 2, channels).astype(np.float32),
        f"{prefix}_beta": rng.standard_normal(channels).astype(np.float32),
        f"{prefix}_mean": rng.standard_normal(channels).astype(np.float32),
        f"{prefix}_variance": rng.uniform(0.1, 3, channels).astype(np.float32),
    }


NORM_INPUTS = "bn_gamma bn_beta bn_mean bn_variance"


def run(model: onnx.ModelProto, rng_seed: int = 0, batch: int = 2) -> list[np.ndarray]:
    """All outputs for random inputs, computed by ONNX Runtime node by node, without its own fusions."""
    rng = np.random.default_rng(rng_seed)
    feeds = {}
    for value in model.graph.input:
        shape = [dim.dim_value if dim.HasField("dim_value") else batch for dim in value.type.tensor_type.shape.dim]
        feeds[value.name] = rng.standard_normal(shape).astype(np.float32)
    return onnxruntime_session(model).run(None, feeds)


def onnxruntime_session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def apply(rule: Callable[[Graph], int], before: onnx.ModelProto) -> tuple[int, onnx.ModelProto]:
    """What a rule says it did, and the graph after it, checked to be valid and to compute the same."""
    graph = Graph(before)
    count = rule(graph)
    after = graph.to_proto()
    onnx.checker.check_model(after, full_check=True)
    assert [value.name for value in after.graph.output] == [value.name for value in before.graph.output]
    for expected, result in zip(run(before), run(after), strict=True):
        assert_same(expected, result)
    return count, after


def assert_same(expected: np.ndarray, result: np.ndarray, tolerance: float = 1e-5) -> None:
    """Within this share of the largest value: what a sum in another order may differ by in float32."""
    assert result.shape == expected.shape
    difference, largest = np.abs(result - expected).max(), np.abs(expected).max()
    assert largest > 0.1, "the test's own data must be meaningful"
    assert difference <= tolerance * largest, f"differs by {difference:.3g} where values reach {largest:.3g}"


def check_rewrite(before: onnx.ModelProto, size: tuple[int, int]) -> tuple[onnx.ModelProto, dict[str, int]]:
    """Rewrites, and checks what must hold for every network; returns how often each rule was applied that was."""
    as_it_came = before.SerializeToString(deterministic=True)
    after, reports = rewrite(before)
    assert before.SerializeToString(deterministic=True) == as_it_came
    onnx.checker.check_model(after, full_check=True)
    for seed in (0, 1):
        (expected,), (logits,) = run(before, seed), run(after, seed)
        assert_same(expected, logits)
        assert np.array_equal(labels_of(expected, size), labels_of(logits, size))
    assert [report.macs_after for report in reports[:-1]] == [report.macs_before for report in reports[1:]]
    assert reports[-1].macs_after == macs_of_onnx(after, {"batch": 1}) < reports[0].macs_before
    again, nothing = rewrite(after)
    assert again == after
    assert not any(report.applied for report in nothing)
    return after, {report.name: report.applied for report in reports if report.applied}


def labels_of(logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return interpolate(torch.from_numpy(logits), size, mode="bilinear", align_corners=False).argmax(1).numpy()


def operators(model: onnx.ModelProto) -> list[str]:
    return sorted(item.op_type for item in model.graph.node)


def randomise(module: nn.Module, seed: int = 0) -> nn.Module:
    """Every bias, norm weight and running statistic random and far from its initial value."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.dim() == 1:
                start = 1.0 if name.endswith("weight") else 0.0
                parameter.copy_(start + 0.2 * torch.randn(parameter.shape, generator=generator))
        for name, buffer in module.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(0.3 * torch.randn(buffer.shape, generator=generator))
            if name.endswith("running_var"):
                buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))
    return module.eval()
