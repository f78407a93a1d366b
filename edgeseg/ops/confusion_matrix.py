"""Pixels counted by true and predicted class. The kernel and its reasoning: kernels/confusion_matrix/."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from edgeseg import kernels
from edgeseg.labels import VOID

if TYPE_CHECKING:
    from torch import Tensor


@overload
def confusion_matrix(
    labels: np.ndarray,
    target: np.ndarray,
    num_classes: int,
    ignore_index: int = VOID,
    *,
    strict: bool = True,
    threads: int | None = None,
) -> np.ndarray: ...
@overload
def confusion_matrix(
    labels: Tensor,
    target: Tensor,
    num_classes: int,
    ignore_index: int = VOID,
    *,
    strict: bool = True,
    threads: int | None = None,
) -> Tensor: ...
def confusion_matrix(labels, target, num_classes, ignore_index=VOID, *, strict=True, threads=None):
    """Count every pair (class in the target, class predicted); matrices of many images add up.

    Args:
        labels: predicted ids, integers of any shape; uint8 is counted as it is, others are converted.
        target: true ids, same shape; pixels of `ignore_index` are not counted, whatever was predicted there.
        num_classes: K, 1 to 255.
        ignore_index: an id from 0 to 255.
        strict: refuse ids that are no class. False leaves their pixels out of the count; on a GPU it also spares the
            wait for the result, and torch.compile needs it.
        threads: CPU threads; None takes what the work deserves (a torch tensor: torch's own threads).

    Returns:
        (K, K) int64; entry [t, p] is the number of pixels of class t that were labelled p. A tensor for tensors, else
        an array.

    Raises:
        ValueError: other shapes, or ids that are no class, which are named.

    Example:
        >>> confusion_matrix(np.array([0, 1, 1]), np.array([0, 0, 255]), 2).tolist()
        [[1, 1], [0, 0]]
    """
    num_classes, ignore_index = operator.index(num_classes), operator.index(ignore_index)
    if not 1 <= num_classes <= 255:
        raise ValueError(f"num_classes must be 1 to 255, got {num_classes}")
    if not 0 <= ignore_index <= 255:
        raise ValueError(f"ignore_index must be 0 to 255, got {ignore_index}")
    if threads is not None and operator.index(threads) < 1:
        raise ValueError(f"threads must be at least 1, got {threads}; leave it out to have it chosen")
    if type(labels).__module__.startswith("torch") or hasattr(labels, "__torch_function__"):
        from edgeseg.ops import _torch_confusion_matrix

        return _torch_confusion_matrix.confusion_matrix(labels, target, num_classes, ignore_index, strict, threads or 0)
    return _from_arrays(np.asarray(labels), np.asarray(target), num_classes, ignore_index, strict, threads or 0)


def check_shapes(labels: tuple[int, ...], target: tuple[int, ...]) -> None:
    """ValueError unless every label has its target."""
    if tuple(labels) != tuple(target):
        raise ValueError(f"labels and target must have one shape, got {tuple(labels)} and {tuple(target)}")


def _from_arrays(
    labels: np.ndarray, target: np.ndarray, num_classes: int, ignore_index: int, strict: bool, threads: int
) -> np.ndarray:
    check_shapes(labels.shape, target.shape)
    for ids, name in ((labels, "labels"), (target, "target")):
        if not np.issubdtype(ids.dtype, np.integer):
            raise ValueError(f"{name} must be integer class ids, got {ids.dtype}")
    if labels.dtype == target.dtype == np.uint8:
        predicted, true = np.ascontiguousarray(labels), np.ascontiguousarray(target)
    else:  # what lies beyond a byte is no class, whatever it is
        predicted, true = (
            np.ascontiguousarray(ids.astype(np.int64).clip(-1, 256), np.int32) for ids in (labels, target)
        )
    if kernels.available():
        counts = run_kernel(predicted, true, num_classes, ignore_index, threads)
    else:
        counts = confusion_matrix_reference(predicted, true, num_classes, ignore_index)
    if strict and (counts[-1].any() or counts[:, -1].any()):
        raise_strange_ids(labels, target, num_classes, ignore_index)
    return np.ascontiguousarray(counts[:-1, :-1])


def run_kernel(
    labels: np.ndarray, target: np.ndarray, num_classes: int, ignore_index: int, threads: int = 0
) -> np.ndarray:
    """The C function on contiguous arrays of one shape, both uint8 or both int32: (K + 1, K + 1) int64.

    Index K stands for every id that is no class.
    """
    counts = np.empty((num_classes + 1, num_classes + 1), np.int64)
    addresses = labels.ctypes.data, target.ctypes.data
    type_number = 0 if labels.dtype == np.uint8 else 1
    code = kernels.function("edgeseg_confusion_matrix", "ppiqqipi")(
        *addresses, type_number, labels.size, num_classes, ignore_index, counts.ctypes.data, threads
    )
    kernels.check(code, f"confusion_matrix of {labels.shape} {labels.dtype} with {num_classes} classes")
    return counts


def confusion_matrix_reference(
    labels: np.ndarray, target: np.ndarray, num_classes: int, ignore_index: int
) -> np.ndarray:
    """What `run_kernel` gives, in plain numpy; the fallback where no kernel library was built."""
    counted = target != ignore_index
    if labels.dtype == np.uint8:
        # Both ids in one number: a single count over the pixels, and all that follows reads 256 x 256 numbers.
        pairs = (target.astype(np.uint16) << 8) | labels
        counts = np.bincount(pairs.ravel(), minlength=65536).reshape(256, 256)
        counts[ignore_index] = 0
        starts = np.arange(num_classes + 1)  # of runs of ids that count as one: every class alone, all others together
        return np.add.reduceat(np.add.reduceat(counts, starts, 0), starts, 1).astype(np.int64)
    true, predicted = (
        np.where((ids >= 0) & (ids < num_classes), ids, num_classes)[counted] for ids in (target, labels)
    )
    side = num_classes + 1
    return np.bincount(true * side + predicted, minlength=side * side).reshape(side, side).astype(np.int64)


def raise_strange_ids(labels: Any, target: Any, num_classes: int, ignore_index: int) -> None:
    """ValueError that names the ids of counted pixels which are no class; arrays or tensors."""
    counted = target != ignore_index
    for ids, name, ignored in ((target, "target", f" and {ignore_index} for void"), (labels, "labels", "")):
        strange = sorted(set(ids[counted & ((ids < 0) | (ids >= num_classes))].tolist()))
        listed = ", ".join(map(str, strange[:8])) + (", ..." if len(strange) > 8 else "")
        if strange and not 0 <= strange[0] <= strange[-1] <= 255:
            raise ValueError(f"{name} must be ids from 0 to 255, got {listed}")
        if strange:
            raise ValueError(
                f"{name} holds the ids {listed}, but there are {num_classes} classes "
                f"(0 to {num_classes - 1}{ignored}); map other ids first"
            )
