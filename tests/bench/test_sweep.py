"""A sweep from options to results: real builds, real engines, a tiny network."""

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import edgeseg
from edgeseg.bench import sweep
from edgeseg.bench.environment import describe_environment
from edgeseg.bench.plan import BenchOptions
from edgeseg.bench.results import Results
from edgeseg.bench.sweep import bench
from edgeseg.bench.systems import SystemSpec, open_system
from edgeseg.errors import InputError
from edgeseg.samples import synthetic_street

NETWORK = """
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 11, 3, 2, 1))
"""
FAST = BenchOptions(rounds=6, images=2, memory=False, threads=1)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory) -> list[Path]:
    """An FP32 and an FP16 bundle of one network, and one of another size."""
    folder = tmp_path_factory.mktemp("bundles")
    (folder / "tiny_network.py").write_text(NETWORK)
    sys.path.insert(0, str(folder))
    try:
        return [
            edgeseg.build(
                module="tiny_network:make",
                dataset="camvid",
                size=size,
                precision=precision,
                backend="onnxruntime",
                output=folder / name,
            ).path
            for name, precision, size in (
                ("fp32", "fp32", (64, 96)),
                ("fp16", "fp16", (64, 96)),
                ("small", "fp32", (32, 32)),
            )
        ]
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop("tiny_network", None)


@pytest.fixture(scope="module")
def streets(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("streets")
    for kind in ("images", "labels"):
        (root / kind / "val").mkdir(parents=True)
    for seed in range(3):
        image, labels = synthetic_street(seed, (64, 96))
        Image.fromarray(image).save(root / "images" / "val" / f"{seed}.png")
        Image.fromarray(labels).save(root / "labels" / "val" / f"{seed}.png")
    return root


def test_bundles_are_timed_and_scored(bundles, streets, tmp_path):
    output = tmp_path / "results.json"
    found = bench(replace(FAST, bundles=tuple(bundles[:2]), data=streets, memory=True), output)
    assert found.is_complete and found == Results.load(output)
    assert [row.precision for row in found.rows] == ["fp32", "fp16"]
    assert found.dataset == {"name": "generic", "split": "val", "images": 3}
    for row in found.rows:
        assert row.failure is None
        assert row.latency and row.latency.runs == 6 and row.latency.low <= row.latency.p50 <= row.latency.high
        assert row.stages.engine and row.stages.preprocess and row.stages.tail
        assert row.peak_memory_bytes and row.peak_memory_bytes > 20e6
        assert row.miou is not None and 0 <= row.miou <= 1
        assert row.label_agreement and row.label_agreement > 0.99  # of the gate
        assert len(row.worst_images) == 3
    with edgeseg.load(bundles[0]) as segmenter:  # the same bundle by other means
        from edgeseg.datasets import open_dataset
        from edgeseg.evaluation import evaluate

        assert found.rows[0].miou == evaluate(segmenter, open_dataset(streets, None, segmenter.label_set))["miou"]


def test_a_cell_that_fails_is_a_row_that_says_why(bundles, tmp_path, monkeypatch):
    def broken(self, images):
        raise RuntimeError("out of\n memory")

    monkeypatch.setattr("edgeseg.backends.onnxruntime.OnnxRuntimeSession._infer", broken)
    (row,) = bench(replace(FAST, bundles=(bundles[0],)), tmp_path / "r.json").rows
    assert row.failure == "out of memory"
    assert row.latency is None and row.params


def test_resume_measures_what_is_left_and_nothing_twice(bundles, tmp_path, monkeypatch):
    output = tmp_path / "results.json"
    first = bench(replace(FAST, bundles=(bundles[0],)), output)
    with pytest.raises(InputError, match=r"results.json exists; --resume goes on with it"):
        bench(FAST, output)
    both = bench(replace(FAST, bundles=tuple(bundles[:2])), output, resume=True)
    assert both.rows[0] == first.rows[0]
    assert "timed in a later run" in both.rows[1].notes[-1]
    monkeypatch.setattr(sweep, "measure_group", None)  # nothing is left to measure
    again = bench(replace(FAST, bundles=tuple(bundles[:2])), output, resume=True)
    assert again.rows == both.rows


def test_ctrl_c_leaves_what_was_measured(bundles, tmp_path, monkeypatch):
    output = tmp_path / "results.json"
    calls = []
    real = sweep.measure_group

    def stopped(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(sweep, "measure_group", stopped)
    options = replace(FAST, bundles=(bundles[0], bundles[2]))
    with pytest.raises(KeyboardInterrupt):
        bench(options, output)
    left = Results.load(output)
    assert len(left.rows) == 1 and not left.is_complete
    done = bench(options, output, resume=True)
    assert len(done.rows) == 2 and done.is_complete and done.rows[0] == left.rows[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rounds": 7}, "was measured with --rounds 6, this run has 7"),
        ({"threads": 2}, "was measured with --threads 1, this run has 2"),
    ],
)
def test_one_file_holds_one_way_of_measuring(bundles, tmp_path, change, message):
    output = tmp_path / "results.json"
    Results((), describe_environment(1), sweep._arguments(FAST)).save(output)
    with pytest.raises(InputError, match=message):
        bench(replace(FAST, bundles=tuple(bundles[:2]), **change), output, resume=True)


def test_another_version_does_not_resume(bundles, tmp_path):
    output = tmp_path / "results.json"
    environment = describe_environment(1)
    environment = environment | {"versions": environment["versions"] | {"onnxruntime": "0.1"}}
    Results((), environment, sweep._arguments(FAST)).save(output)
    with pytest.raises(InputError, match=r"was measured with onnxruntime 0\.1, this run has"):
        bench(replace(FAST, bundles=tuple(bundles[:2])), output, resume=True)


def test_the_same_cell_twice_has_the_folders_name(bundles, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(bundles[0], copy)
    found = bench(replace(FAST, bundles=(bundles[0], copy)))
    assert [row.system for row in found.rows] == ["edgeseg", "edgeseg copy"]
    with pytest.raises(ValueError, match="two bundles called copy hold the same network"):
        bench(replace(FAST, bundles=(bundles[0], copy, copy)))


def test_resume_needs_an_output(bundles):
    with pytest.raises(ValueError, match="--resume goes on with the --output"):
        bench(replace(FAST, bundles=tuple(bundles[:2])), resume=True)


def test_a_batch_gives_each_image_its_own_labels(bundles, tmp_path):
    images = [synthetic_street(seed, size)[0] for seed, size in enumerate([(64, 96), (50, 70), (64, 96)])]
    with edgeseg.load(bundles[0]) as segmenter:
        with pytest.raises(ValueError, match=r"images must be \(1, 3, 64, 96\), got \(3"):
            segmenter.batch(images)
        with pytest.raises(ValueError, match="at least one image"):
            segmenter.batch([])
        one = segmenter(images[1])
        np.testing.assert_array_equal(segmenter.batch(images[1:2])[0], one)
    spec = SystemSpec.from_json(SystemSpec("bundle", str(bundles[0]), (64, 96), 1).to_json())
    with open_system(spec) as system:
        np.testing.assert_array_equal(system(images[1:2])[0], one)
        assert system.engine_bytes and system.stages.engine
