"""What an engine's layer list says about reduced precision: how many layers only move or requantize data."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_REFORMAT = re.compile(r"reorder|reformat|copy|^convert$|^cast$", re.IGNORECASE)
_PRODUCT = re.compile(r"conv(?!ert)|gemm|fullyconnected|matmul|correlation|mha", re.IGNORECASE)
_ROUNDING = ("QuantizeLinear", "DequantizeLinear")


@dataclass(frozen=True)
class LayerCounts:
    """Layers of an engine."""

    layers: int
    reformats: int  # that only change layout or type
    unfused_qdq: int  # that do nothing but Q or DQ, or dequantize a weight in front of its product


def count_layers(layers: Sequence[dict[str, Any]], onnx_path: Path) -> LayerCounts:
    """Counts of `Session.layers()`, or of the list in a build log.

    Args:
        layers: "type", "precision" and "onnx" (names of ONNX nodes, separated by spaces or commas) of each.
        onnx_path: the ONNX that the engine was made from; it says which nodes are Q/DQ.
    """
    import onnx

    model = onnx.load(onnx_path, load_external_data=False)
    rounding = {node.name for node in model.graph.node if node.op_type in _ROUNDING}
    aside = {node.name for node in model.graph.node if node.op_type in ("Cast", "Conv", "MatMul", "Gemm")}
    reformats = unfused = 0
    for layer in layers:
        names = {name for name in re.split(r"[ ,]+", layer["onnx"]) if name}
        alone = bool(names & rounding) and names <= rounding | aside and not _PRODUCT.search(layer["type"])
        unfused += alone
        reformats += not alone and bool(_REFORMAT.search(layer["type"]))
    return LayerCounts(len(layers), reformats, unfused)
