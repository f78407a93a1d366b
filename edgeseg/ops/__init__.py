"""Operations of edgeseg on numpy arrays and torch tensors. Importing this imports numpy only."""

from edgeseg.ops.aspp import aspp
from edgeseg.ops.blend_labels import blend_labels
from edgeseg.ops.confusion_matrix import confusion_matrix
from edgeseg.ops.dilated_conv import dilated_conv, fold_batch_norm, pack_weight, quantize_weight
from edgeseg.ops.preprocess import preprocess
from edgeseg.ops.pyramid_pooling import pyramid_pooling, pyramid_pooling_conv
from edgeseg.ops.upsample_argmax import upsample_argmax

__all__ = [
    "aspp",
    "blend_labels",
    "confusion_matrix",
    "dilated_conv",
    "fold_batch_norm",
    "pack_weight",
    "preprocess",
    "pyramid_pooling",
    "pyramid_pooling_conv",
    "quantize_weight",
    "upsample_argmax",
]
