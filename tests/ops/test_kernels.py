"""The loader and the C interface: edgeseg/kernels.py, kernels/edgeseg_kernels.h."""

import re
from pathlib import Path

import numpy as np
import pytest

from edgeseg import kernels

HEADER = (Path(__file__).resolve().parents[2] / "kernels" / "edgeseg_kernels.h").read_text()
needs_library = pytest.mark.skipif(not kernels.available(), reason="the kernel library was not built")


def test_status_names_all_three():
    status = kernels.status()
    assert set(status) == {"cpu", "cuda", "torch"}
    for part in status.values():
        assert isinstance(part["available"], bool) and part["detail"]


def test_constants_are_those_of_the_header():
    assert re.findall(r"EDGESEG_KERNELS_VERSION (\d+)", HEADER) == [str(kernels.KERNELS_VERSION)]
    for name, number in kernels.INSTRUCTION_SETS.items():
        assert re.search(rf"EDGESEG_{name.upper()} = {number},", HEADER)


@needs_library
def test_instruction_sets_have_names():
    library = kernels.load()
    assert kernels.cpu_instruction_set() in {"portable", "neon", "avx2", "avx512"}
    assert library.edgeseg_instruction_set_name(99) == b"unknown"
    assert library.edgeseg_can_run(99) == 0 and library.edgeseg_can_run(0) == 1


@needs_library
@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"C": 65536}, ValueError, "invalid argument"),
        ({"h": 0}, ValueError, "invalid argument"),
        ({"W": 2**40}, ValueError, "invalid argument"),
        ({"N": -1}, ValueError, "invalid argument"),
        ({"element": 3}, ValueError, "invalid argument"),
        ({"num_threads": -1}, ValueError, "invalid argument"),
        ({"logits": None}, ValueError, "invalid argument"),
        ({"instruction_set": 99}, ValueError, "instruction set"),
    ],
)
def test_the_c_function_checks_its_arguments(change, error, match):
    logits, labels = np.zeros((1, 2, 3, 4), np.float32), np.zeros((1, 6, 8), np.uint8)
    arguments = {"logits": logits.ctypes.data, "element": 0, "labels": labels.ctypes.data, "margin": None}
    arguments |= {"N": 1, "C": 2, "h": 3, "w": 4, "H": 6, "W": 8}
    arguments |= {"align_corners": 0, "num_threads": 0, "instruction_set": 0}
    function = kernels.function("edgeseg_upsample_argmax", "pippqqqqqqiii")
    assert function(*arguments.values()) == 0
    with pytest.raises(error, match=f"upsample: .*{match}"):
        kernels.check(function(*(arguments | change).values()), "upsample")


def test_a_library_of_another_version_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(kernels, "KERNELS_VERSION", kernels.KERNELS_VERSION + 1)
    if kernels.library_path("edgeseg_kernels") is None:
        pytest.skip("the kernel library was not built")
    kernels._load.cache_clear()
    try:
        with pytest.raises(kernels.KernelsUnavailableError, match=r"has interface version .* wants .*; reinstall"):
            kernels.load()
    finally:
        kernels._load.cache_clear()


def test_a_file_that_is_no_library_is_refused(tmp_path, monkeypatch):
    broken = tmp_path / "libedgeseg_kernels.so"
    broken.write_bytes(b"not a library")
    monkeypatch.setattr(kernels, "library_path", lambda name: broken)
    kernels._load.cache_clear()
    try:
        assert not kernels.available()
        with pytest.raises(kernels.KernelsUnavailableError, match="cannot be loaded"):
            kernels.load()
    finally:
        kernels._load.cache_clear()
