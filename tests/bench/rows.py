"""Results to print and compare, without measuring anything."""

from typing import Any

from edgeseg.bench.results import Latency, Results, Row, Stages


def latency(p50: float, *, spread: float = 0.01, runs: int = 30) -> Latency:
    low, high = p50 * (1 - spread), p50 * (1 + spread)
    return Latency(p50, p50 * 1.1, p50 * 1.2, low, high, runs, 2 * spread > 0.1)


def row(system: str = "edgeseg", backend: str = "onnxruntime", **values: Any) -> Row:
    defaults: dict[str, Any] = {
        "model": "segformer-b0",
        "weights": "random",
        "precision": "fp32",
        "height": 512,
        "width": 512,
        "batch": 1,
        "num_classes": 150,
        "params": 3_752_694,
        "gmacs_published": 8.4,
        "gmacs_deployed": 4.1,
        "engine_bytes": 14_000_000,
        "latency": latency(20),
        "stages": Stages(1, 18, 1),
        "label_agreement": 0.9999,
        "agreement_miou": 0.999,
    }
    return Row(system=system, backend=backend, **defaults | values)


def results(*rows: Row, **environment: Any) -> Results:
    return Results(tuple(rows), environment, {})
