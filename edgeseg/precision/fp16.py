"""FP16 written into the ONNX as explicit casts, with the nodes that float16 cannot hold left in float32.

Which those are is measured on real images: float16 ends at 65504, and an engine that overflows gives a wrong mask and
no error. LayerNormalization stays one operation, defined to compute in float32 inside; written out as Pow and
ReduceMean (opset < 17) it overflows at |x| = 256, which the measurement sees as well.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import onnx

from edgeseg.errors import CalibrationError
from edgeseg.precision.casts import FP16_LIMIT, cast_float_to_half, readers_and_maker
from edgeseg.precision.graph import Graph
from edgeseg.precision.ranges import Runner, fitting


@dataclass(frozen=True)
class Fp16Report:
    """What was measured and what was done."""

    peaks: dict[str, float]  # tensor -> max |activation| over the images, in the order of the graph
    kept: tuple[str, ...]  # "Op output" of the nodes that stayed float32: too large, or unknown to float16
    casts: int  # Cast nodes in the graph
    half_nodes: int  # nodes that compute in float16
    image_count: int
    zeroed_weights: int  # nonzero weights too small for float16, now 0
    subnormal_weights: int  # weights below float16's smallest normal number 6.1e-5: kept with fewer digits
    loudest: float  # the largest peak

    @property
    def notes(self) -> tuple[str, ...]:
        """The report in lines, for people."""
        lines = [
            f"FP16: {self.half_nodes} nodes, {self.casts} casts; "
            f"largest activation {self.loudest:.4g} on {self.image_count} images"
        ]
        if self.kept:
            more = f" and {len(self.kept) - 5} more" if len(self.kept) > 5 else ""
            lines.append(f"FP32 kept in {', '.join(self.kept[:5])}{more}")
        if self.zeroed_weights or self.subnormal_weights:
            lines.append(
                f"FP16 weights: {self.zeroed_weights} became 0, {self.subnormal_weights} below 6.1e-5 lost digits"
            )
        return tuple(lines)


def cast_to_fp16(
    model: onnx.ModelProto,
    batches: Iterable[np.ndarray],
    data_max: float = FP16_LIMIT,
    progress: Callable[[int], None] | None = None,
) -> tuple[onnx.ModelProto, Fp16Report]:
    """The network in float16 with float32 input and output.

    Args:
        model: float32 ONNX with one input; not modified.
        batches: (N, 3, h, w) float32 network inputs made of real images, read once; a few are enough.
        data_max: a node that reads or makes a tensor with a larger |x| stays float32; so does one with such a weight.
        progress: called with the number of images done since the last call.

    Raises:
        ValueError: a batch of the wrong shape, data_max out of 0 .. 65504.
        CalibrationError: no images, or activations that are not finite.
        ExportError: a graph whose types cannot be inferred.
    """
    if not 0 < data_max <= 65504:
        raise ValueError(f"data_max must be in 0 .. 65504, float16's largest number, got {data_max}")
    runner = Runner(model, [], peaks=True)
    count = 0
    for images, step in fitting(batches, runner.input_shape):
        for _ in runner.run(images):
            pass  # peaks only
        count += step
        if progress is not None:
            progress(step)
    if count == 0:
        raise CalibrationError("no image came; FP16 needs a few real images to find what float16 cannot hold")
    loud = [name for name, peak in runner.peaks.items() if peak > data_max]
    result, counts = cast_float_to_half(model, keep=readers_and_maker(model, loud))
    graph = Graph(model)
    order = [name for index in graph.order() for name in graph.nodes[index].output if name in runner.peaks]
    report = Fp16Report(
        peaks={name: runner.peaks[name] for name in order},
        kept=counts.float_nodes,
        casts=counts.casts,
        half_nodes=counts.half_nodes,
        image_count=count,
        zeroed_weights=counts.zeroed_weights,
        subnormal_weights=counts.subnormal_weights,
        loudest=max(runner.peaks.values(), default=0.0),
    )
    return result, report
