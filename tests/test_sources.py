"""Which label set a network gets."""

import pytest

from edgeseg.errors import InputError
from edgeseg.labels import LABEL_SETS, voc_colour
from edgeseg.sources import _label_set

CITYSCAPES = LABEL_SETS["cityscapes"]


def test_the_one_asked_for():
    assert _label_set(CITYSCAPES, 19) == (CITYSCAPES, ())
    with pytest.raises(InputError, match="the network has 11 classes and the data set cityscapes 19"):
        _label_set(CITYSCAPES, 11)


def test_names_of_the_checkpoint_lead_to_the_set_that_shares_most_of_them():
    names = tuple(f"{name.capitalize()} " if i else "street" for i, name in enumerate(CITYSCAPES.classes))
    assert _label_set(None, 19, names) == (CITYSCAPES, ())


def test_names_of_no_known_set_are_kept():
    label_set, notes = _label_set(None, 2, ("crop", "weed"))
    assert label_set.classes == ("crop", "weed") and label_set.palette == (voc_colour(0), voc_colour(1))
    assert _label_set(None, 2, ("crop", "weed"), ((1, 2, 3), (4, 5, 6)))[0].palette == ((1, 2, 3), (4, 5, 6))
    assert not notes


def test_placeholders_are_no_names():
    label_set, notes = _label_set(None, 19, tuple(f"LABEL_{i}" for i in range(19)))
    assert label_set == CITYSCAPES
    assert notes == ("19 classes: taken to be those of cityscapes; --dataset says otherwise",)


def test_an_unknown_number_is_numbered():
    label_set, notes = _label_set(None, 5)
    assert label_set.classes[4] == "class 4" and "unknown" in notes[0]
