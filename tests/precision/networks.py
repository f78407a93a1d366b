"""Small real networks as torch modules and as ONNX, pictures to feed them, and an INT8 emulation in torch."""

from functools import cache

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from edgeseg.calibration.scales import Scales
from edgeseg.models.segformer import MixTransformerConfig, SegFormer
from edgeseg.precision.placement import find_placement

SIZE = (64, 96)
FLOAT_ONLY = {"session.disable_quant_qdq": "1"}  # Q and DQ as separate operations, everything between in float


class Residual(nn.Module):
    """conv - ReLU - conv + shortcut, ReLU; the shortcut is a convolution where the width changes."""

    def __init__(self, in_width: int, width: int):
        super().__init__()
        self.first = nn.Conv2d(in_width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.project = nn.Conv2d(in_width, width, 1) if in_width != width else nn.Identity()
        self.shortcut = nn.Identity()  # where the emulation rounds the shortcut

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(torch.relu(self.first(x)))
        return torch.relu(y + self.shortcut(self.project(x)))


class ConvNet(nn.Module):
    """Residual blocks, a depth-wise and a transposed convolution, a gate with linear layers (Gemm), a classifier."""

    def __init__(self, num_classes: int = 5):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.block1 = Residual(8, 8)
        self.block2 = Residual(8, 16)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.squeeze = nn.Linear(16, 4)
        self.excite = nn.Linear(4, 16)
        self.up = nn.ConvTranspose2d(16, 12, 2, stride=2)
        self.classifier = nn.Conv2d(12, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block2(self.block1(torch.relu(self.stem(x))))
        x = torch.relu(self.depthwise(x))
        x = x * torch.sigmoid(self.excite(torch.relu(self.squeeze(x.mean((2, 3))))))[:, :, None, None]
        return self.classifier(torch.relu(self.up(x)))


def segformer(num_classes: int = 5) -> nn.Module:
    """The widths and heads of B0 with one block a stage, and no weight at a trivial value."""
    module = SegFormer(MixTransformerConfig((32, 64, 160, 256), (1, 1, 1, 1), 64), num_classes)
    module.decode_head.fuse_norm = nn.Identity()  # its folding is the rewrites' affair
    return with_random_weights(module, spread=1.5)


def with_random_weights(module: nn.Module, spread: float = 1.0) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                fan_in = parameter[0].numel()
                # Channels of very different size, so that one scale for all of them would be seen.
                gain = torch.exp(0.5 * torch.randn(len(parameter), generator=generator))
                parameter.copy_(noise * spread / fan_in**0.5 * gain.reshape(-1, *[1] * (parameter.ndim - 1)))
            else:
                parameter.copy_((parameter.mean() > 0.5) + 0.2 * noise)  # the gain of a norm, or a bias
    return module.eval()


def export(module: nn.Module, size: tuple[int, int] = SIZE) -> onnx.ModelProto:
    program = torch.onnx.export(
        module,
        (torch.zeros(1, 3, *size),),
        dynamo=True,
        opset_version=18,
        input_names=["images"],
        output_names=["logits"],
        verbose=False,
    )
    assert program is not None
    return program.model_proto


def pictures(count: int, size: tuple[int, int] = SIZE, seed: int = 0) -> list[np.ndarray]:
    """(1, 3, h, w) float32 images as smooth as photographs, each with its own contrast."""
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(count):
        coarse = rng.normal(size=(1, 3, size[0] // 8, size[1] // 8))
        image = coarse.repeat(8, 2).repeat(8, 3) * rng.uniform(0.5, 1.5) + 0.1 * rng.normal(size=(1, 3, *size))
        images.append(image.astype(np.float32))
    return images


def run(model: onnx.ModelProto, images: np.ndarray, entries: dict[str, str] | None = None) -> np.ndarray:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    for key, value in (entries or {}).items():
        options.add_session_config_entry(key, value)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: images})[0]


def modules_by_key(network: nn.Module, model: onnx.ModelProto) -> dict[str, nn.Module]:
    """Place -> torch module, by the values of its weight; the place of a residual is its block's `shortcut`."""
    parts = [part for part in network.modules() if isinstance(part, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)]
    owners = {_fingerprint(part.weight.detach().numpy()): part for part in parts}
    blocks: dict[nn.Module, Residual] = {part.second: part for part in network.modules() if isinstance(part, Residual)}
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    placement = find_placement(model)
    found: dict[str, nn.Module] = {}
    for op in placement.ops:
        found[op.key] = owners[_fingerprint(weights[model.graph.node[op.index].input[op.weight]])]
    for place in placement.residuals:
        found[place.key] = blocks[found[place.key.removesuffix(":residual")]].shortcut
    return found


def _fingerprint(weight: np.ndarray) -> bytes:
    return np.sort(weight.reshape(-1)).tobytes()


def inputs_of(modules: dict[str, nn.Module], network: nn.Module, images: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Everything that came into each module over the images, by torch hooks."""
    seen: dict[str, list[np.ndarray]] = {key: [] for key in modules}
    handles = [
        part.register_forward_pre_hook(lambda _, args, key=key: seen[key].append(args[0].numpy().reshape(-1).copy()))
        for key, part in modules.items()
    ]
    with torch.no_grad():
        for image in images:
            network(torch.from_numpy(image))
    for handle in handles:
        handle.remove()
    return {key: np.concatenate(values) for key, values in seen.items()}


def emulate(
    network: nn.Module, modules: dict[str, nn.Module], scales: Scales, image: np.ndarray, levels: int = 127
) -> np.ndarray:
    """The network in torch float32, with the inputs and weights of the given modules rounded as INT8 rounds them."""
    handles, originals = [], []
    for key, part in modules.items():
        step = torch.tensor(scales.scales[key].scale, dtype=torch.float32)

        def rounded(_, args, step=step):
            return (torch.clamp(torch.round(args[0] / step), -128, 127) * step,)

        handles.append(part.register_forward_pre_hook(rounded))
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            weight = part.weight.data
            originals.append((part, weight))
            axis = 1 if isinstance(part, nn.ConvTranspose2d) else 0
            flat = weight.movedim(axis, 0).flatten(1)
            steps = (flat.abs().amax(1) / levels).reshape([-1 if i == axis else 1 for i in range(weight.ndim)])
            part.weight.data = torch.round(weight / steps).clamp(-levels, levels) * steps
    try:
        with torch.no_grad():
            return network(torch.from_numpy(image)).numpy()
    finally:
        for handle in handles:
            handle.remove()
        for part, weight in originals:
            part.weight.data = weight


def rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(x, dtype=np.float64))))


@cache
def network(name: str) -> tuple[nn.Module, onnx.ModelProto]:
    """ "segformer" or "convnet": the module and its ONNX, made once for all tests of a process; not to be changed."""
    module = segformer() if name == "segformer" else with_random_weights(ConvNet())
    return module, export(module)
