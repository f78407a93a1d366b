"""One op, one word, five places: kernels/, edgeseg/ops/, tests/ops/, benchmarks/ops/, a row in kernels/README.md."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OPS = sorted(path.stem for path in (ROOT / "edgeseg" / "ops").glob("*.py") if not path.stem.startswith("_"))


def test_there_are_ops():
    assert "upsample_argmax" in OPS


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize(
    "place",
    ["kernels/{op}/{op}.h", "kernels/{op}/{op}_cpu.cpp", "tests/ops/test_{op}.py", "benchmarks/ops/bench_{op}.py"],
)
def test_op_has_its_file(op, place):
    assert (ROOT / place.format(op=op)).is_file()


@pytest.mark.parametrize("op", OPS)
def test_op_has_a_row_in_the_table(op):
    rows = (ROOT / "kernels" / "README.md").read_text().splitlines()
    assert any(row.startswith(f"| `{op}` |") for row in rows)


def test_every_kernel_folder_is_an_op():
    folders = {path.name for path in (ROOT / "kernels").iterdir() if path.is_dir()} - {"common", "emulation"}
    assert folders == set(OPS)
