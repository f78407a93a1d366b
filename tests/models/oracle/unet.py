"""Writes fixtures/unet.npz from mmsegmentation: python tests/models/oracle/unet.py"""

from mmsegmentation import CLASSES, build, published, write

CONFIG = "unet/unet-s5-d16_fcn_4xb4-160k_cityscapes-512x1024"


def tiny() -> object:
    config = published(CONFIG)
    config.backbone.base_channels = 4
    config.decode_head.update(in_channels=4, channels=4, num_classes=CLASSES)
    config.auxiliary_head.update(in_channels=8, channels=4, num_classes=CLASSES)
    return config


if __name__ == "__main__":
    network = build(tiny())
    digests = {"unet-s5-d16": build(published(CONFIG))}
    rows = {"unet-s5-d16": (network, network._forward)}
    write("unet", rows, digests, sizes=((32, 32), (16, 48)))  # it takes multiples of 16
