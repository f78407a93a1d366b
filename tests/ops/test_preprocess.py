"""preprocess against Pillow's resize and the formula in float64, to the bit, and against torch's interpolate.

Every way to compute it: each instruction set of this machine, "emulated", which is the CUDA kernel's code run on the
CPU, "reference", the fallback without the library, and "cuda", the kernel itself, on a GPU.
"""

from __future__ import annotations

import numpy as np
import PIL
import pytest
import torch
from PIL import Image

from edgeseg import kernels
from edgeseg.ops.preprocess import cuda_plan, preprocess_reference, run_cuda_kernel, run_kernel
from tests.ops.ways import needs_emulation

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
INSTRUCTION_SETS = [
    name
    for name, number in kernels.INSTRUCTION_SETS.items()
    if kernels.available() and kernels.load().edgeseg_can_run(number)
]
WAYS = [
    *INSTRUCTION_SETS,
    "reference",
    pytest.param("emulated", marks=needs_emulation),
    pytest.param("cuda", marks=[pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]),
]
# (H, W), (height, width): up, down, one pixel, odd, one axis alone, neither, many taps, a ring longer than the image.
SIZES = [
    ((40, 60), (20, 30)),
    ((108, 192), (51, 102)),
    ((33, 47), (64, 96)),
    ((1, 1), (1, 1)),
    ((1, 1), (5, 7)),
    ((9, 13), (1, 1)),
    ((1, 50), (3, 7)),
    ((50, 1), (7, 3)),
    ((2, 2), (3, 67)),
    ((31, 17), (17, 31)),
    ((64, 48), (64, 20)),
    ((64, 48), (20, 48)),
    ((33, 37), (33, 37)),
    ((300, 5), (2, 9)),
    ((5, 300), (9, 2)),
    ((70, 70), (69, 71)),
    ((24, 700), (12, 65)),
    ((700, 24), (65, 12)),
]


def picture(size: tuple[int, int], kind: str = "noise", images: int = 1) -> np.ndarray:
    random = np.random.default_rng(size[0] * 1000 + size[1])
    noise = random.integers(0, 256, (images, *size, 3), dtype=np.uint8)
    if kind == "extremes":  # sums that end on 0 and on 255
        return (noise // 128 * 255).astype(np.uint8)
    return noise


def run(
    way: str,
    images: np.ndarray,
    size: tuple[int, int],
    mode: str = "antialias",
    order: str = "RGB",
    dtype: str = "float32",
    threads: int = 1,
    statistics: tuple = (MEAN, STD),
) -> np.ndarray:
    """Everything forced; the sentinel shows what nobody wrote. The images' own strides are passed on."""
    shape = images.shape
    if way == "reference":
        return preprocess_reference(images, size, *statistics, mode, order, dtype)
    tensor = np.full((shape[0], 3, *size), 12345, dtype)
    strides = images.strides[:2]
    if way in ("emulated", "cuda"):
        plan = cuda_plan(shape, size, *statistics, mode, order)
        if way == "emulated":
            where = (images.ctypes.data, *strides)
            options = (mode, order, dtype, None, "edgeseg_emulated")
            run_cuda_kernel(where, plan.ctypes.data, tensor.ctypes.data, shape, size, *options)
            return tensor
        images = np.ascontiguousarray(images)
        on_gpu = [torch.from_numpy(array).cuda() for array in (images, plan.view(np.int32), tensor)]
        addresses = [on_gpu[0].data_ptr(), *images.strides[:2]], *(one.data_ptr() for one in on_gpu[1:])
        run_cuda_kernel(*addresses, shape, size, mode, order, dtype, torch.cuda.current_stream().cuda_stream)
        return on_gpu[2].cpu().numpy()
    where = (images.ctypes.data, *strides)
    run_kernel(where, tensor.ctypes.data, shape, size, *statistics, mode, order, dtype, threads, way)
    return tensor


def resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """By Pillow, columns first: in one call where Pillow goes that way, else one axis at a time."""
    (height, width), (shrinks, narrows) = size, (image.shape[0] - size[0], image.shape[1] - size[1])
    picture = Image.fromarray(image)
    if tuple(map(int, PIL.__version__.split(".")[:2])) >= (12, 2) and shrinks > 0 and shrinks > 2 * narrows:
        picture = picture.resize((width, image.shape[0]), Image.Resampling.BILINEAR)
    return np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))


def normalised(images: np.ndarray, statistics: tuple = (MEAN, STD)) -> np.ndarray:
    """The formula in float64, rounded once."""
    return ((images / 255 - statistics[0]) / statistics[1]).transpose(0, 3, 1, 2).astype(np.float32)


def antialiased(images: np.ndarray, size: tuple[int, int], statistics: tuple = (MEAN, STD)) -> np.ndarray:
    return normalised(np.stack([resized(image, size) for image in images]), statistics)


def interpolated(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """By torch, in float64."""
    channels_first = torch.from_numpy(images.copy()).permute(0, 3, 1, 2).double()
    values = torch.nn.functional.interpolate(channels_first, size, mode="bilinear", align_corners=False).numpy()
    mean, std = (np.array(numbers)[:, None, None] for numbers in (MEAN, STD))
    return (values / 255 - mean) / std


@pytest.mark.parametrize("way", WAYS)
class TestWays:
    @pytest.mark.parametrize(("source", "size"), SIZES)
    def test_antialias_is_pillow_to_the_bit(self, way, source, size):
        for kind in ("noise", "extremes"):
            images = picture(source, kind)
            np.testing.assert_array_equal(run(way, images, size), antialiased(images, size))

    def test_random_sizes(self, way):
        random = np.random.default_rng(1)
        for _ in range(12 if way == "emulated" else 60):
            *source, height, width = np.exp(random.uniform(0, np.log(160), 4)).astype(int).tolist()
            images = picture(tuple(source))
            np.testing.assert_array_equal(run(way, images, (height, width)), antialiased(images, (height, width)))

    @pytest.mark.parametrize(("source", "size"), SIZES)
    def test_bilinear_is_torch(self, way, source, size):
        images = picture(source)
        tensor = run(way, images, size, "bilinear")
        if source == size:
            np.testing.assert_array_equal(tensor, normalised(images))
        # The source coordinate is a float32: up to 2^-24 of the side off, times the step between two pixels.
        tolerance = 2**-22 * 255 / 255 / min(STD) * (4 + max(source))
        np.testing.assert_allclose(tensor, interpolated(images, size), rtol=0, atol=tolerance)

    @pytest.mark.parametrize("mode", ["antialias", "bilinear"])
    @pytest.mark.parametrize("size", [(20, 31), (45, 53), (33, 37)])
    def test_float16_is_the_float32_rounded(self, way, mode, size):
        images = picture((33, 37))
        for statistics in ((MEAN, STD), ((0.5, 0.5, 0.5), (1e-6, 3e3, -2e4))):  # infinity, and below the normal numbers
            with np.errstate(over="ignore"):
                expected = run(way, images, size, mode, statistics=statistics).astype(np.float16)
            np.testing.assert_array_equal(run(way, images, size, mode, "RGB", "float16", 1, statistics), expected)

    @pytest.mark.parametrize("mode", ["antialias", "bilinear"])
    @pytest.mark.parametrize("size", [(20, 31), (33, 37)])
    def test_bgr_is_rgb_turned_round(self, way, mode, size):
        images = picture((33, 37))
        expected = run(way, images, size, mode)
        np.testing.assert_array_equal(run(way, np.ascontiguousarray(images[..., ::-1]), size, mode, "BGR"), expected)

    @pytest.mark.parametrize("mode", ["antialias", "bilinear"])
    @pytest.mark.parametrize("size", [(20, 31), (45, 53), (33, 37)])
    def test_any_distance_between_rows_and_images(self, way, mode, size):
        memory = picture((70, 90), images=5)
        for view in (memory[1::2, 3:69:2, 5:42], memory[::-2, 65::-2, 53:], memory[:1].repeat(2, 0)[:, :33, :37]):
            assert view.shape[1:] == (33, 37, 3)
            expected = run(way, np.ascontiguousarray(view), size, mode)
            np.testing.assert_array_equal(run(way, view, size, mode), expected)

    def test_nothing_after_the_last_pixel_is_needed(self, way):
        """The image ends where its memory ends, and what lies around it differs between two runs."""
        for source, size in (((3, 5), (2, 3)), ((9, 31), (4, 7)), ((6, 8), (6, 5)), ((6, 8), (3, 8)), ((6, 8), (6, 8))):
            for mode in ("antialias", "bilinear"):
                tensors = []
                for filling in (0, 255):
                    memory = np.full((1, source[0] + 2, source[1] + 8, 3), filling, np.uint8)
                    inner = memory[:, 1:-1, 4:-4]
                    inner[:] = picture(source)
                    tensors.append(run(way, inner, size, mode))
                np.testing.assert_array_equal(*tensors)

    def test_every_byte_in_every_channel(self, way):
        bytes_ = np.arange(256, dtype=np.uint8)
        images = np.stack([np.roll(bytes_, shift) for shift in (0, 85, 170)], -1)[None, None]
        for statistics in ((MEAN, STD), ((0, 0, 0), (1, 1, 1)), ((0.1, -3.7, 123.675), (1e-3, -0.3, 58.395))):
            tensor = run(way, images, (1, 256), statistics=statistics)
            np.testing.assert_array_equal(tensor, normalised(images, statistics))

    def test_batch(self, way):
        images = picture((21, 34), images=3)
        np.testing.assert_array_equal(run(way, images, (13, 40)), antialiased(images, (13, 40)))
        assert run(way, images[:0], (13, 40)).shape == (0, 3, 13, 40)

    def test_a_real_size(self, way):
        if way == "emulated":
            pytest.skip("slow in the emulation")
        images = picture((540, 960))
        np.testing.assert_array_equal(run(way, images, (256, 512)), antialiased(images, (256, 512)))

    def test_thousands_of_taps(self, way):
        """Longer than any table or accumulator of fixed size would like."""
        for source, size in (((1, 20000), (1, 1)), ((20000, 1), (3, 2)), ((4000, 3), (1, 1))):
            images = picture(source, "extremes")
            np.testing.assert_array_equal(run(way, images, size), antialiased(images, size))


@pytest.mark.parametrize("way", INSTRUCTION_SETS)
@pytest.mark.parametrize("mode", ["antialias", "bilinear"])
def test_results_do_not_depend_on_threads(way, mode):
    images = picture((143, 67), images=2)
    for size in ((90, 45), (200, 90), (143, 67)):
        once = run(way, images, size, mode)
        for threads in (2, 3, 8):
            np.testing.assert_array_equal(run(way, images, size, mode, threads=threads), once)
