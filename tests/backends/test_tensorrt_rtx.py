"""TensorRT-RTX: real engines, built without a GPU. Opening one here must end in a clear error."""

import os
import resource
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgeseg.backends import BACKENDS, BuildRequest
from edgeseg.backends.gpu import Gpu, find_gpu
from edgeseg.backends.trt_runtime import open_engine
from edgeseg.errors import BackendError, EngineBuildError
from edgeseg.progress import Progress

from .contract import Interrupting, OnnxBuildContract
from .host_driver import HostDriver
from .networks import SIZE

tensorrt_rtx = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx-cu13 is not installed (x86-64 only)")
BACKEND = BACKENDS["tensorrt-rtx"]
no_gpu = pytest.mark.skipif(find_gpu()[0] is not None, reason="this machine has an NVIDIA GPU")


@pytest.fixture(autouse=True)
def logs(tmp_path_factory, monkeypatch) -> Path:
    """Where the build logs go."""
    folder = tmp_path_factory.mktemp("logs")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def builders() -> list[int]:
    """Process ids of this process's builders that are alive."""
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            if (
                f"PPid:\t{os.getpid()}\n" in status.read_text()
                and b"trt_builder" in (status.parent / "cmdline").read_bytes()
            ):
                found.append(int(status.parent.name))
        except OSError:  # it has ended
            continue
    return found


class TestTensorRtRtx(OnnxBuildContract):
    name = "tensorrt-rtx"
    supports_options = ("compute_capabilities", "workspace_bytes", "threads")
    network = "int8"  # small
    interrupts = (1, 4)  # while it starts; in the middle of its phases

    @pytest.fixture(autouse=True)
    def nothing_stays(self, logs):
        yield
        assert not builders()


@pytest.fixture(scope="module")
def engines(networks, tmp_path_factory):
    """One FP32, FP16 and INT8 engine for an RTX 40 card: {precision: (folder, EngineFiles)}."""
    built = {}
    for precision in ("fp32", "fp16", "int8"):
        folder = tmp_path_factory.mktemp(precision)
        request = BuildRequest(getattr(networks, precision), precision, compute_capabilities=("8.9",))
        built[precision] = (folder, BACKEND.build(request, folder))
    return built


def test_precision_is_the_networks(engines):
    layers = {precision: engine.details["layers"] for precision, (_, engine) in engines.items()}
    assert {layer["precision"] for layer in layers["fp32"]} == {"Float"}
    half = [layer for layer in layers["fp16"] if layer["precision"] == "Half"]
    assert len(half) > 0.8 * len(layers["fp16"])
    assert any("Int8" in layer["precision"] for layer in layers["int8"])
    summary = engines["fp32"][1].details["layer_summary"]
    assert summary["count"] == len(layers["fp32"]) > 50
    assert sum(sum(kinds.values()) for kinds in summary["precisions"].values()) == summary["count"]
    assert any("Conv" in layer["onnx"] for layer in layers["fp32"])


def test_details(engines):
    folder, engine = engines["fp16"]
    assert engine.main == "engine.plan" and engine.files == ("engine.plan",)
    assert engine.details["compute_capabilities"] == ["8.9"] and engine.details["seconds"] > 0
    assert engine.details["inputs"] == {"images": [1, 3, *SIZE]}
    plan = (folder / "engine.plan").read_bytes()
    assert plan.startswith(b"vtrt")
    assert ".".join(map(str, plan[24:28])) == tensorrt_rtx.__version__
    assert len(plan) < (engines["fp32"][0] / "engine.plan").stat().st_size


def test_log_is_gone_after_success(networks, tmp_path, logs):
    BACKEND.build(BuildRequest(networks.int8), tmp_path)
    assert not list(logs.iterdir())


class Recording(Progress):
    """Which pieces of work were open at once, and how far each came."""

    def __init__(self) -> None:
        self.open: list[str] = []
        self.deepest: list[str] = []
        self.finished: list[tuple[str, int | None, int]] = []

    @contextmanager
    def task(self, description: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        done = 0

        def advance(steps: int) -> None:
            nonlocal done
            done += steps

        self.open.append(description)
        if len(self.open) > len(self.deepest):
            self.deepest = list(self.open)
        try:
            yield advance
        finally:
            self.open.remove(description)
            self.finished.append((description, total, done))


def test_progress(networks, tmp_path):
    progress = Recording()
    BACKEND.build(BuildRequest(networks.int8), tmp_path, progress)
    assert not progress.open
    assert progress.deepest[0] == f"build with TensorRT-RTX {tensorrt_rtx.__version__}" and len(progress.deepest) >= 3
    counted = [(total, done) for _, total, done in progress.finished if total]
    assert len(counted) >= 5 and all(done <= total for total, done in counted)
    assert any(total == done for total, done in counted)


def test_dynamic_batch(networks, tmp_path):
    smallest, usual, largest = ((n, 3, *SIZE) for n in (1, 2, 4))
    request = BuildRequest(networks.dynamic_int8, profiles={"images": (smallest, usual, largest)})
    engine = BACKEND.build(request, tmp_path)
    assert engine.details["inputs"] == {"images": [-1, 3, *SIZE]}


@pytest.mark.parametrize(
    "onnx, options, message",
    [
        ("dynamic_int8", {}, r"input images has the dynamic shape \[-1, 3, 64, 96\] and no profile; give its smallest"),
        ("dynamic_int8", {"profiles": {"x": ((1,),) * 3}}, "there is a profile for x, the inputs are images"),
        ("dynamic_int8", {"profiles": {"images": ((1, 3, 8, 8),) * 3}}, "the profiles .* do not fit|cannot build"),
        ("fp32", {"compute_capabilities": ("7.5",)}, r"for Turing \(SM75\)"),
        ("int8", {"compute_capabilities": ("3.0",)}, "does not build for compute capability 3.0; it knows .*8.9"),
        ("fp32", {"workspace_bytes": 1024}, "OutOfMemory|[Mm]emory"),
    ],
)
def test_refusals(networks, tmp_path, logs, onnx, options, message):
    with pytest.raises(EngineBuildError, match=message) as raised:
        BACKEND.build(BuildRequest(getattr(networks, onnx), **options), tmp_path)
    assert str(raised.value).startswith(f"TensorRT-RTX {tensorrt_rtx.__version__} cannot build ")
    assert not list(tmp_path.iterdir())
    (log,) = logs.iterdir()
    assert str(log) in str(raised.value) and "Opset version" in log.read_text()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"workspace_bytes": -1}, "workspace_bytes must be at least 1, got -1"),
        ({"optimization_level": 6}, "optimization_level must be from 0 to 5, got 6"),
        ({"threads": 0}, "threads must be at least 1, got 0"),
    ],
)
def test_wrong_options(networks, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        BACKEND.build(BuildRequest(networks.int8, **options), tmp_path)


class Killing(Interrupting):
    """Ends the builder itself when the n-th piece of work begins."""

    def __init__(self, after: int, number: signal.Signals):
        super().__init__(after)
        self.number = number

    @contextmanager
    def task(self, description: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        self.left -= 1
        if self.left == 0:
            (builder,) = builders()
            os.kill(builder, self.number)
        yield lambda steps: None


@pytest.mark.parametrize(
    "number, message",
    [
        (signal.SIGKILL, "the builder was killed, most likely for lack of memory; free some, add swap"),
        (signal.SIGSEGV, r"the builder crashed \(SIGSEGV\)"),
    ],
)
def test_builder_dies(networks, tmp_path, logs, number, message):
    with pytest.raises(EngineBuildError, match=message):
        BACKEND.build(BuildRequest(networks.int8), tmp_path, Killing(3, number))
    assert not list(tmp_path.iterdir()) and len(list(logs.iterdir())) == 1


def test_disk_full(networks, tmp_path):
    """A limit on the size of files stands for the disk: the write fails halfway in the same manner."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4 << 20, limits[1]))
    try:
        with pytest.raises(EngineBuildError, match="File too large"):
            BACKEND.build(BuildRequest(networks.fp32), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())


def test_missing_folder(networks, tmp_path):
    with pytest.raises(EngineBuildError, match="No such file or directory"):
        BACKEND.build(BuildRequest(networks.int8), tmp_path / "nowhere")


def patched(engines, tmp_path, offset: int, content: bytes) -> Path:
    plan = shutil.copy(engines["int8"][0] / "engine.plan", tmp_path)
    with Path(plan).open("r+b") as file:
        file.seek(offset)
        file.write(content)
    return Path(plan)


def test_engine_of_another_version(engines, tmp_path):
    patched(engines, tmp_path, 24, bytes([1, 6, 1, 120]))
    here = tensorrt_rtx.__version__.replace(".", r"\.")
    with pytest.raises(BackendError, match=rf"was built by tensorrt_rtx 1\.6\.1\.120, this is {here}; build it again"):
        BACKEND.open(tmp_path, "engine.plan")


def test_engine_of_the_other_library(engines, tmp_path):
    patched(engines, tmp_path, 0, b"ftrt")
    with pytest.raises(BackendError, match="is an engine of tensorrt, this is tensorrt_rtx; build it again for this"):
        BACKEND.open(tmp_path, "engine.plan")


@pytest.mark.parametrize("content", [b"", b"vtrt", b"garbage" * 100])
def test_corrupt_engine(content, tmp_path):
    (tmp_path / "engine.plan").write_bytes(content)
    with pytest.raises(BackendError, match=r"engine\.plan is not an engine of tensorrt_rtx: it is corrupt"):
        BACKEND.open(tmp_path, "engine.plan")


@no_gpu
def test_open_without_a_gpu(engines):
    with pytest.raises(BackendError, match=r"the backend tensorrt-rtx cannot run here: .*driver"):
        BACKEND.open(engines["fp32"][0], "engine.plan")


@no_gpu
def test_the_library_refuses_without_a_gpu(engines):
    """The real runtime, up to the point where it wants a GPU: its own words reach the user."""
    with pytest.raises(BackendError, match=r"tensorrt-rtx [\d.]+ cannot load .*engine\.plan: .+; engines fit one"):
        open_engine(tensorrt_rtx, "tensorrt-rtx", engines["int8"][0] / "engine.plan", HostDriver())


def test_identity_holds_no_gpu():
    """An engine is built where there is none, for several."""
    assert set(BACKEND.identity()) == {"backend", "package", "version", "platform"}


@pytest.mark.parametrize(
    ("name", "capability", "runs"),
    [
        ("NVIDIA H200", "9.0", False),
        ("Orin", "8.7", False),
        ("NVIDIA B200", "10.0", False),
        ("NVIDIA GeForce RTX 4070", "8.9", True),
        ("NVIDIA GeForce RTX 5090", "12.0", True),
        ("one to come", "13.1", True),
    ],
)
def test_builds_anywhere_and_runs_on_rtx_cards_alone(monkeypatch, name, capability, runs):
    """As an H200 found: the engine builds there, and the library refuses to load it."""
    gpu = Gpu(name, capability, 1 << 33, "13.0")
    monkeypatch.setattr("edgeseg.backends.trt_backend.find_gpu", lambda: (gpu, ""))
    monkeypatch.setattr("edgeseg.backends.trt_backend.driver_package", lambda: "cuda-python")
    status = BACKEND.probe()
    assert status.can_build and status.can_run == runs
    wanted = (
        "" if runs else f"TensorRT-RTX is for RTX cards and runs nothing on {name} (compute capability {capability})"
    )
    assert status.reason == wanted
