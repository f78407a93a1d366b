"""torch: the contract, and what it does not take."""

import pytest
import torch
from safetensors.torch import save_file

from edgeseg.backends import BACKENDS, BuildRequest
from edgeseg.errors import BackendError, EngineBuildError

from .contract import RunContract
from .networks import RECIPE, random_images


class TestTorch(RunContract):
    name = "torch"
    engine_file = "engine.safetensors"
    tolerance = 1e-6  # the same network, with sums split over other threads
    interrupts: tuple[int, ...] = (0,)

    def request(self, networks, onnx, folder, precision="fp32", **options):
        request = super().request(networks, onnx, folder, precision, **options)
        return BuildRequest(request.onnx_path, precision, module=networks.module, module_recipe=RECIPE, **options)

    def test_reduced_precision(self, networks, tmp_path):
        with pytest.raises(BackendError, match="torch runs FP32 only, got int8: casts and Q/DQ live in the ONNX"):
            self.build(networks, networks.fp32, tmp_path, "int8")

    def test_network_without_a_recipe(self, networks, tmp_path):
        with pytest.raises(BackendError, match="runs the networks of the zoo"):
            self.backend.build(BuildRequest(networks.fp32), tmp_path)

    def test_recipe_of_another_network(self, networks, tmp_path):
        request = BuildRequest(networks.fp32, module=networks.module, module_recipe={**RECIPE, "num_classes": 19})
        with pytest.raises(EngineBuildError, match=r"does not rebuild the network: .*size mismatch"):
            self.backend.build(request, tmp_path)
        assert not list(tmp_path.iterdir())

    def test_epsilons_survive(self, networks, built):
        with built(networks.fp32) as session:
            norms = {m.eps for m in session._module.modules() if isinstance(m, torch.nn.LayerNorm)}
            assert norms == set(RECIPE["norm_eps"].values())

    def test_threads_are_the_sessions_own(self, networks, built):
        before = torch.get_num_threads()
        with built(networks.fp32, threads=before + 1) as session:
            session.infer(random_images())
        assert torch.get_num_threads() == before

    def test_engine_file_in_the_way(self, networks, tmp_path):
        (tmp_path / self.engine_file).mkdir()
        with pytest.raises(EngineBuildError, match=r"cannot write .*engine\.safetensors"):
            self.build(networks, networks.fp32, tmp_path)


def test_other_safetensors(tmp_path):
    save_file({"weight": torch.zeros(3)}, tmp_path / "engine.safetensors")
    with pytest.raises(BackendError, match="is not an engine of the backend torch"):
        BACKENDS["torch"].open(tmp_path, "engine.safetensors")
