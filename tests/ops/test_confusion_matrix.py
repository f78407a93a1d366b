"""confusion_matrix against a loop over pixels, on every path. tests/test_metrics.py has more of it, by hand."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from edgeseg import kernels
from edgeseg.ops import confusion_matrix
from edgeseg.ops.confusion_matrix import confusion_matrix_reference, run_kernel

PATHS = [
    pytest.param("cpu", marks=pytest.mark.skipif(not kernels.available(), reason="the kernel library was not built")),
    "reference",
    pytest.param(
        "emulated",
        marks=pytest.mark.skipif(
            kernels.library_path("edgeseg_emulated") is None, reason="built without EDGESEG_EMULATION"
        ),
    ),
]


def loop(labels: np.ndarray, target: np.ndarray, num_classes: int, ignore_index: int) -> np.ndarray:
    """(K + 1, K + 1): index K for ids that are no class."""
    matrix = np.zeros((num_classes + 1, num_classes + 1), np.int64)
    for predicted, true in zip(labels.ravel().tolist(), target.ravel().tolist(), strict=True):
        if true != ignore_index:
            row, column = (id_ if 0 <= id_ < num_classes else num_classes for id_ in (true, predicted))
            matrix[row, column] += 1
    return matrix


def run(path: str, labels: np.ndarray, target: np.ndarray, num_classes: int, ignore_index: int) -> np.ndarray:
    if path == "reference":
        return confusion_matrix_reference(labels, target, num_classes, ignore_index)
    if path == "cpu":
        return run_kernel(labels, target, num_classes, ignore_index, 1)
    counts = np.full((num_classes + 1, num_classes + 1), -5, np.int64)
    function = kernels.function("edgeseg_confusion_matrix_cuda", "ppiqqipp", "edgeseg_emulated")
    id_type = 0 if labels.dtype == np.uint8 else 1
    addresses = labels.ctypes.data, target.ctypes.data
    assert function(*addresses, id_type, labels.size, num_classes, ignore_index, counts.ctypes.data, None) == 0
    return counts


def maps(count: int, num_classes: int, kind: str, dtype: type = np.uint8) -> tuple[np.ndarray, np.ndarray]:
    """labels, target: "noise" of any byte (int32: beyond it too), or "regions" of one id with ragged borders."""
    random = np.random.default_rng(count + num_classes)
    if kind == "noise":
        low, high = (0, 256) if dtype == np.uint8 else (-3, 300)
        labels, target = random.integers(low, high, (2, count)).astype(dtype)
        return labels, target
    target = (np.arange(count) // 700 % num_classes).astype(dtype)
    target[np.arange(count) % 1900 < 200] = 255
    labels = np.roll(target, 9)
    labels[labels == 255] = 0
    return labels, target


@pytest.mark.parametrize("path", PATHS)
class TestPaths:
    @pytest.mark.parametrize("kind", ["noise", "regions"])
    @pytest.mark.parametrize(
        ("count", "num_classes"), [(0, 3), (1, 1), (31, 2), (32, 2), (33, 19), (511, 5), (5000, 19), (9001, 150)]
    )
    def test_bytes(self, count, num_classes, kind, path):
        labels, target = maps(count, num_classes, kind)
        for ignore in (255, 0, num_classes - 1):
            np.testing.assert_array_equal(
                run(path, labels, target, num_classes, ignore), loop(labels, target, num_classes, ignore)
            )

    @pytest.mark.parametrize("num_classes", [1, 109, 110, 254, 255])  # 109: the last whose counts fit shared memory
    def test_numbers_of_classes(self, num_classes, path):
        labels, target = maps(3000, num_classes, "noise")
        np.testing.assert_array_equal(
            run(path, labels, target, num_classes, 255), loop(labels, target, num_classes, 255)
        )

    @pytest.mark.parametrize("kind", ["noise", "regions"])
    def test_integers(self, kind, path):
        labels, target = maps(4003, 19, kind, np.int32)
        np.testing.assert_array_equal(run(path, labels, target, 19, 255), loop(labels, target, 19, 255))
        far = np.array([-(2**31), 2**31 - 1, 256, -1, 3], np.int32)
        np.testing.assert_array_equal(run(path, far, far[::-1].copy(), 4, 0), loop(far, far[::-1], 4, 0))

    @pytest.mark.parametrize("offset", [1, 3, 16])
    def test_at_any_address(self, offset, path):
        labels, target = maps(3000, 7, "regions")
        both = labels[offset:], target[:-offset]
        np.testing.assert_array_equal(run(path, *both, 7, 255), loop(*both, 7, 255))

    def test_one_pair_everywhere(self, path):
        """What whole warps and blocks of pixels count at once."""
        ones = np.ones(10_000, np.uint8)
        expected = np.zeros((4, 4), np.int64)
        expected[2, 1] = 10_000
        np.testing.assert_array_equal(run(path, ones, 2 * ones, 3, 255), expected)
        assert not run(path, ones, 2 * ones, 3, 2).any()


@pytest.mark.skipif(not kernels.available(), reason="the kernel library was not built")
def test_the_result_does_not_depend_on_threads():
    labels, target = maps(400_001, 19, "regions")
    expected = confusion_matrix_reference(labels, target, 19, 255)
    for threads in (1, 2, 3, 16):
        np.testing.assert_array_equal(run_kernel(labels, target, 19, 255, threads), expected)


class TestFunction:
    labels, target = (array.reshape(2, 40, 50) for array in maps(4000, 6, "regions"))

    def test_array_and_tensor(self):
        expected = loop(self.labels, self.target, 6, 255)[:6, :6]
        for dtype in (np.uint8, np.int8, np.int16, np.uint16, np.int32, np.int64, np.uint64):
            target = self.target if dtype == np.uint8 else np.where(self.target == 255, 11, self.target).astype(dtype)
            ignore = 255 if dtype == np.uint8 else 11
            matrix = confusion_matrix(self.labels.astype(dtype), target, 6, ignore, threads=2)
            assert matrix.dtype == np.int64 and matrix.flags.c_contiguous
            np.testing.assert_array_equal(matrix, expected)
            if dtype not in (np.uint16, np.uint64):
                tensors = torch.from_numpy(self.labels.astype(dtype)), torch.from_numpy(target)
                np.testing.assert_array_equal(confusion_matrix(*tensors, 6, ignore).numpy(), expected)

    def test_types_may_differ(self):
        expected = loop(self.labels, self.target, 6, 255)[:6, :6]
        np.testing.assert_array_equal(confusion_matrix(self.labels, self.target.astype(np.int64), 6), expected)
        tensors = torch.from_numpy(self.labels).int(), torch.from_numpy(self.target)
        np.testing.assert_array_equal(confusion_matrix(*tensors, 6).numpy(), expected)

    def test_strided(self):
        views = self.labels[:, ::-2, 3:].transpose(2, 0, 1), self.target[:, ::-2, 3:].transpose(2, 0, 1)
        expected = loop(*views, 6, 255)[:6, :6]
        np.testing.assert_array_equal(confusion_matrix(*views, 6), expected)
        tensors = (torch.from_numpy(array)[:, 1::2].mT for array in (self.labels, self.target))
        np.testing.assert_array_equal(
            confusion_matrix(*tensors, 6).numpy(), loop(self.labels[:, 1::2], self.target[:, 1::2], 6, 255)[:6, :6]
        )

    def test_what_lies_under_void_is_not_looked_at(self):
        target = np.array([0, 255, 1], np.uint8)
        for labels in (np.array([0, 200, 1], np.uint8), np.array([0, -7, 1])):
            assert confusion_matrix(labels, target, 2).tolist() == [[1, 0], [0, 1]]

    @pytest.mark.parametrize(
        ("labels", "target", "message"),
        [
            ([0, 1], [0, 1, 1], r"one shape, got \(2,\) and \(3,\)"),
            ([0, 0], [0, 11], r"target holds the ids 11, but there are 3 classes \(0 to 2 and 255 for void\)"),
            ([0, 7], [0, 0], r"labels holds the ids 7, but there are 3 classes \(0 to 2\); map other ids first"),
            ([0, 255], [0, 0], "labels holds the ids 255"),
            (list(range(20)), [0] * 20, "ids 3, 4, 5, 6, 7, 8, 9, 10, ..., but"),
            ([0, 0], [0, -1], "target must be ids from 0 to 255, got -1"),
            ([0, 2**40], [0, 0], "labels must be ids from 0 to 255, got 1099511627776"),
            ([0, 0.5], [0, 0], "labels must be integer class ids, got (torch.)?float"),
            ([True, False], [0, 0], "labels must be integer class ids, got (torch.)?bool"),
        ],
    )
    def test_refuses(self, labels, target, message):
        with pytest.raises(ValueError, match=message):
            confusion_matrix(np.array(labels), np.array(target), 3)
        with pytest.raises(ValueError, match=message):
            confusion_matrix(torch.tensor(labels), torch.tensor(target), 3)

    def test_strange_ids_can_be_left_out(self):
        labels, target = np.array([0, 7, 1, 1]), np.array([0, 0, -1, 1])
        assert confusion_matrix(labels, target, 2, strict=False).tolist() == [[1, 0], [0, 1]]
        tensors = torch.from_numpy(labels), torch.from_numpy(target)
        assert confusion_matrix(*tensors, 2, strict=False).tolist() == [[1, 0], [0, 1]]

    def test_refuses_wrong_numbers(self):
        ones = np.ones((2, 2), np.uint8)
        with pytest.raises(ValueError, match="num_classes must be 1 to 255, got 256"):
            confusion_matrix(ones, ones, 256)
        with pytest.raises(ValueError, match="ignore_index must be 0 to 255, got -1"):
            confusion_matrix(ones, ones, 2, ignore_index=-1)
        with pytest.raises(ValueError, match="threads must be at least 1, got 0"):
            confusion_matrix(ones, ones, 2, threads=0)
        with pytest.raises(TypeError, match="target must be a tensor as labels are, got ndarray"):
            confusion_matrix(torch.from_numpy(ones), ones, 2)


class TestTorchOperator:
    @pytest.mark.parametrize("dtype", [torch.uint8, torch.int32])
    def test_opcheck(self, dtype):
        for count in (0, 70):
            labels, target = (torch.from_numpy(array).to(dtype) for array in maps(count, 5, "regions"))
            confusion_matrix(labels, target, 5)  # registers it
            torch.library.opcheck(torch.ops.edgeseg.confusion_matrix.default, (labels, target, 5, 255))

    def test_compiles_without_a_break(self):
        torch.compiler.reset()
        compiled = torch.compile(
            lambda labels, target: confusion_matrix(labels, target, 5, strict=False).diagonal().sum(),
            fullgraph=True,
            backend="aot_eager",
        )
        for dtype in (torch.uint8, torch.int64):
            labels, target = (torch.from_numpy(array).to(dtype) for array in maps(500, 5, "regions"))
            assert compiled(labels, target) == confusion_matrix(labels, target, 5).trace()

    def test_every_way_to_compute_it_agrees(self):
        from edgeseg.ops import _torch_confusion_matrix as registered

        labels, target = (torch.from_numpy(array) for array in maps(3000, 19, "noise"))
        expected = torch.from_numpy(loop(labels.numpy(), target.numpy(), 19, 255))
        for way in (
            torch.ops.edgeseg.confusion_matrix,
            registered.confusion_matrix_reference,
            *([registered._through_ctypes] if kernels.available() else []),
        ):
            assert torch.equal(way(labels, target, 19, 255), expected)

    def test_refuses_from_cpp_too(self):
        labels = torch.zeros(3, dtype=torch.uint8)
        confusion_matrix(labels, labels, 2)
        if not kernels.status()["torch"]["available"]:
            pytest.skip("edgeseg was built without torch")
        with pytest.raises(RuntimeError, match="num_classes must be 1 to 255"):
            torch.ops.edgeseg.confusion_matrix(labels, labels, 0)
        with pytest.raises(RuntimeError, match="must both be uint8 or both int32"):
            torch.ops.edgeseg.confusion_matrix(labels, labels.long(), 2)
        with pytest.raises(RuntimeError, match="one shape"):
            torch.ops.edgeseg.confusion_matrix(labels, labels[:2], 2)

    @pytest.mark.cuda
    @pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
    @pytest.mark.parametrize("dtype", [np.uint8, np.int32])
    def test_on_cuda(self, dtype):
        for count, num_classes in ((0, 3), (33, 19), (100_001, 19), (50_000, 150)):
            for kind in ("noise", "regions"):
                labels, target = maps(count, num_classes, kind, dtype)
                on_gpu = (torch.from_numpy(array).cuda() for array in (labels, target))
                matrix = confusion_matrix(*on_gpu, num_classes, strict=False).cpu().numpy()
                expected = confusion_matrix_reference(labels, target, num_classes, 255)
                np.testing.assert_array_equal(matrix, expected[:-1, :-1])


@pytest.mark.skipif(not kernels.available(), reason="the kernel library was not built")
@pytest.mark.parametrize(
    ("at", "value"), [(0, None), (2, 2), (3, -1), (4, 0), (4, 256), (5, -1), (5, 256), (6, None), (7, -1)]
)
def test_the_c_function_checks_its_arguments(at, value):
    ids, counts = np.zeros(4, np.uint8), np.zeros((3, 3), np.int64)
    values: list = [ids.ctypes.data, ids.ctypes.data, 0, 4, 2, 255, counts.ctypes.data, 1]
    function = kernels.function("edgeseg_confusion_matrix", "ppiqqipi")
    assert function(*values) == 0
    values[at] = value
    with pytest.raises(ValueError, match="count: invalid argument"):
        kernels.check(function(*values), "count")


def test_without_the_library_arrays_and_tensors_are_counted():
    script = """
from edgeseg import kernels
kernels.library_path = lambda name: None
import sys
import numpy as np
from edgeseg.ops import confusion_matrix
labels, target = np.array([0, 1, 1, 0], np.uint8), np.array([0, 0, 1, 255], np.uint8)
assert confusion_matrix(labels, target, 2).tolist() == [[1, 1], [0, 1]]
assert "torch" not in sys.modules
import torch
assert confusion_matrix(torch.from_numpy(labels), torch.from_numpy(target), 2).tolist() == [[1, 1], [0, 1]]"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
