"""What the catalogue knows of a benchmark's networks: their group in the SegFormer paper's table, published figures."""

from __future__ import annotations

from edgeseg.bench.results import Row
from edgeseg.labels import LABEL_SETS
from edgeseg.models import MODELS
from edgeseg.models.entry import PublishedResult

REAL_TIME, ACCURACY, OTHER = "Real-time", "Accuracy", "Own networks"
_REAL_TIME_ENCODERS = frozenset({"MobileNetV2", "MiT-B0"})  # and ICNet, in the table of the paper


def group_of(model: str) -> str:
    """REAL_TIME or ACCURACY as the SegFormer paper's table groups its rows; OTHER for networks of no catalogue."""
    entry = MODELS.get(model)
    if entry is None:
        return OTHER
    is_real_time = entry.family == "icnet" or entry.encoder in _REAL_TIME_ENCODERS
    return REAL_TIME if is_real_time else ACCURACY


def published_for(row: Row) -> PublishedResult | None:
    """The figures that are printed nearest to a row: of its classes and size, else of its classes, else the first."""
    entry = MODELS.get(row.model)
    if entry is None or not entry.results:
        return None

    def distance(result: PublishedResult) -> tuple[bool, int]:
        label_set = LABEL_SETS.get(result.dataset)
        same_classes = label_set is not None and label_set.num_classes == row.num_classes
        return not same_classes, abs(result.size[0] * result.size[1] - row.height * row.width)

    return min(entry.results, key=distance)
