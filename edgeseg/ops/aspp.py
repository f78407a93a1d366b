"""Atrous spatial pyramid pooling in one pass. The kernel and its reasoning: kernels/aspp/ and kernels/dilated_conv/."""

from __future__ import annotations

from collections.abc import Sequence

from edgeseg.ops.dilated_conv import Activation, Array, OutDtype, convolve

MOST_BRANCHES = 7


def aspp(
    x: Array,
    weights: Sequence[Array],
    biases: Sequence[Array],
    dilations: Sequence[int],
    *,
    pool: bool = True,
    activation: Activation = "relu",
    scales: Sequence[Array] | None = None,
    out_dtype: OutDtype | None = None,
    threads: int | None = None,
) -> Array:
    """What DeepLabV3 concatenates: convolutions of x at several dilations and the image's mean, each with its ReLU.

    Equals ``cat([dilated_conv(x, w, b, dilation=d, activation=activation) for w, b, d in zip(weights, biases,
    dilations)] + [dilated_conv(x.mean((2, 3), keepdims=True), weights[-1], biases[-1], activation=activation)
    expanded to x's size], 1)``; every branch is written where it belongs, in one parallel pass over x, on CUDA one
    kernel (Chen et al. 2017, section 3.3). The mean is never rounded to float16. No gradient.

    Args:
        x: (N, C, H, W) as for :func:`edgeseg.ops.dilated_conv`.
        weights: (O, C, k, k) for each dilation and, with `pool`, last (O, C, 1, 1) for the image's mean; of x's type,
            batch norms folded in.
        biases: (O,) for each weight.
        dilations: one for each convolution, 1 to 7 of them: (1, 6, 12, 18) for a 1x1 and three 3x3.
        pool: whether the last weight is that of the mean.
        activation: "none", "relu" or "relu6".
        scales: with int8, (O,) float32 for each weight: scale of x times scale of ``weight[o]``.
        out_dtype, threads: as for :func:`edgeseg.ops.dilated_conv`.

    Returns:
        (N, len(weights) * O, H, W), in x's layout.

    Example:
        >>> import numpy as np
        >>> x = np.ones((1, 8, 33, 33), np.float32)
        >>> weights = [np.ones((4, 8, k, k), np.float32) for k in (1, 3, 3, 3, 1)]
        >>> aspp(x, weights, [np.zeros(4, np.float32)] * 5, (1, 6, 12, 18)).shape
        (1, 20, 33, 33)
    """
    branches = len(weights) - bool(pool)
    if not 1 <= branches <= MOST_BRANCHES or len(dilations) != branches or len(biases) != len(weights):
        raise ValueError(
            f"aspp takes 1 to {MOST_BRANCHES} dilations and for each{', and for the mean,' if pool else ''} "
            f"a weight and a bias, got {len(dilations)} dilations, {len(weights)} weights and {len(biases)} biases"
        )
    if scales is not None and len(scales) != len(weights):
        raise ValueError(f"each of the {len(weights)} weights needs a scale, got {len(scales)}")
    return convolve(x, weights, biases, dilations, bool(pool), activation, scales, out_dtype, threads)
