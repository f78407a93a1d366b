"""Every layout as a tiny tree on disk; ids and void as each benchmark defines them, written out by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgeseg.datasets import calibration_images, open_dataset
from edgeseg.errors import InputError
from edgeseg.labels import LABEL_SETS, LabelSet, generic_label_set


def put(path: Path, ids: list[list[int]] | None = None, *, mode: str = "L") -> Path:
    """A 2 x 3 picture, or a label image of these ids."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", (3, 2), (9, 8, 7)) if ids is None else Image.fromarray(np.array(ids, np.uint8), mode)
    if mode == "P":
        image.putpalette([channel for i in range(256) for channel in (i, 255 - i, 7)])
    image.save(path)
    return path


def target(dataset, index: int = 0) -> list[list[int]]:
    image, labels = dataset[index].load()
    assert image.shape == (2, 3, 3) and labels.dtype == np.uint8
    return labels.tolist()


class TestGeneric:
    @pytest.fixture
    def root(self, tmp_path):
        for split in ("train", "val"):
            put(tmp_path / "images" / split / "b10.jpg")
            put(tmp_path / "images" / split / "b9.png")
            put(tmp_path / "labels" / split / "b10.png", [[0, 1, 2], [2, 2, 255]])
            put(tmp_path / "labels" / split / "b9.png", [[1, 1, 1], [0, 0, 0]], mode="P")
        return tmp_path

    def test_samples(self, root):
        dataset = open_dataset(root)
        assert (dataset.layout, dataset.split, dataset.label_set) == ("generic", "val", None)
        assert [sample.name for sample in dataset] == ["b9", "b10"] and len(dataset) == 2
        assert [sample.name for sample in dataset[1:]] == ["b10"]
        assert target(dataset, 0) == [[1, 1, 1], [0, 0, 0]] and target(dataset, 1) == [[0, 1, 2], [2, 2, 255]]

    def test_lazy(self, root):
        (root / "labels" / "val" / "b9.png").write_bytes(b"damaged")
        dataset = open_dataset(root)
        assert dataset[1].load()
        with pytest.raises(InputError, match=r"b9\.png is not an image"):
            dataset[0].load()

    def test_classes_json(self, root):
        (root / "classes.json").write_text('["grass", "path", "shed"]')
        label_set = open_dataset(root).label_set
        assert label_set is not None and label_set.classes == ("grass", "path", "shed")
        document = {"classes": ["grass", "path"], "palette": [[0, 255, 0], [9, 9, 9]], "void": [2], "name": "garden"}
        (root / "classes.json").write_text(json.dumps(document))
        dataset = open_dataset(root, "train")
        assert dataset.label_set == LabelSet("garden", ("grass", "path"), ((0, 255, 0), (9, 9, 9)))
        assert target(dataset, 1) == [[0, 1, 255], [255, 255, 255]]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("{", "cannot be read as JSON"),
            ('{"names": []}', "must hold a list of class names"),
            ("[]", "1 to 255 classes"),
            ('{"classes": ["a"], "palette": [[0, 0]]}', "three integers"),
            ('{"classes": ["a"], "palette": 3}', "not iterable"),
            ('{"classes": ["a", "b", "c"], "void": [300]}', '"void" must be a list of ids'),
        ],
    )
    def test_bad_classes_json(self, root, text, message):
        (root / "classes.json").write_text(text)
        with pytest.raises(InputError, match=message) as caught:
            open_dataset(root)
        assert "classes.json" in str(caught.value)

    def test_ids_beyond_the_networks_classes(self, root):
        dataset = open_dataset(root, label_set=generic_label_set(2))
        assert target(dataset, 0) == [[1, 1, 1], [0, 0, 0]]
        with pytest.raises(InputError, match=r"b10\.png holds the ids 2, which are none of the data set \(0-1, 255\)"):
            dataset[1].load()

    def test_eleven_is_void_for_camvids_classes(self, root):
        put(root / "labels" / "val" / "b9.png", [[11, 10, 0], [0, 0, 0]])
        assert target(open_dataset(root, label_set=LABEL_SETS["camvid"])) == [[255, 10, 0], [0, 0, 0]]
        with pytest.raises(InputError, match="holds the ids 11"):
            open_dataset(root, label_set=generic_label_set(11))[0].load()

    def test_without_splits(self, tmp_path):
        put(tmp_path / "images" / "a.jpg")
        put(tmp_path / "labels" / "a.png", [[0, 0, 0], [1, 1, 1]])
        dataset = open_dataset(tmp_path)
        assert dataset.split == "all" and target(dataset) == [[0, 0, 0], [1, 1, 1]]

    def test_missing_labels_are_counted_and_named(self, root):
        (root / "labels" / "val" / "b10.png").unlink()
        with pytest.raises(InputError, match=r"1 of 2 images of the split 'val' .* have no label image \(b10\.jpg\)"):
            open_dataset(root)

    def test_label_of_another_size(self, root):
        put(root / "labels" / "val" / "b9.png", [[0, 0], [0, 0]])
        with pytest.raises(InputError, match=r"b9\.png is 2 x 2, its image b9\.png is 2 x 3"):
            open_dataset(root)[0].load()

    def test_colour_coded_label(self, root):
        put(root / "labels" / "val" / "b9.png")
        with pytest.raises(InputError, match="class ids are wanted"):
            open_dataset(root)[0].load()

    def test_two_images_of_one_name(self, root):
        put(root / "images" / "val" / "b9.jpg")
        with pytest.raises(InputError, match="share one name"):
            open_dataset(root)

    def test_splits(self, root):
        assert open_dataset(root, "training").split == "train"
        with pytest.raises(InputError, match="no split 'test'; it has train, val"):
            open_dataset(root, "test")
        (root / "images" / "val").rename(root / "images" / "winter")
        with pytest.raises(InputError, match="has the splits train, winter; choose one"):
            open_dataset(root)

    def test_empty_split(self, root):
        (root / "images" / "val" / "b9.png").unlink()
        (root / "images" / "val" / "b10.jpg").unlink()
        with pytest.raises(InputError, match="holds no image"):
            open_dataset(root)


class TestCamVid:
    IDS, TARGET = [[0, 5, 10], [11, 11, 3]], [[0, 5, 10], [255, 255, 3]]

    @pytest.mark.parametrize("inside", ["", "CamVid"])
    def test_tutorial_tree(self, tmp_path, inside):
        for split in ("train", "val", "test"):
            put(tmp_path / inside / split / "0016E5_07959.png")
            put(tmp_path / inside / f"{split}annot" / "0016E5_07959.png", self.IDS)
        dataset = open_dataset(tmp_path, "test")
        assert (dataset.layout, dataset.split, dataset.label_set) == ("camvid", "test", LABEL_SETS["camvid"])
        assert dataset[0].name == "0016E5_07959" and target(dataset) == self.TARGET
        assert [path.parent.name for path in calibration_images(tmp_path)] == ["train"]

    def test_plain_tree_is_known_by_its_sequences(self, tmp_path):
        put(tmp_path / "images" / "val" / "Seq05VD_f00000.jpg")
        put(tmp_path / "labels" / "val" / "Seq05VD_f00000.png", self.IDS)
        dataset = open_dataset(tmp_path)
        assert dataset.layout == "camvid" and target(dataset) == self.TARGET
        (tmp_path / "classes.json").write_text(json.dumps([f"class {i}" for i in range(12)]))
        assert open_dataset(tmp_path).layout == "generic" and target(open_dataset(tmp_path)) == self.IDS


class TestADE20K:
    @pytest.mark.parametrize("inside", ["", "ADEChallengeData2016"])
    def test_zero_is_other_and_ids_move_down(self, tmp_path, inside):
        put(tmp_path / inside / "images" / "validation" / "ADE_val_00000001.jpg")
        put(tmp_path / inside / "annotations" / "validation" / "ADE_val_00000001.png", [[0, 1, 2], [150, 13, 0]])
        dataset = open_dataset(tmp_path, "val")
        assert (dataset.layout, dataset.split) == ("ade20k", "validation")
        assert target(dataset) == [[255, 0, 1], [149, 12, 255]]

    def test_ids_beyond_150(self, tmp_path):
        put(tmp_path / "images" / "validation" / "a.jpg")
        put(tmp_path / "annotations" / "validation" / "a.png", [[0, 1, 151], [1, 1, 1]])
        with pytest.raises(InputError, match=r"holds the ids 151, .* \(0-150, 255\)"):
            open_dataset(tmp_path)[0].load()


# id -> train id, from the table in the benchmark's documentation; every other id from 0 to 33 is not evaluated
CITYSCAPES_EVALUATED = {
    7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10, 24: 11, 25: 12, 26: 13, 27: 14,
    28: 15, 31: 16, 32: 17, 33: 18,
}  # fmt: skip


class TestCityscapes:
    def test_official_ids(self, tmp_path):
        stem = "val/frankfurt/frankfurt_000000_000294"
        path = tmp_path / "leftImg8bit" / f"{stem}_leftImg8bit.png"
        path.parent.mkdir(parents=True)
        Image.new("RGB", (34, 1)).save(path)
        put(tmp_path / "gtFine" / f"{stem}_gtFine_labelIds.png", [list(range(34))])
        put(tmp_path / "gtFine" / f"{stem}_gtFine_instanceIds.png", [[99]])
        put(tmp_path / "gtFine" / f"{stem}_gtFine_labelTrainIds.png", [[99]])
        dataset = open_dataset(tmp_path)
        assert dataset.layout == "cityscapes" and dataset[0].name == "frankfurt_000000_000294_leftImg8bit"
        assert dataset[0].load()[1][0].tolist() == [CITYSCAPES_EVALUATED.get(label, 255) for label in range(34)]

    def test_train_ids_and_several_cities(self, tmp_path):
        for city in ("ulm", "aachen"):
            put(tmp_path / "leftImg8bit" / "train" / city / f"{city}_0_leftImg8bit.png")
            labels = tmp_path / "gtFine" / "train" / city / f"{city}_0_gtFine_labelTrainIds.png"
            put(labels, [[0, 18, 255], [255, 7, 11]])
        dataset = open_dataset(tmp_path)
        assert [sample.name for sample in dataset] == ["aachen_0_leftImg8bit", "ulm_0_leftImg8bit"]
        assert target(dataset) == [[0, 18, 255], [255, 7, 11]]

    def test_labels_of_a_city_missing(self, tmp_path):
        put(tmp_path / "leftImg8bit" / "val" / "bonn" / "bonn_0_leftImg8bit.png")
        (tmp_path / "gtFine").mkdir()
        with pytest.raises(InputError, match=r"have no label image \(bonn_0_leftImg8bit\.png\)"):
            open_dataset(tmp_path)


class TestVOC:
    @pytest.mark.parametrize("inside", ["", "VOC2012", "VOCdevkit/VOC2012"])
    def test_lists_palette_and_border(self, tmp_path, inside):
        home = tmp_path / inside
        for stem in ("2007_000033", "2007_000042", "2009_000001"):
            put(home / "JPEGImages" / f"{stem}.jpg")
        put(home / "SegmentationClass" / "2007_000033.png", [[0, 1, 255], [20, 15, 0]], mode="P")
        put(home / "SegmentationClass" / "2007_000042.png", [[0, 0, 0], [0, 0, 0]], mode="P")
        lists = home / "ImageSets" / "Segmentation"
        lists.mkdir(parents=True)
        (lists / "val.txt").write_text("2007_000033\n\n")
        (lists / "train.txt").write_text("2007_000042\n")
        dataset = open_dataset(tmp_path)
        assert (dataset.layout, dataset.split, len(dataset)) == ("voc", "val", 1)
        assert target(dataset) == [[0, 1, 255], [20, 15, 0]]
        assert [path.stem for path in calibration_images(tmp_path)] == ["2007_000042"]
        (lists / "val.txt").write_text("2007_000033\n2000_999999\n")
        with pytest.raises(InputError, match=r"1 of 2 images of val\.txt are not in .* \(2000_999999\)"):
            open_dataset(tmp_path)


class TestCOCOStuff:
    # ids of stuffthingmaps without any annotation (label id less one), from the list in the data set's README
    GAPS = (11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90)

    @pytest.mark.parametrize("maps", ["stuffthingmaps", "annotations"])
    def test_182_ids_become_171_classes(self, tmp_path, maps):
        ids = [label for label in range(182) if label not in self.GAPS]
        path = tmp_path / "images" / "val2017" / "000000000139.jpg"
        path.parent.mkdir(parents=True)
        Image.new("RGB", (172, 1)).save(path)
        put(tmp_path / maps / "val2017" / "000000000139.png", [[*ids, 255]])
        dataset = open_dataset(tmp_path, "val")
        assert (dataset.layout, dataset.split) == ("coco-stuff", "val2017")
        assert dataset[0].load()[1][0].tolist() == [*range(171), 255]

    def test_names_meet_ids(self, tmp_path):
        """Some ids of the data set's labels.txt, less one, against the names of the classes they become."""
        put(tmp_path / "images" / "val2017" / "a.jpg")
        put(tmp_path / "stuffthingmaps" / "val2017" / "a.png", [[0, 12, 89], [91, 123, 181]])
        dataset = open_dataset(tmp_path)
        names = [LABEL_SETS["coco-stuff"].classes[label] for label in dataset[0].load()[1].ravel()]
        assert names == ["person", "stop sign", "toothbrush", "banner", "grass", "wood"]

    def test_train_ids_and_ids_that_do_not_occur(self, tmp_path):
        put(tmp_path / "images" / "val2017" / "a.jpg")
        put(tmp_path / "annotations" / "val2017" / "a_labelTrainIds.png", [[0, 11, 170], [255, 1, 2]])
        assert target(open_dataset(tmp_path)) == [[0, 11, 170], [255, 1, 2]]
        put(tmp_path / "annotations" / "val2017" / "a.png", [[0, 11, 170], [255, 1, 2]])
        with pytest.raises(InputError, match=r"a\.png holds the ids 11"):
            open_dataset(tmp_path)[0].load()


class TestClassesOfTheNetwork:
    @pytest.fixture
    def root(self, tmp_path):
        put(tmp_path / "test" / "0001TP_1.png")
        put(tmp_path / "testannot" / "0001TP_1.png", [[0, 0, 0], [1, 1, 1]])
        return tmp_path

    def test_same_count_keeps_the_networks_names(self, root):
        names = ("Sky", "building", "pole", "road", "sidewalk", "Tree", "sign-symbol", "fence", "car", "person", "bike")
        network = LabelSet("mine", names, ((0, 0, 0),) * 11)
        assert open_dataset(root, label_set=network).label_set == network

    def test_a_network_without_names_takes_the_datas(self, root):
        assert open_dataset(root, label_set=generic_label_set(11)).label_set == LABEL_SETS["camvid"]

    def test_another_count_or_other_names_are_refused(self, root):
        with pytest.raises(InputError, match=r"has 11 classes \(camvid\), but the network 19 \(cityscapes\)"):
            open_dataset(root, label_set=LABEL_SETS["cityscapes"])
        other = LabelSet("fruit", tuple(f"apple {i}" for i in range(11)), ((0, 0, 0),) * 11)
        with pytest.raises(InputError, match="name their 11 classes differently \\('Sky' against 'apple 0'"):
            open_dataset(root, label_set=other)


class TestUnrecognised:
    def test_says_what_was_looked_for_and_found(self, tmp_path):
        (tmp_path / "pictures").mkdir()
        with pytest.raises(InputError) as caught:
            open_dataset(tmp_path)
        message = str(caught.value)
        for part in ("leftImg8bit", "JPEGImages", "ADE20K", "train2017", "trainannot", "labels/<split>", "pictures"):
            assert part in message
        assert "\n" not in message

    def test_no_folder(self, tmp_path):
        with pytest.raises(InputError, match="is not a folder"):
            open_dataset(tmp_path / "none")


class TestCalibrationImages:
    def test_a_plain_folder(self, tmp_path):
        put(tmp_path / "x" / "a.png")
        assert [path.name for path in calibration_images(tmp_path)] == ["a.png"]

    def test_never_label_images(self, tmp_path):
        put(tmp_path / "images" / "train" / "a.jpg")
        put(tmp_path / "images" / "val" / "b.jpg")
        put(tmp_path / "labels" / "train" / "a.png", [[0, 0, 0], [1, 1, 1]])
        assert [path.name for path in calibration_images(tmp_path)] == ["a.jpg"]

    def test_nothing(self, tmp_path):
        with pytest.raises(InputError, match="holds no image"):
            calibration_images(tmp_path)
        with pytest.raises(InputError, match=r"is not a folder|does not exist"):
            calibration_images(tmp_path / "none")
