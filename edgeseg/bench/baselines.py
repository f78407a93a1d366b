"""What people run today, with the same weights: the network as published, bilinear resize and argmax.

Each has edgeseg's own preprocessing, except transformers, which has its own. Where a runtime takes an ONNX, resize and
argmax stand in its graph; so the runtime may fuse them, and class scores of image size need not leave it.
"""

from __future__ import annotations

import json
import logging
import time
import warnings
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeseg.backends import BACKENDS, BuildRequest
from edgeseg.bench.results import Stages
from edgeseg.bench.systems import System, SystemSpec, is_on_gpu
from edgeseg.preprocess import Preprocess

if TYPE_CHECKING:
    import onnx
    import torch
    from torch import nn

    from edgeseg.sources import Network

RECIPE = "baseline.json"


def prepare_baseline(name: str, network: Network, spec: SystemSpec, calibration: Callable[[], Any]) -> None:
    """Put everything that `open_baseline` needs into the folder `spec.path`.

    Args:
        name: a key of `edgeseg.bench.plan.BASELINES`.
        network: FP32, as published.
        spec: what will be opened.
        calibration: network inputs of real images, for casts to float16.
    """
    folder = Path(spec.path)
    folder.mkdir(parents=True, exist_ok=True)
    recipe: dict[str, Any] = {"preprocess": network.preprocess.to_json()}
    if name == "transformers":
        _save_for_transformers(network, folder)
    elif name in ("torch", "torch-compile"):
        recipe |= {"name": network.name, "weights": network.weights, "num_classes": network.label_set.num_classes}
    else:
        recipe["main"] = _build_with_tail(name, network, spec, folder, calibration)
    (folder / RECIPE).write_text(json.dumps(recipe))


def open_baseline(spec: SystemSpec) -> System:
    """What `prepare_baseline` left in `spec.path`."""
    folder = Path(spec.path)
    recipe = json.loads((folder / RECIPE).read_text())
    preprocess = Preprocess.from_json(recipe["preprocess"])
    if spec.kind == "transformers":
        return TransformersSystem(folder, spec)
    if spec.kind in ("torch", "torch-compile"):
        return TorchSystem(recipe, preprocess, spec)
    return RuntimeSystem(folder, recipe["main"], preprocess, spec)


class RuntimeSystem(System):
    """A runtime with the unmodified network, resize and argmax in one graph."""

    def __init__(self, folder: Path, main: str, preprocess: Preprocess, spec: SystemSpec):
        manifest = {"precision": spec.precision}
        self._session = BACKENDS[spec.kind].open(folder, main, manifest, threads=spec.threads)
        self.on_gpu = is_on_gpu(self._session)
        self._preprocess = preprocess
        files = (folder / name for name in {main, str(Path(main).with_suffix(".bin"))})
        self.engine_bytes = sum(file.stat().st_size for file in files if file.is_file())

    def __call__(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        begin = time.perf_counter()
        prepared = np.concatenate([self._preprocess(image) for image in images])
        middle = time.perf_counter()
        labels = self._session.infer(prepared)[:, 0].astype(np.uint8)
        self.stages = Stages(1000 * (middle - begin), 1000 * (time.perf_counter() - middle))
        return list(labels)

    def close(self) -> None:
        self._session.close()


class TorchSystem(System):
    """PyTorch, eager or compiled; on the GPU where torch finds one."""

    def __init__(self, recipe: dict[str, Any], preprocess: Preprocess, spec: SystemSpec):
        import torch

        from edgeseg.models.weights import load_weights, network_from_weights

        self._preprocess = preprocess
        self._threads = spec.threads
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self.on_gpu = self._device == "cuda"
        loaded = load_weights(recipe["weights"], recipe["name"], recipe["num_classes"])
        module: Any = _with_tail(network_from_weights(loaded), spec.size).eval().to(self._device)
        self.engine_bytes = sum(t.numel() * t.element_size() for t in module.state_dict().values())
        self._module = torch.compile(module) if spec.kind == "torch-compile" else module

    def __call__(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        begin = time.perf_counter()
        prepared = np.concatenate([self._preprocess(image) for image in images])
        middle = time.perf_counter()
        with _torch_threads(self._threads) as torch, torch.inference_mode():
            labels = self._module(torch.from_numpy(prepared).to(self._device)).cpu().numpy()
        self.stages = Stages(1000 * (middle - begin), 1000 * (time.perf_counter() - middle))
        return list(labels)


class TransformersSystem(System):
    """`transformers` as its documentation shows it: image processor, SegformerForSemanticSegmentation, and
    `post_process_semantic_segmentation`."""

    def __init__(self, folder: Path, spec: SystemSpec):
        import torch

        self._threads = spec.threads
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self.on_gpu = self._device == "cuda"
        with _quiet():
            from transformers import SegformerForSemanticSegmentation, SegformerImageProcessor

            model: nn.Module = SegformerForSemanticSegmentation.from_pretrained(folder)
            height, width = spec.size
            self._processor = SegformerImageProcessor(size={"height": height, "width": width})
        self._model = model.eval().to(self._device)
        self.engine_bytes = (folder / "model.safetensors").stat().st_size

    def __call__(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        begin = time.perf_counter()
        with _torch_threads(self._threads) as torch, torch.inference_mode():
            inputs = self._processor(images=list(images), return_tensors="pt").to(self._device)
            prepared = time.perf_counter()
            outputs = self._model(**inputs)
            if self._device == "cuda":
                torch.cuda.synchronize()
            inferred = time.perf_counter()
            sizes = [image.shape[:2] for image in images]
            labels = self._processor.post_process_semantic_segmentation(outputs, target_sizes=sizes)
            found = [one.cpu().numpy() for one in labels]
        times = (begin, prepared, inferred, time.perf_counter())
        self.stages = Stages(*(1000 * (after - before) for before, after in pairwise(times)))
        return found


def add_tail(model: onnx.ModelProto, size: tuple[int, int]) -> onnx.ModelProto:
    """The ONNX with bilinear resize (half-pixel centres) to `size` and argmax behind it: (N, 1, H, W) float32 labels.

    Float, since that is what every runtime's session here gives back; the conversion costs next to nothing.
    """
    import onnx
    from onnx import TensorProto, helper

    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    logits = graph.output[0]
    dims = logits.type.tensor_type.shape.dim
    batch, classes = dims[0].dim_value, dims[1].dim_value
    graph.initializer.append(helper.make_tensor("tail/size", TensorProto.INT64, [4], [batch, classes, *size]))
    graph.node.extend(
        [
            helper.make_node(
                "Resize",
                [logits.name, "", "", "tail/size"],
                ["tail/scores"],
                "tail/resize",
                mode="linear",
                coordinate_transformation_mode="half_pixel",
            ),
            helper.make_node("ArgMax", ["tail/scores"], ["tail/labels"], "tail/argmax", axis=1, keepdims=1),
            helper.make_node("Cast", ["tail/labels"], ["labels"], "tail/cast", to=TensorProto.FLOAT),
        ]
    )
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("labels", TensorProto.FLOAT, [batch, 1, *size]))
    return result


def _build_with_tail(
    name: str, network: Network, spec: SystemSpec, folder: Path, calibration: Callable[[], Any]
) -> str:
    """The backend's engine in `folder`; the name of its main file."""
    model = network.onnx
    if spec.precision == "fp16":
        from edgeseg.precision.fp16 import cast_to_fp16

        model, _ = cast_to_fp16(model, calibration())
    path = folder / "model.onnx"
    path.write_bytes(add_tail(model, spec.size).SerializeToString())
    return BACKENDS[name].build(BuildRequest(onnx_path=path, precision=spec.precision), folder).main  # type: ignore[arg-type]


def _with_tail(network: nn.Module, size: tuple[int, int]) -> nn.Module:
    from torch import nn

    from edgeseg.export import logits_of

    class WithTail(nn.Module):
        """Network, bilinear resize and argmax, as people put them into one module."""

        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            logits = logits_of(self.network(images))
            return nn.functional.interpolate(logits, size, mode="bilinear", align_corners=False).argmax(1)

    return WithTail()


def _save_for_transformers(network: Network, folder: Path) -> None:
    """config.json and model.safetensors under transformers' names."""
    import torch
    from safetensors.torch import save_file
    from transformers import SegformerConfig

    from edgeseg.models import MODELS
    from edgeseg.models.segformer_checkpoints import FORMATS

    entry: Any = MODELS[network.name]
    assert network.module
    names = FORMATS["huggingface"].source
    tensors = {names(name): tensor.detach().contiguous() for name, tensor in network.module.state_dict().items()}
    counter = names("decode_head.fuse_norm.num_batches_tracked")
    save_file(tensors | {counter: torch.tensor(0)}, folder / "model.safetensors", {"format": "pt"})
    settings: dict[str, Any] = {
        "depths": list(entry.config.depths),
        "hidden_sizes": list(entry.config.widths),
        "decoder_hidden_size": entry.decoder_width,
        "num_labels": network.label_set.num_classes,
    }
    SegformerConfig(**settings).save_pretrained(folder)


class _torch_threads:  # noqa: N801  used as a function
    """torch has one number of threads for the whole process: set while a system of its own runs."""

    def __init__(self, threads: int | None):
        import torch

        self._torch = torch
        self._threads = threads
        self._before = torch.get_num_threads()

    def __enter__(self) -> Any:
        if self._threads is not None:
            self._torch.set_num_threads(self._threads)
        return self._torch

    def __exit__(self, *_: object) -> None:
        self._torch.set_num_threads(self._before)


class _quiet:  # noqa: N801  used as a function
    """transformers' warnings and progress bars are not for the user."""

    def __enter__(self) -> None:
        from transformers.utils import logging as theirs

        self._disabled = logging.root.manager.disable
        self._catching = warnings.catch_warnings()
        self._catching.__enter__()
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        theirs.disable_progress_bar()
        theirs.set_verbosity_error()

    def __exit__(self, *_: object) -> None:
        logging.disable(self._disabled)
        self._catching.__exit__(None, None, None)
