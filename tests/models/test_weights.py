"""What does not fit, what cannot be read and what is not there: each says what came, what was wanted, what to do."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from edgeseg.errors import CheckpointError, InputError
from edgeseg.models import bundled as bundled_module
from edgeseg.models import create_model
from edgeseg.models.bundled import BUNDLED
from edgeseg.models.segformer import MixTransformerConfig, SegFormer
from edgeseg.models.weights import load_weights, network_from_weights

from .published import mmsegmentation_state_dict, nvlabs_state_dict, transformers_network


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A Hugging Face folder with a SegFormer-B0 of 19 classes."""
    folder = tmp_path_factory.mktemp("hugging face")
    transformers_network("b0", 19).save_pretrained(folder)
    return folder


@pytest.fixture
def hugging_face(folder):
    return load_file(folder / "model.safetensors")


@pytest.fixture
def own(folder):
    return {n: t for n, t in load_weights(folder).state_dict.items() if not n.endswith("num_batches_tracked")}


@pytest.fixture
def refused(tmp_path):
    """Saves tensors, loads them and gives the message of the refusal."""

    def refuse(tensors, *arguments):
        path = tmp_path / "weights.safetensors"
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
        with pytest.raises(CheckpointError) as caught:
            load_weights(path, *arguments)
        assert str(path) in str(caught.value)
        return str(caught.value)

    return refuse


def test_state_dict_is_complete_and_its_own(folder):
    weights = load_weights(folder)
    network = network_from_weights(weights)
    assert not network.training
    weights.state_dict["decode_head.classifier.bias"].fill_(7)
    assert not (network.decode_head.classifier.bias == 7).any()
    assert load_weights(folder).sha256 == weights.sha256 and len(weights.sha256) == 64


def test_another_network_is_named(refused, hugging_face, folder):
    message = refused(hugging_face, "segformer-b2")
    assert "holds a segformer-b0 with 19 classes in Hugging Face format, not a segformer-b2" in message
    assert message.endswith("pass --model segformer-b0")
    theirs = mmsegmentation_state_dict(hugging_face, 7)
    message = refused(theirs, "segformer-b0")
    assert "holds a segformer-b0-mmseg with 7 classes in mmsegmentation format" in message


def test_another_class_count_is_named(refused, hugging_face):
    message = refused(hugging_face, "segformer-b0", 150)
    assert "with 19 classes in Hugging Face format, not 150; leave --dataset out" in message
    assert "not 150" in refused(hugging_face, None, 150)


def test_more_classes_than_labels_can_hold(refused, hugging_face):
    hugging_face["decode_head.classifier.weight"] = torch.zeros(300, 256, 1, 1)
    hugging_face["decode_head.classifier.bias"] = torch.zeros(300)
    assert "num_classes must be from 1 to 255" in refused(hugging_face)


def test_missing_tensors_are_named_as_the_file_would(refused, hugging_face):
    names = [f"segformer.encoder.block.0.0.mlp.dense{i}.{kind}" for i in (1, 2) for kind in ("weight", "bias")]
    for name in (*names, "decode_head.batch_norm.running_var"):
        del hugging_face[name]
    message = refused(hugging_face)
    assert "is not exactly a segformer-b0: 5 tensors (segformer.encoder.block.0.0.mlp.dense1.weight; " in message
    assert "and 1 more) missing; it looks like a SegFormer of widths (32, 64, 160, 256)" in message


def test_missing_tensors_of_stacked_names_are_named_once(refused, hugging_face):
    theirs = nvlabs_state_dict(hugging_face)
    del theirs["backbone.block2.1.attn.kv.weight"], theirs["decode_head.linear_fuse.bn.weight"]
    message = refused(theirs)
    assert "2 tensors (backbone.block2.1.attn.kv.weight; decode_head.linear_fuse.bn.weight) missing" in message
    theirs = mmsegmentation_state_dict(hugging_face, 7)
    del theirs["backbone.layers.3.1.0.attn.attn.in_proj_bias"]
    assert "1 tensor (backbone.layers.3.1.0.attn.attn.in_proj_bias) missing" in refused(theirs)


def test_surplus_tensors_are_named(refused, hugging_face):
    hugging_face["ema.decay"] = torch.tensor(0.9)
    hugging_face["segformer.encoder.block.0.0.mlp.dense3.weight"] = torch.zeros(1)
    message = refused(hugging_face, "segformer-b0", 19)
    assert "2 tensors (ema.decay; segformer.encoder.block.0.0.mlp.dense3.weight) surplus" in message


def test_a_block_too_many_is_surplus_to_the_asked_model(refused, hugging_face):
    for name in [name for name in hugging_face if ".block.3.1." in name]:
        hugging_face[name.replace(".block.3.1.", ".block.3.2.")] = hugging_face[name].clone()
    message = refused(hugging_face, "segformer-b0")
    assert "segformer.encoder.block.3.2." in message and "surplus" in message and "depths (2, 2, 2, 3)" in message
    assert "which is none of edgeseg's: segformer-b0," in refused(hugging_face)


def test_two_sets_of_weights_in_one_file(refused, own):
    own |= {f"decode_head.linear_c.{i}.proj.bias": torch.zeros(256) for i in range(4)}
    assert "surplus" in refused(own)


def test_two_spellings_of_one_tensor(refused, hugging_face):
    twin = "segformer.stages.0.blocks.0.layernorm_before.weight"
    hugging_face[twin] = hugging_face["segformer.encoder.block.0.0.layer_norm_1.weight"].clone()
    message = refused(hugging_face)
    assert "1 tensor (" in message and "doubled" in message


def test_misshapen_tensors_are_named(refused, hugging_face, own):
    hugging_face["decode_head.linear_c.1.proj.weight"] = torch.zeros(256, 65)
    message = refused(hugging_face)
    assert "decode_head.linear_c.1.proj.weight is (256, 65), wanted (256, 64)" in message and "misshapen" in message
    own["decode_head.classifier.weight"] = torch.zeros(11, 256)
    assert "decode_head.classifier.weight is (11, 256); wanted (classes, 256, 1, 1)" in refused(own)
    own["decode_head.classifier.weight"] = torch.zeros(11, 256, 1, 1)  # and a bias of 19
    assert "decode_head.classifier.bias is (19,), wanted (11,)" in refused(own)


def test_stacked_tensors_that_cannot_be_parted(refused, hugging_face):
    theirs = nvlabs_state_dict(hugging_face)
    theirs["backbone.block1.0.attn.kv.bias"] = torch.zeros(63)
    assert "backbone.block1.0.attn.kv.bias is (63,), wanted (32,)" in refused(theirs)
    theirs["backbone.block1.0.attn.kv.bias"] = torch.tensor(1.0)
    assert "backbone.block1.0.attn.kv.bias is (), wanted (32,)" in refused(theirs)


def test_a_segformer_of_other_widths(refused, tmp_path):
    network = SegFormer(MixTransformerConfig((8, 16, 40, 64), (1, 1, 1, 1), 16), 5)
    tensors = {n: t for n, t in network.state_dict().items() if not n.endswith("tracked")}
    message = refused(tensors)
    assert "widths (8, 16, 40, 64), depths (1, 1, 1, 1) and decoder width 16" in message
    assert "missing" in refused(tensors, "segformer-b0", 5)


@pytest.mark.parametrize(("strip", "format"), [("segformer.", "Hugging Face"), ("backbone.", "NVlabs"), (None, "")])
def test_a_backbone_alone(refused, hugging_face, strip, format):
    tensors = nvlabs_state_dict(hugging_face) if strip == "backbone." else hugging_face
    tensors = {n.removeprefix(strip or ""): t for n, t in tensors.items() if not n.startswith("decode_head")}
    tensors["classifier.weight"] = torch.zeros(1000, 256)
    assert f"holds a backbone in {format}" in refused(tensors)
    assert "without a decode head" in refused(tensors)


def test_another_architecture(refused):
    message = refused({"conv1.weight": torch.zeros(2, 2), "layer1.0.bn1.weight": torch.zeros(2)})
    assert "is no SegFormer checkpoint: none of its 2 tensors" in message and "(first: conv1.weight, " in message
    assert "none of its 0 tensors" in refused({})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_no_numbers(refused, own, value):
    own["encoder.stages.2.norm.bias"] = own["encoder.stages.2.norm.bias"].half()
    own["encoder.stages.2.norm.bias"][3] = value
    assert "encoder.stages.2.norm.bias has NaN or infinite values" in refused(own)


def test_weights_beyond_float32(refused, own):
    own["encoder.stages.2.norm.bias"] = own["encoder.stages.2.norm.bias"].double() + 1e300
    assert "infinite" in refused(own)


def test_integer_weights(refused, own):
    own["decode_head.fuse.weight"] = own["decode_head.fuse.weight"].to(torch.int8)
    assert "decode_head.fuse.weight is int8; wanted float weights" in refused(own)


def test_configuration_that_shapes_cannot_show(folder, tmp_path):
    config_path = tmp_path / "config.json"
    (tmp_path / "model.safetensors").symlink_to(folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    for key, value in (("num_attention_heads", [1, 2, 4, 8]), ("hidden_act", "relu"), ("strides", [2, 2, 2, 2])):
        config_path.write_text(json.dumps(config | {key: value}))
        with pytest.raises(CheckpointError, match=rf"config\.json has {key} .*edgeseg's SegFormer has"):
            load_weights(tmp_path)
    config_path.write_text(json.dumps(config | {"id2label": {"0": "road", "1": "sky"}}))
    with pytest.raises(CheckpointError, match="names 2 classes, and the weights beside it have 19"):
        load_weights(tmp_path)
    for text in ("{", "[]", "\udcff"):
        config_path.write_bytes(text.encode("utf-8", "surrogateescape"))
        with pytest.raises(CheckpointError, match=r"config\.json, beside the weights, cannot be read"):
            load_weights(tmp_path)


def test_folders(tmp_path):
    with pytest.raises(CheckpointError, match=r"holds nothing; wanted model.safetensors or pytorch_model.bin"):
        load_weights(tmp_path)
    (tmp_path / "tf_model.h5").touch()
    with pytest.raises(CheckpointError, match=r"holds tf_model\.h5; wanted"):
        load_weights(tmp_path)
    (tmp_path / "model.safetensors.index.json").touch()
    with pytest.raises(CheckpointError, match="sharded"):
        load_weights(tmp_path)


def test_not_there(tmp_path):
    (tmp_path / "segformer-b0.pth").touch()
    with pytest.raises(InputError, match=r"no weights at .*did you mean segformer-b0\.pth"):
        load_weights(tmp_path / "segformer_b0.pth")
    with pytest.raises(InputError, match=r"did you mean segformer-b0-camvid.* or a bundled checkpoint"):
        load_weights("segformer-b0-canvid")


def test_unknown_model(folder):
    with pytest.raises(ValueError, match="unknown model 'segformer-b9'"):
        load_weights(folder, "segformer-b9")


def test_random_is_asked_for_by_name():
    with pytest.raises(ValueError, match="random weights need a model"):
        load_weights("random")
    weights = load_weights("random", "segformer-b0")
    assert (weights.format, weights.num_classes, weights.path) == ("random", 150, None)


def test_bundled_by_name(own, monkeypatch, tmp_path):
    checkpoint = BUNDLED["segformer-b0-camvid"]
    monkeypatch.setattr(bundled_module, "ASSETS", tmp_path)
    save_file({name: tensor.half() for name, tensor in own.items()}, tmp_path / checkpoint.file)
    weights = load_weights("segformer-b0-camvid", "segformer-b0")
    assert (weights.format, weights.path) == ("edgeseg", tmp_path / checkpoint.file)


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_checkpoints_are_what_they_say(name):
    checkpoint = BUNDLED[name]
    weights = load_weights(name, checkpoint.model, checkpoint.num_classes)
    with torch.inference_mode():
        assert network_from_weights(weights)(torch.zeros(1, 3, *checkpoint.size)).isfinite().all()


class TestCatalog:
    """Checkpoints of the catalogue's networks: what does not fit is named as the source names it."""

    @pytest.fixture(scope="class")
    @classmethod
    def published(cls):
        """Names and shapes as mmsegmentation saves fcn-mobilenetv2 with 4 classes."""
        torch.manual_seed(0)
        tensors = create_model("fcn-mobilenetv2", 4).state_dict()
        return tensors | {"auxiliary_head.conv_seg.weight": torch.zeros(4, 256, 1, 1)}

    @pytest.fixture
    def tensors(self, published):
        return dict(published)

    def test_loads_with_and_without_the_name(self, tensors, tmp_path):
        meta = {"dataset_meta": {"classes": tuple("abcd"), "palette": [[i, 2, 3] for i in range(4)]}}
        torch.save({"meta": meta, "state_dict": tensors}, tmp_path / "mmseg.pth")
        for model in (None, "fcn-mobilenetv2"):
            weights = load_weights(tmp_path / "mmseg.pth", model)
            assert (weights.model, weights.num_classes, weights.format) == ("fcn-mobilenetv2", 4, "mmsegmentation")
            assert weights.class_names == tuple("abcd") and weights.palette[3] == (3, 2, 3)
        state_dict = network_from_weights(weights).state_dict()
        assert all(torch.equal(tensor, tensors[name]) for name, tensor in state_dict.items())

    def test_as_edgeseg_saves_it(self, tensors, tmp_path):
        del tensors["auxiliary_head.conv_seg.weight"]
        own = {name: t.half() for name, t in tensors.items() if not name.endswith("tracked")}
        save_file(own, tmp_path / "own.safetensors")
        weights = load_weights(tmp_path / "own.safetensors")
        assert (weights.model, weights.format, weights.norm_eps) == ("fcn-mobilenetv2", "edgeseg", None)
        assert all(tensor.dtype == torch.float32 for name, tensor in weights.state_dict.items() if name in own)

    def test_another_network_is_named(self, refused, tensors, hugging_face):
        message = refused(tensors, "pspnet-resnet101")
        assert "holds a fcn-mobilenetv2 with 4 classes in mmsegmentation format, not a pspnet-resnet101" in message
        assert message.endswith("pass --model fcn-mobilenetv2")
        assert "holds a fcn-mobilenetv2 with 4 classes" in refused(tensors, "segformer-b0")
        assert "holds a segformer-b0 with 19 classes" in refused(hugging_face, "fcn-mobilenetv2")
        assert "not 150; leave --dataset out" in refused(tensors, "fcn-mobilenetv2", 150)

    def test_missing_and_surplus(self, refused, tensors):
        del tensors["decode_head.convs.1.bn.running_var"], tensors["backbone.conv1.conv.weight"]
        tensors["ema.decay"] = torch.tensor(0.9)
        for model in (None, "fcn-mobilenetv2"):
            message = refused(tensors, model)
            assert "(mmsegmentation format) is not exactly a fcn-mobilenetv2: 2 tensors (backbone.conv1." in message
            assert "decode_head.convs.1.bn.running_var) missing; 1 tensor (ema.decay) surplus" in message

    def test_misshapen(self, refused, tensors):
        tensors["decode_head.conv_cat.conv.weight"] = torch.zeros(512, 831, 3, 3)
        message = refused(tensors)
        assert "decode_head.conv_cat.conv.weight is (512, 831, 3, 3), wanted (512, 832, 3, 3)" in message
        tensors["decode_head.conv_seg.weight"] = torch.zeros(4, 512)
        assert "conv_seg.weight is (4, 512); wanted (classes, 512, 1, 1)" in refused(tensors)

    @pytest.mark.parametrize("prefix", ["", "backbone."])
    def test_a_backbone_alone(self, refused, tensors, prefix):
        backbone = {prefix + n.removeprefix("backbone."): t for n, t in tensors.items() if n.startswith("backbone.")}
        backbone["fc.weight"] = torch.zeros(1000, 320)
        message = refused(backbone, "fcn-mobilenetv2")
        assert "holds a backbone of a fcn-mobilenetv2 without a decode head" in message

    def test_another_architecture(self, refused):
        message = refused({"conv1.weight": torch.zeros(2, 2), "fc.bias": torch.zeros(2)}, "fcn-mobilenetv2")
        assert "nor do they look like another network" in message and "(first: conv1.weight, fc.bias)" in message

    def test_takes_no_epsilons(self):
        with pytest.raises(ValueError, match="fcn-mobilenetv2 takes no norm_eps"):
            create_model("fcn-mobilenetv2", 3, norm_eps=1e-5)
