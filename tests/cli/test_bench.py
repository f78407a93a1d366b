"""`edgeseg bench` and `edgeseg compare` as a user meets them."""

import io
import json
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import pytest

from edgeseg.cli import main

NETWORK = """
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 5, 3, 2, 1))
"""
PROGRAM = str(Path(sys.executable).with_name("edgeseg"))


FORMS = ("markdown", "latex", "csv", "html")


class Process(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


def edgeseg(*arguments: object) -> Process:
    """The program's own entry point, in this process: starting Python and its packages takes seconds."""
    stdout, stderr, code = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(stdout), redirect_stderr(stderr):
        patch.setattr(sys, "argv", ["edgeseg", *map(str, arguments)])
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
    return Process(code, stdout.getvalue(), stderr.getvalue())


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    (folder / "cli_network.py").write_text(NETWORK)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        process = edgeseg(
            *("build", "--module", "cli_network:make", "--size", "64x96", "-b", "onnxruntime", "-o", folder / "b")
        )
    assert process.returncode == 0, process.stderr
    return folder / "b"


@pytest.fixture(scope="module")
def results(bundle) -> Path:
    """One run with every form of output."""
    output = bundle.parent / "results.json"
    files = [
        word for form in ("markdown", "latex", "csv", "html") for word in (f"--{form}", output.with_suffix(f".{form}"))
    ]
    process = edgeseg("bench", "--bundle", bundle, "--quick", "--threads", 1, "-o", output, *files, "--json")
    assert process.returncode == 0, process.stderr
    assert json.loads(process.stdout) == json.loads(output.read_text())
    return output


def test_every_form_of_the_table_is_written(results):
    for form in FORMS:
        assert "make" in results.with_suffix(f".{form}").read_text()  # the network's name


def test_the_document_says_how_it_was_measured(results):
    document = json.loads(results.read_text())
    assert document["kind"] == "edgeseg-bench" and document["is_complete"]
    assert document["environment"]["cpu"]["threads"] == 1
    assert {"load_1min", "mhz", "throttled", "governor"} <= set(document["environment"]["cpu"])
    assert document["environment"]["versions"]["onnxruntime"]
    assert document["arguments"]["rounds"] == 6
    (row,) = document["rows"]
    assert row["failure"] is None and row["latency"]["runs"] == 6
    assert row["energy_joules"] is None and row["peak_memory_bytes"] is None  # --quick: not measured, not 0


def test_the_table_is_for_people(results, bundle):
    process = edgeseg("bench", "--bundle", bundle, "--quick", "--threads", 1, "-o", results, "--resume")
    assert process.returncode == 0, process.stderr
    assert "Own networks" in process.stdout and "FPS" in process.stdout
    assert "not measured: " in process.stdout


def test_compare_passes_what_is_the_same_and_fails_what_is_worse(results, tmp_path):
    process = edgeseg("compare", results, results)
    assert process.returncode == 0, process.stderr
    assert "no regression in 1 cells" in process.stdout
    document = json.loads(results.read_text())
    for name in ("p50", "low", "high", "p95", "p99"):
        document["rows"][0]["latency"][name] *= 100
    (tmp_path / "slow.json").write_text(json.dumps(document))
    process = edgeseg("compare", results, tmp_path / "slow.json", "--json")
    assert process.returncode == 1
    report = json.loads(process.stdout)
    assert report["regressions"] == 1 and report["rows"][0]["speed"] == "slower"
    process = edgeseg("compare", tmp_path / "slow.json", results)
    assert process.returncode == 0 and "faster" in process.stdout


def test_ctrl_c_says_how_to_go_on(bundle, tmp_path):
    output = tmp_path / "r.json"
    command = [PROGRAM, "bench", "--bundle", bundle, "--rounds", "10000", "--no-memory", "-o", output]
    process = subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    folder = tmp_path / "r-cells"
    while not folder.exists() and process.poll() is None:  # made when the measuring begins
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert stdout == "" and "Traceback" not in stderr
    assert stderr.strip().splitlines()[-1] == "error: stopped by Ctrl-C; nothing was left half-written"


class TestBadInput:
    def fails(self, code: int, words: str, *arguments: object) -> None:
        process = edgeseg(*arguments)
        assert process.returncode == code, process.stderr
        assert process.stdout == "" and "Traceback" not in process.stderr
        assert words in " ".join(process.stderr.split()), process.stderr

    def test_unknown_names(self):
        self.fails(2, "did you mean segformer-b5", "bench", "--model", "segformer-b")
        self.fails(2, "unknown backend 'abacus'", "bench", "--backend", "abacus")

    def test_both_kinds_of_baselines(self):
        self.fails(
            2, "--baseline and --no-baselines exclude each other", "bench", "--no-baselines", "--baseline", "torch"
        )

    def test_output_that_is_there(self, results, bundle):
        self.fails(1, "exists; --resume goes on with it", "bench", "--bundle", bundle, "-o", results)

    def test_data_that_is_not_there(self, bundle, tmp_path):
        self.fails(1, "is not a folder", "bench", "--bundle", bundle, "--data", tmp_path / "none")

    def test_compare_wants_results(self, results, tmp_path):
        self.fails(1, "does not exist; `edgeseg bench --output", "compare", results, tmp_path / "none.json")
        (tmp_path / "other.json").write_text("{}")
        self.fails(1, "is not a result of `edgeseg bench --output`", "compare", results, tmp_path / "other.json")
