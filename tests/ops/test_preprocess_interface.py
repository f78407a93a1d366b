"""preprocess as it is called: arrays, tensors and lists, the torch operator, the C functions, its fallbacks.

What it computes is tested in test_preprocess.py.
"""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from edgeseg import kernels
from edgeseg.ops import preprocess
from edgeseg.ops.preprocess import run_cuda_kernel
from tests.ops.test_preprocess import MEAN, STD, antialiased, picture


class TestFunction:
    image = picture((46, 38))[0]
    size = (20, 27)
    expected = antialiased(picture((46, 38)), (20, 27))

    def test_array(self):
        tensor = preprocess(self.image, self.size, MEAN, STD)
        assert tensor.dtype == np.float32 and tensor.flags.c_contiguous
        np.testing.assert_array_equal(tensor, self.expected)
        np.testing.assert_array_equal(preprocess(self.image[None], self.size, MEAN, STD, threads=2), self.expected)

    def test_tensor(self):
        tensor = preprocess(torch.from_numpy(self.image), self.size, MEAN, STD)
        assert tensor.dtype == torch.float32 and tensor.is_contiguous()
        np.testing.assert_array_equal(tensor.numpy(), self.expected)
        again = preprocess(torch.from_numpy(self.image)[None], self.size, MEAN, STD, threads=2)
        np.testing.assert_array_equal(again.numpy(), self.expected)

    @pytest.mark.parametrize("dtype", ["float16", np.float16, np.dtype("float16"), torch.float16])
    def test_names_of_a_type(self, dtype):
        expected = self.expected.astype(np.float16)
        np.testing.assert_array_equal(preprocess(self.image, self.size, MEAN, STD, dtype=dtype), expected)
        tensor = preprocess(torch.from_numpy(self.image), self.size, MEAN, STD, dtype=dtype)
        assert tensor.dtype == torch.float16
        np.testing.assert_array_equal(tensor.numpy(), expected)

    def test_list_of_images_of_several_sizes(self):
        images = [picture(size)[0] for size in ((46, 38), (20, 27), (9, 90))]
        expected = np.concatenate([antialiased(image[None], self.size) for image in images])
        np.testing.assert_array_equal(preprocess(images, self.size, MEAN, STD), expected)
        tensors = [torch.from_numpy(image) for image in images]
        np.testing.assert_array_equal(preprocess(tensors, self.size, MEAN, STD).numpy(), expected)
        np.testing.assert_array_equal(preprocess(images[:1], self.size, MEAN, STD), expected[:1])

    def test_any_strides(self):
        memory = picture((92, 114), images=2)
        wide = np.concatenate([memory, memory[..., :1]], -1)  # (2, 92, 114, 4): a channel to leave out
        views = (
            memory[:, ::2, ::3],
            memory[:, ::-1, ::-1, ::-1],
            wide[..., :3],
            memory.transpose(0, 2, 1, 3),
            np.ascontiguousarray(memory.transpose(3, 0, 1, 2)).transpose(1, 2, 3, 0),
            np.broadcast_to(memory[:1, :1], memory.shape),
        )
        before = memory.copy()
        for mode in ("antialias", "bilinear"):
            for view in views:
                expected = preprocess(np.ascontiguousarray(view), self.size, MEAN, STD, mode=mode)
                np.testing.assert_array_equal(preprocess(view, self.size, MEAN, STD, mode=mode), expected)
                if min(view.strides) >= 0:  # torch knows no others
                    tensor = torch.as_strided(torch.from_numpy(_base(view)), view.shape, view.strides, _offset(view))
                    result = preprocess(tensor, self.size, MEAN, STD, mode=mode)
                    np.testing.assert_array_equal(result.numpy(), expected)
        np.testing.assert_array_equal(memory, before)

    def test_many_callers_at_once(self):
        with ThreadPoolExecutor(6) as callers:
            calls = callers.map(lambda _: preprocess(self.image, self.size, MEAN, STD, threads=2), range(40))
            for tensor in calls:
                np.testing.assert_array_equal(tensor, self.expected)

    @pytest.mark.parametrize(
        ("change", "error", "match"),
        [
            ({"image": np.zeros((4, 4, 3), np.float32)}, TypeError, "image must be uint8, got .*float32"),
            ({"image": np.zeros((4, 4), np.uint8)}, ValueError, r"\(H, W, 3\) or \(N, H, W, 3\), got \(4, 4\)"),
            ({"image": np.zeros((4, 4, 4), np.uint8)}, ValueError, r"got \(4, 4, 4\)"),
            ({"image": np.zeros((3, 4, 4, 1), np.uint8)}, ValueError, r"got \(3, 4, 4, 1\)"),
            ({"image": np.zeros((0, 4, 3), np.uint8)}, ValueError, r"H and W in .*, got \(0, 4, 3\)"),
            ({"size": (0, 8)}, ValueError, r"each in .*, got \(0, 8\)"),
            ({"size": 8}, TypeError, "two integers"),
            ({"mean": (0.5,)}, ValueError, "three numbers each"),
            ({"std": (1, 0, 1)}, ValueError, "no std 0"),
            ({"mean": (0, float("nan"), 0)}, ValueError, "must be finite"),
            ({"mode": "bicubic"}, ValueError, "mode must be one of antialias, bilinear, got 'bicubic'"),
            ({"order": "GBR"}, ValueError, "order must be one of RGB, BGR, got 'GBR'"),
            ({"dtype": "bfloat16"}, ValueError, "dtype must be float32 or float16, got bfloat16"),
            ({"threads": 0}, ValueError, "threads must be at least 1, got 0"),
        ],
    )
    def test_refuses(self, change, error, match):
        arguments = {"image": self.image, "size": self.size, "mean": MEAN, "std": STD} | change
        with pytest.raises(error, match=match):
            preprocess(**arguments)
        with pytest.raises(error, match=match):
            preprocess(**arguments | {"image": torch.from_numpy(arguments["image"])})

    def test_refuses_what_is_no_image(self):
        for image, match in (([[[0, 0, 0]]], "got list of list"), ("street.jpg", "got str"), (None, "got NoneType")):
            with pytest.raises(TypeError, match=match):
                preprocess(image, self.size, MEAN, STD)
        with pytest.raises(TypeError, match="got list of Tensor, ndarray"):
            preprocess([self.image, torch.from_numpy(self.image)], self.size, MEAN, STD)
        with pytest.raises(ValueError, match="got an empty list"):
            preprocess([], self.size, MEAN, STD)
        for images in ([self.image[None]], [torch.from_numpy(self.image)[None]]):
            with pytest.raises(ValueError, match=r"a list must hold \(H, W, 3\) images, got \[\(1, 46, 38, 3\)\]"):
                preprocess(images, self.size, MEAN, STD)


def _base(view: np.ndarray) -> np.ndarray:
    """All of the memory that a view looks at, flat."""
    while view.base is not None:
        view = view.base
    return view.reshape(-1) if view.flags.c_contiguous else view.transpose(np.argsort(view.strides)[::-1]).reshape(-1)


def _offset(view: np.ndarray) -> int:
    return view.ctypes.data - _base(view).ctypes.data


class TestTorchOperator:
    def arguments(self, shape=(2, 9, 14, 3), mode="antialias", dtype=torch.float32):
        preprocess(torch.zeros(1, 1, 3, dtype=torch.uint8), (1, 1), MEAN, STD)  # registers it
        images = torch.from_numpy(np.random.default_rng(3).integers(0, 256, shape, dtype=np.uint8))
        return images, 6, 17, list(MEAN), list(STD), mode, "BGR", dtype

    @pytest.mark.parametrize("shape", [(1, 9, 14, 3), (3, 1, 1, 3), (0, 4, 5, 3), (2, 6, 17, 3)])
    @pytest.mark.parametrize("mode", ["antialias", "bilinear"])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
    def test_opcheck(self, shape, mode, dtype):
        arguments = self.arguments(shape, mode, dtype)
        torch.library.opcheck(torch.ops.edgeseg.preprocess.default, arguments)

    @pytest.mark.parametrize("mode", ["antialias", "bilinear"])
    def test_every_way_to_compute_it_agrees(self, mode):
        from edgeseg.ops import _torch_preprocess as registered

        for dtype in (torch.float32, torch.float16):
            arguments = self.arguments(mode=mode, dtype=dtype)
            expected = registered.reference(*arguments)
            for tensor in (torch.ops.edgeseg.preprocess(*arguments), registered._through_ctypes(*arguments)):
                assert tensor.dtype == dtype
                atol = 0 if mode == "antialias" else (2e-3 if dtype == torch.float16 else 1e-5)
                torch.testing.assert_close(tensor, expected, rtol=0, atol=atol)

    def test_compiles_without_a_break(self):
        torch.compiler.reset()

        def network_input(image: torch.Tensor) -> torch.Tensor:
            return preprocess(image.flip(0), (12, 15), MEAN, STD, dtype=torch.float16) + 1

        compiled = torch.compile(network_input, fullgraph=True, backend="aot_eager")
        for height in (7, 20):
            image = torch.from_numpy(picture((height, 22))[0])
            assert torch.equal(compiled(image), network_input(image))

    def test_refuses_from_cpp_too(self):
        arguments = self.arguments()
        if not kernels.status()["torch"]["available"]:
            pytest.skip("edgeseg was built without torch")
        for at, value, match in (
            (0, torch.zeros(1, 4, 4, 4, dtype=torch.uint8), r"must be \(N, H, W, 3\)"),
            (0, torch.zeros(1, 4, 4, 3), "must be uint8"),
            (1, 0, "height or width not in"),
            (3, [1.0], "three numbers each"),
            (4, [1.0, 0.0, 1.0], "std of 0"),
            (5, "nearest", "mode must be antialias or bilinear, got nearest"),
            (6, "GBR", "order must be RGB or BGR, got GBR"),
            (7, torch.int32, "float32 or float16"),
        ):
            with pytest.raises(RuntimeError, match=match):
                torch.ops.edgeseg.preprocess(*arguments[:at], value, *arguments[at + 1 :])

    @pytest.mark.cuda
    @pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
    def test_on_cuda(self):
        for mode in ("antialias", "bilinear"):
            for dtype in (torch.float32, torch.float16):
                for shape in ((2, 9, 14, 3), (1, 301, 77, 3), (0, 9, 14, 3), (2, 6, 17, 3)):
                    images, *options = self.arguments(shape, mode, dtype)
                    tensor = torch.ops.edgeseg.preprocess(images.cuda(), *options)
                    expected = torch.ops.edgeseg.preprocess(images, *options)
                    assert tensor.is_cuda and tensor.dtype == dtype
                    atol = 0 if mode == "antialias" else (4e-3 if dtype == torch.float16 else 1e-5)
                    torch.testing.assert_close(tensor.cpu(), expected, rtol=0, atol=atol)
                    cropped = images.repeat(1, 2, 2, 1)[:, 3:-2, 5:-3]
                    tensor = torch.ops.edgeseg.preprocess(cropped.cuda(), *options)
                    expected = torch.ops.edgeseg.preprocess(cropped, *options)
                    torch.testing.assert_close(tensor.cpu(), expected, rtol=0, atol=atol)


@pytest.mark.skipif(not kernels.available(), reason="the kernel library was not built")
class TestCFunctions:
    def test_check_their_arguments(self):
        images, tensor = np.zeros((1, 4, 5, 3), np.uint8), np.zeros((1, 3, 2, 3), np.float32)
        mean, std, bad = np.zeros(3), np.ones(3), np.zeros(3)
        arguments = {"images": images.ctypes.data, "image_stride": 60, "row_pitch": 15}
        arguments |= {"mean": mean.ctypes.data, "std": std.ctypes.data, "tensor": tensor.ctypes.data}
        arguments |= {"N": 1, "H": 4, "W": 5, "h": 2, "w": 3, "mode": 0, "order": 0, "element": 0}
        arguments |= {"num_threads": 0, "instruction_set": 0}
        function = kernels.function("edgeseg_preprocess_u8", "pqqppp" + "q" * 5 + "i" * 5)
        assert function(*arguments.values()) == 0
        wrong = {"images": None, "mean": None, "std": bad.ctypes.data, "tensor": None, "N": -1, "H": 0, "W": 2**23}
        wrong |= {"h": 0, "w": -1, "mode": 2, "order": 2, "element": 2, "num_threads": -1}
        for name, value in wrong.items():
            assert function(*(arguments | {name: value}).values()) == 1, name
        assert function(*(arguments | {"instruction_set": 99}).values()) == 2

    def test_plan_says_how_long_it_is(self):
        mean, std, words = np.zeros(3), np.ones(3), np.zeros(1, np.int64)
        function = kernels.function("edgeseg_preprocess_plan", "pp" + "q" * 4 + "iipp")
        arguments = (mean.ctypes.data, std.ctypes.data, 40, 30, 20, 10)
        assert function(*arguments, 0, 0, None, words.ctypes.data) == 0 and words[0] > 776
        plan = np.zeros(words[0], np.uint32)
        assert function(*arguments, 0, 0, plan.ctypes.data, words.ctypes.data) == 0 and plan.any()
        words -= 1
        assert function(*arguments, 0, 0, plan.ctypes.data, words.ctypes.data) == 1
        assert function(*arguments, 0, 0, None, None) == 1 and function(*arguments, 2, 0, None, words.ctypes.data) == 1

    def test_cuda_without_cuda_says_so(self):
        if kernels.load().edgeseg_has_cuda():
            pytest.skip("built with CUDA")
        with pytest.raises(kernels.KernelsUnavailableError, match="CUDA"):
            run_cuda_kernel((1, 0, 0), 1, 1, (1, 4, 4, 3), (2, 2))


def python(script: str) -> str:
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_an_array_needs_neither_torch_nor_pillow():
    script = """
import sys, numpy as np
from edgeseg import kernels
from edgeseg.ops import preprocess
assert preprocess(np.zeros((9, 9, 3), np.uint8), (4, 4), (0, 0, 0), (1, 1, 1)).shape == (1, 3, 4, 4)
print("torch" in sys.modules, "PIL" in sys.modules and kernels.available())"""
    assert python(script) == "False False"


def test_without_the_library_the_results_are_the_same():
    script = f"""
from edgeseg import kernels
kernels.library_path = lambda name: None
import numpy as np, torch
from edgeseg.ops import preprocess
image = np.random.default_rng(4).integers(0, 256, (46, 38, 3), dtype=np.uint8)
for one in (image, torch.from_numpy(image)):
    for mode in ("antialias", "bilinear"):
        tensor = preprocess(one, (20, 27), {MEAN}, {STD}, mode=mode, order="BGR")
        print(float(tensor.astype(np.float64).sum() if one is image else tensor.double().sum()))"""
    image = np.random.default_rng(4).integers(0, 256, (46, 38, 3), dtype=np.uint8)
    sums = [
        preprocess(image, (20, 27), MEAN, STD, mode=mode, order="BGR").astype(np.float64).sum()
        for mode in ("antialias", "bilinear") * 2
    ]
    np.testing.assert_allclose([float(line) for line in python(script).splitlines()], sums * 1, atol=2e-3)
