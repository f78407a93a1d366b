"""Which backend is chosen, and that nothing heavy is imported to name them."""

import subprocess
import sys

import pytest

from edgeseg.backends import BACKENDS, choose_backend
from edgeseg.errors import BackendError


def test_names_and_order():
    assert list(BACKENDS) == ["tensorrt", "tensorrt-rtx", "openvino", "onnxruntime", "torch"]
    assert all(backend.name == name for name, backend in BACKENDS.items())


def test_auto_takes_the_first_that_works():
    usable = [name for name, backend in BACKENDS.items() if backend.probe().can_run]
    backend, reason = choose_backend()
    assert backend.name == usable[0]
    assert reason.startswith(f"{backend.name} {backend.probe().version}: ") and "\n" not in reason
    assert choose_backend("auto", to_build=True)[0].probe().can_build


def test_auto_passes_over_what_is_slow_at_the_precision():
    slow = {name: backend.slow_at("int8") for name, backend in BACKENDS.items() if backend.probe().can_run}
    backend, reason = choose_backend("auto", precision="int8")
    assert backend.name == next(name for name, why in slow.items() if not why)
    if slow.get("openvino"):  # a CPU without VNNI
        assert "; not openvino: this CPU's int8 products saturate (no VNNI)" in reason
    assert not any(backend.slow_at("fp32") for backend in BACKENDS.values())


def test_a_named_one_is_never_replaced():
    for name, backend in BACKENDS.items():
        status = backend.probe()
        for to_build, able in ((False, status.can_run), (True, status.can_build)):
            if able:
                chosen, reason = choose_backend(name, to_build=to_build)
                assert chosen is backend and reason == f"{name} {status.version}, as asked for"
            else:
                with pytest.raises(BackendError, match=f"the backend {name} cannot (run|build) here: ."):
                    choose_backend(name, to_build=to_build)


def test_unknown_name():
    with pytest.raises(ValueError, match="unknown backend 'trt'; there are auto, tensorrt, tensorrt-rtx, openvino"):
        choose_backend("trt")


def test_import_is_light():
    code = (
        "import sys, edgeseg.backends; heavy = {'torch', 'onnx', 'onnxruntime', 'openvino', 'tensorrt_rtx', 'cuda', "
        "'safetensors'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_running_needs_no_torch_and_no_onnx(networks, tmp_path, name):
    from edgeseg.backends import BuildRequest

    if not BACKENDS[name].probe().can_run:
        pytest.skip(f"{name} does not run here")
    model = tmp_path / "model.onnx"
    model.write_bytes(networks.int8.read_bytes())
    engine = BACKENDS[name].build(BuildRequest(model, "int8"), tmp_path)
    code = f"""if True:
        import sys
        import numpy as np
        from pathlib import Path
        from edgeseg.backends import BACKENDS
        with BACKENDS[{name!r}].open(Path({str(tmp_path)!r}), {engine.main!r}, {{"precision": "int8"}}) as session:
            session.infer(np.zeros((1, 3, 64, 96), np.float32))
        heavy = {{"torch", "onnx"}} & set(sys.modules)
        assert not heavy, heavy
    """
    subprocess.run([sys.executable, "-c", code], check=True)
