"""PyTorch: the nn.Module itself in FP32, as weights and the recipe that rebuilds the network around them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeseg.backends.base import (
    Backend,
    BackendStatus,
    BuildRequest,
    EngineFiles,
    Session,
    check_threads,
    engine_path,
    remove_files,
)
from edgeseg.errors import BackendError, EngineBuildError
from edgeseg.progress import Progress

if TYPE_CHECKING:
    from torch import nn

ENGINE = "engine.safetensors"
_RECIPE = "edgeseg.recipe"  # key in the file's metadata


class TorchBackend(Backend):
    """The FP32 reference: slow, exact, and only for the networks of the zoo, which a recipe can rebuild."""

    name = "torch"

    def probe(self) -> BackendStatus:
        try:
            import torch
        except (ImportError, OSError) as error:
            return BackendStatus(False, False, False, reason=f"not installed ({error}); pip install edgeseg[build]")
        version = torch.__version__
        try:
            import safetensors.torch  # noqa: F401
        except (ImportError, OSError) as error:
            reason = f"safetensors is not installed ({error}); pip install edgeseg[build]"
            return BackendStatus(True, False, False, version, reason)
        return BackendStatus(True, True, True, version)

    def build(self, request: BuildRequest, folder: Path, progress: Progress = Progress()) -> EngineFiles:
        self._refuse_options(request)
        self.require("can_build")
        if request.precision != "fp32":
            raise BackendError(
                f"the backend torch runs FP32 only, got {request.precision}: "
                f"casts and Q/DQ live in the ONNX, so build them for onnxruntime, openvino or TensorRT"
            )
        if request.module is None or request.module_recipe is None:
            raise BackendError(
                "the backend torch runs the networks of the zoo (--model), which it can rebuild by name; "
                "build an --onnx or --module network for onnxruntime, openvino or TensorRT"
            )
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        recipe = dict(request.module_recipe)
        state = {name: tensor.detach().contiguous().cpu() for name, tensor in request.module.state_dict().items()}
        path = folder / ENGINE
        try:
            with progress.task("save for torch"):
                try:
                    _module_from_recipe(recipe).load_state_dict(state)
                except (RuntimeError, TypeError, ValueError) as error:
                    raise EngineBuildError(
                        f"the recipe {recipe} does not rebuild the network: {_one_line(error)}"
                    ) from error
                save_file(state, path, {_RECIPE: json.dumps(recipe)})
        except BaseException as error:
            remove_files(path)
            if isinstance(error, SafetensorError | OSError):
                raise EngineBuildError(f"cannot write {path}: {error}") from error
            raise
        return EngineFiles(ENGINE, (ENGINE,), {"recipe": recipe})

    def open(
        self, folder: Path, main: str, manifest: Mapping[str, Any] | None = None, *, threads: int | None = None
    ) -> TorchSession:
        check_threads(threads)
        self.require("can_run")
        path = engine_path(folder, main)
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="pt") as file:
                recipe = json.loads((file.metadata() or {})[_RECIPE])
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a dict
            module = _module_from_recipe(recipe)
            module.load_state_dict(state)
        except (SafetensorError, KeyError, ValueError, TypeError, RuntimeError, OSError) as error:
            said = _one_line(error)
            raise BackendError(f"{path} is not an engine of the backend torch: {said}; build it again") from error
        return TorchSession(module.eval(), threads)

    def identity(self) -> dict[str, str]:
        return {"backend": self.name, "version": self.require("can_run").version}


class TorchSession(Session):
    """A module in evaluation mode on the CPU."""

    def __init__(self, module: nn.Module, threads: int | None = None):
        super().__init__("torch", "images", (None, 3, None, None))
        self._module: nn.Module | None = module
        self._threads = threads

    def _infer(self, images: np.ndarray) -> np.ndarray:
        import torch

        assert self._module
        before = torch.get_num_threads()
        try:
            if self._threads is not None:
                torch.set_num_threads(self._threads)  # torch has one number for the whole process
            with torch.inference_mode():
                return self._module(torch.from_numpy(np.require(images, requirements="W"))).numpy()
        except RuntimeError as error:
            raise BackendError(f"torch failed on images {images.shape}: {_one_line(error)}") from error
        finally:
            torch.set_num_threads(before)

    def _close(self) -> None:
        self._module = None


def _module_from_recipe(recipe: Mapping[str, Any]) -> nn.Module:
    """`create_model(**recipe)`, with the epsilons of its norms spelled out as JSON."""
    from edgeseg.models import create_model

    arguments = dict(recipe)
    if isinstance(arguments.get("norm_eps"), Mapping):
        from edgeseg.models.segformer import NormEps

        arguments["norm_eps"] = NormEps(**arguments["norm_eps"])
    return create_model(**arguments)


def _one_line(error: BaseException) -> str:
    """torch's messages run over many lines; their beginning says it."""
    return " ".join(str(error).split())[:300]
