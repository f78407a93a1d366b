"""Images picked, scales reused, memory: what happens between a folder of images and the ranges."""

import json
import weakref

import numpy as np
import pytest
from PIL import Image
from precision.networks import network, pictures

from edgeseg.calibration import calibrate
from edgeseg.calibration.cache import cache_path, cached_scales, keep_scales
from edgeseg.calibration.picker import class_histograms, pick
from edgeseg.calibration.prepare import prepare_scales
from edgeseg.preprocess import Preprocess
from edgeseg.real_images import RealImages
from edgeseg.samples import synthetic_street

CLASSES = ("a", "b", "c", "d", "e")


def test_the_picker_covers_rare_classes_first():
    histograms = np.tile([0.6, 0.4, 0.0, 0.0], (40, 1))
    histograms[7] = [0.5, 0.3, 0.2, 0.0]
    histograms[23] = [0.9, 0.0, 0.0, 0.1]
    picked = pick(histograms, 3)
    assert {7, 23} < set(picked.indices) and len(picked.indices) == 3
    assert min(picked.images_with_class) >= 1 and picked.only_elsewhere == ()
    assert picked.note(["a", "b", "c", "d"]) == ("calibration images picked: 3 of 40, showing 4 of 4 classes")


def test_the_picker_spreads_within_a_class():
    histograms = np.array([[1, 0], [0.99, 0.01], [0.98, 0.02], [0.5, 0.5]], float)
    assert set(pick(histograms, 2).indices) >= {3}
    never = pick(np.array([[1.0, 0.0]] * 4), 2)
    assert never.note(["a", "b"]).endswith("showing 1 of 2 classes; never b")


def test_the_pickers_edges():
    assert pick(np.eye(3), 9).indices == (0, 1, 2)
    assert pick(np.zeros((0, 3)), 2).indices == ()
    assert len(pick(np.zeros((4, 3)), 2).indices) == 2
    assert pick(np.eye(3), 1).only_elsewhere != ()
    with pytest.raises(ValueError, match="at least 1, got 0"):
        pick(np.eye(3), 0)


def test_histograms_are_shares_of_the_networks_own_labels():
    logits = np.zeros((1, 3, 2, 2), np.float32)
    logits[0, 1, 0] = 1
    shares = class_histograms(lambda x: x, [logits, -logits], 3)
    np.testing.assert_allclose(shares, [[0.5, 0.5, 0], [1, 0, 0]])


def test_images_are_held_one_at_a_time():
    _, model = network("convnet")
    alive: list[weakref.ref] = []
    most = 0

    def batches():
        nonlocal most
        for image in pictures(6):
            batch = image.copy()
            alive.append(weakref.ref(batch))
            most = max(most, sum(ref() is not None for ref in alive))
            yield batch
            del batch

    calibrate(model, batches())
    assert len(alive) == 6 and most <= 2


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    for seed in range(16):
        Image.fromarray(synthetic_street(seed, (64, 96))[0]).save(tmp_path / "images" / f"{seed}.png")
    return tmp_path / "images"


def prepared(folder, *, wanted=4, method="max", source="ab", **options):
    images = RealImages(folder, wanted, Preprocess((64, 96), **options))
    scales, notes = prepare_scales(
        network("convnet")[1], images, CLASSES, method=method, migrate="none", source_sha256=source,
        preprocess=images.preprocess.to_json(),
    )  # fmt: skip
    return scales, notes, images


def test_scales_are_reused_until_something_changes(folder):
    first, notes, images = prepared(folder)
    assert any("calibration images picked: 4 of" in note for note in notes)
    again, reused, same = prepared(folder)
    assert again.scales == first.scales and reused[0].startswith("scales reused")
    assert same.fingerprints() == images.fingerprints() == list(first.image_fingerprints)
    changes = [{"method": "mse"}, {"source": "cd"}, {"wanted": 5}, {"mean": (0.5, 0.5, 0.5)}]
    for change in changes:
        assert not prepared(folder, **change)[1][0].startswith("scales reused"), change
    Image.fromarray(synthetic_street(99, (64, 96))[0]).save(folder / "1.png")
    assert not prepared(folder)[1][0].startswith("scales reused")


def test_kept_scales_that_do_not_fit_are_not_used(folder):
    scales, _, _ = prepared(folder)
    path = cache_path(source_sha256="x", places=[], preprocess={}, images=[], settings={})
    assert keep_scales(scales, path)
    identity = {"source_sha256": scales.source_sha256, "preprocess": scales.preprocess}
    assert cached_scales(path, **identity) == scales
    assert cached_scales(path, **{**identity, "source_sha256": "other"}) is None and not path.exists()
    path.write_text(json.dumps({"schema_version": 1}))
    assert cached_scales(path, **identity) is None
    assert cached_scales(path, **identity) is None


def test_the_gate_keeps_images_back(folder):
    images = RealImages(folder, 4, Preprocess((64, 96)))
    assert images.verification_count == 6 and "not calibrated on" in images.verification_source
    assert not set(images.fingerprints()) & set(images.verification_fingerprints())
    images.choose(images.candidates(4))
    assert not set(images.fingerprints()) & set(images.verification_fingerprints())
    few = RealImages(folder, 14, Preprocess((64, 96)))
    assert set(few.verification_fingerprints()) == set(few.fingerprints()) and few.verification_source == few.source
