"""SegFormer's published sizes and what they cost, in closed form and without torch.

The counts are proven equal to those of the network itself (`edgeseg.counting`) by the tests, for every variant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from edgeseg.models.entry import ModelEntry
from edgeseg.models.published import SEGFORMER_RESULTS

if TYPE_CHECKING:
    from edgeseg.models.segformer import NormEps, SegFormer

NUM_HEADS = (1, 2, 5, 8)
REDUCTIONS = (8, 4, 2, 1)  # spatial-reduction ratio R of the attention's keys and values (paper, equation 1)
PATCHES = ((7, 4), (3, 2), (3, 2), (3, 2))  # kernel and stride of each stage's overlapped patch embedding
EXPANSION = 4  # hidden width of Mix-FFN over the stage's width


@dataclass(frozen=True)
class MixTransformerConfig:
    """One column of the paper's table of encoders."""

    widths: tuple[int, int, int, int]
    depths: tuple[int, int, int, int]
    decoder_width: int


VARIANTS = {
    "segformer-b0": MixTransformerConfig((32, 64, 160, 256), (2, 2, 2, 2), 256),
    "segformer-b1": MixTransformerConfig((64, 128, 320, 512), (2, 2, 2, 2), 256),
    "segformer-b2": MixTransformerConfig((64, 128, 320, 512), (3, 4, 6, 3), 768),
    "segformer-b3": MixTransformerConfig((64, 128, 320, 512), (3, 4, 18, 3), 768),
    "segformer-b4": MixTransformerConfig((64, 128, 320, 512), (3, 8, 27, 3), 768),
    "segformer-b5": MixTransformerConfig((64, 128, 320, 512), (3, 6, 40, 3), 768),
}
CONV_MODULE_WIDTH = 256  # mmsegmentation's decoder is this wide for every encoder


@dataclass(frozen=True)
class SegFormerEntry(ModelEntry):
    """A SegFormer with the paper's all-MLP head ("mlp") or with mmsegmentation's ("conv_module")."""

    config: MixTransformerConfig = VARIANTS["segformer-b0"]
    head: Literal["mlp", "conv_module"] = "mlp"

    def build(self, num_classes: int | None = None, norm_eps: NormEps | None = None) -> SegFormer:
        from edgeseg.models.segformer import ConvModuleHead, NormEps, SegFormer, SegFormerHead

        head = SegFormerHead if self.head == "mlp" else ConvModuleHead
        return SegFormer(self.config, self.checked_num_classes(num_classes), norm_eps or NormEps(), head)

    def params(self, num_classes: int | None = None) -> int:
        decoder, classes = self.decoder_width, self.checked_num_classes(num_classes)
        projected = sum(width * decoder for width in self.config.widths)
        # biases of four linear layers and one batch norm, or five batch norms
        head_vectors = 4 * decoder + 2 * decoder if self.head == "mlp" else 5 * 2 * decoder
        return encoder_params(self.config) + projected + 4 * decoder**2 + head_vectors + (decoder + 1) * classes

    def published_macs(self, size: tuple[int, int] | None = None, num_classes: int | None = None) -> int:
        return self._macs(size, num_classes) + 4 * self.decoder_width**2 * self._pixels(size)[0]

    def deployed_macs(self, size: tuple[int, int] | None = None, num_classes: int | None = None) -> int:
        """The fuse convolution commutes with upsampling, so each stage meets its quarter of it at its own resolution.

        In the paper's head nothing stands between a projection and that quarter: their product is one matrix, and the
        fuse costs nothing. mmsegmentation's has a ReLU there: the quarters remain, on fewer pixels.
        """
        kept = 0 if self.head == "mlp" else self.decoder_width**2 * sum(self._pixels(size))
        return self._macs(size, num_classes) + kept

    @property
    def decoder_width(self) -> int:
        return self.config.decoder_width if self.head == "mlp" else CONV_MODULE_WIDTH

    def _macs(self, size: tuple[int, int] | None, num_classes: int | None) -> int:
        """Everything but the fuse convolution: encoder, projections, classifier."""
        pixels = self._pixels(size)
        projections = sum(n * width * self.decoder_width for n, width in zip(pixels, self.config.widths, strict=True))
        classifier = pixels[0] * self.decoder_width * self.checked_num_classes(num_classes)
        return encoder_macs(self.config, self.checked_size(size)) + projections + classifier

    def _pixels(self, size: tuple[int, int] | None) -> tuple[int, ...]:
        return tuple(height * width for height, width in stage_sizes(self.checked_size(size)))


def stage_sizes(size: tuple[int, int]) -> list[tuple[int, int]]:
    """(height, width) of the four stages' maps: strides 4, 8, 16, 32, rounded up at each."""
    sizes = []
    height, width = size
    for _, stride in PATCHES:
        height, width = -(-height // stride), -(-width // stride)
        sizes.append((height, width))
    return sizes


def encoder_macs(config: MixTransformerConfig, size: tuple[int, int]) -> int:
    """Multiply-accumulates of the Mix Transformer on one image of `size`."""
    total, in_width = 0, 3
    for i, (height, width) in enumerate(stage_sizes(size)):
        channels, reduction, kernel = config.widths[i], REDUCTIONS[i], PATCHES[i][0]
        tokens = height * width
        context = (height // reduction) * (width // reduction)  # where keys and values live
        reduce = context * channels**2 * reduction**2 if reduction > 1 else 0
        attention = 2 * (tokens + context) * channels**2 + 2 * tokens * context * channels + reduce
        ffn = (
            tokens * EXPANSION * channels * (2 * channels + 9)
        )  # two linear layers around a 3x3 depth-wise convolution
        total += tokens * kernel**2 * in_width * channels + config.depths[i] * (attention + ffn)
        in_width = channels
    return total


def encoder_params(config: MixTransformerConfig) -> int:
    """Parameters of the Mix Transformer."""
    total, in_width = 0, 3
    for i, channels in enumerate(config.widths):
        reduction, kernel, hidden, norm = REDUCTIONS[i], PATCHES[i][0], EXPANSION * channels, 2 * channels
        attention = 4 * (channels**2 + channels)
        if reduction > 1:
            attention += (channels * reduction) ** 2 + channels + norm
        ffn = 2 * channels * hidden + hidden + channels + (9 + 1) * hidden
        embed = kernel**2 * in_width * channels + channels + norm
        total += embed + config.depths[i] * (2 * norm + attention + ffn) + norm
        in_width = channels
    return total


def _entry(name: str, head: Literal["mlp", "conv_module"]) -> SegFormerEntry:
    return SegFormerEntry(
        name=name if head == "mlp" else f"{name}-mmseg",
        family="segformer",
        encoder=f"MiT-{name.rpartition('-')[2].upper()}",
        formats=("edgeseg", "huggingface", "nvlabs") if head == "mlp" else ("edgeseg", "mmsegmentation"),
        min_size=29,  # the first stage's map, ceil(29 / 4) = 8, must fill one 8x8 reduction
        results=SEGFORMER_RESULTS.get(name if head == "mlp" else f"{name}-mmseg", ()),
        config=VARIANTS[name],
        head=head,
    )


SEGFORMERS = [_entry(name, "mlp") for name in VARIANTS] + [_entry(name, "conv_module") for name in VARIANTS]
