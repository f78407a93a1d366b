"""The dense CRF against a mean field that adds up every pair of pixels."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgeseg.crf import DenseCrf, dense_crf, mean_field, refine
from edgeseg.crf.lattice import PermutohedralLattice
from edgeseg.crf.refine import upsample
from edgeseg.pipeline import load
from edgeseg.samples import sample_images, synthetic_street

EVERY_CLASS = {"negligible": 0.0}


def brute_force(image, probabilities, parameters):
    """Equations and normalisation of edgeseg.crf.mean_field with whole (HW, HW) kernels in float64."""
    classes, height, width = probabilities.shape
    p = np.indices((height, width)).reshape(2, -1).astype(float)
    colors = image.reshape(-1, 3).T.astype(float)
    apart = ((p[:, :, None] - p[:, None]) ** 2).sum(0)
    differ = ((colors[:, :, None] - colors[:, None]) ** 2).sum(0)
    kernels = [
        (parameters.gaussian_weight, np.exp(-apart / (2 * parameters.gaussian_std**2))),
        (
            parameters.bilateral_weight,
            np.exp(-apart / (2 * parameters.bilateral_std**2) - differ / (2 * parameters.color_std**2)),
        ),
    ]
    normalised = [(w, k / np.sqrt(np.outer(k.sum(1), k.sum(1)))) for w, k in kernels]
    unary = np.maximum(probabilities.reshape(classes, -1).astype(float), 1e-5)
    q = unary / unary.sum(0)
    for _ in range(parameters.iterations):
        q = unary * np.exp(sum(w * (q @ k) for w, k in normalised))
        q /= q.sum(0)
    return q.reshape(probabilities.shape)


def noisy(labels, classes, seed=0, contrast=1.5):
    """What an uncertain network might say about an image with these labels."""
    scores = np.random.RandomState(seed).standard_normal((classes, *labels.shape))
    rows, columns = np.indices(labels.shape)
    scores[labels, rows, columns] += contrast
    scores = np.exp(scores)
    return (scores / scores.sum(0)).astype(np.float32)


def halves(height=24, width=31):
    """A flat image of two colours with a slanted edge, and its labels."""
    labels = (np.arange(width)[None] + np.arange(height)[:, None] // 4 > width // 2).astype(np.intp)
    return np.array([[200, 60, 30], [20, 90, 160]], np.uint8)[labels], labels


def photograph(height=24, width=32):
    image = dict(sample_images())["china"]
    return image[100 : 100 + 8 * height : 8, 60 : 60 + 8 * width : 8]


class TestLattice:
    @pytest.mark.parametrize(("dimensions", "largest", "mean"), [(1, 0.01, 0.001), (2, 0.02, 0.003), (5, 0.2, 0.02)])
    def test_weighted_mean_is_nearly_that_of_the_gaussian(self, dimensions, largest, mean):
        random = np.random.RandomState(dimensions)
        features = random.standard_normal((dimensions, 600)).astype(np.float32)
        values = random.rand(600).astype(np.float32)
        kernel = np.exp(-0.5 * ((features[:, :, None] - features[:, None]) ** 2).sum(0))
        lattice = PermutohedralLattice(features)
        error = np.abs(lattice.filter(values) / lattice.filter(np.ones_like(values)) - kernel @ values / kernel.sum(1))
        assert error.max() <= largest and error.mean() <= mean

    def test_width_of_the_kernel(self):
        """Single points' responses have a standard deviation of 1 in each direction, or nearly."""
        points = np.random.RandomState(0).uniform(-4, 4, (2, 20000)).astype(np.float32)
        lattice = PermutohedralLattice(points)
        deviations = []
        for index in np.argsort((points**2).sum(0))[:20]:
            response = lattice.filter((np.arange(20000) == index).astype(np.float32))
            squares = ((points - points[:, index, None]) ** 2).sum(0) / 2
            deviations.append(np.sqrt((response * squares).sum() / response.sum()))
        assert abs(np.mean(deviations) - 1) < 0.05

    def test_is_linear_and_reads_back_constants_alike(self):
        random = np.random.RandomState(0)
        lattice = PermutohedralLattice((3 * random.standard_normal((5, 200))).astype(np.float32))
        a, b = random.standard_normal((2, 200)).astype(np.float32)
        together = lattice.filter(2 * a - b)
        assert np.allclose(together, 2 * lattice.filter(a) - lattice.filter(b), atol=1e-4)

    def test_points_far_apart_do_not_meet(self):
        features = np.array([[0, 0, 50], [0, 0, -80]], np.float32)
        first, second, other = PermutohedralLattice(features).filter(np.array([1, 0, 0], np.float32))
        assert first == second > 0 == other

    def test_one_point(self):
        assert PermutohedralLattice(np.zeros((5, 1), np.float32)).filter(np.ones(1, np.float32)) > 0

    def test_refuses_what_it_cannot_number(self):
        features = np.random.RandomState(0).uniform(-1e6, 1e6, (5, 10)).astype(np.float32)
        with pytest.raises(ValueError, match=r"63 bits; use larger standard deviations"):
            PermutohedralLattice(features)


class TestMeanField:
    @pytest.mark.parametrize("size", [(1, 1), (1, 9), (13, 1), (24, 31)])
    @pytest.mark.parametrize("std", [0.5, 3.0, 40.0])
    def test_gaussian_kernel_is_exact(self, size, std):
        image = np.random.RandomState(0).randint(0, 256, (*size, 3), np.uint8)
        probabilities = noisy(np.random.RandomState(1).randint(0, 4, size), 4)
        parameters = DenseCrf(gaussian_std=std, bilateral_weight=0, **EVERY_CLASS)
        marginals = mean_field(image, probabilities, parameters)
        assert np.abs(marginals - brute_force(image, probabilities, parameters)).max() < 1e-4

    @pytest.mark.parametrize("stds", [(67, 3), (10, 5), (8, 30)])
    @pytest.mark.parametrize("classes", [2, 5])
    def test_photograph_like_brute_force(self, classes, stds):
        image = photograph()
        labels = (image[..., 0].astype(np.intp) // 64) % classes
        probabilities = noisy(labels, classes)
        parameters = DenseCrf(bilateral_std=stds[0], color_std=stds[1], **EVERY_CLASS)
        marginals, expected = (
            mean_field(image, probabilities, parameters),
            brute_force(image, probabilities, parameters),
        )
        assert np.abs(marginals - expected).mean() < 0.025
        # The lattice is an approximation: few labels may differ, far fewer than the CRF changes. pydensecrf 1.1, the
        # authors' code, differs from brute force as much: 1 to 2 % of the labels, 0.005 to 0.02 of probability.
        wrong = (marginals.argmax(0) != expected.argmax(0)).mean()
        changed = (expected.argmax(0) != probabilities.argmax(0)).mean()
        assert wrong < 0.04 and wrong < changed / 4

    def test_flat_colours_like_brute_force(self):
        image, labels = halves()
        probabilities = noisy(labels, 3)
        marginals = mean_field(image, probabilities, DenseCrf(**EVERY_CLASS))
        expected = brute_force(image, probabilities, DenseCrf(**EVERY_CLASS))
        assert np.abs(marginals - expected).max() < 0.01
        assert np.array_equal(marginals.argmax(0), expected.argmax(0))

    def test_labels_follow_the_edge(self):
        image, labels = halves()
        probabilities = noisy(labels, 2)
        assert (probabilities.argmax(0) != labels).mean() > 0.1
        assert np.array_equal(dense_crf(image, probabilities, bilateral_weight=6), labels)

    def test_marginals_sum_to_1(self):
        image, labels = halves()
        marginals = mean_field(image, noisy(labels, 6), DenseCrf())
        assert marginals.dtype == np.float32 and np.allclose(marginals.sum(0), 1, atol=1e-5)

    @pytest.mark.parametrize("parameters", [{"iterations": 0}, {"gaussian_weight": 0, "bilateral_weight": 0}])
    def test_without_neighbours_stays_what_it_was(self, parameters):
        image, labels = halves()
        probabilities = noisy(labels, 4)
        assert np.allclose(mean_field(image, probabilities, DenseCrf(**parameters)), probabilities, atol=1e-4)
        assert np.array_equal(dense_crf(image, probabilities, **parameters), probabilities.argmax(0))

    def test_classes_that_nobody_sees_are_left_out(self):
        image, labels = halves()
        probabilities = np.zeros((9, *labels.shape), np.float32)
        probabilities[[2, 7]] = noisy(labels, 2) * 0.999
        probabilities[[0, 1, 3, 4, 5, 6, 8]] = 0.001 / 7
        few, every = mean_field(image, probabilities), mean_field(image, probabilities, DenseCrf(**EVERY_CLASS))
        assert not few[[0, 1, 3, 4, 5, 6, 8]].any() and every.all()
        assert np.abs(few - every).max() < 5e-3
        assert np.array_equal(few.argmax(0), every.argmax(0))

    def test_lowest_class_wins_a_tie(self):
        image, _ = halves()
        assert not dense_crf(image, np.full((4, *image.shape[:2]), 0.25, np.float32)).any()

    def test_one_class(self):
        image, _ = halves()
        assert not dense_crf(image, np.ones((1, *image.shape[:2]), np.float32)).any()

    def test_float16_and_views(self):
        image, labels = halves()
        probabilities = noisy(labels, 3)
        expected = dense_crf(image, probabilities)
        assert np.array_equal(dense_crf(image[:, ::-1], probabilities[:, :, ::-1])[:, ::-1], expected)
        assert (dense_crf(image, probabilities.astype(np.float16)) == expected).mean() > 0.99

    def test_leaves_its_inputs_alone(self):
        image, labels = halves()
        probabilities = noisy(labels, 3)
        before = image.copy(), probabilities.copy()
        dense_crf(image, probabilities)
        assert np.array_equal(image, before[0]) and np.array_equal(probabilities, before[1])


class TestRefine:
    @pytest.mark.parametrize(("shape", "size"), [((3, 1, 1), (4, 5)), ((2, 5, 7), (20, 28)), ((2, 9, 6), (13, 5))])
    def test_upsamples_as_torch_does(self, shape, size):
        torch = pytest.importorskip("torch")
        scores = np.random.RandomState(0).standard_normal(shape).astype(np.float32)
        expected = torch.nn.functional.interpolate(torch.from_numpy(scores)[None], size, mode="bilinear")[0].numpy()
        assert np.allclose(upsample(scores, size), expected, atol=1e-5)

    def test_sharpens_a_coarse_map(self):
        """Street scenes drawn by us: the labels' eighth, smoothly upsampled, against the labels."""
        image, labels = synthetic_street(3)
        image, labels = image[::4, ::4], labels[::4, ::4]
        labels = np.unique(labels, return_inverse=True)[1].reshape(labels.shape)
        coarse = labels[4::8, 4::8]
        logits = np.where(coarse == np.arange(labels.max() + 1)[:, None, None], 3.0, 0.0)
        before = upsample(logits.astype(np.float32), labels.shape).argmax(0)
        after = refine(image, logits, DenseCrf(gaussian_std=3))
        assert (after != labels).mean() < 0.9 * (before != labels).mean()


def create_network():
    """Three classes at stride 8."""
    import torch

    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 8, stride=8), torch.nn.ReLU(), torch.nn.Conv2d(8, 3, 3, padding=1)
    ).eval()


class TestSegmenter:
    @pytest.fixture(scope="class")
    @classmethod
    def bundle(cls, tmp_path_factory):
        pytest.importorskip("torch")
        from edgeseg.builder import BuildOptions, build

        path = tmp_path_factory.mktemp("crf") / "bundle"
        return build(
            BuildOptions(module="test_crf:create_network", size=(64, 96), backend="onnxruntime", output=path)
        ).path

    def test_refines_what_the_network_says(self, bundle):
        image, _ = synthetic_street(3, (60, 80))
        with load(bundle) as plain, load(bundle, crf=DenseCrf()) as refined:
            logits = plain.session.infer_one(plain.preprocess(image))[0]
            labels = refined(image)
            assert labels.shape == (60, 80) and labels.dtype == np.uint8
            assert np.array_equal(labels, refine(image, logits))
            assert not np.array_equal(labels, plain(image))
            with pytest.raises(ValueError, match=r"its own size, \(60, 80\), not at \(30, 40\); leave size out"):
                refined(image, (30, 40))

    def test_command_line(self, bundle, tmp_path):
        image, _ = synthetic_street(3, (60, 80))
        Image.fromarray(image).save(tmp_path / "street.png")
        command = [Path(sys.executable).with_name("edgeseg"), "run", bundle, tmp_path / "street.png", "--crf", "--json"]
        process = subprocess.run([*command, "-o", tmp_path / "masks"], capture_output=True, text=True, check=True)
        labels = np.asarray(Image.open(json.loads(process.stdout)["outputs"][0]["labels"]))
        with load(bundle, crf=DenseCrf()) as segmenter:
            assert np.array_equal(labels, segmenter(image))


@pytest.mark.parametrize(
    ("image", "probabilities", "message"),
    [
        (np.zeros((4, 5), np.uint8), np.ones((1, 4, 5)), r"\(H, W, 3\) uint8.*got \(4, 5\)"),
        (np.zeros((4, 5, 3), np.float32), np.ones((1, 4, 5)), "uint8.*got .*float32"),
        (np.zeros((0, 5, 3), np.uint8), np.ones((1, 0, 5)), "at least 1"),
        (np.zeros((4, 5, 3), np.uint8), np.ones((1, 5, 4)), r"\(C, 4, 5\).*got \(1, 5, 4\); resize"),
        (np.zeros((4, 5, 3), np.uint8), np.ones((256, 4, 5)) / 256, "1 to 255 classes, got 256"),
        (np.zeros((4, 5, 3), np.uint8), np.ones((0, 4, 5)), "1 to 255 classes, got 0"),
        (np.zeros((4, 5, 3), np.uint8), np.full((2, 4, 5), -3.0), "from 0 to 1, got -3.0 to -3.0; take the .*softmax"),
        (np.zeros((4, 5, 3), np.uint8), np.full((2, 4, 5), np.nan), "from 0 to 1, got nan"),
        (np.zeros((4, 5, 3), np.uint8), np.full((2, 4, 5), 0.9), r"must sum to 1.*got 1\.(8|79)"),
    ],
)
def test_refuses_what_it_cannot_refine(image, probabilities, message):
    with pytest.raises(ValueError, match=message):
        dense_crf(image, probabilities)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"iterations": -1}, "iterations must be 0 or more, got -1"),
        ({"bilateral_std": 0}, "bilateral_std must be finite and above 0, got 0"),
        ({"gaussian_weight": -1.0}, "gaussian_weight must be finite and not below 0, got -1.0"),
        ({"color_std": float("nan")}, "color_std must be finite and above 0, got nan"),
        ({"negligible": 0.5}, "negligible must be at most 1 / 255, got 0.5"),
    ],
)
def test_refuses_parameters_that_mean_nothing(parameters, message):
    with pytest.raises(ValueError, match=message):
        DenseCrf(**parameters)
