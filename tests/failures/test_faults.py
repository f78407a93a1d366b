"""Faults injected into the network that ships: the gate and `edgeseg eval` name each of them."""

from functools import cache

import numpy as np
import onnx
import pytest
from PIL import Image
from precision.networks import network as tiny_network

import edgeseg
from edgeseg.backends.onnxruntime import session_from_model
from edgeseg.datasets import open_dataset
from edgeseg.evaluation import evaluate
from edgeseg.images import save_labels
from edgeseg.samples import sample_images, synthetic_street
from edgeseg.sources import network_from_name
from edgeseg.verify import verify

SIZE = (128, 160)


@cache
def network():
    return network_from_name("segformer-b0", None, None, SIZE, 1)


@cache
def reference():
    return session_from_model(network().onnx, threads=1).infer_one


def resized_otherwise(convention):
    model = onnx.ModelProto()
    model.CopyFrom(network().onnx)
    for node in model.graph.node:
        for item in node.attribute:
            if item.name == "coordinate_transformation_mode":
                item.s = convention.encode()
    return session_from_model(model, threads=1).infer_one


def overflowing():
    """The classifier's weights beyond float16, as a cast without measurement leaves them."""

    def infer(images):
        with np.errstate(over="ignore"):
            return (1e5 * reference()(images)).astype(np.float16).astype(np.float32)

    return infer


ORDER = np.random.default_rng(0).permutation(11)
FAULTS = {
    "nan": overflowing,
    "one-class-collapse": lambda: lambda images: reference()(images) * np.float32(0),
    "logit-saturation": lambda: lambda images: np.clip(reference()(images), -2, 2),
    "shifted-masks": lambda: lambda images: np.roll(reference()(images), 1, axis=-1),
    "resize-convention": lambda: resized_otherwise("align_corners"),
    "swapped-channels": lambda: lambda images: reference()(images[:, ::-1].copy()),
    "class-order": lambda: lambda images: reference()(images)[:, ORDER],
}


@pytest.mark.parametrize("name", FAULTS)
def test_the_gate_names_the_fault(name):
    images = [network().preprocess(image) for _, image in sample_images()[:4]]
    result = verify(
        reference(),
        FAULTS[name](),
        images,
        network().label_set.classes,
        "fp16",
        executed_with="test",
        reference_name="test",
        image_source="test",
        preprocess=network().preprocess,
        reference_model=network().onnx,
    )
    assert name in [finding.name for finding in result.findings]
    assert not result.passed and result.findings[0].message in result.failures
    assert result.to_json()["findings"][0]["name"] == result.findings[0].name


def test_labels_that_agree_by_chance_are_no_wrong_input(rng):
    """Rounding flips near ties of an image of one class; any other picture is of that class without doubt."""
    images = rng.normal(size=(1, 3, 64, 64)).astype(np.float32)
    expected = np.stack([np.full((64, 64), 0.01), np.zeros((64, 64))])[None].astype(np.float32)
    rounded = expected + 0.004 * rng.normal(size=expected.shape).astype(np.float32)
    sure = expected + np.float32([5, 0]).reshape(1, 2, 1, 1)
    result = verify(
        lambda batch: expected,
        lambda batch: rounded if np.array_equal(batch, images) else sure,
        [images],
        ("road", "sky"),
        "int8",
        executed_with="test",
        reference_name="test",
        image_source="test",
    )
    assert 0.93 < result.label_agreement < 0.99
    assert result.findings == ()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults")
    onnx.save(network().onnx, folder / "b0.onnx")
    return edgeseg.build(
        onnx=folder / "b0.onnx", dataset="camvid", backend="onnxruntime", rewrites=False, output=folder / "bundle"
    )


def data_set(folder, segmenter, *, image=lambda x: x, labels=lambda x: x):
    """Pictures whose truth is what the network says of them, with a fault put into either."""
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
    for name, picture in sample_images()[:6]:
        picture = np.array(Image.fromarray(picture).resize((320, 256)))
        save_labels(folder / "labels" / f"{name}.png", labels(segmenter(picture)), segmenter.label_set)
        Image.fromarray(image(picture)).save(folder / "images" / f"{name}.png")
    return open_dataset(folder, None, segmenter.label_set)


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        (None, {}),
        ("swapped-channels", {"image": lambda x: x[..., ::-1].copy()}),
        ("class-order", {"labels": lambda x: ORDER.astype(np.uint8)[x]}),
        ("shifted-masks", {"labels": lambda x: np.roll(x, (4, 4), (0, 1))}),
    ],
)
def test_evaluation_names_the_fault(bundle, tmp_path, name, fault):
    with edgeseg.load(bundle.path, threads=1) as segmenter:
        report = evaluate(segmenter, data_set(tmp_path, segmenter, **fault))
    assert [finding["name"] for finding in report["findings"]] == ([name] if name else [])


def test_evaluation_names_a_wrong_normalisation(bundle, tmp_path):
    """A network that wants 0 .. 1, built as if it wanted ImageNet's mean and std."""
    with edgeseg.load(bundle.path, threads=1) as segmenter:
        data = data_set(tmp_path, segmenter)
        inner, preprocess = segmenter.session.infer_one, segmenter.preprocess
        mean, std = (np.reshape(v, (1, 3, 1, 1)).astype(np.float32) for v in (preprocess.mean, preprocess.std))
        segmenter.session.infer_one = lambda images: inner((images - mean) / std)
        (finding,) = evaluate(segmenter, data)["findings"]
    assert finding["name"] == "wrong-normalisation" and "normalised as 0 .. 1 (" in finding["message"]


def test_images_calibrated_on_are_found_in_the_evaluation(tmp_path):
    onnx.save(tiny_network("convnet")[1], tmp_path / "net.onnx")
    images = tmp_path / "data" / "images"
    images.mkdir(parents=True)
    (tmp_path / "data" / "labels").mkdir()
    for seed in range(8):
        Image.fromarray(synthetic_street(seed, (64, 96))[0]).save(images / f"{seed}.png")
        Image.fromarray(np.full((64, 96), seed % 5, np.uint8)).save(tmp_path / "data" / "labels" / f"{seed}.png")
    bundle = edgeseg.build(
        onnx=tmp_path / "net.onnx",
        precision="int8",
        backend="onnxruntime",
        max_drop=100,
        calibration_data=images,
        migrate="none",
        output=tmp_path / "bundle",
    )
    findings = bundle.verification["findings"]
    assert [finding["name"] for finding in findings] == ["verified-on-calibration"]
    with edgeseg.load(bundle.path, threads=1) as segmenter:
        report = evaluate(segmenter, open_dataset(tmp_path / "data", None, segmenter.label_set), limit=5)
    assert report["findings"][0]["name"] == "calibrated-on-evaluation"
    assert "5 of the 5 evaluated images are among the 8" in report["findings"][0]["message"]
