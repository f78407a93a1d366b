"""blend_labels against the formula in float64, one pixel at a time where it matters, on every path, to the bit."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from edgeseg import kernels
from edgeseg.ops import blend_labels
from edgeseg.ops.blend_labels import arguments, blend_labels_reference, run_kernel

INSTRUCTION_SETS = [
    name
    for name, number in kernels.INSTRUCTION_SETS.items()
    if kernels.available() and kernels.load().edgeseg_can_run(number)
]
needs_emulation = pytest.mark.skipif(
    kernels.library_path("edgeseg_emulated") is None, reason="built without EDGESEG_EMULATION"
)
EMULATED = pytest.param("emulated", marks=needs_emulation)
# Widths around blocks of 32 pixels and around 4; no image, no row, no column, a batch.
SHAPES = [
    (1, 1),
    (1, 31),
    (3, 32),
    (2, 33),
    (5, 4),
    (7, 3),
    (17, 67),
    (40, 260),
    (0, 5),
    (5, 0),
    (3, 6, 41),
    (0, 6, 41),
]
PALETTE = np.random.default_rng(9).integers(0, 256, (19, 3), dtype=np.uint8)


def formula(image: np.ndarray, labels: np.ndarray, palette: np.ndarray, share: int) -> np.ndarray:
    """Exact in float64: every term is a whole number of 1/256."""
    known = labels < len(palette)
    colours = np.zeros((256, 3))
    colours[: len(palette)] = palette
    mean = image * (1 - share / 256) + colours[labels] * (share / 256)
    return np.where(known[..., None], np.floor(mean + 0.5), image).astype(np.uint8)


def picture(shape: tuple[int, ...], kind: str = "noise") -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(sum(shape))
    image = random.integers(0, 256, (*shape, 3), dtype=np.uint8)
    if kind == "noise":  # with void and ids between the palette and void
        return image, random.choice(np.array([*range(19), 19, 100, 255], np.uint8), shape)
    columns = np.arange(shape[-1]) // 45  # regions, one of them void
    return image, np.broadcast_to(np.where(columns == 1, 255, columns % 19).astype(np.uint8), shape).copy()


def run(path: str, image: np.ndarray, labels: np.ndarray, palette: np.ndarray, share: int, out: np.ndarray) -> None:
    if path == "emulated":
        function = kernels.function("edgeseg_blend_labels_u8_cuda", "pqqpqqpqipqqqqqp", "edgeseg_emulated")
        assert function(*arguments(image, labels, palette, share, out), None) == 0
    elif path == "reference":
        blend_labels_reference(image, labels, palette, share, out)
    else:
        run_kernel(image, labels, palette, share, out, 1, path)


@pytest.mark.parametrize("path", [*INSTRUCTION_SETS, "reference", EMULATED])
class TestPaths:
    @pytest.mark.parametrize("shape", SHAPES)
    @pytest.mark.parametrize("kind", ["noise", "regions"])
    def test_equals_the_formula_to_the_bit(self, shape, kind, path):
        image, labels = picture(shape, kind)
        for share in (0, 1, 128, 255, 256):
            out = np.full_like(image, 77)
            run(path, image, labels, PALETTE, share, out)
            np.testing.assert_array_equal(out, formula(image, labels, PALETTE, share))

    def test_every_value_with_every_colour(self, path):
        """256 x 256 pairs of image and colour values, for every share that can round differently."""
        image = np.broadcast_to(np.arange(256, dtype=np.uint8)[:, None, None], (256, 255, 3)).copy()
        labels = np.broadcast_to(np.arange(255, dtype=np.uint8), (256, 255)).copy()
        palette = np.stack([np.arange(255), 255 - np.arange(255), np.full(255, 255)], 1).astype(np.uint8)
        for share in (1, 77, 128, 179, 255) if path != "emulated" else (77,):
            out = np.empty_like(image)
            run(path, image, labels, palette, share, out)
            np.testing.assert_array_equal(out, formula(image, labels, palette, share))

    def test_no_colours_and_one(self, path):
        image, labels = picture((6, 70))
        for count in (0, 1):
            out = np.zeros_like(image)
            run(path, image, labels, PALETTE[:count], 200, out)
            np.testing.assert_array_equal(out, formula(image, labels, PALETTE[:count], 200))

    @pytest.mark.parametrize("offset", [0, 1, 4])
    def test_pitched_rows_in_place_and_nothing_written_between_them(self, offset, path):
        """A window of a canvas, at aligned and unaligned addresses, upside down too."""
        canvas, label_canvas = picture((12, 100))
        window = np.s_[2:9, offset : offset + 67]
        for flip in (1, -1):
            image, labels = canvas.copy()[window][::flip], label_canvas[window][::flip]
            expected = canvas.copy()
            expected[window][::flip] = formula(image, labels, PALETTE, 100)
            run(path, image, labels, PALETTE, 100, image)
            np.testing.assert_array_equal(image.base, expected)

    def test_batch_of_pitched_images(self, path):
        canvas, label_canvas = picture((3, 10, 80))
        image, labels = canvas[:, 1:8, 8:76], label_canvas[:, 1:8, 8:76]
        out = np.zeros((3, 9, 90, 3), np.uint8)
        run(path, image, labels, PALETTE, 128, out[:, 1:8, 12:80])
        assert not out[:, 0].any() and not out[:, 8].any() and not out[:, :, :12].any() and not out[:, :, 80:].any()
        np.testing.assert_array_equal(out[:, 1:8, 12:80], formula(image, labels, PALETTE, 128))


class TestFunction:
    image, labels = picture((50, 90))

    @pytest.mark.parametrize("alpha", [0, 0.25, 0.3, 1 / 3, 0.5, 0.998, 1])
    def test_array_and_tensor(self, alpha):
        expected = formula(self.image, self.labels, PALETTE, round(alpha * 256))
        for threads in (None, 1, 3):
            np.testing.assert_array_equal(
                blend_labels(self.image, self.labels, PALETTE, alpha, threads=threads), expected
            )
            tensors = (torch.from_numpy(array) for array in (self.image, self.labels, PALETTE))
            np.testing.assert_array_equal(blend_labels(*tensors, alpha, threads=threads).numpy(), expected)

    def test_any_strides(self):
        views = self.image.transpose(1, 0, 2)[::-2, :, ::-1], self.labels.T[::-2], PALETTE[::-1]
        expected = formula(*views, 128)
        np.testing.assert_array_equal(blend_labels(*views), expected)
        chw = torch.from_numpy(self.image).permute(2, 0, 1).contiguous().permute(1, 2, 0)
        labels = torch.from_numpy(self.labels).T.contiguous().T
        tinted = blend_labels(chw, labels, torch.from_numpy(PALETTE))
        np.testing.assert_array_equal(tinted.numpy(), formula(self.image, self.labels, PALETTE, 128))

    def test_read_only_inputs_are_read_and_left_alone(self):
        image, labels = self.image.copy(), self.labels.copy()
        image.flags.writeable = labels.flags.writeable = False
        blend_labels(image, labels, PALETTE)
        np.testing.assert_array_equal(image, self.image)

    def test_out(self):
        expected = blend_labels(self.image, self.labels, PALETTE, 0.7)
        canvas = np.zeros((50, 200, 3), np.uint8)
        out = canvas[:, 100:190]
        assert blend_labels(self.image, self.labels, PALETTE, 0.7, out=out) is out
        np.testing.assert_array_equal(out, expected)
        image = self.image.copy()
        assert blend_labels(image, self.labels, PALETTE, 0.7, out=image) is image
        np.testing.assert_array_equal(image, expected)
        left = torch.zeros(50, 200, 3, dtype=torch.uint8)[:, 2:92]
        tensors = [torch.from_numpy(array) for array in (self.image, self.labels, PALETTE)]
        assert blend_labels(*tensors, 0.7, out=left) is left
        np.testing.assert_array_equal(left.numpy(), expected)
        in_place = tensors[0].clone()
        blend_labels(in_place, *tensors[1:], 0.7, out=in_place)
        np.testing.assert_array_equal(in_place.numpy(), expected)

    @pytest.mark.parametrize(
        ("change", "error", "match"),
        [
            ({"image": np.zeros((4, 6), np.uint8)}, ValueError, r"image must be \(H, W, 3\) .* got \(4, 6\)"),
            ({"image": np.zeros((4, 6, 4), np.uint8)}, ValueError, r"got \(4, 6, 4\)"),
            ({"image": np.zeros((4, 6, 3), np.int8)}, TypeError, "image must be a uint8 .* got (torch.)?int8"),
            ({"labels": np.zeros((4, 6), np.int64)}, TypeError, "labels must be a uint8 .* got (torch.)?int64"),
            ({"labels": np.zeros((4, 5), np.uint8)}, ValueError, r"one size, got \(4, 5\) and \(4, 6, 3\)"),
            ({"palette": np.zeros((256, 3), np.uint8)}, ValueError, r"K at most 255, got \(256, 3\)"),
            ({"palette": np.zeros((9, 4), np.uint8)}, ValueError, r"palette must be \(K, 3\) .* got \(9, 4\)"),
            ({"palette": [[0, 0, 0]]}, TypeError, "palette must be a uint8 .* got list"),
            ({"alpha": 1.5}, ValueError, "between 0 and 1, got 1.5"),
            ({"alpha": float("nan")}, ValueError, "between 0 and 1, got nan"),
            ({"threads": 0}, ValueError, "threads must be at least 1, got 0"),
            ({"out": np.zeros((4, 7, 3), np.uint8)}, ValueError, r"image's shape \(4, 6, 3\), got \(4, 7, 3\)"),
            ({"out": np.zeros((4, 12, 3), np.uint8)[:, ::2]}, ValueError, "side by side"),
        ],
    )
    def test_refuses(self, change, error, match):
        arrays = {"image": np.zeros((4, 6, 3), np.uint8), "labels": np.zeros((4, 6), np.uint8), "palette": PALETTE}
        with pytest.raises(error, match=match):
            blend_labels(**(arrays | change))
        tensors = {
            name: torch.from_numpy(value) if isinstance(value, np.ndarray) else value
            for name, value in (arrays | change).items()
        }
        with pytest.raises(error, match=match):
            blend_labels(**tensors)

    def test_refuses_memory_that_is_shared_or_locked(self):
        canvas = np.zeros((5, 6, 3), np.uint8)
        with pytest.raises(ValueError, match="shares memory"):
            blend_labels(canvas[:4], np.zeros((4, 6), np.uint8), PALETTE, out=canvas[1:])
        with pytest.raises(ValueError, match="shares memory"):
            blend_labels(np.zeros((4, 6, 3), np.uint8), canvas[:4, :, 0], PALETTE, out=canvas[:4])
        canvas.flags.writeable = False
        with pytest.raises(ValueError, match="must be writeable"):
            blend_labels(np.zeros((5, 6, 3), np.uint8), np.zeros((5, 6), np.uint8), PALETTE, out=canvas)

    def test_refuses_what_is_no_array(self):
        with pytest.raises(TypeError, match="numpy array or a torch tensor, got list"):
            blend_labels([[[0, 0, 0]]], np.zeros((1, 1), np.uint8), PALETTE)


class TestTorchOperator:
    @pytest.mark.parametrize("shape", [(1, 4, 5), (2, 3, 40), (0, 3, 3)])
    def test_opcheck(self, shape):
        image, labels = (torch.from_numpy(array) for array in picture(shape))
        palette = torch.from_numpy(PALETTE)
        blend_labels(image, labels, palette)  # registers it
        torch.library.opcheck(torch.ops.edgeseg.blend_labels.default, (image, labels, palette, 100))
        out = torch.zeros_like(image)
        torch.library.opcheck(torch.ops.edgeseg.blend_labels_into.default, (image, labels, palette, 100, out))

    def test_compiles_without_a_break(self):
        torch.compiler.reset()
        palette = torch.from_numpy(PALETTE)

        def invert(image, labels):
            return 255 - blend_labels(image, labels, palette, 0.4)

        def into(image, labels, out):
            return blend_labels(image, labels, palette, 0.4, out=out) + 0

        for shape in ((7, 9), (2, 5, 33)):
            image, labels = (torch.from_numpy(array) for array in picture(shape))
            compiled = torch.compile(invert, fullgraph=True, backend="aot_eager")
            assert torch.equal(compiled(image, labels), invert(image, labels))
            compiled = torch.compile(into, fullgraph=True, backend="aot_eager")
            out = torch.zeros_like(image)
            assert torch.equal(compiled(image, labels, out), blend_labels(image, labels, palette, 0.4))
            assert torch.equal(out, blend_labels(image, labels, palette, 0.4))

    def test_every_way_to_compute_it_agrees(self):
        from edgeseg.ops import _torch_blend_labels as registered

        image, labels = (torch.from_numpy(array) for array in picture((2, 20, 70)))
        arguments_ = image, labels, torch.from_numpy(PALETTE), 90
        expected = torch.from_numpy(formula(*(tensor.numpy() for tensor in arguments_[:3]), 90))
        for way in (
            torch.ops.edgeseg.blend_labels,
            registered.blend_labels_reference,
            *([registered._through_ctypes] if kernels.available() else []),
        ):
            assert torch.equal(way(*arguments_), expected)

    def test_refuses_from_cpp_too(self):
        image, labels, palette = torch.zeros(1, 2, 2, 3).byte(), torch.zeros(1, 2, 2).byte(), torch.zeros(2, 3).byte()
        blend_labels(image, labels, palette)
        if not kernels.status()["torch"]["available"]:
            pytest.skip("edgeseg was built without torch")
        with pytest.raises(RuntimeError, match=r"share not in \[0, 256\]"):
            torch.ops.edgeseg.blend_labels(image, labels, palette, 300)
        with pytest.raises(RuntimeError, match="must be uint8"):
            torch.ops.edgeseg.blend_labels(image, labels.int(), palette, 3)
        with pytest.raises(RuntimeError, match="one size"):
            torch.ops.edgeseg.blend_labels(image, labels[:, :1], palette, 3)
        with pytest.raises(RuntimeError, match="rows overlap"):
            torch.ops.edgeseg.blend_labels_into(image, labels, palette, 3, image[:, :1].expand(1, 2, 2, 3))

    @pytest.mark.cuda
    @pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
    def test_on_cuda(self):
        for shape in SHAPES:
            for kind in ("noise", "regions"):
                image, labels = picture(shape, kind)
                tensors = (torch.from_numpy(array).cuda() for array in (image, labels, PALETTE))
                expected = formula(image, labels, PALETTE, 77)
                np.testing.assert_array_equal(blend_labels(*tensors, 77 / 256).cpu().numpy(), expected)


@pytest.mark.skipif(not kernels.available(), reason="the kernel library was not built")
@pytest.mark.parametrize(
    ("at", "value"), [(0, None), (3, None), (6, None), (7, 256), (8, 257), (8, -1), (10, 5), (12, -1), (13, 1 << 23)]
)
def test_the_c_function_checks_its_arguments(at, value):
    image, labels = picture((4, 6))
    values: list = [*arguments(image, labels, PALETTE, 100, np.empty_like(image)), 1, 0]
    function = kernels.function("edgeseg_blend_labels_u8", "pqqpqqpqipqqqqqii")
    assert function(*values) == 0
    values[at] = value
    with pytest.raises(ValueError, match="blend: invalid argument"):
        kernels.check(function(*values), "blend")


def test_without_the_library_arrays_and_tensors_are_blended():
    script = """
from edgeseg import kernels
kernels.library_path = lambda name: None
import sys
import numpy as np
from edgeseg.ops import blend_labels
image, labels = np.full((2, 3, 4, 3), 100, np.uint8), np.array([0, 1, 255, 0], np.uint8)
labels, palette = np.broadcast_to(labels, (2, 3, 4)).copy(), np.array([[200, 0, 100]], np.uint8)
expected = [[150, 50, 100], [100, 100, 100], [100, 100, 100], [150, 50, 100]]
assert (blend_labels(image, labels, palette) == np.array(expected)).all()
assert "torch" not in sys.modules
import torch
assert (blend_labels(*map(torch.from_numpy, (image, labels, palette))) == torch.tensor(expected)).all()"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
