"""How each source names SegFormer's tensors, and what else differs between them; which SegFormer a checkpoint holds.

Three tables, one row per module: theirs on the left, ours on the right, as `edgeseg.models.checkpoints` reads them.
Checked numerically against the sources' own code.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from edgeseg.models import MODELS
from edgeseg.models.checkpoints import CheckpointFormat, Table
from edgeseg.models.segformer import NormEps
from edgeseg.models.segformer_config import SegFormerEntry

BLOCK = "encoder.stages.{i}.blocks.{j}"
STAGE = "encoder.stages.{i}"
HEAD = "decode_head"
QUERY, KEY, VALUE = (f"{BLOCK}.attention.{name}" for name in ("query", "key", "value"))

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


def known_tensors(format: CheckpointFormat, tensors: Mapping[str, Tensor], prefix: str = "") -> int:
    """How many tensors of the encoder the format knows; the heads of two formats share names."""
    return sum(any(name.startswith("encoder.") for name in format.targets(prefix + name)) for name in tensors)


def recognise(tensors: Mapping[str, Tensor]) -> str | None:
    """The SegFormer that has these widths, depths and head; None: no such one."""
    sizes = _sizes(tensors)
    for entry in MODELS.values():
        if isinstance(entry, SegFormerEntry):
            config = entry.config
            if sizes == (config.widths, config.depths, entry.decoder_width, entry.head):
                return entry.name
    return None


def describe(tensors: Mapping[str, Tensor]) -> str:
    """What the tensors look like, for an error message."""
    widths, depths, decoder_width, _ = _sizes(tensors)
    return f"a SegFormer of widths {widths}, depths {depths} and decoder width {decoder_width} (0: missing)"


def _sizes(tensors: Mapping[str, Tensor]) -> tuple:
    """Widths, depths, decoder width and head, from the shapes alone; 0 where a tensor is missing."""

    def first_axis(name: str) -> int:
        return tensors[name].shape[0] if name in tensors and tensors[name].ndim else 0

    widths = tuple(first_axis(f"encoder.stages.{i}.patch_embed.proj.weight") for i in range(4))
    depths = [0, 0, 0, 0]
    for name in tensors:
        if match := re.match(r"encoder\.stages\.(\d)\.blocks\.(\d+)\.", name):
            stage, block = int(match[1]), int(match[2])
            depths[stage] = max(depths[stage], block + 1)
    conv_modules = any(re.match(r"decode_head\.(projections\.\d|fuse)\.conv\.", name) for name in tensors)
    head = "conv_module" if conv_modules else "mlp"
    return widths, tuple(depths), first_axis(f"decode_head.fuse.{'conv.' * conv_modules}weight"), head
