"""The builder and the runtime, type-checked against the Python API of the TensorRT versions that we support.

`tensorrt_api/<version>/tensorrt.pyi` was written by `tensorrt_api/generate.py` from each version's own binding.
"""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .tensorrt_api.generate import SOURCES, stub

HERE = Path(__file__).parent / "tensorrt_api"
VERSIONS = sorted(path.parent.name for path in HERE.glob("*/tensorrt.pyi"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("mypy")


def type_check(version: str, cache: Path, *sources: Path) -> str:
    """What mypy says with that version's stub as `tensorrt`; "" if nothing."""
    pytest.importorskip("mypy", reason="mypy is not installed")
    command = [sys.executable, "-m", "mypy", "--config-file", str(HERE / "mypy.ini"), "--cache-dir", str(cache)]
    environment = {**os.environ, "MYPYPATH": str(HERE / version)}
    done = subprocess.run([*command, *map(str, sources)], env=environment, capture_output=True, text=True)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_versions():
    assert VERSIONS == [
        "tensorrt-10.13.3.9",
        "tensorrt-10.16.1.11",
        "tensorrt-10.3.0",
        "tensorrt-11.4.0.106",
        "tensorrt_rtx-1.7.1.116",
    ]


@pytest.mark.parametrize("version", VERSIONS)
def test_sources_fit(version, cache):
    assert type_check(version, cache, *SOURCES) == ""


@pytest.mark.parametrize(
    "version, written, wrong, complaint",
    [
        ("tensorrt-11.4.0.106", "trt.BuilderFlag.TF32", "trt.BuilderFlag.FP16", 'has no attribute "FP16"'),
        ("tensorrt-11.4.0.106", "config.clear_flag(", "config.set_flags(", 'has no attribute "set_flags"'),
        (
            "tensorrt-10.3.0",
            "set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, ",
            "set_memory_pool_limit(",
            "argument",
        ),
        ("tensorrt-10.3.0", 'hasattr(trt, "ComputeCapability")', "True", 'has no attribute "ComputeCapability"'),
    ],
)
def test_mistakes_are_found(version, written, wrong, complaint, cache, tmp_path):
    source = tmp_path / "trt_builder.py"
    text = SOURCES[0].read_text()
    assert written in text
    source.write_text(text.replace(written, wrong))
    assert complaint in type_check(version, cache, source)


def test_stub_is_what_the_binding_says():
    """The one binding that is installed here, against what the generator wrote down from it."""
    module = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx-cu13 is not installed")
    recorded = HERE / f"tensorrt_rtx-{module.__version__}" / "tensorrt.pyi"
    if not recorded.exists():
        pytest.skip(f"no stub of TensorRT-RTX {module.__version__}; generate.py writes it")
    assert ast.dump(ast.parse(stub(module))) == ast.dump(ast.parse(recorded.read_text()))
