"""Gaussian filtering of points in a few dimensions on the permutohedral lattice.

Fast High-Dimensional Filtering Using the Permutohedral Lattice. Adams, Baek, Davis. Eurographics 2010.

The lattice divides the plane x_0 + ... + x_d = 0 of d + 1 dimensions into simplices. A value is spread over the d + 1
corners of the simplex that its point lies in (splat), blurred along the d + 1 directions of the lattice, and read back
at the point (slice). The time is linear in the points, and only corners that some point touches exist.
"""

from __future__ import annotations

import numpy as np


class PermutohedralLattice:
    """The lattice of one set of points; `filter` may be called any number of times."""

    def __init__(self, features: np.ndarray):
        """
        Args:
            features: (d, n) float32, n >= 1, each divided by its standard deviation. Corners are numbered by the last
                features first: with the image's axes last, pixels near each other have their corners near in memory.

        Raises:
            ValueError: the points reach so far that corners cannot be numbered in 63 bits.
        """
        corner, rank, self._weights = _enclosing_simplices(features)
        keys, steps = _keys(corner, rank)
        order = np.argsort(keys, axis=None)
        in_order = keys.ravel()[order]
        is_new = np.concatenate([[True], in_order[1:] != in_order[:-1]])
        distinct = in_order[is_new]
        self.size = len(distinct)  # corners in use
        self._corners = np.empty(keys.shape, np.intp)  # (d + 1, n): number of each corner
        self._corners.ravel()[order] = np.cumsum(is_new) - 1
        # In direction j: the corners that have a neighbour there, and these neighbours.
        self._pairs = [_neighbours(distinct, step) for step in steps]
        self._splat_weights = self._weights.astype(np.float64)  # what bincount adds up

    def filter(self, values: np.ndarray) -> np.ndarray:
        """sum_j exp(-|f_i - f_j|^2 / 2) v_j for every point i, j = i included, times a constant, approximately.

        Args:
            values: (n,) float32.

        Returns:
            (n,) float32.
        """
        spread = self._splat_weights * values
        corners = np.bincount(self._corners.ravel(), spread.ravel(), self.size).astype(np.float32)
        for here, there in self._pairs:
            blurred = corners.copy()
            blurred[here] += 0.5 * corners[there]
            blurred[there] += 0.5 * corners[here]
            corners = blurred
        return np.einsum("kn,kn->n", corners.take(self._corners), self._weights)


def _enclosing_simplices(features: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of every point: the simplex' corner of remainder 0, (d + 1, n) int32; the rank of each coordinate in the
    point's offset from it, (d + 1, n) int32; and the d + 1 corners' barycentric weights, (d + 1, n) float32."""
    dimensions, count = features.shape
    elevated = _elevation(dimensions) @ features  # (d + 1, n)
    corner = np.rint(elevated / (dimensions + 1)).astype(np.int32)
    excess = corner.sum(0)  # 0 where the rounded point lies in the plane
    corner *= dimensions + 1
    offset = elevated - corner
    rank = np.zeros((dimensions + 1, count), np.int32)
    for i in range(dimensions + 1):
        for j in range(i + 1, dimensions + 1):
            is_less = offset[i] < offset[j]
            rank[i] += is_less
            rank[j] += ~is_less
    rank += excess  # back into the plane: the coordinates that were rounded the most go the other way
    shift = (dimensions + 1) * ((rank < 0).astype(np.int32) - (rank > dimensions))
    rank += shift
    corner += shift
    offset = (elevated - corner) / np.float32(dimensions + 1)
    descending = np.empty_like(offset)
    np.put_along_axis(descending, rank, offset, 0)
    weights = np.empty_like(offset)
    weights[1:] = (descending[:-1] - descending[1:])[::-1]
    weights[0] = 1 + descending[-1] - descending[0]
    return corner, rank, weights


def _elevation(dimensions: int) -> np.ndarray:
    """(d + 1, d) float32: orthogonal directions of the plane, scaled so that splat, blur and slice together have a
    standard deviation of one feature unit. Coordinate i depends on the features from i - 1 on only."""
    basis = np.zeros((dimensions + 1, dimensions))
    for i in range(dimensions):
        basis[: i + 1, i] = 1
        basis[i + 1, i] = -(i + 1)
        basis[:, i] /= np.sqrt((i + 1) * (i + 2))
    return (basis * np.sqrt(2 / 3) * (dimensions + 1)).astype(np.float32)


def _keys(corner: np.ndarray, rank: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """(d + 1, n) int64, one number for each corner of each simplex, and what a step in each direction adds to it.

    All coordinates but the first are digits (it follows from them), the last one the most significant.
    """
    dimensions = len(corner) - 1
    margin = 2 * (dimensions + 1)  # the other corners, and their neighbours
    low = corner[1:].min(1).astype(np.int64) - margin
    spans = corner[1:].max(1) + margin - low + 1
    strides = [1]
    for span in spans:
        strides.append(strides[-1] * int(span))  # Python's integers: no overflow
    if strides.pop() >= 2**63 or np.abs(corner).max() > 2**30:
        raise ValueError(f"the features span {spans} lattice cells, more than 63 bits; use larger standard deviations")
    origin = np.zeros(corner.shape[1], np.int64)
    for digit, first, stride in zip(corner[1:], low, strides, strict=True):
        origin += (digit - first) * stride
    keys = np.empty((dimensions + 1, corner.shape[1]), np.int64)
    keys[0] = origin
    for k in range(1, dimensions + 1):  # adds k to the d + 1 - k coordinates of least rank, k - d - 1 to the others
        keys[k] = origin + k * sum(strides)
        for digit_rank, stride in zip(rank[1:], strides, strict=True):
            keys[k] -= (digit_rank > dimensions - k) * ((dimensions + 1) * stride)
    steps = [sum(strides) - (dimensions + 1) * stride for stride in [0, *strides]]
    return keys, steps


def _neighbours(distinct: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions in the sorted keys of the pairs that are `step` apart."""
    place = np.searchsorted(distinct, distinct + step)
    place[place == len(distinct)] = 0
    here = np.flatnonzero(distinct[place] == distinct + step)
    return here, place[here]
