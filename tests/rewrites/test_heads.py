"""All rules together on the decode heads of CNNs, as mmsegmentation writes them, from each of torch's exporters."""

import io
import warnings

import onnx
import pytest
import torch
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from edgeseg.counting import macs_of_onnx
from edgeseg.export import load_onnx, onnx_from_module
from edgeseg.rewrites import rewrite

from .graphs import assert_same, check_rewrite, randomise, run

SIZE = (192, 288)  # the bins of a pyramid divide its map: else torch exports thousands of nodes
PRODUCTS = "convolution of upsampled maps as products of small matrices"
MOVED, SPLIT = "1x1 convolution before upsampling", "1x1 convolution of a concatenation as a sum"
BROADCAST = "add a single pixel by broadcasting"


def block(inputs: int, outputs: int, kernel: int, *, dilation: int = 1, groups: int = 1) -> nn.Sequential:
    padding = dilation * (kernel // 2)
    conv = nn.Conv2d(inputs, outputs, kernel, padding=padding, dilation=dilation, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())


def separable(inputs: int, outputs: int, dilation: int = 1) -> nn.Sequential:
    return nn.Sequential(block(inputs, inputs, 3, dilation=dilation, groups=inputs), block(inputs, outputs, 1))


def up(x, like, align_corners=False):
    return interpolate(x, like.shape[2:], mode="bilinear", align_corners=align_corners)


class Head(nn.Module):
    """Maps at stride 4 (20 channels) and 8 (24), then what mmsegmentation's heads end in."""

    def __init__(self, channels: int):
        super().__init__()
        self.stem, self.stage = nn.Conv2d(3, 20, 4, 4), nn.Conv2d(20, 24, 3, 2, 1)
        self.dropout, self.conv_seg = nn.Dropout2d(0.1), nn.Conv2d(channels, 7, 1)

    def forward(self, images):
        low = torch.relu(self.stem(images))
        return self.conv_seg(self.dropout(self.decode(low, torch.relu(self.stage(low)))))


class PSPHead(Head):
    def __init__(self, align_corners=False):
        super().__init__(48)
        self.align_corners = align_corners
        self.psp_modules = nn.ModuleList(block(24, 48, 1) for _ in range(4))
        self.bottleneck = block(24 + 4 * 48, 48, 3)

    def decode(self, _, x):
        pooled = [conv(adaptive_avg_pool2d(x, b)) for conv, b in zip(self.psp_modules, (1, 2, 3, 6), strict=True)]
        return self.bottleneck(torch.cat([x, *(up(p, x, self.align_corners) for p in pooled)], dim=1))


class ASPPHead(Head):
    """DeepLabV3's; with a 1x1 convolution at the end it is torchvision's and the paper's."""

    def __init__(self, kernel=3, expand=False):
        super().__init__(64)
        self.expand = expand
        self.image_pool = block(24, 64, 1)
        self.aspp_modules = nn.ModuleList([block(24, 64, 1), self.branch(6), self.branch(12)])
        self.bottleneck = block(4 * 64, 64, kernel)

    def branch(self, rate):
        return block(24, 64, 3, dilation=rate)

    def decode(self, _, x):
        pooled = self.image_pool(adaptive_avg_pool2d(x, 1))
        pooled = pooled.expand(-1, -1, *x.shape[2:]) if self.expand else up(pooled, x)
        return self.bottleneck(torch.cat([pooled, *(branch(x) for branch in self.aspp_modules)], dim=1))


class SeparableASPPHead(ASPPHead):
    """DeepLabV3+ as mmsegmentation has it."""

    def __init__(self):
        super().__init__()
        self.c1_bottleneck = block(20, 8, 1)
        self.sep_bottleneck = nn.Sequential(separable(64 + 8, 64), separable(64, 64))

    def branch(self, rate):
        return separable(24, 64, rate)

    def decode(self, low, x):
        low = self.c1_bottleneck(low)
        return self.sep_bottleneck(torch.cat([up(super().decode(None, x), low), low], dim=1))


class DenseDecoder(Head):
    """The decoder of DeepLabV3+'s paper: the pyramid upsampled by four, beside a few channels of an early map."""

    def __init__(self):
        super().__init__(160)
        self.deeper, self.c1 = nn.Conv2d(24, 160, 3, 2, 1), block(20, 8, 1)
        self.decoder = nn.Sequential(block(160 + 8, 160, 3), block(160, 160, 3))

    def decode(self, low, x):
        return self.decoder(torch.cat([up(torch.relu(self.deeper(x)), low), self.c1(low)], dim=1))


class UPerHead(Head):
    """Pyramid pooling, a top-down path of sums, and a 3x3 convolution of all levels upsampled."""

    def __init__(self):
        super().__init__(64)
        self.stages = nn.ModuleList(nn.Conv2d(width, 24, 3, 2, 1) for width in (24, 24))
        self.psp_modules = nn.ModuleList(block(24, 64, 1) for _ in range(2))
        self.bottleneck = block(24 + 2 * 64, 64, 3)
        self.lateral_convs = nn.ModuleList(block(width, 64, 1) for width in (20, 24, 24))
        self.fpn_convs = nn.ModuleList(block(64, 64, 3) for _ in range(3))
        self.fpn_bottleneck = block(4 * 64, 64, 3)

    def decode(self, low, x):
        maps = [low, x]
        for stage in self.stages:
            maps.append(torch.relu(stage(maps[-1])))
        pooled = [conv(adaptive_avg_pool2d(maps[3], b)) for conv, b in zip(self.psp_modules, (1, 3), strict=True)]
        top = self.bottleneck(torch.cat([maps[3], *(up(p, maps[3]) for p in pooled)], dim=1))
        levels = [conv(item) for conv, item in zip(self.lateral_convs, maps, strict=False)] + [top]
        for index in (2, 1, 0):
            levels[index] = levels[index] + up(levels[index + 1], levels[index])
        levels[:3] = [conv(item) for conv, item in zip(self.fpn_convs, levels, strict=False)]
        return self.fpn_bottleneck(torch.cat([levels[0], *(up(item, levels[0]) for item in levels[1:])], dim=1))


# head, its arguments, how often each rule applies, share of the multiply-accumulates saved
HEADS = {
    "pspnet": (PSPHead, {}, {PRODUCTS: 1}, 0.72),
    "pspnet_corners": (PSPHead, {"align_corners": True}, {PRODUCTS: 1}, 0.72),
    "deeplabv3": (ASPPHead, {}, {PRODUCTS: 1}, 0.18),
    "deeplabv3_1x1": (ASPPHead, {"kernel": 1}, {SPLIT: 1, MOVED: 1, BROADCAST: 1}, 0.07),
    "deeplabv3_expand": (ASPPHead, {"expand": True}, {PRODUCTS: 1}, 0.18),
    "deeplabv3_1x1_expand": (ASPPHead, {"kernel": 1, "expand": True}, {SPLIT: 1, MOVED: 1, BROADCAST: 1}, 0.07),
    "deeplabv3plus": (SeparableASPPHead, {}, {PRODUCTS: 1}, 0.17),
    "dense_decoder": (DenseDecoder, {}, {PRODUCTS: 1}, 0.35),
    "upernet": (UPerHead, {}, {PRODUCTS: 1}, 0.25),
}


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    kind, arguments, *_ = HEADS[name]
    return randomise(kind(**arguments))


def torchscript_export(module: nn.Module, size=SIZE, batch=1, dynamic=False, **options) -> bytes:
    """By the older of torch's exporters."""
    file, images = io.BytesIO(), torch.zeros(batch, 3, *size)
    axes = {"images": {0: "batch"}} if dynamic else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        arguments = {"dynamo": False, "opset_version": 17, "input_names": ["images"], "dynamic_axes": axes}
        torch.onnx.export(module, (images,), file, **arguments | options)
    return file.getvalue()


@pytest.mark.parametrize("name", HEADS)
def test_torchscript_export(name, tmp_path):
    """As it is, with its Constant nodes and its batch norms, but for the two whose sizes are computed in the graph."""
    path = tmp_path / "head.onnx"
    path.write_bytes(torchscript_export(network(name), do_constant_folding=False))
    before = load_onnx(path, SIZE) if "expand" in name else onnx.load(path)
    *_, expected, share = HEADS[name]
    after, applied = check_rewrite(before, SIZE)
    assert {key: value for key, value in applied.items() if key in expected or key in (PRODUCTS, MOVED)} == expected
    assert macs_of_onnx(after) < (1 - share) * macs_of_onnx(before)


def test_export_with_a_dynamic_batch():
    """By the newer exporter."""
    before = onnx_from_module(network("dense_decoder"), SIZE, batch=(1, 2, 4))
    after, applied = check_rewrite(before, SIZE)
    assert applied == {PRODUCTS: 1}
    assert after.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    for batch in (1, 3):
        assert_same(run(before, batch=batch)[0], run(after, batch=batch)[0])


def test_batch_2_and_an_odd_size():
    before = onnx.load_from_string(torchscript_export(network("deeplabv3"), (101, 133), batch=2))
    assert check_rewrite(before, (101, 133))[1] == {PRODUCTS: 1}


@pytest.mark.parametrize("name", ["deeplabv3plus", "deeplabv3_1x1_expand"])
def test_file_with_a_dynamic_batch(tmp_path, name):
    path = tmp_path / "head.onnx"
    path.write_bytes(torchscript_export(network(name), dynamic=True))
    before = load_onnx(path, SIZE, batch=(1, 2, 4))
    after, applied = check_rewrite(before, SIZE)
    assert applied == HEADS[name][2]
    for batch in (1, 3):
        assert_same(run(before, batch=batch)[0], run(after, batch=batch)[0])


class WithAuxiliaryHead(nn.Module):
    def __init__(self):
        super().__init__()
        self.network, self.auxiliary = ASPPHead(), nn.Conv2d(20, 7, 3)

    def forward(self, images):
        return {"out": self.network(images), "aux": self.auxiliary(self.network.stem(images))}


def test_auxiliary_heads_are_removed(tmp_path):
    path = tmp_path / "two.onnx"
    path.write_bytes(torchscript_export(randomise(WithAuxiliaryHead()), output_names=["out", "aux"]))
    after, _ = rewrite(load_onnx(path, SIZE, output="out"))
    assert len(after.graph.output) == 1
    assert not any("auxiliary" in item.name for item in after.graph.initializer)
