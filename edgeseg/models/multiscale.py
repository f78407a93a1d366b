"""One network looking at several scales of the image, as one network: a wrapper each for three ways to combine them.

- `ImagePyramid`: the mean of the class probabilities; nothing to train.
- `AttentionToScale`: Chen, Yang, Wang, Xu, Yuille. CVPR 2016. https://arxiv.org/abs/1511.03339
- `HierarchicalAttention`: Tao, Sapra, Catanzaro. 2020. https://arxiv.org/abs/2005.10821

The network's weights are shared by all scales. Sizes are fixed when a graph is exported, so that the whole becomes one
static graph. Scales meet at the resolution of the logits of scale 1, where the papers' programs first upsample each to
its image: the same formulas on a stride's fewer pixels.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edgeseg.models.deeplabv1 import deeplabv1_vgg16
from edgeseg.models.layers import ConvModule, initialise, resize
from edgeseg.models.ocrnet import ocrnet_hrnetw48

OF_ONE_SCALE = {"{rest}": "network.{rest}"}  # what a checkpoint of the network alone is called in `ImagePyramid`


class ImagePyramid(nn.Module):
    """(N, 3, H, W) -> (N, num_classes, h, w), the mean over the scales of softmax(logits resized to those of scale 1).

    Args:
        network: images to logits, any of the zoo.
        scales: factors of the image's size; 1 among them.
    """

    def __init__(self, network: nn.Module, scales: Sequence[float] = (0.5, 1.0, 1.5)):
        super().__init__()
        self.network = network
        self.scales = _checked(scales)

    def forward(self, images: Tensor) -> Tensor:
        logits = {scale: self.network(scaled(images, scale)) for scale in self.scales}
        shares = [torch.softmax(resize(x, logits[1.0]), dim=1) for x in logits.values()]
        return sum(shares[1:], shares[0]) / len(shares)


class SplitNetwork(nn.Module):
    """A network in two parts: images to what its classifier reads, and the classifier. Both at the logits' stride.

    Args:
        network: images to logits, the classifier's output as it is. The classifier is taken out of it.
        classifier: path of that convolution, such as "decode_head.conv_seg".
    """

    def __init__(self, network: nn.Module, classifier: str):
        super().__init__()
        module = network.get_submodule(classifier)
        if not isinstance(module, nn.Conv2d):
            raise TypeError(f"{classifier} must be the nn.Conv2d that ends the network, got {type(module).__name__}")
        parent, _, name = classifier.rpartition(".")
        setattr(network.get_submodule(parent), name, nn.Identity())
        self.body = network
        self.classifier = module
        self.channels = module.in_channels

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.body(images)
        return features, self.classifier(features)


class AttentionToScale(nn.Module):
    """(N, 3, H, W) -> logits (N, num_classes, h, w) = sum_s w_s logits_s, w = softmax over the scales at each pixel.

    The weights come from the features in front of the classifier, of all scales side by side, by a 3x3 convolution,
    ReLU and a 1x1 convolution (paper, section 3.2 and equation 1).

    Args:
        network, classifier: as `SplitNetwork` takes them.
        scales: the paper's three by default; 1 among them.
        channels: of the attention's first convolution.
    """

    def __init__(
        self, network: nn.Module, classifier: str, scales: Sequence[float] = (1.0, 0.75, 0.5), channels: int = 512
    ):
        super().__init__()
        self.network = SplitNetwork(network, classifier)
        self.scales = _checked(scales)
        self.attention = nn.Sequential(
            nn.Conv2d(len(self.scales) * self.network.channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, len(self.scales), 1),
        ).apply(initialise)

    def forward(self, images: Tensor) -> Tensor:
        seen = [self.network(scaled(images, scale)) for scale in self.scales]
        like = seen[self.scales.index(1.0)][1]
        features = torch.cat([resize(x, like) for x, _ in seen], dim=1)
        weights = torch.softmax(self.attention(features), dim=1).chunk(len(seen), dim=1)
        weighted = [weight * resize(logits, like) for weight, (_, logits) in zip(weights, seen, strict=True)]
        return sum(weighted[1:], weighted[0])


class HierarchicalAttention(nn.Module):
    """(N, 3, H, W) -> logits (N, num_classes, h, w). From the largest scale down, each scale's attention a in 0..1 says
    how much of its own logits to take and how much of what the larger ones gave (paper, equation 1 and figure 2):

        scale >= 1:  joint = a logits + (1 - a) down(joint)        scale < 1:  joint = up(a logits) + (1 - up(a)) joint

    The largest scale gives its logits whole, so its attention is not computed.

    Args:
        network, classifier: as `SplitNetwork` takes them.
        scales: the paper's three by default; 1 among them.
        channels: of the two 3x3 convolutions of the attention.
    """

    def __init__(
        self, network: nn.Module, classifier: str, scales: Sequence[float] = (0.5, 1.0, 2.0), channels: int = 256
    ):
        super().__init__()
        self.network = SplitNetwork(network, classifier)
        self.scales = tuple(sorted(_checked(scales), reverse=True))
        self.attention = nn.Sequential(
            ConvModule(self.network.channels, channels, 3),
            ConvModule(channels, channels, 3),
            nn.Conv2d(channels, 1, 1, bias=False),
            nn.Sigmoid(),
        ).apply(initialise)

    def forward(self, images: Tensor) -> Tensor:
        _, joint = self.network(scaled(images, self.scales[0]))
        for scale in self.scales[1:]:
            features, logits = self.network(scaled(images, scale))
            attention = self.attention(features)
            if scale >= 1:
                joint = attention * logits + (1 - attention) * resize(joint, logits)
            else:
                joint = resize(attention * logits, joint) + (1 - resize(attention, joint)) * joint
        return joint


def scaled(images: Tensor, scale: float) -> Tensor:
    """(N, C, H, W) -> (N, C, floor(scale H), floor(scale W)), at least one pixel; bilinear, half-pixel centres."""
    height, width = images.shape[-2:]
    return resize(images, (max(1, int(height * scale)), max(1, int(width * scale))))


def _checked(scales: Sequence[float]) -> tuple[float, ...]:
    if 1.0 not in scales or min(scales) <= 0 or len(set(scales)) != len(scales):
        raise ValueError(
            f"scales must be different numbers above 0 with 1 among them, whose size the result has, got {scales}"
        )
    return tuple(map(float, scales))


def pyramid_ocrnet_hrnetw48(num_classes: int) -> ImagePyramid:
    """OCRNet's own weights at half, whole and one and a half times the size."""
    return ImagePyramid(ocrnet_hrnetw48(num_classes))


def hierarchical_ocrnet_hrnetw48(num_classes: int) -> HierarchicalAttention:
    """HRNet-OCR with hierarchical multi-scale attention: 1.77 M parameters more than OCRNet."""
    return HierarchicalAttention(ocrnet_hrnetw48(num_classes), "decode_head.1.conv_seg")


def attention_to_scale_deeplabv1_vgg16(num_classes: int) -> AttentionToScale:
    """The paper's: DeepLab-LargeFOV, whose fc7 feeds the attention."""
    return AttentionToScale(deeplabv1_vgg16(num_classes), "fc8")
