"""TensorRT: what can be known of it without a GPU. Builder and runtime are its twin's, and tested there."""

import sys

import pytest

from edgeseg.backends import BACKENDS, BuildRequest
from edgeseg.backends.gpu import Gpu, find_gpu
from edgeseg.backends.tensorrt import known_faults
from edgeseg.backends.trt_backend import MAX_WORKSPACE_BYTES, default_workspace_bytes, version_tuple
from edgeseg.errors import BackendError

BACKEND = BACKENDS["tensorrt"]
ORIN = Gpu("Orin", "8.7", 8 << 30, "12.6")
ADA = Gpu("NVIDIA GeForce RTX 4070", "8.9", 12 << 30, "13.0")
installed = pytest.mark.skipif(BACKEND.probe().installed, reason="TensorRT is installed")


@installed
def test_not_installed():
    status = BACKEND.probe()
    assert not (status.installed or status.can_build or status.can_run)
    assert status.reason.startswith("not installed (No module named 'tensorrt'); pip install tensorrt")


@installed
@pytest.mark.parametrize(
    "code, reason",
    [
        ("__version__ = '8.6.2'", r"version 8\.6\.2 is too old; it needs 10\.3 or newer"),
        ("__version__ = '10.2.0'", r"version 10\.2\.0 is too old"),
        ("raise OSError('libnvdla_compiler.so: cannot open')", r"not installed \(libnvdla_compiler\.so: cannot open\)"),
        ("", "not installed .*__version__"),
    ],
)
def test_unusable(code, reason, tmp_path, monkeypatch):
    (tmp_path / "tensorrt").mkdir()
    (tmp_path / "tensorrt" / "__init__.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    try:
        with pytest.raises(BackendError, match=f"the backend tensorrt cannot build here: {reason}"):
            BACKEND.require("can_build")
    finally:
        sys.modules.pop("tensorrt", None)


@pytest.mark.parametrize(
    "version, gpu, jetson, words",
    [
        ("10.3.0", ORIN, True, ["miscomputes vision transformers in FP16"]),
        ("10.5.0", ADA, False, ["fixed in 10.6"]),
        ("10.13.3.9", ADA, False, []),
        ("10.16.2.10", ORIN, True, ["refuses some INT8 networks with FP16 on Orin"]),
        ("10.16.2.10", ADA, False, []),
        ("11.3.0.99", ORIN, True, ["does not support JetPack; use 10.16"]),
        ("11.4.0.106", ORIN, True, ["does not support JetPack"]),
        ("11.4.1.0", ORIN, True, []),
        ("11.4.0.106", ADA, False, []),
    ],
)
def test_known_faults(version, gpu, jetson, words):
    faults = known_faults(version, gpu, jetson)
    assert len(faults) == len(words)
    assert all(word in fault and version in fault for word, fault in zip(words, faults, strict=True))


def test_version_tuple():
    assert version_tuple("10.16.1.11") == (10, 16, 1, 11)
    assert version_tuple("10.3.0.dev1") < (10, 4)


def test_workspace():
    assert default_workspace_bytes(ORIN) == 2 << 30
    assert default_workspace_bytes(ADA) == 3 << 30
    assert default_workspace_bytes(None) == MAX_WORKSPACE_BYTES


def test_timing_cache_is_one_per_version_and_gpu(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    request = BuildRequest(tmp_path / "model.onnx")
    name = BACKEND.timing_cache(request, "10.3.0", ADA)
    assert name == str(tmp_path / "edgeseg/timing/tensorrt-10.3.0-NVIDIA-GeForce-RTX-4070-8.9.cache")
    names = {BACKEND.timing_cache(request, v, g) for v in ("10.3.0", "10.13.0") for g in (ADA, ORIN)}
    assert len(names) == 4
    elsewhere = BuildRequest(tmp_path / "model.onnx", timing_cache=tmp_path / "here")
    assert BACKEND.timing_cache(elsewhere, "10.3.0", ADA).startswith(str(tmp_path / "here" / "tensorrt-10.3.0"))


def test_compute_capabilities_are_refused(tmp_path):
    with pytest.raises(ValueError, match="the backend tensorrt has no compute_capabilities"):
        BACKEND.build(BuildRequest(tmp_path / "model.onnx", compute_capabilities=("8.7",)), tmp_path)


@pytest.mark.skipif(find_gpu()[0] is not None, reason="this machine has an NVIDIA GPU")
def test_identity_needs_the_gpu():
    with pytest.raises(BackendError, match="an engine of TensorRT belongs to one GPU, and none is here"):
        BACKEND.identity()
