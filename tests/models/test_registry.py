"""The registry, its list and the bundled checkpoints: what needs no torch must not import it."""

import subprocess
import sys

import pytest

from edgeseg.errors import BackendError, CheckpointError
from edgeseg.models import MODELS, create_model, model_entry
from edgeseg.models import bundled as bundled_module
from edgeseg.models.bundled import BUNDLED, DEFAULT_CHECKPOINTS, bundled_for
from edgeseg.models.catalog import CATALOG
from edgeseg.models.catalog_checkpoints import digest, formats_of
from edgeseg.models.listing import list_models
from edgeseg.models.shapes import class_tensor, expected_shapes
from edgeseg.models.shipped_counts import shipped_counts, shipped_names


def test_needs_no_torch():
    code = (
        "import sys; from edgeseg.models.listing import list_models; list_models(); list_models((1024, 2048), 19); "
        "heavy = {'torch', 'onnx', 'safetensors'} & set(sys.modules); assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_names():
    variants = [f"segformer-b{i}" for i in range(6)]
    assert list(MODELS)[:12] == variants + [f"{name}-mmseg" for name in variants]
    assert len(MODELS) == 12 + len(CATALOG)
    assert all(name == entry.name for name, entry in MODELS.items())
    assert MODELS["segformer-b3-mmseg"].encoder == MODELS["segformer-b3"].encoder == "MiT-B3"


@pytest.mark.parametrize("function", [model_entry, create_model])
def test_unknown_name_lists_the_known(function):
    with pytest.raises(
        ValueError, match=r"unknown model 'SegFormer_B0'; did you mean segformer-b0.*segformer-b5-mmseg"
    ):
        function("SegFormer_B0")
    with pytest.raises(ValueError, match="unknown model 'yolo'; edgeseg has segformer-b0"):
        function("yolo")


def test_list_as_published():
    rows = {row["name"]: row for row in list_models()}
    assert rows.keys() == MODELS.keys()
    row = rows["segformer-b0"]
    assert row["params"] == 3_752_694 and isinstance(row["params"], int)
    assert row["gmacs"] == {"published": 8.387821568, "deployed": 4.092854272}
    assert (row["height"], row["width"], row["num_classes"], row["encoder"]) == (512, 512, 150, "MiT-B0")
    assert row["weights"] == ["segformer-b0-camvid", "edgeseg", "huggingface", "nvlabs", "random"]
    assert rows["segformer-b0-mmseg"]["weights"] == ["edgeseg", "mmsegmentation", "random"]


def test_list_at_another_size():
    row = next(row for row in list_models((1024, 2048), 19) if row["name"] == "segformer-b5")
    assert (row["height"], row["width"], row["num_classes"]) == (1024, 2048, 19)
    assert round(row["gmacs"]["published"], 3) == 1446.368
    with pytest.raises(ValueError, match="cannot take an input of 8x512"):
        list_models((8, 512))
    with pytest.raises(ValueError, match="got 300"):
        list_models(num_classes=300)


@pytest.mark.parametrize("entry", CATALOG, ids=lambda entry: entry.name)
def test_rows_of_the_catalogue(entry):
    """What a row says leads somewhere, and `ship_counts.py` has been run since it was written."""
    names = expected_shapes(entry.name, 1)
    assert shipped_names()[entry.name] == (len(names), digest(names))
    for size, classes in entry.counted_at:
        counts = shipped_counts()[entry.name, size, classes]
        # EncNet's encoding is sums in torch and matrix products in ONNX: the graph may count a little more
        assert counts.deployed_macs is None or 0 < counts.deployed_macs <= 1.001 * counts.published_macs
    assert [format.name for format in formats_of(entry)] == list(entry.formats)
    name, axis = class_tensor(entry.name)
    assert expected_shapes(entry.name, 7)[name][axis] == 7


def test_list_of_a_network_of_the_catalogue():
    row = next(row for row in list_models() if row["name"] == "pspnet-resnet101")
    assert (row["family"], row["encoder"], row["params"]) == ("pspnet", "ResNet-101", 68_068_492)
    assert round(row["gmacs"]["published"], 3) == 256.176
    assert row["weights"] == ["edgeseg", "mmsegmentation", "random"]
    assert row["licences"] == {"mmsegmentation": "Apache-2.0"}
    ade20k = row["results"][0]
    assert (ade20k["dataset"], ade20k["miou"], ade20k["fps"]) == ("ade20k", 44.4, 15.3) and "V100" in ade20k["source"]


def test_other_sizes_need_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(BackendError, match=r"fcn-resnet101 ships its counts for 512x512 with 150.*needs torch: pip"):
        MODELS["fcn-resnet101"].published_macs((512, 800))


def test_counts_at_another_size_are_made():
    entry = MODELS["fcn-mobilenetv2"]
    assert entry.deployed_macs((64, 64), 3) is None
    assert entry.published_macs((64, 64), 3) < entry.published_macs((64, 96), 3) < entry.published_macs() / 40


def test_bundled_checkpoints_belong_to_models():
    for name, checkpoint in BUNDLED.items():
        assert name == checkpoint.name and checkpoint in bundled_for(checkpoint.model)
        assert checkpoint.model in MODELS
    assert all(model in MODELS and BUNDLED[name].model == model for model, name in DEFAULT_CHECKPOINTS.items())


def test_incomplete_installation_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(bundled_module, "ASSETS", tmp_path)
    checkpoint = BUNDLED["segformer-b0-camvid"]
    with pytest.raises(CheckpointError, match=r"camvid\.safetensors; the installation is incomplete"):
        _ = checkpoint.path
    (tmp_path / checkpoint.scales_file).touch()
    assert checkpoint.scales_path == tmp_path / checkpoint.scales_file
    with pytest.raises(CheckpointError, match=r"no-rewrites\.scales\.json; the installation is incomplete"):
        _ = checkpoint.plain_scales_path
