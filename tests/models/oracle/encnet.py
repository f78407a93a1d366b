"""Writes fixtures/encnet.npz from mmsegmentation: python tests/models/oracle/encnet.py"""

from mmsegmentation import CLASSES, RESNET_WIDTHS, build, narrow, published, write

CONFIG = "encnet/encnet_r{}-d8_4xb4-160k_ade20k-512x512"


def tiny() -> object:
    config = published(CONFIG.format(50))
    narrow(config.backbone)
    config.decode_head.update(in_channels=RESNET_WIDTHS[1:], channels=16, num_codes=6, num_classes=CLASSES)
    config.auxiliary_head.update(in_channels=RESNET_WIDTHS[2], channels=8, num_classes=CLASSES)
    return config


if __name__ == "__main__":
    network = build(tiny())
    digests = {f"encnet-resnet{depth}": build(published(CONFIG.format(depth))) for depth in (50, 101)}
    rows = {
        "encnet-resnet50": (network, lambda x: network._forward(x)[0])
    }  # beside it the classes that the image holds
    write("encnet", rows, digests, dead=("auxiliary_head.", "decode_head.se_layer."))
