import copy
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.nn.functional import dropout

from edgeseg.errors import ExportError
from edgeseg.export import load_onnx, logits_of, onnx_from_module

CLASSES, SIZE = 5, (13, 18)


class Network(nn.Module):
    """A strided convolution, batch norm, dropout and a linear layer on tokens: what segmentation heads are made of."""

    def __init__(self, change=lambda logits: logits):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.dropout = nn.Dropout2d(0.5)
        self.project = nn.Linear(8, CLASSES)
        self.change = change
        with torch.no_grad():
            for values in (self.norm.weight, self.norm.bias, self.norm.running_mean):
                values.normal_()

    def forward(self, images):
        x = self.dropout(torch.relu(self.norm(self.stem(images))))
        tokens = self.project(x.flatten(2).transpose(1, 2))
        return self.change(tokens.transpose(1, 2).unflatten(2, x.shape[-2:]))


def run(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: images})[0]


def shapes(values) -> dict[str, list]:
    return {v.name: [d.dim_value or d.dim_param for d in v.type.tensor_type.shape.dim] for v in values}


@pytest.fixture(scope="module")
def network() -> Network:
    network = Network().train()
    network.norm.eval()  # a frozen norm in a network that trains
    return network


@pytest.fixture(scope="module")
def dynamic(network) -> onnx.ModelProto:
    return onnx_from_module(network, SIZE, batch=(1, 1, 4), opset=17)


class TestModule:
    def test_interface_state_names_and_silence(self, network, rng, capfd, recwarn):
        model = onnx_from_module(network, SIZE)
        assert capfd.readouterr() == ("", "")
        assert not recwarn.list
        assert shapes(model.graph.input) == {"images": [1, 3, *SIZE]}
        assert shapes(model.graph.output) == {"logits": [1, CLASSES, 7, 9]}
        assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]
        assert network.training and network.dropout.training and not network.norm.training
        assert {"stem.weight", "stem.bias", "project.weight", "project.bias"} <= {
            t.name for t in model.graph.initializer
        }
        assert "project/MatMul" in {node.name for node in model.graph.node}
        images = rng.standard_normal((1, 3, *SIZE), dtype=np.float32)
        with torch.no_grad():
            expected = copy.deepcopy(network).eval()(torch.from_numpy(images)).numpy()
        np.testing.assert_allclose(run(model, images), expected, atol=1e-5)

    def test_dynamic_batch(self, dynamic, rng):
        assert dynamic.opset_import[0].version == 17
        assert shapes(dynamic.graph.input) == {"images": ["batch", 3, *SIZE]}
        assert shapes(dynamic.graph.output) == {"logits": ["batch", CLASSES, 7, 9]}
        images = rng.standard_normal((4, 3, *SIZE), dtype=np.float32)
        together = run(dynamic, images)
        np.testing.assert_allclose(np.concatenate([run(dynamic, image[None]) for image in images]), together, atol=1e-5)

    def test_the_same_bytes_again_without_traces_of_this_machine(self, network, dynamic):
        data = dynamic.SerializeToString()
        assert onnx_from_module(network, SIZE, batch=(1, 1, 4), opset=17).SerializeToString() == data
        for trace in (str(Path(__file__).parent), "site-packages", "stack_trace"):
            assert trace.encode() not in data

    def test_logits_in_a_dict(self):
        model = onnx_from_module(Network(lambda logits: {"aux": logits[:, :2], "out": logits}), SIZE)
        assert shapes(model.graph.output) == {"logits": [1, CLASSES, 7, 9]}

    def test_containers(self):
        logits, other = torch.zeros(1, 2, 3, 4), torch.ones(1, 2, 3, 4)
        output = namedtuple("Output", "loss logits")
        for result in (logits, {"x": logits}, [logits], (logits, None), {"logits": logits, "hidden": other}):
            assert logits_of(result) is logits
        assert logits_of(output(None, logits)) is logits
        assert logits_of(output(other, logits)) is logits
        assert logits_of(SimpleNamespace(logits=logits, hidden=other)) is logits

    @pytest.mark.parametrize(
        "change, message",
        [
            (lambda x: (x, x[:, :2]), r"returns a tuple with 0 \(1, 5, 7, 9\), 1 \(1, 2, 7, 9\); wanted one tensor"),
            (lambda x: "mask", "returns a str with no tensor"),
            (lambda x: x.argmax(1), "output is labels .*int64.*; wanted logits"),
            (lambda x: x[:, :1], "at least two classes"),
            (lambda x: x[0], r"shape \(5, 7, 9\)"),
            (lambda x: x / 0, "NaN or infinite"),
            (lambda x: x.foo, r"the module fails on a \(1, 3, 13, 18\) .*: AttributeError: .*'foo'"),
        ],
        ids=["two", "none", "labels", "one class", "3-D", "infinite", "fails"],
    )
    def test_what_is_not_logits(self, change, message):
        with pytest.raises(ExportError, match=message):
            onnx_from_module(Network(change), SIZE)

    def test_dropout_that_ignores_eval(self):
        with pytest.raises(ExportError, match=r"has .* nodes, so its result is random"):
            onnx_from_module(Network(lambda x: dropout(x, 0.5, training=True)), SIZE)

    def test_control_flow_that_depends_on_the_image(self):
        network = Network(lambda x: x if x.sum() > 0 else -x).train()
        with pytest.raises(ExportError, match=r"torch cannot export the module to ONNX: [A-Z]") as caught:
            onnx_from_module(network, SIZE)
        assert caught.value.__cause__ is not None
        assert "\n" not in str(caught.value)
        assert network.training

    def test_result_that_depends_on_more_than_the_image(self):
        calls = []

        def count(logits):
            calls.append(1)
            return logits * len(calls)

        with pytest.raises(ExportError, match="differs from the module by"):
            onnx_from_module(Network(count), SIZE)

    def test_half_precision(self):
        with pytest.raises(ExportError, match=r"torch.float16 parameters; wanted float32"):
            onnx_from_module(Network().half(), SIZE)

    @pytest.mark.parametrize(
        "arguments, message",
        [
            ({"size": (0, 5)}, r"size must be .* got \(0, 5\)"),
            ({"size": (5.0, 5)}, "size must be"),
            ({"batch": 0}, "batch must be .* got 0"),
            ({"batch": (4, 2, 1)}, "batch must be"),
            ({"batch": (1, 2)}, "batch must be"),
            ({"opset": 16}, "opset must be 17 to"),
        ],
    )
    def test_wrong_arguments(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            onnx_from_module(Network(), **{"size": SIZE} | arguments)


def network_file(path: Path, *, shape=(1, 3, *SIZE), opset=18, nodes=(), outputs=None, ir_version=8, **options) -> Path:
    """conv "w" -> "logits", and what else is asked for."""
    rng = np.random.default_rng(1)
    weights = [numpy_helper.from_array(rng.standard_normal((CLASSES, 3, 1, 1)).astype(np.float32), "w")]
    weights += options.get("weights", [])
    inputs = [helper.make_tensor_value_info("picture", options.get("type", TensorProto.FLOAT), shape)]
    inputs += options.get("inputs", [])
    made = [helper.make_node("Conv", [options.get("source", "picture"), "w"], ["logits"]), *nodes]
    outputs = outputs or [helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)]
    graph = helper.make_graph(made, "graph", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)
    onnx.save(model, path, **options.get("save", {}))
    return path


def output(name, element=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, element, None)


@pytest.fixture
def file(tmp_path) -> Path:
    return tmp_path / "network.onnx"


class TestFile:
    def test_names_and_results_stay(self, file, rng):
        network_file(file)
        model = load_onnx(file)
        assert shapes(model.graph.input) == {"picture": [1, 3, *SIZE]}
        assert shapes(model.graph.output) == {"logits": [1, CLASSES, *SIZE]}
        images = rng.standard_normal((1, 3, *SIZE), dtype=np.float32)
        np.testing.assert_array_equal(run(model, images), run(onnx.load(file), images))

    def test_our_own_export(self, file, dynamic):
        onnx.save(dynamic, file)
        assert shapes(load_onnx(file).graph.output) == {"logits": [1, CLASSES, 7, 9]}
        assert shapes(load_onnx(file, SIZE, (1, 2, 4)).graph.output) == {"logits": ["batch", CLASSES, 7, 9]}

    def test_old_opset_with_weights_among_the_inputs(self, file):
        weight = helper.make_tensor_value_info("w", TensorProto.FLOAT, (CLASSES, 3, 1, 1))
        unsqueezed = helper.make_node("ReduceMean", ["logits"], ["y"], axes=[2], keepdims=1)  # attributes became inputs
        network_file(file, opset=11, ir_version=3, inputs=[weight], nodes=[unsqueezed], outputs=[output("y")])
        model = load_onnx(file)
        assert model.opset_import[0].version == 17
        assert shapes(model.graph.input) == {"picture": [1, 3, *SIZE]}
        assert shapes(model.graph.output) == {"y": [1, CLASSES, 1, SIZE[1]]}

    def test_open_dimensions_are_fixed(self, file):
        network_file(file, shape=("n", 3, "height", None))
        assert shapes(load_onnx(file, (8, 9)).graph.output) == {"logits": [1, CLASSES, 8, 9]}
        assert shapes(load_onnx(file, (8, 9), 4).graph.input) == {"picture": [4, 3, 8, 9]}
        assert shapes(load_onnx(file, (8, 9), (1, 2, 4)).graph.input) == {"picture": ["batch", 3, 8, 9]}
        with pytest.raises(ValueError, match=r"picture|its size is open; pass --size HxW"):
            load_onnx(file)

    @pytest.mark.parametrize(
        "arguments, message",
        [
            ({"size": (8, 9)}, r"takes images float32 \(1, 3, 13, 18\), which cannot become 8x9"),
            ({"batch": 2}, "its batch is fixed, and the batch asked for is 2"),
            ({"batch": (1, 2, 4)}, "its batch is fixed, and the batch asked for is dynamic, 1 to 4"),
        ],
    )
    def test_fixed_dimensions_that_differ(self, file, arguments, message):
        network_file(file)
        with pytest.raises(ValueError, match=message):
            load_onnx(file, **arguments)

    def test_several_outputs(self, file):
        softmax = helper.make_node("Softmax", ["logits"], ["scores"], axis=1)
        network_file(file, nodes=[softmax], outputs=[output("logits"), output("scores")])
        with pytest.raises(ExportError, match=r"has 2 outputs \(logits .*scores .*pass --onnx-output NAME"):
            load_onnx(file)
        with pytest.raises(ExportError, match=r"has no output 'mask'; it has logits .*scores"):
            load_onnx(file, output="mask")
        assert [node.op_type for node in load_onnx(file, output="logits").graph.node] == ["Conv"]
        assert shapes(load_onnx(file, output="scores").graph.output) == {"scores": [1, CLASSES, *SIZE]}

    def test_labels_instead_of_logits(self, file):
        labels = helper.make_node("ArgMax", ["logits"], ["labels"], axis=1)
        network_file(file, nodes=[labels], outputs=[output("labels", TensorProto.INT64)])
        with pytest.raises(ExportError, match=r"output is labels .*ArgMax inside; wanted logits"):
            load_onnx(file)

    @pytest.mark.parametrize(
        "options, message",
        [
            (
                {"inputs": [helper.make_tensor_value_info("second", TensorProto.FLOAT, (1,))]},
                "has 2 inputs .*picture .*second",
            ),
            (
                {"shape": (1, 13, 18, 3), "source": "t", "nodes": []},
                r"takes \(N, H, W, 3\), export it with channels first",
            ),
            ({"shape": (1, 4, *SIZE), "source": "t"}, "wanted one input of images"),
            ({"type": TensorProto.UINT8, "source": "t"}, r"picture uint8 .*wanted one input of images, float32"),
        ],
        ids=["two", "channels last", "four channels", "uint8"],
    )
    def test_inputs_that_are_not_images(self, file, options, message):
        if options.get("source") == "t":  # a valid graph whatever the input
            constant = numpy_helper.from_array(np.zeros((1, 3, *SIZE), np.float32), "t")
            options = {**options, "weights": [constant], "nodes": [helper.make_node("Identity", ["picture"], ["i"])]}
        network_file(file, **options)
        with pytest.raises(ExportError, match=message):
            load_onnx(file)

    @pytest.mark.parametrize("content", [b"", b"hello, this is text\n" * 20], ids=["empty", "text"])
    def test_not_onnx(self, file, content):
        file.write_bytes(content)
        with pytest.raises(ExportError, match=r"network.onnx is not an ONNX file"):
            load_onnx(file)

    def test_truncated(self, file):
        network_file(file)
        file.write_bytes(file.read_bytes()[:-40])
        with pytest.raises(ExportError, match=r"network\.onnx is not "):
            load_onnx(file)

    def test_operators_of_one_runtime(self, file):
        network_file(file, nodes=[helper.make_node("Gelu", ["logits"], ["y"], domain="com.microsoft")])
        model = onnx.load(file)
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
        model.graph.output[0].name = "y"
        onnx.save(model, file)
        with pytest.raises(ExportError, match=r"not ONNX's own \(com\.microsoft::Gelu\)"):
            load_onnx(file)

    def test_dropout_goes_and_noise_is_refused(self, file):
        network_file(file, nodes=[helper.make_node("Dropout", ["logits"], ["d"]), _relu("d")], outputs=[output("y")])
        assert [node.op_type for node in load_onnx(file).graph.node] == ["Conv", "Relu"]
        noise = helper.make_node("RandomNormalLike", ["logits"], ["d"])
        network_file(file, nodes=[noise, _relu("d")], outputs=[output("y")])
        with pytest.raises(ExportError, match="RandomNormalLike"):
            load_onnx(file)

    def test_nan(self, file):
        nan = numpy_helper.from_array(np.array(np.nan, np.float32), "nan")
        add = helper.make_node("Add", ["logits", "nan"], ["y"])
        network_file(file, nodes=[add], weights=[nan], outputs=[output("y")])
        with pytest.raises(ExportError, match="NaN or infinite"):
            load_onnx(file)


def _relu(source):
    return helper.make_node("Relu", [source], ["y"])


class TestExternalData:
    SAVE: ClassVar = {"save_as_external_data": True, "location": "w.bin", "size_threshold": 0}

    def test_beside_the_file_is_embedded(self, file):
        network_file(file, save=self.SAVE)
        assert (file.parent / "w.bin").is_file()
        model = load_onnx(file)
        assert all(tensor.data_location != TensorProto.EXTERNAL for tensor in model.graph.initializer)
        assert model.ByteSize() > CLASSES * 3 * 4

    @pytest.mark.parametrize("location", ["../w.bin", "/etc/hostname", "a/../../w.bin", "C:\\w.bin", ""])
    def test_elsewhere_is_refused(self, file, location):
        network_file(file, save=self.SAVE)
        model = onnx.load(file, load_external_data=False)
        next(e for e in model.graph.initializer[0].external_data if e.key == "location").value = location
        file.write_bytes(model.SerializeToString())
        with pytest.raises(ExportError, match=r"keeps 'w' in .*; only files beside the ONNX file are read"):
            load_onnx(file)

    def test_a_link_out_of_the_folder_is_refused(self, tmp_path):
        folder = tmp_path / "inner"
        folder.mkdir()
        file = network_file(folder / "network.onnx", save=self.SAVE)
        (folder / "w.bin").rename(tmp_path / "w.bin")
        (folder / "w.bin").symlink_to(tmp_path / "w.bin")
        with pytest.raises(ExportError, match="only files beside"):
            load_onnx(file)

    def test_missing_and_short(self, file):
        network_file(file, save=self.SAVE)
        data = file.parent / "w.bin"
        data.write_bytes(data.read_bytes()[:8])
        with pytest.raises(ExportError, match=r"weights beside network.onnx cannot be read|is not valid ONNX"):
            load_onnx(file)
        data.unlink()
        with pytest.raises(ExportError, match=r"'w\.bin', which is not there"):
            load_onnx(file)
