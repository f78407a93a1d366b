"""hf:ORG/NAME from a cache laid out as huggingface_hub lays it out, with the network switched off."""

import sys

import pytest
import torch

from edgeseg.errors import CheckpointError
from edgeseg.models.weights import load_weights

from .published import transformers_network

COMMIT = "0123456789abcdef0123456789abcdef01234567"

huggingface_hub = pytest.importorskip("huggingface_hub", reason="the Hub's client is optional")


@pytest.fixture
def snapshot(tmp_path, monkeypatch):
    """The folder of one cached revision of hf:someone/segformer."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    repository = tmp_path / "models--someone--segformer"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    (repository / "snapshots" / COMMIT).mkdir(parents=True)
    return repository / "snapshots" / COMMIT


def test_from_the_cache(snapshot):
    network = transformers_network("b0", 2, id2label={0: "road", 1: "sky"})
    network.save_pretrained(snapshot)
    for name in ("hf:someone/segformer", f"hf:someone/segformer@{COMMIT}"):
        weights = load_weights(name, "segformer-b0")
        assert weights.path == snapshot / "model.safetensors" and weights.class_names == ("road", "sky")


def test_older_repositories_have_only_a_pickle(snapshot):
    torch.save(transformers_network("b0", 2).state_dict(), snapshot / "pytorch_model.bin")
    assert load_weights("hf:someone/segformer").path == snapshot / "pytorch_model.bin"


def test_offline(snapshot):
    with pytest.raises(CheckpointError, match=r"hf:no/where cannot be fetched \(.*check the name and the network"):
        load_weights("hf:no/where")


@pytest.mark.parametrize("name", ["hf:", "hf:segformer", "hf:a/b/c", "hf:/b"])
def test_no_name(name):
    with pytest.raises(CheckpointError, match="is no name on the Hub; wanted hf:ORG/NAME"):
        load_weights(name)


def test_a_name_that_the_hub_would_not_take(snapshot):
    with pytest.raises(CheckpointError, match="cannot be fetched"):
        load_weights("hf:a b/c?d")


def test_without_the_client(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(CheckpointError, match="needs huggingface_hub, which is not installed; pip install"):
        load_weights("hf:someone/segformer")
