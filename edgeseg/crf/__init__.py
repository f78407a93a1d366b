"""The fully connected CRF that DeepLab v1 and v2 refine their scores with. Needs numpy alone."""

from edgeseg.crf.mean_field import DenseCrf, dense_crf, mean_field
from edgeseg.crf.refine import refine

__all__ = ["DenseCrf", "dense_crf", "mean_field", "refine"]
