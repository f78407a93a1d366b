"""Published networks in the form their sources save them, made from transformers' SegFormer with random weights.

Names are written here from the sources' own code, row by row, and share nothing with the loader's tables. The logits
to compare with are computed by transformers; for mmsegmentation's decoder by a few torch functions on its features.
"""

import re

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm, conv2d, interpolate
from transformers import SegformerConfig, SegformerForSemanticSegmentation

SIZES = {
    "b0": {"hidden_sizes": [32, 64, 160, 256], "depths": [2, 2, 2, 2], "decoder_hidden_size": 256},
    "b2": {"hidden_sizes": [64, 128, 320, 512], "depths": [3, 4, 6, 3], "decoder_hidden_size": 768},
}


def transformers_network(variant: str, num_classes: int, **config) -> SegformerForSemanticSegmentation:
    """In eval mode; no parameter is 0 or 1 by default, and batch norm has statistics of its own."""
    torch.manual_seed(len(variant) + num_classes)
    network = SegformerForSemanticSegmentation(SegformerConfig(num_labels=num_classes, **SIZES[variant], **config))
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim > 1:
                nn.init.kaiming_normal_(parameter)
            else:
                parameter.normal_(1.0 if name.endswith("weight") else 0.0, 0.3)
        norm = network.decode_head.batch_norm
        norm.running_mean.normal_(0, 0.5)
        norm.running_var.uniform_(0.5, 1.5)
        norm.num_batches_tracked.fill_(1234)
    return network.eval()


def set_epsilons(network: nn.Module, block: float, embed: float) -> None:
    """LayerNorm epsilons as another source trains with; `embed` for the patch embeddings and spatial reductions."""
    for name, module in network.named_modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = embed if "patch_embeddings" in name or "sequence_reduction" in name else block


def nvlabs_state_dict(saved: dict[str, Tensor]) -> dict[str, Tensor]:
    """What NVlabs' code would have saved for the network that transformers saved."""
    theirs = {}
    for name, tensor in saved.items():
        if ".self.value." in name:
            continue
        if ".self.key." in name:
            tensor = torch.cat([tensor, saved[name.replace(".key.", ".value.")]])
        theirs[_nvlabs_name(name)] = tensor
    theirs["decode_head.conv_seg.weight"] = torch.randn(theirs["decode_head.linear_pred.weight"].shape[0], 128, 1, 1)
    theirs["decode_head.conv_seg.bias"] = torch.randn(theirs["decode_head.linear_pred.weight"].shape[0])
    return theirs


def _nvlabs_name(name: str) -> str:
    head, _, rest = name.partition("segformer.encoder.")
    if head:  # the decode head
        name = re.sub(r"linear_c\.(\d)\.", lambda m: f"linear_c{int(m[1]) + 1}.", name)
        name = name.replace("linear_fuse.", "linear_fuse.conv.").replace("batch_norm.", "linear_fuse.bn.")
        return name.replace("classifier.", "linear_pred.")
    rest = re.sub(r"^patch_embeddings\.(\d)\.", lambda m: f"patch_embed{int(m[1]) + 1}.", rest)
    rest = re.sub(r"^block\.(\d)\.", lambda m: f"block{int(m[1]) + 1}.", rest)
    rest = re.sub(r"^layer_norm\.(\d)\.", lambda m: f"norm{int(m[1]) + 1}.", rest)
    for ours, theirs in (
        ("layer_norm_", "norm"),
        ("attention.self.query", "attn.q"),
        ("attention.self.key", "attn.kv"),
        ("attention.self.sr", "attn.sr"),
        ("attention.self.layer_norm", "attn.norm"),
        ("attention.output.dense", "attn.proj"),
        ("layer_norm", "norm"),
        ("mlp.dense", "mlp.fc"),
    ):
        rest = rest.replace(ours, theirs)
    return f"backbone.{rest}"


def mmsegmentation_state_dict(saved: dict[str, Tensor], num_classes: int) -> dict[str, Tensor]:
    """What mmsegmentation would have saved for the same encoder, with a random decoder of its own."""
    theirs: dict[str, Tensor] = {}
    for name, tensor in saved.items():
        if not name.startswith("segformer.encoder.") or re.search(r"\.self\.(key|value)\.", name):
            continue
        if ".self.query." in name:
            tensor = torch.cat([tensor, *(saved[name.replace(".query.", f".{other}.")] for other in ("key", "value"))])
        if re.search(r"dense[12]\.weight$", name):
            tensor = tensor[:, :, None, None]  # 1x1 convolutions there
        theirs[_mmsegmentation_name(name)] = tensor
    widths = [theirs[f"backbone.layers.{i}.2.weight"].shape[0] for i in range(4)]
    for module, inputs in [*((f"convs.{i}", width) for i, width in enumerate(widths)), ("fusion_conv", 1024)]:
        theirs[f"decode_head.{module}.conv.weight"] = torch.randn(256, inputs, 1, 1) * (2 / inputs) ** 0.5
        theirs[f"decode_head.{module}.bn.weight"] = torch.randn(256) * 0.3 + 1
        theirs[f"decode_head.{module}.bn.bias"] = torch.randn(256) * 0.3
        theirs[f"decode_head.{module}.bn.running_mean"] = torch.randn(256) * 0.3
        theirs[f"decode_head.{module}.bn.running_var"] = torch.rand(256) + 0.5
        theirs[f"decode_head.{module}.bn.num_batches_tracked"] = torch.tensor(77)
    theirs["decode_head.conv_seg.weight"] = torch.randn(num_classes, 256, 1, 1) / 16
    theirs["decode_head.conv_seg.bias"] = torch.randn(num_classes)
    theirs["auxiliary_head.conv_seg.weight"] = torch.randn(num_classes, 64, 1, 1)
    return theirs


def _mmsegmentation_name(name: str) -> str:
    name = re.sub(r"(weight|bias)$", r"|\1", name.removeprefix("segformer.encoder."))
    for pattern, theirs in (
        (r"^patch_embeddings\.(\d)\.proj\.", r"layers.\1.0.projection."),
        (r"^patch_embeddings\.(\d)\.layer_norm\.", r"layers.\1.0.norm."),
        (r"^layer_norm\.(\d)\.", r"layers.\1.2."),
        (r"^block\.(\d)\.(\d+)\.", r"layers.\1.1.\2."),
        (r"layer_norm_([12])", r"norm\1"),
        (r"attention\.self\.query\.\|", r"attn.attn.in_proj_|"),
        (r"attention\.self\.sr", r"attn.sr"),
        (r"attention\.self\.layer_norm", r"attn.norm"),
        (r"attention\.output\.dense", r"attn.attn.out_proj"),
        (r"mlp\.dense1", r"ffn.layers.0"),
        (r"mlp\.dwconv\.dwconv", r"ffn.layers.1"),
        (r"mlp\.dense2", r"ffn.layers.4"),
    ):
        name = re.sub(pattern, theirs, name)
    return "backbone." + name.replace("|", "")


def mmsegmentation_logits(
    network: SegformerForSemanticSegmentation, state: dict[str, Tensor], images: Tensor
) -> Tensor:
    """transformers' encoder, then mmsegmentation's decoder in plain functions."""

    def conv_module(module: str, x: Tensor) -> Tensor:
        x = conv2d(x, state[f"decode_head.{module}.conv.weight"])
        bn = {key: state[f"decode_head.{module}.bn.{key}"] for key in ("running_mean", "running_var", "weight", "bias")}
        return batch_norm(x, **bn).relu()

    features = network.segformer(images, output_hidden_states=True).hidden_states
    maps = [
        interpolate(conv_module(f"convs.{i}", x), features[0].shape[2:], mode="bilinear", align_corners=False)
        for i, x in enumerate(features)
    ]
    fused = conv_module("fusion_conv", torch.cat(maps, dim=1))
    return conv2d(fused, state["decode_head.conv_seg.weight"], state["decode_head.conv_seg.bias"])
