"""OpenVINO: the contract, and the precision that it computes in."""

import pytest

from edgeseg.backends import BACKENDS, BuildRequest
from edgeseg.backends.openvino import XML, _config, _int8_is_exact
from edgeseg.errors import BackendError

from .contract import OnnxBuildContract, ReducedPrecisionContract, RunContract

pytest.importorskip("openvino", reason="openvino is not installed")


class TestOpenVino(OnnxBuildContract, RunContract, ReducedPrecisionContract):
    name = "openvino"
    engine_file = XML

    def test_missing_weights(self, networks, built, tmp_path):
        built(networks.fp32).close()
        (tmp_path / "engine.bin").unlink()
        with pytest.raises(BackendError, match=r"engine.bin does not exist"):
            self.backend.open(tmp_path, XML)

    def test_truncated_weights(self, networks, built, tmp_path):
        built(networks.fp32).close()
        weights = tmp_path / "engine.bin"
        weights.write_bytes(weights.read_bytes()[:1000])
        with pytest.raises(BackendError, match=r"OpenVINO cannot load .*engine\.xml"):
            self.backend.open(tmp_path, XML)

    def test_weights_keep_their_precision(self, networks, tmp_path):
        self.build(networks, networks.fp32, tmp_path)
        parameters = sum(p.numel() for p in networks.module.parameters())
        assert (tmp_path / "engine.bin").stat().st_size > 3 * parameters  # bytes; folded batch norms take none

    def test_fp32_computes_in_fp32(self, networks, built):
        with built(networks.fp32) as session:
            assert session._compiled.get_property("INFERENCE_PRECISION_HINT").to_string() == "f32"
            assert {layer["precision"] for layer in session.layers()} <= {"f32", "i32", "i64", "u8"}

    def test_engine_file_in_the_way(self, networks, tmp_path):
        (tmp_path / XML).mkdir()
        request = self.request(networks, networks.fp32, tmp_path)
        with pytest.raises(BackendError, match="OpenVINO cannot build"):
            self.backend.build(request, tmp_path)
        assert sorted(path.name for path in tmp_path.iterdir()) == [XML, "model.onnx"]


def test_options():
    assert _config("fp32", 3)["INFERENCE_PRECISION_HINT"] == "f32"
    assert _config("fp32", 3)["INFERENCE_NUM_THREADS"] == 3
    assert "INFERENCE_PRECISION_HINT" not in _config("fp16", None)  # bf16 or f16 where the CPU has them
    assert ("LP_TRANSFORMS_MODE" in _config("int8", None)) == (not _int8_is_exact())


def test_a_bundle_without_a_precision_is_computed_exactly(networks, tmp_path):
    backend = BACKENDS["openvino"]
    engine = backend.build(BuildRequest(networks.int8), tmp_path)
    with backend.open(tmp_path, engine.main) as session:
        assert session._compiled.get_property("INFERENCE_PRECISION_HINT").to_string() == "f32"
