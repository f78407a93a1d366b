"""Which cells follow from the options, and which options are refused."""

from pathlib import Path

import pytest

from edgeseg.bench.plan import BASELINES, BenchOptions, plan, refusal


def keys(**options) -> list[tuple]:
    return [cell.key for cells in plan(BenchOptions(**options)).values() for cell in cells]


def test_cells_of_one_network_size_and_batch_are_one_group():
    groups = plan(
        BenchOptions(
            models=("segformer-b0", "segformer-b1"),
            weights=("random",),
            backends=("onnxruntime",),
            precisions=("fp32", "int8"),
            sizes=((64, 96), (128, 96)),
            batches=(1, 2),
            baselines=("torch",),
        )
    )
    assert len(groups) == 8
    for group, cells in groups.items():
        assert [(cell.system, cell.precision) for cell in cells] == [
            ("edgeseg", "fp32"),
            ("edgeseg", "int8"),
            ("torch eager", "fp32"),
        ]
        assert {(cell.model, cell.weights, cell.size, cell.batch) for cell in cells} == {tuple(group)}


def test_the_default_is_the_checkpoint_that_ships_at_its_own_size():
    (found,) = keys(backends=("onnxruntime",), precisions=("fp32",), baselines=())
    assert found == ("edgeseg", "segformer-b0", "segformer-b0-camvid", "onnxruntime", "fp32", 360, 480, 1)


def test_other_networks_have_their_published_size_and_their_own_weights():
    found = keys(
        models=("icnet", "segformer-b1"),
        weights=("a.pth", "b.pth"),
        backends=("onnxruntime",),
        precisions=("fp32",),
        baselines=(),
    )
    assert [key[1:3] + key[5:7] for key in found] == [
        ("icnet", "a.pth", 1024, 2048),
        ("segformer-b1", "b.pth", 512, 512),
    ]


def test_torch_has_no_reduced_precision():
    assert [key[4] for key in keys(backends=("torch",), baselines=())] == ["fp32"]


def test_baselines_that_work_here_come_by_themselves_and_slow_ones_when_asked():
    systems = [key[0] for key in keys(backends=("onnxruntime",), precisions=("fp32",))]
    assert {"torch eager", "onnxruntime, unmodified"} <= set(systems)
    assert "torch.compile" not in systems
    assert keys(backends=("torch",), baselines=("torch-compile",))[-1][0] == "torch.compile"


def test_a_baseline_is_taken_in_fp16_too_where_people_would():
    options = {"backends": ("onnxruntime",), "baselines": ("onnxruntime", "openvino")}
    unmodified = [key[:1] + key[3:5] for key in keys(**options) if "unmodified" in key[0]]
    assert unmodified == [
        ("onnxruntime, unmodified", "onnxruntime", "fp32"),
        ("openvino, unmodified", "openvino", "fp32"),
        ("openvino, unmodified", "openvino", "fp16"),
    ]
    assert not [key for key in keys(precisions=("fp32",), **options) if key[4] == "fp16"]


def test_a_baseline_says_why_it_cannot_be_measured():
    assert "transformers has no icnet" in refusal("transformers", "icnet")
    assert refusal("onnxruntime", "icnet") == ""
    assert all(isinstance(refusal(name, "segformer-b0"), str) for name in BASELINES)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"models": ("segformer-b9",)}, "unknown model"),
        ({"backends": ("abacus",)}, "unknown backend 'abacus'; there are"),
        ({"precisions": ("int4",)}, "unknown precision 'int4'; there are fp32, fp16, int8"),
        ({"baselines": ("pytorch",)}, "unknown baseline 'pytorch'; there are torch,"),
        ({"models": ("icnet",), "weights": ("a", "b")}, "--weights is given 2 times and --model 1 times"),
        ({"weights": ("random",)}, "--weights belong to a --model"),
        ({"bundles": (Path("b"),), "baselines": ("torch",)}, "a bundle does not hold it as published"),
        ({"rounds": 0}, "--rounds must be at least 1, got 0"),
        ({"batches": (0,)}, "a batch must be at least 1, got 0"),
        ({"split": "val"}, "--data, which is not given"),
    ],
)
def test_what_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        plan(BenchOptions(**options))
