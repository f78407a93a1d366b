"""Reading checkpoint files: nothing in them may run, and damage is named."""

import pickle
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from edgeseg.errors import CheckpointError
from edgeseg.models.weight_files import read_weight_file

TENSORS = {"a": torch.arange(3000.0), "b": torch.zeros(2, 2)}


class Malicious:
    """Creates a file when it is unpickled."""

    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


class MaliciousEval(Malicious):
    def __reduce__(self):
        return eval, (f"open({str(self.target)!r}, 'w')",)


def zip_file(content, path):
    torch.save(content, path)


def legacy_file(content, path):
    torch.save(content, path, _use_new_zipfile_serialization=False)


def plain_pickle(content, path):
    path.write_bytes(pickle.dumps(content, protocol=2))


@pytest.mark.parametrize("save", [zip_file, legacy_file, plain_pickle])
@pytest.mark.parametrize("kind", [Malicious, MaliciousEval])
def test_a_pickle_with_code_is_refused(kind, save, tmp_path):
    path, target = tmp_path / "weights.pth", tmp_path / "code ran"
    save({"state_dict": {}, "optimizer": kind(target)}, path)
    with pytest.raises(
        CheckpointError, match=r"weights\.pth is refused: loading it would call [\w.]+, and a checkpoint"
    ):
        read_weight_file(path)
    assert not target.exists()
    pickle.loads(pickle.dumps(kind(target)))
    assert target.exists()  # so the trap was a real one


def test_a_pickled_module_is_refused_by_name(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "whole.pth")
    with pytest.raises(CheckpointError, match=r"torch\.nn\.modules\.linear\.Linear.*state_dict"):
        read_weight_file(tmp_path / "whole.pth")


def test_a_script_is_refused(tmp_path):
    torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)).save(tmp_path / "script.pt")
    with pytest.raises(CheckpointError, match="is a TorchScript program; wanted a state_dict"):
        read_weight_file(tmp_path / "script.pt")


@pytest.mark.parametrize("save", [zip_file, legacy_file])
@pytest.mark.parametrize("under", [None, "state_dict", "model_state_dict", "model"])
def test_torch_files(save, under, tmp_path):
    content = TENSORS if under is None else {under: TENSORS, "meta": {"epoch": 2}, "epoch": 2}
    save(content, tmp_path / "any name")
    file = read_weight_file(tmp_path / "any name")
    assert file.tensors.keys() == TENSORS.keys() and torch.equal(file.tensors["a"], TENSORS["a"])
    assert file.meta == ({} if under is None else {"epoch": 2})


def test_parameters_and_prefixes_of_data_parallel(tmp_path):
    torch.save({"module.a": torch.nn.Parameter(torch.ones(2))}, tmp_path / "p.pth")
    (tensor,) = read_weight_file(tmp_path / "p.pth").tensors.values()
    assert not tensor.requires_grad and list(read_weight_file(tmp_path / "p.pth").tensors) == ["a"]


def test_safetensors_under_any_name(tmp_path):
    save_file(TENSORS, tmp_path / "weights.pth")
    assert read_weight_file(tmp_path / "weights.pth").tensors.keys() == TENSORS.keys()


def test_logs_of_mmengine_are_passed_over(tmp_path, monkeypatch):
    """Its training checkpoints pickle a class of its own with numpy arrays and bound functions in it."""
    module = types.ModuleType("mmengine.logging.history_buffer")

    class HistoryBuffer:
        def __init__(self):
            self.log = np.arange(3.0)
            self.methods = {"mean": self.mean}

        def mean(self):
            raise AssertionError("code of a checkpoint ran")

    HistoryBuffer.__module__, HistoryBuffer.__qualname__ = module.__name__, "HistoryBuffer"
    module.HistoryBuffer = HistoryBuffer
    for name in ("mmengine", "mmengine.logging", module.__name__):
        monkeypatch.setitem(sys.modules, name, module)
    logs = {"train/loss": HistoryBuffer(), "lr": np.float64(0.1)}
    torch.save({"state_dict": TENSORS, "message_hub": logs, "meta": {"epoch": 1}}, tmp_path / "mm.pth")
    monkeypatch.undo()
    file = read_weight_file(tmp_path / "mm.pth")
    assert torch.equal(file.tensors["a"], TENSORS["a"]) and file.meta == {"epoch": 1}


@pytest.mark.parametrize("content", [torch.zeros(2), [torch.zeros(2)]])
def test_no_mapping(content, tmp_path):
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=f"holds one {type(content).__name__}; wanted a state_dict"):
        read_weight_file(tmp_path / "x.pth")


@pytest.mark.parametrize(
    ("content", "named"), [({"epoch": 3}, "epoch"), ({"state_dict": {"a": "text"}}, "a"), ({}, "it is empty")]
)
def test_no_tensors(content, named, tmp_path):
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=f"holds no state_dict.*these are no tensors: {named}"):
        read_weight_file(tmp_path / "x.pth")


@pytest.mark.parametrize("kept", [3, 9, 60, 2000, -1])
@pytest.mark.parametrize("container", ["safetensors", "zip", "legacy"])
def test_truncated(container, kept, tmp_path):
    path = tmp_path / "weights"
    {"safetensors": save_file, "zip": zip_file, "legacy": legacy_file}[container](TENSORS, path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=r"weights is .*(truncated|corrupt)"):
        read_weight_file(path)


def test_corrupt_in_the_middle(tmp_path):
    path = tmp_path / "weights"
    for save in (save_file, zip_file):
        save(TENSORS, path)
        content = bytearray(path.read_bytes())
        content[10:60] = b"\xff" * 50
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match="corrupt"):
            read_weight_file(path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", r"is empty \(0 bytes\); download or copy it again"),
        (b"learning rate = 3\n", "it is a text file; wanted safetensors"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "it is a Git LFS pointer.*git lfs pull"),
        (b"<!DOCTYPE html><html><body>Sign in", "it is a web page"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "it is HDF5"),
        (bytes(range(255, 100, -1)), "unknown contents; wanted safetensors"),
    ],
)
def test_other_files(content, says, tmp_path):
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=says):
        read_weight_file(tmp_path / "w.pth")


def test_an_onnx_file(tmp_path):
    (tmp_path / "net.onnx").write_bytes(b"\x08\x0a\x12\x07pytorch" + bytes(50))
    with pytest.raises(CheckpointError, match="a whole ONNX network goes to --onnx"):
        read_weight_file(tmp_path / "net.onnx")


def test_unreadable(tmp_path):
    with pytest.raises(CheckpointError, match=r"cannot read .*: No such file"):
        read_weight_file(tmp_path / "none")
    with pytest.raises(CheckpointError, match=r"cannot read .*: Is a directory"):
        read_weight_file(tmp_path)
