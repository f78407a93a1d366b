import json
from dataclasses import replace

import pytest

from edgeseg.calibration import Scales
from edgeseg.calibration.scales import Scale
from edgeseg.errors import CalibrationError

PREPROCESS = {"size": [64, 96], "mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2], "color": "RGB"}


@pytest.fixture
def scales():
    return Scales(
        scales={
            "Conv:0:8x3x3x3": Scale.from_amax(2.64),
            "MatMul:1:8x4": Scale.from_amax(0.1),
            "Gemm:2:4x4": Scale(1, 0),
        },
        peaks={"Mul:3": 9000.5},
        method="percentile 99.99",
        image_count=3,
        images_sha256="ab" * 32,
        preprocess=PREPROCESS,
        source_sha256="cd" * 32,
        input_size=(64, 96),
        edgeseg="0.1.0",
        warnings=("calibrated on 3 images only",),
    )


def test_scale_is_a_127th_of_the_range_and_never_zero():
    assert Scale.from_amax(254.0).scale == 2
    assert Scale.from_amax(0.0).scale > 0


def test_file_round_trip_is_exact(scales, tmp_path):
    path = tmp_path / "scales.json"
    scales.save(path)
    assert Scales.load(path) == scales
    assert list(tmp_path.iterdir()) == [path]
    assert list(Scales.load(path).scales) == list(scales.scales)


def test_matching_use_is_accepted(scales):
    scales.check(source_sha256="cd" * 32, preprocess=PREPROCESS)
    scales.check(preprocess=PREPROCESS | {"mean": (0.5, 0.5, 0.5)})  # a tuple is a list on disk
    scales.check(preprocess=PREPROCESS | {"size": [128, 256]})  # another input size is fine
    scales.check_keys(reversed(list(scales.scales)))


def test_another_network_is_refused(scales):
    with pytest.raises(CalibrationError, match=r"network cdcdcdcdcdcd…, this one is efef.*calibrate again"):
        scales.check(source_sha256="ef" * 32)
    with pytest.raises(CalibrationError, match="not recorded"):
        replace(scales, source_sha256="").check(source_sha256="ef" * 32)


def test_other_preprocessing_is_refused_and_both_sides_are_named(scales):
    with pytest.raises(CalibrationError, match=r"mean \[0.5, 0.5, 0.5\]; this build has mean \[0.4, 0.5, 0.5\]"):
        scales.check(preprocess=PREPROCESS | {"mean": [0.4, 0.5, 0.5]})
    with pytest.raises(CalibrationError, match="color RGB; this build has color BGR"):
        scales.check(preprocess=PREPROCESS | {"color": "BGR"})


def test_other_places_are_refused_and_both_sides_are_named(scales):
    with pytest.raises(
        CalibrationError, match="for 3 places, the graph has 2: without a scale Conv:1:9x9x1x1; not in the graph MatMul"
    ):
        scales.check_keys(["Conv:0:8x3x3x3", "Conv:1:9x9x1x1"])


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda data: data.update(schema_version=99), "schema version 99 came, 1 is what"),
        (lambda data: data.pop("scales"), "damaged"),
        (lambda data: data.update(scales=[1, 2]), "damaged"),
        (lambda data: data["scales"].update(x={"scale": 0, "amax": 1}), "positive and finite, not so: x"),
        (lambda data: data["scales"].update(x={"scale": float("nan"), "amax": 1}), "positive and finite"),
    ],
)
def test_damaged_documents_are_refused(scales, damage, message):
    data = json.loads(json.dumps(scales.to_json()))
    damage(data)
    with pytest.raises(CalibrationError, match=message):
        Scales.from_json(data)


def test_unreadable_files_are_refused(tmp_path):
    with pytest.raises(CalibrationError, match=r"none\.json does not exist"):
        Scales.load(tmp_path / "none.json")
    (tmp_path / "text.json").write_text("hello")
    with pytest.raises(CalibrationError, match="is not JSON"):
        Scales.load(tmp_path / "text.json")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(CalibrationError, match="schema version None"):
        Scales.load(tmp_path / "list.json")
