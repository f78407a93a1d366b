"""Writes fixtures/icnet.npz from mmsegmentation: python tests/models/oracle/icnet.py"""

from mmsegmentation import CLASSES, RESNET_WIDTHS, build, narrow, published, write

CONFIG = "icnet/icnet_r{}-d8_4xb2-160k_cityscapes-832x832"


def tiny() -> object:
    config = published(CONFIG.format(50))
    narrow(config.backbone.backbone_cfg)
    ends = {"out_channels": (4, 6, 6), "light_branch_middle_channels": 4, "psp_out_channels": 8}
    config.backbone.update(layer_channels=(RESNET_WIDTHS[1], RESNET_WIDTHS[3]), **ends)
    config.neck.update(in_channels=(4, 6, 6), out_channels=8)
    for head in (config.decode_head, *config.auxiliary_head):
        head.update(in_channels=8, channels=8, num_classes=CLASSES)
    return config


if __name__ == "__main__":
    network = build(tiny())
    digests = {"icnet": build(published(CONFIG.format(50))), "icnet-resnet101": build(published(CONFIG.format(101)))}
    write("icnet", {"icnet": (network, network._forward)}, digests, sizes=((128, 128), (97, 131)))
