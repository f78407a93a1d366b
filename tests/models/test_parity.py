"""Checkpoints of every source give the logits that the source's own network gives."""

import pytest
import torch
from safetensors.torch import load_file

from edgeseg.models.segformer import NormEps
from edgeseg.models.weights import load_weights, network_from_weights

from .published import (
    mmsegmentation_logits,
    mmsegmentation_state_dict,
    nvlabs_state_dict,
    set_epsilons,
    transformers_network,
)

TOLERANCE = 3e-6  # of the largest logit; float32 sums taken in another order differ by up to 1e-6


def images(height, width, batch=1):
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(height))


def assert_same_logits(logits, wanted):
    assert logits.shape == wanted.shape
    assert (logits - wanted).abs().max() <= TOLERANCE * wanted.abs().max()


@pytest.fixture(scope="module", params=["b0", "b2"])
def saved(request, tmp_path_factory):
    """transformers' network, the folder it was saved to, and what is in there."""
    network = transformers_network(request.param, 19)
    folder = tmp_path_factory.mktemp(request.param)
    network.save_pretrained(folder)
    return request.param, network, folder


@torch.inference_mode()
def test_hugging_face(saved):
    variant, network, folder = saved
    weights = load_weights(folder)
    assert (weights.model, weights.num_classes, weights.format) == (f"segformer-{variant}", 19, "huggingface")
    assert weights.norm_eps == NormEps(1e-5, 1e-5) and weights.class_names is None
    ours = network_from_weights(weights)
    for size in ((64, 96), (65, 97), (33, 130)):
        assert_same_logits(ours(images(*size, 2)), network(images(*size, 2)).logits)


@torch.inference_mode()
def test_hugging_face_named_in_memory(tmp_path):
    network = transformers_network("b0", 19)
    torch.save({f"module.{name}": t for name, t in network.state_dict().items()}, tmp_path / "pytorch_model.bin")
    weights = load_weights(tmp_path, "segformer-b0", 19)
    assert_same_logits(network_from_weights(weights)(images(65, 97)), network(images(65, 97)).logits)


@torch.inference_mode()
def test_nvlabs(saved, tmp_path):
    variant, network, folder = saved
    state = nvlabs_state_dict(load_file(folder / "model.safetensors"))
    path = tmp_path / "segformer.pth"
    torch.save({"meta": {"CLASSES": [f"thing {i}" for i in range(19)], "epoch": 3}, "state_dict": state}, path)
    weights = load_weights(path)
    assert (weights.model, weights.num_classes, weights.format) == (f"segformer-{variant}", 19, "nvlabs")
    assert weights.norm_eps == NormEps(1e-6, 1e-5) and weights.class_names[18] == "thing 18"
    set_epsilons(network, block=1e-6, embed=1e-5)
    try:
        assert_same_logits(network_from_weights(weights)(images(65, 97)), network(images(65, 97)).logits)
    finally:
        set_epsilons(network, block=1e-5, embed=1e-5)


@torch.inference_mode()
def test_mmsegmentation(saved, tmp_path):
    variant, network, folder = saved
    torch.manual_seed(0)
    state = mmsegmentation_state_dict(load_file(folder / "model.safetensors"), 5)
    meta = {"dataset_meta": {"classes": tuple("abcde"), "palette": [[i, 2, 3] for i in range(5)]}}
    torch.save({"meta": meta, "state_dict": state}, tmp_path / "mmseg.pth")
    weights = load_weights(tmp_path / "mmseg.pth")
    assert (weights.model, weights.num_classes, weights.format) == (f"segformer-{variant}-mmseg", 5, "mmsegmentation")
    assert weights.norm_eps == NormEps(1e-6, 1e-6)
    assert weights.class_names == tuple("abcde") and weights.palette[4] == (4, 2, 3)
    set_epsilons(network, block=1e-6, embed=1e-6)
    try:
        logits = network_from_weights(weights)(images(65, 97))
        assert_same_logits(logits, mmsegmentation_logits(network, state, images(65, 97)))
    finally:
        set_epsilons(network, block=1e-5, embed=1e-5)


@torch.inference_mode()
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_widened(dtype, tmp_path):
    network = transformers_network("b0", 3).to(dtype)
    network.save_pretrained(tmp_path)
    weights = load_weights(tmp_path)
    assert {t.dtype for n, t in weights.state_dict.items() if "tracked" not in n} == {torch.float32}
    assert_same_logits(network_from_weights(weights)(images(64, 64)), network.float()(images(64, 64)).logits)


def test_class_names_of_a_configuration(tmp_path):
    names = {0: "road", 1: "sky", 2: "tree"}
    transformers_network("b0", 3, id2label=names).save_pretrained(tmp_path)
    assert load_weights(tmp_path / "model.safetensors").class_names == ("road", "sky", "tree")
    (tmp_path / "config.json").unlink()
    assert load_weights(tmp_path).class_names is None
