"""Each detector on arrays: it sees its fault, says what to do, and is silent on what is right."""

import numpy as np
import pytest

from edgeseg.failures.classes import best_order, reordered
from edgeseg.failures.inputs import USUAL, hypotheses, misfed
from edgeseg.failures.masks import FINE, Placed, misplaced
from edgeseg.failures.numbers import LogitWatch, fp16_range
from edgeseg.failures.overlap import calibrated_on_evaluation, fingerprint, verified_on_calibration
from edgeseg.ops.upsample_argmax import upsample_argmax
from edgeseg.preprocess import Preprocess

LIMITS = {"least_gain": 0.002, "least_share": 0.5}


def watch(logits, expected=((0, 1), (1, 0)), reference=None):
    seen = LogitWatch()
    labels = np.argmax(np.nan_to_num(logits), axis=0).astype(np.uint8)
    seen.see(logits, labels, np.array(expected, np.uint8), reference)
    return [finding.name for finding in seen.findings()]


def test_numbers_by_name(rng):
    good = rng.normal(size=(2, 64, 64)).astype(np.float32)
    assert watch(good, reference=good) == []
    broken = good.copy()
    broken[0, 0, 0] = np.inf
    assert watch(broken) == ["nan"]
    assert watch(good + np.array([9, 0], np.float32).reshape(2, 1, 1)) == ["one-class-collapse"]
    assert watch(np.clip(good, -1, 1), reference=good) == ["logit-saturation"]
    assert watch(np.clip(1e5 * good, -65504, 65504), reference=1e5 * good) == ["logit-saturation"]


def test_logits_beyond_float16_are_not_saturated_where_nothing_clips_them(rng):
    loud = 3e6 * rng.normal(size=(2, 64, 64)).astype(np.float32)
    assert watch(0.99 * loud, reference=loud) == []
    assert watch(loud) == []


def test_relu_logits_and_constant_images_are_not_saturated(rng):
    relu = np.maximum(rng.normal(size=(2, 64, 64)), 0).astype(np.float32)
    assert watch(relu, reference=relu) == []
    flat = np.ones((2, 64, 64), np.float32)
    assert watch(flat, expected=((0, 0),), reference=flat) == []


def test_fp16_range_names_the_loudest_layers():
    quiet = fp16_range({"Conv:0": 3.0, "Mul:4": 2215.0})
    assert quiet.severity == "note" and "Mul:4 2215, Conv:0 3;" in quiet.message
    loud = fp16_range({"Conv:0": 3.0, "Mul:4": 1e6}, kept=2)
    assert loud.severity == "warning" and "1 layers go beyond float16's 65504; 2 nodes stay in FP32" in loud.message
    assert loud.details["peaks"] == {"Conv:0": 3.0, "Mul:4": 1e6}


def blobs(height=90, width=120):
    """Labels with borders in every direction."""
    y, x = np.mgrid[:height, :width]
    return ((np.sin(x / 7) + np.sin(y / 5) + np.sin((x + 2 * y) / 11)) > 0).astype(np.uint8) + (x > 60) * np.uint8(2)


def fine(labels):
    return labels.repeat(FINE, 0).repeat(FINE, 1)


@pytest.mark.parametrize("dy, dx", [(2, 0), (0, -3), (-1, 1), (7, 5)])
def test_shifts_are_measured(dy, dx):
    truth = blobs()
    (finding,) = misplaced([Placed(fine(np.roll(truth, (-dy, -dx), (0, 1))), truth)], **LIMITS)
    assert finding.name == "shifted-masks" and (finding.details["dy"], finding.details["dx"]) == (dy, dx)
    assert "half-pixel centres" in finding.message


def test_half_a_pixel_is_seen():
    truth = blobs()
    moved = np.roll(fine(truth), -2, axis=1)  # two thirds of a pixel
    (finding,) = misplaced([Placed(moved, truth)], **LIMITS)
    assert finding.details["dx"] == pytest.approx(2 / 3, abs=0.35)


def test_align_corners_is_a_stretch():
    import torch

    scores = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 4, 12, 16))).float()

    def labels(size, align_corners):
        return torch.nn.functional.interpolate(scores, size, mode="bilinear", align_corners=align_corners).argmax(1)[0]

    truth = labels((96, 128), False).numpy().astype(np.uint8)
    wrong = labels((96, 128), True).numpy().astype(np.uint8)
    (finding,) = misplaced([Placed(fine(wrong), truth)], **LIMITS)
    assert finding.name == "stretched-masks" and abs(finding.details["border_pixels"]) == pytest.approx(3.5, abs=0.6)


def test_right_masks_and_small_ones_are_left_alone():
    truth = blobs()
    assert misplaced([Placed(fine(truth), truth)], **LIMITS) == []
    assert misplaced([Placed(fine(truth[:20]), truth[:20])], **LIMITS) == []
    assert misplaced([], **LIMITS) == []
    unrelated = np.random.default_rng(0).integers(0, 4, truth.shape).astype(np.uint8)
    assert misplaced([Placed(fine(unrelated), truth)], **LIMITS) == []


def test_noise_that_smoothing_mends_is_no_shift(rng):
    noisy = np.full((90, 120), 0.01, np.float32) + 0.004 * rng.normal(size=(90, 120)).astype(np.float32)
    logits = np.stack([noisy, np.zeros_like(noisy)])[None]
    labels = upsample_argmax(logits, (FINE * 90, FINE * 120))[0]
    assert 0.001 < labels[1::FINE, 1::FINE].mean() < 0.05 and labels[::FINE, ::FINE].mean() < 0.0005
    assert misplaced([Placed(labels, np.zeros((90, 120), np.uint8))], **LIMITS) == []


def test_a_permutation_of_classes_is_found(rng):
    truth = rng.integers(0, 5, 4000)
    order = np.array([2, 0, 1, 4, 3])  # predicted -> true
    predicted = np.argsort(order)[truth]
    predicted[:400] = 0
    matrix = np.zeros((5, 5), np.int64)
    np.add.at(matrix, (truth, predicted), 1)
    assert best_order(matrix).tolist() == order.tolist()
    (finding,) = reordered(matrix, list("abcde"), **LIMITS)
    assert "predicted 'a' is really 'c', 'b' is really 'a'" in finding.message
    assert finding.details["predicted_is_really"]["e"] == "d"


def test_ids_off_by_one_are_said_to_be():
    matrix = np.roll(np.diag([10, 20, 30, 40, 0]), 1, axis=1)
    (finding,) = reordered(matrix, list("abcde"), **LIMITS)
    assert "all ids are off by -1" in finding.message


def test_plain_errors_are_no_permutation(rng):
    assert reordered(np.diag([5, 6, 7]) + 2, list("abc"), **LIMITS) == []
    assert reordered(np.zeros((3, 3), np.int64), list("abc"), **LIMITS) == []


def test_every_other_way_to_feed_is_tried(rng):
    pixels = rng.random((1, 3, 4, 4)).astype(np.float32)
    preprocess = Preprocess((4, 4))
    mean, std = (np.reshape(v, (1, 3, 1, 1)).astype(np.float32) for v in (preprocess.mean, preprocess.std))
    ways = {(h.order, h.normalisation): h.apply((pixels - mean) / std) for h in hypotheses(preprocess)}
    assert len(ways) == 2 + 2 * (len(USUAL) - 1)
    np.testing.assert_allclose(ways["RGB", "0 .. 1"], pixels, atol=1e-5)
    np.testing.assert_allclose(ways["RGB", "0 .. 255"], 255 * pixels, atol=1e-3)
    np.testing.assert_allclose(ways["BGR", "-1 .. 1"], 2 * pixels[:, ::-1] - 1, atol=1e-5)
    np.testing.assert_allclose(ways["stored BGR", ""], (pixels[:, ::-1] - mean) / std, atol=1e-5)
    np.testing.assert_allclose(ways["BGR", ""], ((pixels - mean) / std)[:, ::-1], atol=1e-5)


def test_a_right_input_costs_one_pass_for_each_other_way():
    calls = []

    def agreement(number, images):
        calls.append(number)
        return 0.8

    images = [np.zeros((1, 3, 4, 4), np.float32)] * 5
    assert misfed(Preprocess((4, 4)), images, agreement, **LIMITS) == []
    assert len(calls) == 5 + len(hypotheses(Preprocess((4, 4))))


def test_images_used_twice_are_found_by_their_bytes(tmp_path):
    for name in ("a", "b", "copy of a"):
        (tmp_path / name).write_bytes(name.encode()[-1:])
    known = [fingerprint(tmp_path / "a")]
    (finding,) = calibrated_on_evaluation([tmp_path / "b", tmp_path / "copy of a"], known)
    assert "1 of the 2 evaluated images are among the 1" in finding.message and finding.severity == "warning"
    assert calibrated_on_evaluation([tmp_path / "b"], known) == []
    assert calibrated_on_evaluation([tmp_path / "a"], []) == []
    assert verified_on_calibration(["x", "y"], ["y"])[0].severity == "note"
    assert verified_on_calibration(["x"], ["y"]) == []
