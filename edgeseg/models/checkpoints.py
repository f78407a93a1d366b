"""How each source names SegFormer's tensors, and what else differs between them.

Three tables, one row per module: theirs on the left, ours on the right. `{i}` is a stage counted from 0, `{I}` the
same counted from 1, `{j}` a block. Where one of their tensors holds several of ours, they are stacked along the
first axis in the order given. Checked numerically against the sources' own code.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from edgeseg.models.segformer import NormEps

BLOCK = "encoder.stages.{i}.blocks.{j}"
STAGE = "encoder.stages.{i}"
HEAD = "decode_head"
QUERY, KEY, VALUE = (f"{BLOCK}.attention.{name}" for name in ("query", "key", "value"))

Table = dict[str, str | tuple[str, ...]]

HUGGINGFACE: Table = {
    "segformer.encoder.patch_embeddings.{i}.proj": f"{STAGE}.patch_embed.proj",
    "segformer.encoder.patch_embeddings.{i}.layer_norm": f"{STAGE}.patch_embed.norm",
    "segformer.encoder.block.{i}.{j}.layer_norm_1": f"{BLOCK}.norm1",
    "segformer.encoder.block.{i}.{j}.attention.self.query": QUERY,
    "segformer.encoder.block.{i}.{j}.attention.self.key": KEY,
    "segformer.encoder.block.{i}.{j}.attention.self.value": VALUE,
    "segformer.encoder.block.{i}.{j}.attention.self.sr": f"{BLOCK}.attention.reduce",
    "segformer.encoder.block.{i}.{j}.attention.self.layer_norm": f"{BLOCK}.attention.norm",
    "segformer.encoder.block.{i}.{j}.attention.output.dense": f"{BLOCK}.attention.out",
    "segformer.encoder.block.{i}.{j}.layer_norm_2": f"{BLOCK}.norm2",
    "segformer.encoder.block.{i}.{j}.mlp.dense1": f"{BLOCK}.ffn.expand",
    "segformer.encoder.block.{i}.{j}.mlp.dwconv.dwconv": f"{BLOCK}.ffn.depthwise",
    "segformer.encoder.block.{i}.{j}.mlp.dense2": f"{BLOCK}.ffn.project",
    "segformer.encoder.layer_norm.{i}": f"{STAGE}.norm",
    "decode_head.linear_c.{i}.proj": f"{HEAD}.projections.{{i}}",
    "decode_head.linear_fuse": f"{HEAD}.fuse",
    "decode_head.batch_norm": f"{HEAD}.fuse_norm",
    "decode_head.classifier": f"{HEAD}.classifier",
}

# transformers 5 renames the modules in memory. save_pretrained still writes the names above, but a plain
# torch.save(model.state_dict()) holds these.
HUGGINGFACE_IN_MEMORY: Table = {
    "segformer.stages.{i}.patch_embeddings.proj": f"{STAGE}.patch_embed.proj",
    "segformer.stages.{i}.patch_embeddings.layer_norm": f"{STAGE}.patch_embed.norm",
    "segformer.stages.{i}.blocks.{j}.layernorm_before": f"{BLOCK}.norm1",
    "segformer.stages.{i}.blocks.{j}.attention.q_proj": QUERY,
    "segformer.stages.{i}.blocks.{j}.attention.k_proj": KEY,
    "segformer.stages.{i}.blocks.{j}.attention.v_proj": VALUE,
    "segformer.stages.{i}.blocks.{j}.attention.sequence_reduction.sequence_reduction": f"{BLOCK}.attention.reduce",
    "segformer.stages.{i}.blocks.{j}.attention.sequence_reduction.layer_norm": f"{BLOCK}.attention.norm",
    "segformer.stages.{i}.blocks.{j}.attention.o_proj": f"{BLOCK}.attention.out",
    "segformer.stages.{i}.blocks.{j}.layernorm_after": f"{BLOCK}.norm2",
    "segformer.stages.{i}.blocks.{j}.mlp.fc1": f"{BLOCK}.ffn.expand",
    "segformer.stages.{i}.blocks.{j}.mlp.dwconv.dwconv": f"{BLOCK}.ffn.depthwise",
    "segformer.stages.{i}.blocks.{j}.mlp.fc2": f"{BLOCK}.ffn.project",
    "segformer.stages.{i}.layer_norm": f"{STAGE}.norm",
    "decode_head.linear_projections.{i}.proj": f"{HEAD}.projections.{{i}}",
    "decode_head.linear_fuse": f"{HEAD}.fuse",
    "decode_head.batch_norm": f"{HEAD}.fuse_norm",
    "decode_head.classifier": f"{HEAD}.classifier",
}

NVLABS: Table = {
    "backbone.patch_embed{I}.proj": f"{STAGE}.patch_embed.proj",
    "backbone.patch_embed{I}.norm": f"{STAGE}.patch_embed.norm",
    "backbone.block{I}.{j}.norm1": f"{BLOCK}.norm1",
    "backbone.block{I}.{j}.attn.q": QUERY,
    "backbone.block{I}.{j}.attn.kv": (KEY, VALUE),
    "backbone.block{I}.{j}.attn.sr": f"{BLOCK}.attention.reduce",
    "backbone.block{I}.{j}.attn.norm": f"{BLOCK}.attention.norm",
    "backbone.block{I}.{j}.attn.proj": f"{BLOCK}.attention.out",
    "backbone.block{I}.{j}.norm2": f"{BLOCK}.norm2",
    "backbone.block{I}.{j}.mlp.fc1": f"{BLOCK}.ffn.expand",
    "backbone.block{I}.{j}.mlp.dwconv.dwconv": f"{BLOCK}.ffn.depthwise",
    "backbone.block{I}.{j}.mlp.fc2": f"{BLOCK}.ffn.project",
    "backbone.norm{I}": f"{STAGE}.norm",
    "decode_head.linear_c{I}.proj": f"{HEAD}.projections.{{i}}",
    "decode_head.linear_fuse.conv": f"{HEAD}.fuse",
    "decode_head.linear_fuse.bn": f"{HEAD}.fuse_norm",
    "decode_head.linear_pred": f"{HEAD}.classifier",
}

MMSEGMENTATION: Table = {
    "backbone.layers.{i}.0.projection": f"{STAGE}.patch_embed.proj",
    "backbone.layers.{i}.0.norm": f"{STAGE}.patch_embed.norm",
    "backbone.layers.{i}.1.{j}.norm1": f"{BLOCK}.norm1",
    "backbone.layers.{i}.1.{j}.attn.attn.in_proj": (QUERY, KEY, VALUE),
    "backbone.layers.{i}.1.{j}.attn.sr": f"{BLOCK}.attention.reduce",
    "backbone.layers.{i}.1.{j}.attn.norm": f"{BLOCK}.attention.norm",
    "backbone.layers.{i}.1.{j}.attn.attn.out_proj": f"{BLOCK}.attention.out",
    "backbone.layers.{i}.1.{j}.norm2": f"{BLOCK}.norm2",
    "backbone.layers.{i}.1.{j}.ffn.layers.0": f"{BLOCK}.ffn.expand",
    "backbone.layers.{i}.1.{j}.ffn.layers.1": f"{BLOCK}.ffn.depthwise",
    "backbone.layers.{i}.1.{j}.ffn.layers.4": f"{BLOCK}.ffn.project",
    "backbone.layers.{i}.2": f"{STAGE}.norm",
    "decode_head.convs.{i}.conv": f"{HEAD}.projections.{{i}}.conv",
    "decode_head.convs.{i}.bn": f"{HEAD}.projections.{{i}}.norm",
    "decode_head.fusion_conv.conv": f"{HEAD}.fuse.conv",
    "decode_head.fusion_conv.bn": f"{HEAD}.fuse.norm",
    "decode_head.conv_seg": f"{HEAD}.classifier",
}

EDGESEG: Table = {
    target: target
    for table in (NVLABS, MMSEGMENTATION)  # between them they have both heads
    for value in table.values()
    for target in ((value,) if isinstance(value, str) else value)
}


@dataclass(frozen=True)
class CheckpointFormat:
    """One source of checkpoints: its names, its LayerNorm epsilons, and what it stores without using."""

    name: str
    title: str
    table: Table
    norm_eps: NormEps
    dead: tuple[str, ...] = ()  # beginnings of names that the network never runs, at inference
    pointwise: tuple[str, ...] = ()  # endings of modules stored as 1x1 convolutions that are linear layers here

    def is_dead(self, name: str) -> bool:
        """Whether a tensor is one that inference never reads."""
        return name.endswith(".num_batches_tracked") or name.startswith(self.dead)

    def targets(self, name: str) -> list[str]:
        """Our names for what their tensor `name` holds; empty when the table does not know it."""
        module, _, suffix = name.replace(".in_proj_", ".in_proj.").rpartition(".")
        for pattern, _, targets in self._rows:
            if match := pattern.fullmatch(module):
                return [f"{_fill(target, match)}.{suffix}" for target in targets]
        return []

    def source(self, name: str) -> str:
        """Their name for our tensor `name`, for error messages; ours where the table has none."""
        module, _, suffix = name.rpartition(".")
        for _, template, targets in self._rows:
            for target in targets:
                if match := _pattern(target).fullmatch(module):
                    return f"{_fill(template, match)}.{suffix}".replace(".in_proj.", ".in_proj_")
        return name

    def translate(self, name: str, tensor: Tensor) -> dict[str, Tensor]:
        """Our tensors of their tensor; empty when the table does not know it. Shapes are the caller's to check."""
        targets = self.targets(name)
        if name.removesuffix(".weight").endswith(self.pointwise) and tensor.shape[2:] == (1, 1):
            tensor = tensor.flatten(1)
        if len(targets) > 1 and tensor.ndim and tensor.shape[0] % len(targets) == 0:
            return dict(zip(targets, tensor.chunk(len(targets)), strict=True))
        return dict.fromkeys(targets, tensor)

    @cached_property
    def _rows(self) -> list[tuple[re.Pattern, str, tuple[str, ...]]]:
        rows = []
        for template, value in self.table.items():
            rows.append((_pattern(template), template, (value,) if isinstance(value, str) else value))
        return rows


FORMATS: dict[str, CheckpointFormat] = {
    format.name: format
    for format in (
        CheckpointFormat("edgeseg", "edgeseg", EDGESEG, NormEps()),
        # The Hugging Face configuration has a layer_norm_eps, but their code never reads it.
        CheckpointFormat(
            "huggingface", "Hugging Face", HUGGINGFACE | HUGGINGFACE_IN_MEMORY, NormEps(block=1e-5, embed=1e-5)
        ),
        CheckpointFormat(
            "nvlabs",
            "NVlabs",
            NVLABS,
            NormEps(block=1e-6, embed=1e-5),
            dead=("decode_head.conv_seg.", "auxiliary_head."),
        ),
        CheckpointFormat(
            "mmsegmentation",
            "mmsegmentation",
            MMSEGMENTATION,
            NormEps(block=1e-6, embed=1e-6),
            dead=("auxiliary_head.",),
            pointwise=("ffn.layers.0", "ffn.layers.4"),
        ),
    )
}


def _pattern(template: str) -> re.Pattern:
    escaped = re.escape(template)
    for placeholder, digits in (("i", "[0-3]"), ("I", "[1-4]"), ("j", r"\d+")):
        escaped = escaped.replace(rf"\{{{placeholder}\}}", f"(?P<{placeholder}>{digits})")
    return re.compile(escaped)


def _fill(template: str, match: re.Match) -> str:
    """The other side's name for what `match` found."""
    found = {key: int(value) for key, value in match.groupdict().items()}
    stage = found["i"] if "i" in found else found.get("I", 1) - 1
    return template.format(i=stage, I=stage + 1, j=found.get("j"))
