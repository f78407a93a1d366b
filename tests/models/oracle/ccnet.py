"""Writes fixtures/ccnet.npz from mmsegmentation: python tests/models/oracle/ccnet.py"""

from mmsegmentation import CLASSES, RESNET_WIDTHS, build, narrow, published, write

CONFIG = "ccnet/ccnet_r{}-d8_4xb4-160k_ade20k-512x512"


def tiny() -> object:
    config = published(CONFIG.format(50))
    narrow(config.backbone)
    config.decode_head.update(in_channels=RESNET_WIDTHS[3], channels=16, num_classes=CLASSES)
    config.auxiliary_head.update(in_channels=RESNET_WIDTHS[2], channels=8, num_classes=CLASSES)
    return config


if __name__ == "__main__":
    network = build(tiny())
    digests = {f"ccnet-resnet{depth}": build(published(CONFIG.format(depth))) for depth in (50, 101)}
    write("ccnet", {"ccnet-resnet50": (network, network._forward)}, digests)
