import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from precision.networks import SIZE, inputs_of, modules_by_key, network, pictures

from edgeseg.calibration import calibrate
from edgeseg.calibration.collect import kind_of_image
from edgeseg.errors import CalibrationError
from edgeseg.precision import ranges


def one_matmul(batch: "int | str" = 1, weight: float = 1.0) -> onnx.ModelProto:
    nodes = [helper.make_node("MatMul", ["images", "w"], ["logits"])]
    weights = numpy_helper.from_array(np.full((96, 96), weight, np.float32), "w")
    shape = [batch, 3, *SIZE]
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, shape)
    graph = helper.make_graph(nodes, "g", [images], [logits], [weights])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


@pytest.mark.parametrize("name", ["segformer", "convnet"])
def test_ranges_equal_those_seen_by_torch_hooks(name):
    module, model = network(name)
    images = pictures(3)
    largest = calibrate(model, images, method="max")
    quantile = calibrate(model, images, method="percentile", percentile=99.0)
    modules = modules_by_key(module, model)
    seen = inputs_of(modules, module, images)
    assert set(largest.scales) == set(modules)
    for key, values in seen.items():
        magnitudes = np.sort(np.abs(values))
        amax = float(magnitudes[-1])
        assert largest.scales[key].amax == pytest.approx(amax, rel=1e-4), key
        assert largest.scales[key].scale == pytest.approx(amax / 127, rel=1e-4)
        exact = magnitudes[int(np.ceil(0.99 * len(magnitudes))) - 1]
        assert abs(quantile.scales[key].amax - exact) <= 2 * amax / 4096 + 1e-4 * amax, key


def test_small_groups_give_the_same_ranges(monkeypatch):
    _, model = network("convnet")
    images = pictures(2)
    whole = calibrate(model, images)
    monkeypatch.setattr(ranges, "GROUP_BYTES", 1)
    assert calibrate(model, images).scales == whole.scales


def test_provenance_is_written_down():
    done = []
    images = pictures(9)
    scales = calibrate(one_matmul(), iter(images), preprocess={"mean": [0.5]}, source_sha256="ab", progress=done.append)
    assert (scales.image_count, scales.input_size, scales.warnings) == (9, SIZE, ())
    assert (scales.preprocess, scales.source_sha256, scales.method) == ({"mean": [0.5]}, "ab", "percentile 99.99")
    assert done == [1] * 9
    assert list(scales.scales) == ["MatMul:0:96x96"]
    same = calibrate(one_matmul(), [np.concatenate(images)])
    assert same.images_sha256 == scales.images_sha256  # how images were batched does not matter
    assert same.scales == scales.scales
    assert calibrate(one_matmul(), images[::-1]).images_sha256 != scales.images_sha256


@pytest.mark.parametrize("batch", [3, "batch"])
def test_static_and_dynamic_batches_take_single_images(batch):
    images = pictures(2)
    assert calibrate(one_matmul(batch), images).scales == calibrate(one_matmul(), images).scales


def test_peaks_beyond_float16_are_recorded():
    assert calibrate(one_matmul(), pictures(1)).peaks == {}
    peaks = calibrate(one_matmul(weight=1e5), pictures(1)).peaks
    assert list(peaks) == ["MatMul:0"]
    assert peaks["MatMul:0"] > 65504


def test_few_images_are_a_warning():
    assert "3 images only" in calibrate(one_matmul(), pictures(3)).warnings[0]


def test_no_images_are_refused():
    with pytest.raises(CalibrationError, match="no calibration image came"):
        calibrate(one_matmul(), [])


@pytest.mark.parametrize(
    "make, kind",
    [
        (lambda rng: rng.normal(size=(1, 3, *SIZE)), "9 are random noise|8 are random noise"),
        (lambda rng: rng.uniform(-1, 1, size=(1, 3, *SIZE)), "random noise"),
        (lambda rng: np.zeros((1, 3, *SIZE)), "8 are constant"),
        (lambda rng: np.full((1, 3, *SIZE), -2.1), "8 are constant"),
        (lambda rng: np.float32([1, 2, 3]).reshape(1, 3, 1, 1) * np.ones((1, 3, *SIZE)), "8 are constant"),
    ],
)
def test_data_without_pictures_is_refused(rng, make, kind):
    batches = (make(rng).astype(np.float32) for _ in range(100))
    with pytest.raises(CalibrationError, match=kind):
        calibrate(one_matmul(), batches)
    with pytest.raises(CalibrationError, match="photographs"):
        calibrate(one_matmul(), [make(rng).astype(np.float32)])


def test_a_black_frame_among_pictures_is_a_warning():
    scales = calibrate(one_matmul(), [*pictures(9), np.zeros((1, 3, *SIZE), np.float32)])
    assert scales.warnings == ("1 of 10 calibration images are constant or look like noise",)


def test_pictures_of_many_kinds_are_pictures():
    ramp = np.broadcast_to(np.linspace(-2, 2, 96), (3, 64, 96))
    stripes = np.broadcast_to(np.arange(64)[:, None] % 2, (3, 64, 96))
    grainy = pictures(1)[0][0] + 0.3 * np.random.default_rng(0).normal(size=(3, *SIZE))
    assert [kind_of_image(image) for image in (ramp, stripes, grainy)] == ["picture"] * 3
    assert kind_of_image(np.ones((3, 1, 1))) == "constant"


def test_values_that_are_not_finite_are_refused():
    bad = pictures(1)[0]
    bad[0, 0, 0, 0] = np.nan
    with pytest.raises(CalibrationError, match="image 1 holds NaN"):
        calibrate(one_matmul(), [bad])
    with pytest.raises(CalibrationError, match="the float network itself gives"):
        calibrate(one_matmul(weight=3e38), pictures(1))


@pytest.mark.parametrize(
    "batch, message",
    [
        (np.zeros((1, 3, 64, 96)), "float32 numpy, got .* float64"),
        (np.zeros((3, 64, 96), np.float32), r"must be \(N, C, h, w\)"),
        (np.zeros((1, 3, 64, 95), np.float32), "takes 1x3x64x96, got a batch of 1x3x64x95"),
        ([1, 2], "got list"),
    ],
)
def test_batches_of_another_form_are_refused(batch, message):
    with pytest.raises(ValueError, match=message):
        calibrate(one_matmul(), [batch])


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="unknown calibration method 'kl'"):
        calibrate(one_matmul(), pictures(1), method="kl")  # type: ignore[arg-type]
    model = one_matmul()
    model.graph.node[0].op_type = "Add"
    with pytest.raises(ValueError, match="nothing to quantize"):
        calibrate(model, pictures(1))
