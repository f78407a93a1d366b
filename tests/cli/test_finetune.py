"""`edgeseg finetune` as a user meets it: stopped by Ctrl-C, resumed, and its errors."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from edgeseg.labels import LABEL_SETS
from edgeseg.samples import synthetic_street

COMMAND = [str(Path(sys.executable).with_name("edgeseg")), "finetune"]
PATIENCE = 120  # seconds


@pytest.fixture(scope="module")
def streets(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("streets")
    (root / "classes.json").write_text(json.dumps(list(LABEL_SETS["camvid"].classes)))
    for split in ("train", "val"):
        image, labels = synthetic_street(len(split), (64, 96))
        for kind, array in (("images", image), ("labels", labels)):
            (root / kind / split).mkdir(parents=True)
            Image.fromarray(array).save(root / kind / split / "0.png")
    return root


def test_ctrl_c_and_resume(streets, tmp_path):
    run = [*COMMAND, "-m", "segformer-b0", "--data", str(streets), "-o", str(tmp_path / "run"), "--crop", "32x48"]
    run += ["--batch", "2", "--iterations", "5000", "--evaluate-every", "1", "--json"]
    process = subprocess.Popen(run, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    log, deadline = tmp_path / "run" / "log.jsonl", time.monotonic() + PATIENCE
    while not log.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=PATIENCE)
    assert (process.returncode, stdout) == (130, ""), stderr
    assert stderr.strip() == "error: stopped by Ctrl-C; nothing was left half-written"
    done = json.loads(log.read_text().splitlines()[-1])["iteration"]

    again = subprocess.run([*run, "--resume", "--time-limit", "1e-6"], capture_output=True, text=True, timeout=PATIENCE)
    report = json.loads(again.stdout)
    assert (report["stopped"], report["iteration"]) == ("time limit", done + 1)
    assert Path(report["weights"]).is_file()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["-m", "segformer-b0"], 1, "no data set in a known layout"),
        ([], 2, "pass one of --model and --onnx, got none"),
        (["-m", "segformer-b0", "--crop", "8x8"], 2, "HEIGHTxWIDTH"),
    ],
)
def test_errors_are_one_line(tmp_path, arguments, code, words):
    command = [*COMMAND, *arguments, "--data", str(tmp_path), "-o", str(tmp_path / "run")]
    process = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert process.returncode == code
    assert words in " ".join(process.stderr.split()) and "Traceback" not in process.stderr
    assert not (tmp_path / "run").exists()
