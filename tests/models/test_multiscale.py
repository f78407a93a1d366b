"""The wrappers against their formulas written out, with networks of the zoo inside."""

from pathlib import Path

import pytest
import torch
from torch.nn.functional import interpolate

from edgeseg.counting import count_module
from edgeseg.export import onnx_from_module
from edgeseg.models import MODELS
from edgeseg.models.deeplabv1 import DeepLabV1
from edgeseg.models.encoders.resnet import ResNet
from edgeseg.models.fcn import FCN
from edgeseg.models.fit import recognise, settle
from edgeseg.models.multiscale import AttentionToScale, HierarchicalAttention, ImagePyramid, SplitNetwork, scaled
from edgeseg.models.shapes import expected_shapes

from .seeded import fill_, images

NAMES = ("pyramid-ocrnet-hrnetw48", "hierarchical-ocrnet-hrnetw48", "attention-to-scale-deeplabv1-vgg16")


def fcn():
    return FCN(ResNet((1, 1, 1, 1), width=4), 5, channels=8)


def deeplab():
    return DeepLabV1(5, (4, 6, 8, 10, 12), hidden=16, rate=3)


def upsampled(x, size):
    return interpolate(x, size=size, mode="bilinear", align_corners=False)


@pytest.fixture(params=[(64, 96), (65, 97)], ids=str)
def batch(request):
    return images(2, 3, *request.param)


def at(batch, scale):
    """The image at a scale, its size rounded down."""
    return upsampled(batch, tuple(int(side * scale) for side in batch.shape[-2:]))


def in_double(network):
    return fill_(network).double().eval()


def assert_equal(result, wanted):
    assert result.shape == wanted.shape
    assert (result - wanted).abs().max() <= 1e-9 * wanted.abs().max()


@torch.inference_mode()
def test_pyramid_is_the_mean_of_the_probabilities(batch):
    network, batch = in_double(fcn()), batch.double()
    logits = [network(at(batch, scale)) for scale in (1.0, 0.5, 2.0)]
    shares = [upsampled(x, logits[0].shape[-2:]).exp() for x in logits]
    wanted = sum(share / share.sum(1, keepdim=True) for share in shares) / 3
    assert_equal(ImagePyramid(network, (1.0, 0.5, 2.0))(batch), wanted)


@torch.inference_mode()
def test_attention_to_scale_weighs_each_pixel(batch):
    wrapper, batch = in_double(AttentionToScale(deeplab(), "fc8", channels=8)), batch.double()
    body, classify = wrapper.network.body, wrapper.network.classifier
    features = [body(at(batch, scale)) for scale in (1.0, 0.75, 0.5)]
    size = features[0].shape[-2:]
    first, _, last = wrapper.attention
    votes = last(first(torch.cat([upsampled(x, size) for x in features], 1)).clamp(min=0)).exp()
    assert votes.shape[1] == 3
    wanted = sum(
        votes[:, i : i + 1] / votes.sum(1, keepdim=True) * upsampled(classify(x), size) for i, x in enumerate(features)
    )
    assert_equal(wrapper(batch), wanted)


@torch.inference_mode()
def test_hierarchical_attention_goes_from_large_to_small(batch):
    wrapper = in_double(HierarchicalAttention(fcn(), "decode_head.conv_seg", (0.5, 1.0, 1.5, 2.0), channels=8))
    batch = batch.double()
    features = {scale: wrapper.network.body(at(batch, scale)) for scale in (0.5, 1.0, 1.5, 2.0)}
    logits = {scale: wrapper.network.classifier(x) for scale, x in features.items()}
    attention = {scale: wrapper.attention(x) for scale, x in features.items()}
    assert all(0 < a.min() < a.max() < 1 for a in attention.values())
    joint = attention[1.5] * logits[1.5] + (1 - attention[1.5]) * upsampled(logits[2.0], logits[1.5].shape[-2:])
    size = logits[1.0].shape[-2:]
    joint = attention[1.0] * logits[1.0] + (1 - attention[1.0]) * upsampled(joint, size)
    low = upsampled(attention[0.5] * logits[0.5], size)
    assert_equal(wrapper(batch), low + (1 - upsampled(attention[0.5], size)) * joint)


@torch.inference_mode()
def test_one_scale_is_the_network_itself(batch):
    network = fill_(fcn())
    logits = network(batch)
    assert torch.equal(ImagePyramid(network, [1.0])(batch), logits.softmax(1))
    assert torch.equal(HierarchicalAttention(fill_(fcn()), "decode_head.conv_seg", [1.0])(batch), logits)


@torch.inference_mode()
def test_a_split_network_computes_the_same(batch):
    logits = fill_(deeplab())(batch)
    split = SplitNetwork(fill_(deeplab()), "fc8")
    features, again = split(batch)
    assert features.shape == (2, 16, *logits.shape[-2:]) and split.channels == 16
    assert torch.equal(again, logits)


def test_split_refuses_what_is_no_classifier():
    with pytest.raises(TypeError, match=r"decode_head must be the nn.Conv2d that ends the network, got FCNHead"):
        SplitNetwork(fcn(), "decode_head")


@pytest.mark.parametrize("scales", [(0.5, 2.0), (1.0, 1.0), (1.0, 0.0), (1.0, -0.5)])
@pytest.mark.parametrize("wrap", [ImagePyramid, lambda n, s: HierarchicalAttention(n, "decode_head.conv_seg", s)])
def test_scales_are_checked(wrap, scales):
    with pytest.raises(ValueError, match=r"different numbers above 0 with 1 among them.*got"):
        wrap(fcn(), scales)


def test_a_pixel_remains_at_every_scale():
    assert scaled(torch.zeros(1, 3, 1, 3), 0.25).shape == (1, 3, 1, 1)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda: ImagePyramid(deeplab(), (0.5, 1.0)),
        lambda: AttentionToScale(deeplab(), "fc8", (1.0, 0.5), channels=8),
        lambda: HierarchicalAttention(deeplab(), "fc8", (0.5, 1.0), channels=8),
    ],
    ids=["pyramid", "attention to scale", "hierarchical"],
)
def test_exports_as_one_static_graph(wrap):
    model = onnx_from_module(fill_(wrap()), (49, 65))
    assert not {node.op_type for node in model.graph.node} & {"Loop", "If", "Shape", "NonZero"}


@pytest.mark.parametrize(("name", "features"), [(NAMES[1], 512), (NAMES[2], 1024)])
def test_registry(name, features):
    with torch.device("meta"):
        split = MODELS[name].build(7).network
    assert (split.channels, split.classifier.out_channels) == (features, 7)


def test_what_the_wrappers_add():
    """The attentions' own convolutions, as the papers give them; nothing for the pyramid."""
    ocrnet = MODELS["ocrnet-hrnetw48"].params(19)
    assert MODELS["pyramid-ocrnet-hrnetw48"].params(19) == ocrnet
    head = 9 * 512 * 256 + 2 * 256 + 9 * 256 * 256 + 2 * 256 + 256
    assert MODELS["hierarchical-ocrnet-hrnetw48"].params(19) == ocrnet + head
    attention = 9 * 3 * 1024 * 512 + 512 + 3 * 512 + 3
    names = "attention-to-scale-deeplabv1-vgg16", "deeplabv1-vgg16"
    assert MODELS[names[0]].params(21) == MODELS[names[1]].params(21) + attention


def test_pyramid_takes_the_checkpoint_of_its_network():
    """mmsegmentation's OCRNet is an OCRNet, unless the pyramid was asked for."""
    shapes = expected_shapes("ocrnet-hrnetw48", 19)
    tensors = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    for model, found in ((None, "ocrnet-hrnetw48"), *((name, name) for name in ("ocrnet-hrnetw48", NAMES[0]))):
        recognised = recognise(Path("file.pth"), tensors, model)
        assert settle(recognised, model, 19) == (found, 19)
    assert recognised.checkpoint.tensors.keys() == expected_shapes(NAMES[0], 19).keys()


def test_weights_are_shared_by_the_scales():
    one, three = (count_module(lambda n=n: ImagePyramid(fcn(), n), (64, 64)) for n in ([1.0], [1.0, 0.5, 2.0]))
    assert one.params == three.params
    assert three.macs == pytest.approx(one.macs * (1 + 1 / 4 + 4), rel=1e-3)
