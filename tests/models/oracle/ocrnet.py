"""Writes fixtures/ocrnet.npz from mmsegmentation: python tests/models/oracle/ocrnet.py"""

from mmsegmentation import CLASSES, build, published, write

WIDTHS = (4, 6, 8, 10)


def tiny() -> object:
    """Few channels, two blocks a branch, two modules a stage."""
    config = published("ocrnet/ocrnet_hr18_4xb4-160k_ade20k-512x512")
    stages = config.backbone.extra
    for branches in (2, 3, 4):
        stage = stages[f"stage{branches}"]
        stage.update(num_channels=WIDTHS[:branches], num_blocks=(2,) * branches, num_modules=min(stage.num_modules, 2))
    stages.stage1.num_blocks = (2,)
    regions, objects = config.decode_head
    regions.update(in_channels=WIDTHS, channels=sum(WIDTHS), num_classes=CLASSES)
    objects.update(in_channels=WIDTHS, channels=16, ocr_channels=8, num_classes=CLASSES)
    return config


if __name__ == "__main__":
    network = build(tiny())
    digests = {
        f"ocrnet-hrnetw{width}": build(published(f"ocrnet/ocrnet_hr{width}_4xb4-160k_ade20k-512x512"))
        for width in (18, 48)
    }
    write("ocrnet", {"ocrnet-hrnetw18": (network, network._forward)}, digests)
