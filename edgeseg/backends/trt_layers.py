"""The engine's layers as TensorRT-RTX prints them while it builds: the only way to see them without a GPU."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

_LAYER = re.compile(r"Name: (?P<name>.*?), LayerType: (?P<type>[^,]+), Inputs: \[(?P<rest>.*)")
_ONNX = re.compile(r"\[ONNX Layer: ([^\]]+)\]")
_TYPE = re.compile(r"Datatype: (\w+)")
_SYNCHRONISATION = ("signal", "wait")  # between streams; they compute nothing


def read_layers(log: Path) -> dict[str, Any]:
    """What the log's last "Layers:" section holds; {} where there is none (TensorRT prints none).

    Returns:
        "layers": [{"name", "type", "precision", "onnx"}] in the order of execution. "precision" is "Half", or
        "Int8 -> Float" where input and output differ; "onnx" names the nodes that became this layer.
        "layer_summary": {"count", "precisions": {layer type: {precision: how many}}}.
    """
    layers: list[dict[str, Any]] = []
    inside = False
    with log.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.rstrip() == "V Layers:":
                layers, inside = [], True
            elif inside:
                line = line.removeprefix("V ")
                if not line.startswith("Name: "):
                    inside = False
                elif (match := _LAYER.match(line)) and match["type"] not in _SYNCHRONISATION:
                    layers.append(_layer(match))
    return {"layers": layers, "layer_summary": summary(layers)} if layers else {}


def summary(layers: list[dict[str, Any]]) -> dict[str, Any]:
    """Number of layers, and of each type in each precision."""
    precisions: dict[str, Counter[str]] = {}
    for layer in layers:
        precisions.setdefault(layer["type"], Counter())[layer["precision"]] += 1
    return {"count": len(layers), "precisions": {kind: dict(counts) for kind, counts in sorted(precisions.items())}}


def _layer(match: re.Match[str]) -> dict[str, Any]:
    inputs, _, rest = match["rest"].partition("], Constants: [")
    outputs = rest.partition("], Outputs: [")[2].partition("], TacticName: ")[0]
    into, out = (sorted(set(_TYPE.findall(part))) for part in (inputs, outputs))
    precision = "/".join(into) if into == out else f"{'/'.join(into)} -> {'/'.join(out)}"
    return {
        "name": match["name"],
        "type": match["type"],
        "precision": precision,
        "onnx": " ".join(_ONNX.findall(match["rest"])),
    }
