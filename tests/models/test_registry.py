"""The registry, its list and the bundled checkpoints: what needs no torch must not import it."""

import subprocess
import sys

import pytest

from edgeseg.errors import CheckpointError
from edgeseg.models import MODELS, create_model, model_entry
from edgeseg.models import bundled as bundled_module
from edgeseg.models.bundled import BUNDLED, DEFAULT_CHECKPOINTS, bundled_for
from edgeseg.models.listing import list_models


def test_needs_no_torch():
    code = (
        "import sys; from edgeseg.models.listing import list_models; list_models((512, 1024), 19); "
        "heavy = {'torch', 'onnx', 'safetensors'} & set(sys.modules); assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_names():
    variants = [f"segformer-b{i}" for i in range(6)]
    assert list(MODELS) == variants + [f"{name}-mmseg" for name in variants]
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
