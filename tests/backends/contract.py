"""What every backend must do; a backend's test class inherits it and says what differs.

`BuildContract` is for all of them, `RunContract` for those that run on the machine at hand.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeseg.backends import BACKENDS, BuildRequest, EngineFiles, Session
from edgeseg.errors import BackendError, EngineBuildError
from edgeseg.progress import Progress

from .networks import SIZE, random_images


class Interrupting(Progress):
    """Ctrl-C when the n-th piece of work begins."""

    def __init__(self, after: int):
        self.left = after

    @contextmanager
    def task(self, description: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        yield lambda steps: None


class BuildContract:
    name: str
    supports_options: tuple[str, ...] = ()
    interrupts: tuple[int, ...] = (0, 1)
    network = "fp32"  # which of the networks the tests of building take

    @property
    def backend(self):
        return BACKENDS[self.name]

    def request(self, networks, onnx: Path, folder: Path, precision: str = "fp32", **options: Any) -> BuildRequest:
        """The ONNX as the bundle's, and what else this backend builds from."""
        model = folder / "model.onnx"
        shutil.copy(onnx, model)
        return BuildRequest(model, precision, **options)  # type: ignore[arg-type]

    def build(self, networks, onnx: Path, folder: Path, precision: str = "fp32", **options: Any) -> EngineFiles:
        return self.backend.build(self.request(networks, onnx, folder, precision, **options), folder)

    def test_probe_and_identity(self):
        status = self.backend.probe()
        assert status.installed and status.can_build and status.version
        identity = self.backend.identity()
        assert identity["backend"] == self.name and identity["version"] == status.version
        assert all(isinstance(value, str) for value in identity.values())

    def test_build_writes_what_it_says(self, networks, tmp_path):
        engine = self.build(networks, getattr(networks, self.network), tmp_path)
        assert (tmp_path / engine.main).stat().st_size > 0
        assert {path.name for path in tmp_path.iterdir()} == {"model.onnx", *engine.files}

    def test_interrupted_build_leaves_nothing(self, networks, tmp_path):
        request = self.request(networks, getattr(networks, self.network), tmp_path)
        interrupted = 0
        for after in self.interrupts:
            try:
                self.backend.build(request, tmp_path, Interrupting(after))
            except KeyboardInterrupt:
                interrupted += 1
                assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
        assert interrupted

    def test_options_of_others_are_refused(self, networks, tmp_path):
        request = self.request(networks, getattr(networks, self.network), tmp_path)
        for name, value in {"compute_capabilities": ("8.9",), "workspace_bytes": 1 << 30, "threads": 2}.items():
            if name not in self.supports_options:
                other = BuildRequest(request.onnx_path, "fp32", **{name: value})
                with pytest.raises(ValueError, match=f"the backend {self.name} has no {name}, got"):
                    self.backend.build(other, tmp_path)


class OnnxBuildContract(BuildContract):
    """For the backends that build from the ONNX."""

    def test_broken_onnx(self, networks, tmp_path):
        for content in (b"", b"not an ONNX at all", networks.int8.read_bytes()[:2000]):
            model = tmp_path / "model.onnx"
            model.write_bytes(content)
            with pytest.raises(EngineBuildError, match=r"model\.onnx"):
                self.backend.build(BuildRequest(model), tmp_path)
            assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


class RunContract(BuildContract):
    tolerance = 1e-5  # of the largest logit: float32 sums in another order
    engine_file: str

    @pytest.fixture(scope="class")
    @classmethod
    def engines(cls, networks, tmp_path_factory):
        """(onnx, precision) -> a folder with the engine, built once."""
        contract = cls()

        @cache
        def build(onnx: Path, precision: str) -> Path:
            folder = tmp_path_factory.mktemp("engine")
            assert contract.build(networks, onnx, folder, precision).main == cls.engine_file
            return folder

        return build

    @pytest.fixture
    def built(self, engines, tmp_path):
        """(onnx, precision) -> an opened session; its engine lies in `tmp_path`."""

        def open_session(onnx: Path, precision: str = "fp32", **options: Any) -> Session:
            shutil.copytree(engines(onnx, precision), tmp_path, dirs_exist_ok=True)
            options = {"threads": 1, **options}
            return self.backend.open(tmp_path, self.engine_file, {"precision": precision}, **options)

        return open_session

    @pytest.fixture(scope="class")
    @classmethod
    def session(cls, networks, engines):
        """The FP32 network, for tests that leave it as it is."""
        folder = engines(networks.fp32, "fp32")
        with BACKENDS[cls.name].open(folder, cls.engine_file, {"precision": "fp32"}, threads=1) as session:
            yield session

    def check(self, found: np.ndarray, wanted: np.ndarray, tolerance: float) -> None:
        assert found.dtype == np.float32 and found.shape == wanted.shape
        assert np.abs(found - wanted).max() <= tolerance * np.abs(wanted).max()

    def test_equals_torch(self, networks, session):
        images = random_images()
        assert session.input_name == "images" and session.input_shape[1] == 3
        self.check(session.infer(images), networks.logits(images), self.tolerance)
        layers = session.layers()
        assert layers is None or all({"name", "type", "precision"} <= set(layer) for layer in layers)

    def test_dynamic_batch(self, networks, built):
        with built(networks.dynamic) as session:
            assert session.input_shape[0] is None
            for batch in (1, 3, 2):
                images = random_images(batch)
                self.check(session.infer(images), networks.logits(images), self.tolerance)

    def test_images_of_any_strides(self, networks, session):
        images = random_images()
        wanted = networks.logits(images)
        strided = np.asfortranarray(images)
        strided.flags.writeable = False
        self.check(session.infer(strided), wanted, self.tolerance)
        padded = np.full((1, 3, SIZE[0], SIZE[1] * 2), np.nan, np.float32)
        padded[..., ::2] = images
        self.check(session.infer(padded[..., ::2]), wanted, self.tolerance)
        assert np.isnan(padded[..., 1::2]).all()

    def test_output_is_the_callers(self, session):
        first = session.infer(random_images(seed=1))
        copy = first.copy()
        other = session.infer(random_images(seed=2))
        assert np.array_equal(first, copy)
        other[:] = 0
        assert np.array_equal(session.infer(random_images(seed=1)), copy)

    def test_two_sessions_at_once(self, networks, built, session):
        a, b = random_images(seed=1), random_images(seed=2)
        with built(networks.fp32) as other:
            from_one, from_other = session.infer(a), other.infer(b)
        self.check(from_other, networks.logits(b), self.tolerance)
        self.check(session.infer(b), networks.logits(b), self.tolerance)
        self.check(from_one, networks.logits(a), self.tolerance)

    def test_wrong_images(self, session):
        wrong = [
            (random_images().astype(np.float64), "float32 array, got float64"),
            (random_images()[0], r"got \(3, 64, 96\)"),
            (random_images()[:, :2], r"got \(1, 2, 64, 96\)"),
            (random_images()[:0], r"got \(0, 3, 64, 96\)"),
            ([[1.0]], "got list"),
        ]
        if session.input_shape[2] is not None:
            wrong.append((random_images()[:, :, :32], r"must be \(1, 3, 64, 96\), got \(1, 3, 32, 96\); use the"))
        for images, message in wrong:
            with pytest.raises(ValueError, match=message):
                session.infer(images)

    def test_closed(self, networks, built):
        session = built(networks.fp32)
        with session:
            pass
        session.close()
        with pytest.raises(ValueError, match="session is closed"):
            session.infer(random_images())

    def test_threads(self, networks, built):
        with pytest.raises(ValueError, match="threads must be at least 1, got 0"):
            built(networks.fp32, threads=0)

    def test_read_only_folder(self, networks, engines):
        folder = engines(networks.fp32, "fp32")
        before = sorted(path.name for path in folder.iterdir())
        folder.chmod(0o555)
        try:
            with self.backend.open(folder, self.engine_file) as session:
                session.infer(random_images())
        finally:
            folder.chmod(0o755)
        assert sorted(path.name for path in folder.iterdir()) == before  # root may write all the same

    def test_corrupt_engine(self, networks, engines, tmp_path):
        shutil.copytree(engines(networks.fp32, "fp32"), tmp_path, dirs_exist_ok=True)
        whole = (tmp_path / self.engine_file).read_bytes()
        for content in (b"", b"garbage" * 100, whole[: len(whole) // 2]):
            (tmp_path / self.engine_file).write_bytes(content)
            with pytest.raises(BackendError, match=self.engine_file):
                self.backend.open(tmp_path, self.engine_file)

    def test_missing_engine(self, tmp_path):
        with pytest.raises(BackendError, match="does not exist; it is the engine that the bundle names"):
            self.backend.open(tmp_path, self.engine_file)


class ReducedPrecisionContract:
    """For the backends that run FP16 and INT8."""

    def rounding(self, session: Session) -> float:
        """What a runtime that computes in bfloat16, where the CPU can, may be off by: half a unit of its eight bits."""
        return 2**-8 if any("bf16" in layer["precision"] for layer in session.layers() or ()) else 0.0

    def test_fp16(self, networks, built):
        images = random_images()
        with built(networks.fp16, "fp16") as session:
            # a rounding in every layer, of which they partly cancel
            self.check(session.infer(images), networks.logits(images), 5e-3 + 8 * self.rounding(session))

    def test_int8_does_not_saturate(self, networks, built):
        """The reference is integer arithmetic; saturating int8 kernels miss it by tens of percent."""
        images = 4 * random_images()
        images[:, :, :32] = 127 / 16  # every product at its largest
        with built(networks.int8, "int8") as session:
            tolerance = 1e-6 + 2 * self.rounding(session)  # before it quantises, and at the end
            self.check(session.infer(images), networks.quantized.reference(images), tolerance)
