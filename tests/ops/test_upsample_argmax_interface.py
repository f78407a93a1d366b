"""upsample_argmax as users call it: arrays, tensors, torch.compile, refusals, and machines without the library."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from edgeseg import kernels
from edgeseg.ops import upsample_argmax
from edgeseg.ops.upsample_argmax import upsample_argmax_reference

from .test_upsample_argmax import GENERAL, assert_best, expected_labels, regions


class TestFunction:
    logits = regions((2, 11, 18, 26), 10)
    size = (61, 104)

    def test_array_gives_array(self):
        labels = upsample_argmax(self.logits, self.size)
        assert isinstance(labels, np.ndarray)
        assert_best(self.logits, labels, self.size)

    def test_tensor_gives_the_same_labels(self):
        labels = upsample_argmax(torch.from_numpy(self.logits), self.size)
        assert labels.dtype == torch.uint8 and labels.shape == (2, *self.size)
        np.testing.assert_array_equal(labels.numpy(), upsample_argmax(self.logits, self.size))
        np.testing.assert_array_equal(upsample_argmax(torch.from_numpy(self.logits), self.size, threads=2), labels)

    def test_strided_array(self):
        view = np.ascontiguousarray(self.logits.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)[:, ::2, 1:, ::-1]
        np.testing.assert_array_equal(upsample_argmax(view, self.size), upsample_argmax(view.copy(), self.size))

    def test_strided_tensor(self):
        view = torch.from_numpy(self.logits).to(memory_format=torch.channels_last)[:, 1::2, :, 3:]
        assert torch.equal(upsample_argmax(view, self.size), upsample_argmax(view.contiguous(), self.size))

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision(self, dtype):
        half = torch.from_numpy(self.logits).to(dtype)
        assert_best(half.float().numpy(), upsample_argmax(half, self.size).numpy(), self.size)
        if dtype is torch.float16:
            np.testing.assert_array_equal(upsample_argmax(half.numpy(), self.size), upsample_argmax(half, self.size))

    def test_empty_batch(self):
        assert upsample_argmax(self.logits[:0], self.size).shape == (0, *self.size)
        assert upsample_argmax(torch.from_numpy(self.logits[:0]), self.size).shape == (0, *self.size)

    def test_input_is_not_changed(self):
        before = self.logits.copy()
        upsample_argmax(self.logits, self.size)
        np.testing.assert_array_equal(self.logits, before)

    def test_many_callers_at_once(self):
        expected = upsample_argmax(self.logits, self.size)
        with ThreadPoolExecutor(6) as callers:
            for labels in callers.map(lambda _: upsample_argmax(self.logits, self.size, threads=2), range(40)):
                np.testing.assert_array_equal(labels, expected)

    @pytest.mark.parametrize(
        ("logits", "size", "error", "match"),
        [
            (
                np.zeros((19, 4, 4), np.float32),
                (8, 8),
                ValueError,
                r"must be \(N, C, h, w\), got \(19, 4, 4\); add a batch",
            ),
            (np.zeros((1, 65536, 1, 1), np.float32), (8, 8), ValueError, "1 to 65535 classes, got 65536"),
            (np.zeros((1, 0, 4, 4), np.float32), (8, 8), ValueError, "1 to 65535 classes, got 0"),
            (np.zeros((1, 3, 0, 4), np.float32), (8, 8), ValueError, r"h and w in .* got \(1, 3, 0, 4\)"),
            (np.zeros((1, 3, 4, 4), np.int32), (8, 8), TypeError, "must be float32 or float16, got int32"),
            (np.zeros((1, 3, 4, 4)), (8, 8), TypeError, "must be float32 or float16, got float64"),
            (np.zeros((1, 3, 4, 4), np.float32), (0, 8), ValueError, r"each in .*, got \(0, 8\)"),
            (np.zeros((1, 3, 4, 4), np.float32), (8.0, 8), TypeError, "two integers"),
            (np.zeros((1, 3, 4, 4), np.float32), 8, TypeError, "two integers"),
            (np.zeros((1, 3, 4, 4), np.float32), (8, 8, 8), TypeError, "two integers"),
            ([[[[0.0]]]], (8, 8), TypeError, "numpy array or a torch tensor, got list"),
        ],
    )
    def test_refuses(self, logits, size, error, match):
        with pytest.raises(error, match=match):
            upsample_argmax(logits, size)
        if isinstance(logits, np.ndarray):
            with pytest.raises(
                error, match=match.replace("got int32", "got torch").replace("got float64", "got torch")
            ):
                upsample_argmax(torch.from_numpy(logits), size)

    def test_refuses_no_threads(self):
        with pytest.raises(ValueError, match="threads must be at least 1, got 0"):
            upsample_argmax(self.logits, self.size, threads=0)


class TestTorchOperator:
    @pytest.mark.parametrize("shape", [(1, 19, 8, 16), (2, 3, 5, 7), (0, 4, 3, 3)])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
    def test_opcheck(self, shape, dtype):
        upsample_argmax(torch.zeros(1, 1, 1, 1), (1, 1))  # registers it
        logits = torch.from_numpy(regions(shape, 11)).to(dtype)
        for options in ((), (True, False), (False, True)):
            torch.library.opcheck(torch.ops.edgeseg.upsample_argmax.default, (logits, 33, 47, *options))

    def test_compiles_without_a_break(self):
        torch.compiler.reset()
        compiled = torch.compile(lambda x: upsample_argmax(2 * x, (24, 31)) + 1, fullgraph=True, backend="aot_eager")
        for batch in (1, 3):
            logits = torch.from_numpy(regions((batch, 5, 8, 9), 12))
            assert torch.equal(compiled(logits), upsample_argmax(2 * logits, (24, 31)) + 1)

    def test_every_way_to_compute_it_agrees(self):
        from edgeseg.ops import _torch_upsample_argmax as registered

        logits = torch.from_numpy(np.rint(4 * regions((2, 6, 9, 21), 13)) / 4)
        expected = registered.upsample_argmax_reference(logits, 36, 84, margin=True)
        for labels, margins in (
            torch.ops.edgeseg.upsample_argmax(logits, 36, 84, margin=True),
            registered._through_ctypes(logits, 36, 84, margin=True),
            map(torch.from_numpy, upsample_argmax_reference(logits.numpy(), (36, 84), margin=True)),
        ):
            assert torch.equal(labels, expected[0]) and torch.equal(margins, expected[1])

    def test_refuses_from_cpp_too(self):
        upsample_argmax(torch.zeros(1, 1, 1, 1), (1, 1))
        if not kernels.status()["torch"]["available"]:
            pytest.skip("edgeseg was built without torch")
        with pytest.raises(RuntimeError, match=r"classes not in \[1, 65535\]"):
            torch.ops.edgeseg.upsample_argmax(torch.zeros(1, 65536, 1, 1), 4, 4)
        with pytest.raises(RuntimeError, match="float32, float16 or bfloat16"):
            torch.ops.edgeseg.upsample_argmax(torch.zeros(1, 3, 2, 2, dtype=torch.int64), 4, 4)


class TestReference:
    """The numpy fallback, which is also what the kernel is read against."""

    @pytest.mark.parametrize(("shape", "size"), GENERAL)
    def test_any_size(self, shape, size):
        logits = regions(shape, 14)
        for align_corners in (False, True):
            labels, _ = upsample_argmax_reference(logits, size, align_corners)
            assert_best(logits, labels, size, align_corners)

    def test_not_finite(self):
        random = np.random.default_rng(15)
        logits = random.choice(
            np.array([0, 1, np.nan, np.inf, -np.inf], np.float32), (1, 5, 6, 9), p=[0.4, 0.3, 0.1, 0.1, 0.1]
        )
        for size in ((24, 36), (6, 9), (6, 36)):
            np.testing.assert_array_equal(upsample_argmax_reference(logits, size)[0], expected_labels(logits, size))


def python(script: str) -> str:
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_importing_and_labelling_an_array_needs_no_torch():
    script = """
import sys, numpy as np
from edgeseg.ops import upsample_argmax
assert upsample_argmax(np.zeros((1, 3, 4, 4), np.float32), (8, 8)).shape == (1, 8, 8)
print("torch" in sys.modules)"""
    assert python(script) == "False"


def test_without_the_library_arrays_and_tensors_still_get_labels():
    script = """
from edgeseg import kernels
kernels.library_path = lambda name: None
import numpy as np, torch
from edgeseg.ops import upsample_argmax
logits = np.arange(1 * 3 * 2 * 2, dtype=np.float32).reshape(1, 3, 2, 2)[:, ::-1]
assert (upsample_argmax(logits, (8, 8)) == 0).all()
assert (upsample_argmax(torch.from_numpy(logits.copy()), (8, 8)) == 0).all()
status = kernels.status()
assert not any(part["available"] for part in status.values()), status
try:
    kernels.load()
except kernels.KernelsUnavailableError as error:
    print(error)"""
    assert "reinstall edgeseg with a C++ compiler" in python(script)


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="no fork")
def test_works_in_a_forked_child():
    script = """
import os, numpy as np
from edgeseg.ops import upsample_argmax
logits = np.random.default_rng(0).standard_normal((1, 5, 64, 64), np.float32)
labels = upsample_argmax(logits, (256, 256), threads=4)
child = os.fork()
if child == 0:
    os._exit(0 if (upsample_argmax(logits, (256, 256), threads=4) == labels).all() else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"""
    assert python(script) == "0"
