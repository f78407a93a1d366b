"""The command line as a user meets it: real processes' worth of arguments, real exit codes, one line of error."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgeseg.models import MODELS
from edgeseg.samples import synthetic_street

PYTHON = Path(sys.executable)


def edgeseg(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess:
    command = [str(PYTHON.with_name("edgeseg")), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=300)


def fails(process: subprocess.CompletedProcess, code: int, *words: str) -> str:
    """One line on stderr, the right code, nothing on stdout."""
    assert process.returncode == code, process.stderr
    assert process.stdout == ""
    assert "Traceback" not in process.stderr
    lines = [line for line in process.stderr.splitlines() if line.strip()]
    if code == 1:
        assert len(lines) == 1, process.stderr
    for word in words:
        assert word in " ".join(process.stderr.split()), process.stderr
    return process.stderr


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    """The main job at a small size, through the command line."""
    path = tmp_path_factory.mktemp("bundles") / "b0"
    process = edgeseg("build", "--model", "segformer-b0", "--size", "96x128", "-b", "onnxruntime", "-o", path, "--json")
    assert process.returncode == 0, process.stderr
    report = json.loads(process.stdout)
    assert report["bundle"] == str(path)
    assert report["verification"]["passed"]
    return path


@pytest.fixture(scope="module")
def street(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("images") / "street.png"
    image, _ = synthetic_street(3, (120, 160))
    Image.fromarray(image).save(path)
    return path


@pytest.mark.parametrize(
    "command", [[], ["build"], ["run"], ["eval"], ["models"], ["inspect"], ["doctor"], ["finetune"]]
)
def test_help(command):
    process = edgeseg(*command, "--help")
    assert process.returncode == 0
    assert "Usage: edgeseg" in process.stdout


def test_build_report_has_the_contract(bundle):
    process = edgeseg("inspect", bundle, "--json")
    manifest = json.loads(process.stdout)
    assert manifest["precision"] == "fp32"
    assert manifest["backend"]["backend"] == "onnxruntime"
    entry = MODELS["segformer-b0"]  # closed forms; the manifest's are counted on the graphs
    assert manifest["gmacs"]["published"] == pytest.approx(entry.published_macs((96, 128), 11) / 1e9)
    assert manifest["gmacs"]["deployed"] == pytest.approx(entry.deployed_macs((96, 128), 11) / 1e9)
    assert manifest["verification"]["label_agreement"] > 0.999


def test_run_writes_labels_and_overlay(bundle, street, tmp_path):
    process = edgeseg("run", bundle, street, "-o", tmp_path, "--json")
    assert process.returncode == 0, process.stderr
    report = json.loads(process.stdout)
    (entry,) = report["outputs"]
    labels = np.asarray(Image.open(entry["labels"]))
    assert labels.shape == (120, 160)
    assert labels.max() < 11
    assert sum(entry["classes"].values()) == pytest.approx(1, abs=1e-4)
    assert Image.open(entry["overlay"]).size[0] >= 160
    assert set(report["latency_ms"]) == {"preprocess", "engine", "tail"}


def test_run_on_a_video(bundle, tmp_path):
    from edgeseg.video import VideoReader, write_video

    with write_video(tmp_path / "drive.mp4", 10) as writer:
        for seed in range(3):
            writer.write(synthetic_street(seed, (120, 160))[0])
    process = edgeseg("run", bundle, tmp_path / "drive.mp4", "-o", tmp_path / "out", "--max-frames", 2, "--json")
    assert process.returncode == 0, process.stderr
    (entry,) = json.loads(process.stdout)["outputs"]
    assert entry["overlay"].endswith("drive-overlay.mp4")
    assert sum(entry["classes"].values()) == pytest.approx(1, abs=1e-3)
    with VideoReader(entry["overlay"]) as video:
        assert [frame.shape for frame in video] == [(120, 160, 3)] * 2


def test_eval_on_a_generic_tree(bundle, tmp_path):
    for kind in ("images", "labels"):
        (tmp_path / kind / "val").mkdir(parents=True)
    for seed in range(2):
        image, labels = synthetic_street(seed, (120, 160))
        Image.fromarray(image).save(tmp_path / "images" / "val" / f"{seed}.png")
        Image.fromarray(labels).save(tmp_path / "labels" / "val" / f"{seed}.png")
    process = edgeseg("eval", bundle, "--data", tmp_path, "--save", tmp_path / "out", "--json")
    assert process.returncode == 0, process.stderr
    report = json.loads(process.stdout)
    assert report["images"] == 2 and report["split"] == "val"
    assert len(report["per_class_iou"]) == 11
    # the saved labels give the same number by other means
    hits = union = np.zeros(11)
    for seed in range(2):
        target = np.asarray(Image.open(tmp_path / "labels" / "val" / f"{seed}.png"))
        labels = np.asarray(Image.open(tmp_path / "out" / f"{seed}.png"))
        hits = hits + [((labels == c) & (target == c)).sum() for c in range(11)]
        union = union + [(((labels == c) & (target != 255)) | (target == c)).sum() for c in range(11)]
    assert report["miou"] == pytest.approx(np.mean(hits[union > 0] / union[union > 0]))


def test_models_lists_all_six():
    rows = json.loads(edgeseg("models", "--json").stdout)
    by_name = {row["name"]: row for row in rows}
    assert by_name["segformer-b0"]["gmacs"]["published"] == pytest.approx(8.388, abs=5e-4)
    assert by_name["segformer-b5"]["params"] == 84708694


def test_doctor():
    report = json.loads(edgeseg("doctor", "--json").stdout)
    assert report["backends"]["onnxruntime"]["usable"]
    assert set(report["kernels"]) == {"cpu", "cuda", "torch"}


class TestBadInput:
    @pytest.mark.parametrize("size", ["0x5", "512", "axb", "-3x4", "512x1000000"])
    def test_size(self, size):
        fails(edgeseg("build", "--model", "segformer-b0", f"--size={size}"), 2, "HEIGHTxWIDTH")

    def test_two_precisions(self):
        fails(
            edgeseg("build", "--model", "segformer-b0", "--fp16", "--int8"), 2, "--fp16 and --int8 exclude each other"
        )

    def test_two_ways_to_say_a_precision(self):
        words = "--int8 and --precision auto exclude each other"
        fails(edgeseg("build", "--model", "segformer-b0", "--int8", "--precision", "auto"), 2, words)

    def test_no_network(self):
        fails(edgeseg("build"), 2, "exactly one of --model, --onnx and --module")

    def test_unknown_model_suggests(self):
        fails(edgeseg("build", "--model", "segformer-b9"), 2, "segformer-b0")

    def test_missing_bundle(self, tmp_path, street):
        fails(edgeseg("run", tmp_path / "none", street), 1, "not a bundle")

    def test_text_file_as_image(self, bundle, tmp_path):
        (tmp_path / "a.png").write_text("I am a text file")
        fails(edgeseg("run", bundle, tmp_path / "a.png", "-o", tmp_path / "out"), 1, "a.png")

    def test_truncated_png(self, bundle, street, tmp_path):
        data = street.read_bytes()
        (tmp_path / "half.png").write_bytes(data[: len(data) // 2])
        fails(edgeseg("run", bundle, tmp_path / "half.png", "-o", tmp_path / "out"), 1, "half.png")

    @pytest.mark.parametrize("mode", ["1x1", "L", "RGBA", "I;16"])
    def test_unusual_images_work(self, bundle, tmp_path, mode):
        array = np.random.default_rng(0).integers(0, 256, (40, 50), np.uint8)
        images = {
            "1x1": Image.new("RGB", (1, 1)),
            "L": Image.fromarray(array),
            "RGBA": Image.fromarray(np.stack([array] * 4, axis=-1)),
            "I;16": Image.fromarray(array.astype(np.uint16) * 257),
        }
        images[mode].save(tmp_path / "in.png")
        process = edgeseg("run", bundle, tmp_path / "in.png", "-o", tmp_path / "out", "--json")
        assert process.returncode == 0, process.stderr
        labels = Image.open(json.loads(process.stdout)["outputs"][0]["labels"])
        assert labels.size == images[mode].size

    def test_int8_of_foreign_weights_wants_images(self, tmp_path):
        process = edgeseg("build", "--model", "segformer-b0", "--weights", "random", "--size", "64x64", "--int8",
                          "-o", tmp_path / "b")  # fmt: skip
        fails(process, 1, "--calibration-data")
        assert list(tmp_path.iterdir()) == []

    def test_altered_bundle(self, bundle, street, tmp_path):
        import shutil

        copy = tmp_path / "copy"
        shutil.copytree(bundle, copy)
        data = bytearray((copy / "model.onnx").read_bytes())
        data[1000] ^= 255
        (copy / "model.onnx").write_bytes(data)
        fails(edgeseg("run", copy, street), 1, "altered", "Rebuild it: edgeseg build")

    def test_failed_gate_keeps_the_old_bundle(self, tmp_path):
        common = ("build", "--model", "segformer-b0", "--size", "64x96", "-b", "onnxruntime", "-o", tmp_path / "b")
        assert edgeseg(*common, "--fp16", "--max-drop", "100").returncode == 0
        before = (tmp_path / "b" / "manifest.json").read_bytes()
        process = edgeseg(*common, "--fp16", "--max-drop", "0")
        fails(process, 1, "fails the gate and was not kept")
        assert (tmp_path / "b" / "manifest.json").read_bytes() == before

    def test_onnx_is_a_text_file(self, tmp_path):
        (tmp_path / "net.onnx").write_text("not a network")
        fails(edgeseg("build", "--onnx", tmp_path / "net.onnx", "-o", tmp_path / "b"), 1, "net.onnx")

    def test_disk_full(self, tmp_path):
        """A limit on the size of files stands in for a full disk: both are an OSError in the middle of a write."""
        import resource

        command = [str(PYTHON.with_name("edgeseg")), "build", "--model", "segformer-b0", "--size", "64x64"]
        process = subprocess.run(
            [*command, "-b", "onnxruntime", "-o", str(tmp_path / "b")],
            capture_output=True,
            text=True,
            timeout=300,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000)),
        )
        fails(process, 1, "File too large")
        assert list(tmp_path.iterdir()) == []

    def test_ctrl_c_in_the_middle_of_a_build(self, tmp_path):
        import signal
        import time

        command = [str(PYTHON.with_name("edgeseg")), "build", "--model", "segformer-b0", "--size", "64x64"]
        process = subprocess.Popen(
            [*command, "-o", str(tmp_path / "b")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        deadline = time.monotonic() + 120
        while not list(tmp_path.iterdir()) and time.monotonic() < deadline:
            time.sleep(0.02)  # until the staging folder shows that the build is under way
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=120)
        assert process.returncode == 130, stderr
        assert stdout == ""
        assert [line for line in stderr.splitlines() if line.strip()] == [
            "error: stopped by Ctrl-C; nothing was left half-written"
        ]
        assert list(tmp_path.iterdir()) == []
