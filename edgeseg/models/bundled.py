"""The checkpoints that ship with the package. Importing this needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeseg.errors import CheckpointError

ASSETS = Path(__file__).resolve().parent.parent / "assets"


@dataclass(frozen=True)
class BundledCheckpoint:
    """A trained network inside the package: float16 weights, INT8 scales, and what its classes mean."""

    name: str
    model: str  # a key of MODELS
    num_classes: int
    label_set: str  # a key of edgeseg.labels.LABEL_SETS
    size: tuple[int, int]  # (height, width) it was trained for and its scales were calibrated at
    file: str  # under edgeseg/assets
    scales_file: str  # likewise; of the rewritten graph
    plain_scales_file: str  # likewise; of the graph as published (--no-rewrites)

    @property
    def path(self) -> Path:
        """The weights; CheckpointError where the installation lacks them."""
        return _asset(self.name, self.file)

    @property
    def scales_path(self) -> Path:
        """The scales of an INT8 build; CheckpointError where the installation lacks them."""
        return _asset(self.name, self.scales_file)

    @property
    def plain_scales_path(self) -> Path:
        """The same for a build without rewrites."""
        return _asset(self.name, self.plain_scales_file)


BUNDLED: dict[str, BundledCheckpoint] = {
    "segformer-b0-camvid": BundledCheckpoint(
        name="segformer-b0-camvid",
        model="segformer-b0",
        num_classes=11,
        label_set="camvid",
        size=(360, 480),
        file="segformer-b0-camvid.safetensors",
        scales_file="segformer-b0-camvid.scales.json",
        plain_scales_file="segformer-b0-camvid.no-rewrites.scales.json",
    ),
}

DEFAULT_CHECKPOINTS: dict[str, str] = {"segformer-b0": "segformer-b0-camvid"}
"""What `--model NAME` without `--weights` builds; other models need their weights named."""


def bundled_for(model: str) -> list[BundledCheckpoint]:
    """The bundled checkpoints of one model."""
    return [checkpoint for checkpoint in BUNDLED.values() if checkpoint.model == model]


def _asset(name: str, file: str) -> Path:
    path = ASSETS / file
    if not path.is_file():
        raise CheckpointError(
            f"the bundled checkpoint {name} lacks {path}; the installation is incomplete: reinstall edgeseg, "
            "or give weights of your own"
        )
    return path
