"""Label sets against facts about the benchmarks, and their JSON."""

import json

import numpy as np
import pytest

from edgeseg.labels import LABEL_SETS, LabelSet, generic_label_set, voc_colour

# What is known of each benchmark from its paper or its development kit: size, and some ids with their colours.
FACTS: dict[str, tuple[int, dict]] = {
    "camvid": (11, {0: ("Sky", (128, 128, 128)), 3: ("Road", (128, 64, 128)), 10: ("Bicyclist", (0, 128, 192))}),
    "cityscapes": (19, {0: ("road", (128, 64, 128)), 13: ("car", (0, 0, 142)), 18: ("bicycle", (119, 11, 32))}),
    "ade20k": (150, {0: ("wall", (120, 120, 120)), 2: ("sky", (6, 230, 230)), 149: ("flag", (92, 0, 255))}),
    "voc": (21, {0: ("background", (0, 0, 0)), 15: ("person", (192, 128, 128)), 20: ("tvmonitor", (0, 64, 128))}),
    "coco-stuff": (
        171,
        {0: ("person", (128, 0, 0)), 79: ("toothbrush", None), 80: ("banner", None), 170: ("wood", None)},
    ),
}


@pytest.mark.parametrize("name", FACTS)
def test_facts(name):
    label_set = LABEL_SETS[name]
    num_classes, known = FACTS[name]
    assert label_set.name == name and label_set.num_classes == num_classes == len(label_set.palette)
    for label, (class_name, colour) in known.items():
        assert label_set.classes[label] == class_name
        assert colour is None or label_set.palette[label] == colour


def test_every_benchmark_is_covered():
    assert set(LABEL_SETS) == set(FACTS)


@pytest.mark.parametrize("label_set", [*LABEL_SETS.values(), generic_label_set(3)], ids=lambda s: s.name)
def test_json_round_trip(label_set):
    assert LabelSet.from_json(json.loads(json.dumps(label_set.to_json()))) == label_set


def test_voc_colours_are_distinct_and_as_published():
    colours = [voc_colour(i) for i in range(256)]
    assert len(set(colours)) == 256
    assert colours[:5] == [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128)]
    assert colours[255] == (224, 224, 192)  # the border's cream


def test_generic():
    label_set = generic_label_set(255)
    assert label_set.classes[254] == "class 254" and label_set.palette[1] == (128, 0, 0)


def test_colour_table():
    table = LABEL_SETS["camvid"].colour_table()
    assert table.shape == (256, 3) and table.dtype == np.uint8
    assert tuple(table[1]) == (128, 0, 0) and not table[11:].any()


@pytest.mark.parametrize(
    ("classes", "palette", "message"),
    [
        ((), (), "1 to 255 classes"),
        (tuple(map(str, range(256))), ((0, 0, 0),) * 256, "1 to 255 classes"),
        (("a", "b"), ((0, 0, 0),), "2 classes need as many colours, got 1"),
        (("a",), ((0, 0, 256),), "three integers from 0 to 255"),
        (("a",), ((0, 0),), "three integers from 0 to 255"),
        (("a", "b", "a"), ((0, 0, 0),) * 3, "'a' more than once"),
    ],
)
def test_refuses(classes, palette, message):
    with pytest.raises(ValueError, match=message):
        LabelSet("x", classes, palette)


def test_from_json_names_what_is_missing():
    with pytest.raises(ValueError, match="palette missing"):
        LabelSet.from_json({"name": "x", "classes": ["a"]})
