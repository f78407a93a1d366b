"""Reads the tensors of a checkpoint file without running anything that is in it.

Two containers are read: safetensors, and torch's own (zip or legacy pickle) through ``weights_only=True``, which
builds tensors and plain containers and refuses every other object. The container is told by its first bytes.
"""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from edgeseg.errors import CheckpointError

NESTED_UNDER = ("state_dict", "model_state_dict", "model")  # where trainers put the weights, in this order
CLASSES_IN_HEADER = ("classes", "palette")  # JSON in the header of a safetensors file, as `edgeseg finetune` writes it
SAFETENSORS_HEADER_LIMIT = 100_000_000  # bytes; the format's own limit


@dataclass(frozen=True)
class WeightFile:
    """The tensors of one file as they are stored, and what the trainer wrote beside them."""

    tensors: dict[str, Tensor]
    sha256: str
    meta: dict[str, Any] = field(default_factory=dict)


def read_weight_file(path: Path) -> WeightFile:
    """All tensors of a .safetensors, .pth, .pt or .bin file, on the CPU.

    Raises:
        CheckpointError: for a file that is empty, truncated or no checkpoint, or that would run code when loaded.
    """
    try:
        with path.open("rb") as stream:
            digest = _sha256(stream)
            stream.seek(0)
            start = stream.read(512)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    if not start:
        raise CheckpointError(f"{path} is empty (0 bytes); download or copy it again")
    if _is_safetensors(start):
        tensors, meta = _read_safetensors(path)
        return WeightFile(tensors, digest, meta)
    if start.startswith((b"PK\x03\x04", b"\x80")):
        tensors, meta = _read_torch(path)
        return WeightFile(tensors, digest, meta)
    raise CheckpointError(f"{path} is no checkpoint: {_what_it_is(path, start)}")


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
            header = file.metadata() or {}
        return tensors, {name: json.loads(header[name]) for name in CLASSES_IN_HEADER if name in header}
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} is a truncated or corrupt safetensors file ({path.stat().st_size} bytes: {error}); "
            "download or copy it again"
        ) from error


def _read_torch(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with torch.serialization.safe_globals(_stand_ins()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch has to say about the file becomes our error, or nothing
            content = torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # a corrupt pickle raises anything from EOFError to UnicodeDecodeError
        raise CheckpointError(_refusal(path, error)) from error
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} holds one {type(content).__name__}; wanted a state_dict, names to tensors")
    nested = next((content[key] for key in NESTED_UNDER if isinstance(content.get(key), Mapping)), content)
    others = [str(name) for name, value in nested.items() if not isinstance(value, Tensor)]
    if others or not nested:
        raise CheckpointError(
            f"{path} holds no state_dict: wanted names to tensors, at the top or under {' or '.join(NESTED_UNDER)}; "
            f"these are no tensors: {', '.join(others[:4]) or 'it is empty'}"
        )
    meta = content.get("meta")
    return (
        {str(name).removeprefix("module."): value.detach() for name, value in nested.items()},  # DataParallel's prefix
        dict(meta) if isinstance(meta, Mapping) else {},
    )


class _Inert:
    """Stands where a trainer pickled its logs, so that the weights beside them can be read; it keeps nothing."""

    def __new__(cls, *args: Any) -> _Inert:
        return super().__new__(cls)

    def __init__(self, *args: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def _stand_ins() -> list[Callable | tuple[Callable, str]]:
    """What mmengine's training checkpoints pickle beside the weights. Nothing of theirs is imported or called."""
    names = ["mmengine.logging.history_buffer.HistoryBuffer", "builtins.getattr", "numpy.ndarray", "numpy.dtype"]
    for multiarray in ("numpy.core.multiarray", "numpy._core.multiarray"):
        names += [f"{multiarray}._reconstruct", f"{multiarray}.scalar"]
    return [(_Inert, name) for name in names]


def _refusal(path: Path, error: Exception) -> str:
    if match := re.search(r"GLOBAL ([\w.]+)", str(error)):
        return (
            f"{path} is refused: loading it would call {match[1]}, and a checkpoint may hold only tensors; "
            "use a safetensors file, or save it again as torch.save(model.state_dict(), path) where you trust it"
        )
    if "TorchScript" in str(error):
        return f"{path} is a TorchScript program; wanted a state_dict: torch.save(model.state_dict(), path)"
    reason = str(error).rpartition("WeightsUnpickler error:")[2].strip() or type(error).__name__
    return (
        f"{path} is truncated, corrupt or not made by torch.save ({reason.splitlines()[0][:120]}); "
        "download or copy it again"
    )


def _is_safetensors(start: bytes) -> bool:
    """Eight bytes of header length, then a JSON object."""
    return 2 <= int.from_bytes(start[:8], "little") <= SAFETENSORS_HEADER_LIMIT and start[8:9] in (b"{", b"")


def _what_it_is(path: Path, start: bytes) -> str:
    if start.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer to the real file; fetch that with `git lfs pull`"
    if start.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return "it is a web page, as a download that needed a login leaves behind; download it again"
    if path.suffix == ".onnx":
        return "weights are safetensors or .pth; a whole ONNX network goes to --onnx"
    if start.startswith(b"\x89HDF"):
        return "it is HDF5 (TensorFlow weights); wanted safetensors or PyTorch"
    is_text = not set(start) - {9, 10, 13} - set(range(32, 127))
    return f"{'it is a text file' if is_text else 'unknown contents'}; wanted safetensors, or .pth of PyTorch"


def _sha256(stream: BinaryIO) -> str:
    digest = hashlib.sha256()  # hashlib.file_digest needs Python 3.11
    while block := stream.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()
