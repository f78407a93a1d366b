"""The loss of quantisation-aware training: the float network's opinion of every pixel, and how often both agree."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import kl_div

from edgeseg.labels import VOID
from edgeseg.metrics import SegmentationMetrics, confusion_matrix
from edgeseg.ops.upsample_argmax import upsample_argmax
from edgeseg.preprocess import Preprocess
from edgeseg.progress import Progress


class Loadable(Protocol):
    """What training needs of a sample."""

    def load(self) -> tuple[np.ndarray, np.ndarray]:
        """(H, W, 3) uint8 RGB and (H, W) uint8 labels."""


def distillation(logits: Tensor, target: Tensor) -> Tensor:
    """Kullback-Leibler divergence of the class probabilities from those of `target`, mean over the logits' pixels.

    Args:
        logits, target: (N, C, h, w) float32.
    """
    log_p, log_q = target.log_softmax(1), logits.log_softmax(1)
    return kl_div(log_q, log_p, log_target=True, reduction="sum") / (logits.numel() / logits.shape[1])


@torch.no_grad()
def agreement_of(
    network: nn.Module,
    teacher: nn.Module,
    samples: Sequence[Loadable],
    preprocess: Preprocess,
    classes: Sequence[str],
    device: torch.device,
    progress: Progress = Progress(),
) -> SegmentationMetrics:
    """Of the labels of `network` with those of `teacher`, at the images' sizes: `miou` is agreement-mIoU."""
    matrix = np.zeros((len(classes), len(classes)), np.int64)
    with progress.task("validate", len(samples)) as advance:
        for sample in samples:
            image, _ = sample.load()
            inputs = torch.from_numpy(preprocess(image)).to(device)
            ours, theirs = (
                upsample_argmax(np.ascontiguousarray(net(inputs).cpu().numpy()), image.shape[:2])[0]
                for net in (network.eval(), teacher)
            )
            matrix += confusion_matrix(ours, theirs, len(classes))
            advance(1)
    return SegmentationMetrics.from_confusion(matrix, classes)


def unlabelled(image: np.ndarray) -> np.ndarray:
    """(H, W) uint8: void everywhere, which no loss but the teacher's counts."""
    return np.full(image.shape[:2], VOID, np.uint8)
