"""Backbones of other libraries: timm's feature extractors, whatever has their interface, and Hugging Face's backbones.

extractor = timm.create_model("convnext_tiny", features_only=True, pretrained=True)
network = DeepLabV3Plus(FeatureExtractor(extractor), num_classes=19)
"""

from collections.abc import Sequence

from torch import Tensor, nn

from edgeseg.models.encoders import Encoder


class FeatureExtractor(Encoder):
    """The maps of a module that already gives maps, as the heads of this package take them.

    Of timm it reads ``feature_info.channels()``, and ``output_fmt`` where maps are (N, h, w, C); of Hugging Face's
    backbones ``channels``, and ``feature_maps`` of what they return.
    """

    def __init__(self, extractor: nn.Module, stages: Sequence[int] | None = None):
        """
        Args:
            extractor: (N, 3, H, W) -> a sequence of maps, the finest first.
            stages: which of its maps to hand on, counted from 0; all by default.

        Raises:
            TypeError: where the module does not say how many channels its maps have.
            ValueError: for a stage that it does not have.
        """
        super().__init__()
        self.extractor = extractor
        channels = _channels(extractor)
        self.stages = tuple(range(len(channels)) if stages is None else stages)
        if not self.stages or not all(0 <= stage < len(channels) for stage in self.stages):
            raise ValueError(f"stages must be some of 0 to {len(channels) - 1}, got {list(self.stages)}")
        self.channels = tuple(channels[stage] for stage in self.stages)
        self.channels_last = str(getattr(extractor, "output_fmt", "")).endswith("NHWC")  # a string or timm's enum

    def forward(self, images: Tensor) -> list[Tensor]:
        given = self.extractor(images)
        maps = getattr(given, "feature_maps", given)
        picked = [maps[stage] for stage in self.stages]
        return [one.permute(0, 3, 1, 2) for one in picked] if self.channels_last else picked


def _channels(extractor: nn.Module) -> tuple[int, ...]:
    info = getattr(extractor, "feature_info", None)
    if info is not None:
        return tuple(info.channels())
    if isinstance(channels := getattr(extractor, "channels", None), Sequence):
        return tuple(channels)
    raise TypeError(
        f"{type(extractor).__name__} does not say how many channels its maps have; wanted "
        "timm.create_model(..., features_only=True), a backbone of transformers, or a module with `channels`"
    )
