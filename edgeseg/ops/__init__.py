"""Operations of edgeseg on numpy arrays and torch tensors. Importing this imports numpy only."""

from edgeseg.ops.normalize_image import normalize_image
from edgeseg.ops.upsample_argmax import upsample_argmax

__all__ = ["normalize_image", "upsample_argmax"]
