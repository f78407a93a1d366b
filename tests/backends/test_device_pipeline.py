"""Preprocessing, engine and tail in one go, on host memory: the CUDA kernels' code emulated, the engine a small sum."""

import numpy as np
import pytest

from edgeseg import kernels
from edgeseg.backends.device_pipeline import DevicePipeline
from edgeseg.backends.trt_runtime import open_engine
from edgeseg.ops import upsample_argmax
from edgeseg.preprocess import Preprocess

from .host_driver import HostDriver
from .test_trt_runtime import SHAPE, Engine, library, reference

pytestmark = pytest.mark.skipif(
    kernels.library_path("edgeseg_emulated") is None, reason="built without EDGESEG_EMULATION"
)


class Eager(list):
    """A queue whose work is done at once: emulated kernels do not wait for a stream either."""

    def append(self, work):
        work()


class EagerHostDriver(HostDriver):
    def create_stream(self) -> int:
        stream = super().create_stream()
        self.queues[stream] = Eager()
        return stream


@pytest.fixture
def opened(tmp_path):
    (tmp_path / "model.engine").write_bytes(b"ftrt" + bytes(24))
    driver = EagerHostDriver()
    with open_engine(library(Engine(driver, SHAPE)), "tensorrt", tmp_path / "model.engine", driver) as session:
        yield driver, session


def test_equals_the_three_steps_on_the_cpu(opened, rng):
    driver, session = opened
    prepare = Preprocess((4, 6))
    pipeline = DevicePipeline(session, prepare, "edgeseg_emulated")
    for shape, size in (
        ((7, 9), (7, 9)),
        ((4, 6), (8, 12)),
        ((30, 41), (30, 41)),
        ((30, 41), (5, 3)),
        ((1, 1), (4, 6)),
    ):
        image = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
        expected = upsample_argmax(reference(prepare(image)), size)[0]
        for view in (image, image[::-1, ::-1].copy()[::-1, ::-1]):
            np.testing.assert_array_equal(pipeline(view, size), expected)
    assert len(driver.memory) == 2 + 3 and len(driver.pinned) == 2 + 2
    pipeline.close()
    assert len(driver.memory) == len(driver.pinned) == 2


def test_refuses_what_is_no_image(opened):
    pipeline = DevicePipeline(opened[1], Preprocess((4, 6)), "edgeseg_emulated")
    with pytest.raises(ValueError, match=r"image must be .*\(H, W, 3\)"):
        pipeline(np.zeros((4, 6), np.uint8), (4, 6))
    with pytest.raises(TypeError, match="uint8"):
        pipeline(np.zeros((4, 6, 3), np.float32), (4, 6))


def test_only_for_one_image_and_with_cuda_kernels(opened, monkeypatch):
    session = opened[1]
    monkeypatch.setattr("edgeseg.backends.trt_runtime.has_cuda_kernels", lambda: True)
    assert session.on_device(Preprocess((4, 6))) is not None
    session.input_shape = (2, 3, 4, 6)
    assert session.on_device(Preprocess((4, 6))) is None
    monkeypatch.setattr("edgeseg.backends.trt_runtime.has_cuda_kernels", lambda: False)
    session.input_shape = SHAPE
    assert session.on_device(Preprocess((4, 6))) is None
