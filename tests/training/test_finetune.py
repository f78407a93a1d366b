"""Training: it learns, a broken run equals an unbroken one, and what is refused."""

import copy
import json
import os
import signal
import threading

import numpy as np
import pytest
import torch
from torch import nn

from edgeseg.bundle import writing_bundle
from edgeseg.datasets import open_dataset
from edgeseg.errors import CheckpointError, EdgesegError, InputError
from edgeseg.labels import LABEL_SETS
from edgeseg.models import create_model
from edgeseg.models.segformer import SegFormerHead
from edgeseg.models.weights import load_weights, network_from_weights
from edgeseg.training.data import LabelledImages, normalise, training_batch
from edgeseg.training.finetune import balanced_cross_entropy, finetune
from edgeseg.training.loop import fit
from edgeseg.training.options import FinetuneOptions
from edgeseg.training.recipe import default_learning_rate, learning_rate, parameter_groups, quicken_, update_ema
from edgeseg.training.state import RunState, restore_state_

CPU = torch.device("cpu")


def small_network() -> nn.Module:
    """With everything that has state: batch norm's statistics, dropout's random numbers."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout2d(0.2), nn.Conv2d(8, 11, 3, 2, 1)
    )


def new_state() -> RunState:
    network = small_network()
    optimizer = torch.optim.AdamW(parameter_groups(network, 0.01), 1e-3)
    return RunState(network, copy.deepcopy(network).eval(), optimizer, {"model": "small"})


def run(state: RunState, streets, folder, evaluate=None, backward=None, **options):
    given = {"model": "segformer-b0", "data": streets, "output": folder, "iterations": 6, "batch": 3, **options}
    best = []

    def by_labels(network, inputs, labels):
        loss = balanced_cross_entropy(network(inputs), labels, torch.ones(11))
        loss.backward()
        return loss.item()

    stopped = fit(
        state,
        LabelledImages(open_dataset(streets, "train"), (64, 96)),
        FinetuneOptions(**given),
        1e-2,
        (32, 48),
        CPU,
        backward=backward or by_labels,
        evaluate=evaluate or (lambda network: {"miou": 1.0}),
        save_best=lambda network, figure, iteration: best.append((figure, iteration)),
    )
    return stopped, best


def everything(state: RunState) -> list[np.ndarray]:
    moments = [t for s in state.optimizer.state_dict()["state"].values() for t in s.values()]
    tensors = [*state.network.state_dict().values(), *state.ema.state_dict().values(), *moments]
    return [t.detach().numpy().copy() for t in tensors]


def test_a_resumed_run_is_the_unbroken_one_to_the_bit(streets, tmp_path):
    unbroken = new_state()
    run(unbroken, streets, tmp_path)
    folder = tmp_path / "parts"
    folder.mkdir()
    torch.manual_seed(99)  # whatever the caller drew before
    assert run(new_state(), streets, folder, time_limit=1e-9)[0].reason == "time limit"
    for _ in range(2):
        state = new_state()
        restore_state_(folder, state)
        torch.manual_seed(7)
        stopped, _ = run(state, streets, folder, time_limit=1e-9)
    assert stopped.iteration == state.iteration == 3
    stopped, _ = run(state, streets, folder)
    assert stopped.reason == "done"
    for ours, theirs in zip(everything(state), everything(unbroken), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_callers_random_numbers_are_left_alone(streets, tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    state = new_state()
    torch.manual_seed(5)
    run(state, streets, tmp_path, iterations=1)
    assert torch.equal(torch.rand(3), expected)


def test_a_step_lowers_the_loss_on_its_batch(streets):
    images = LabelledImages(open_dataset(streets, "train"), (64, 96))
    pictures, labels = training_batch(images, 0, 0, 2, (32, 48), (1.0, 1.0))
    network = create_model("segformer-b0", 11).eval()
    optimizer = torch.optim.AdamW(parameter_groups(network, 0.01), 1e-4)
    losses = []
    for _ in range(3):
        loss = balanced_cross_entropy(network(normalise(pictures)), labels, torch.ones(11))
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[0] > losses[1] > losses[2]


def test_ctrl_c_waits_for_the_iteration_and_leaves_a_state(streets, tmp_path):
    state = new_state()
    sent = []

    def evaluate(network):
        if not sent:
            sent.append(os.kill(os.getpid(), signal.SIGINT))
        return {"miou": 1.0}

    stopped, _ = run(state, streets, tmp_path, evaluate, evaluate_every=2)
    assert (stopped.reason, stopped.iteration) == ("signal", 2)
    again = new_state()
    restore_state_(tmp_path, again)
    assert again.iteration == 2
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_training_works_outside_the_main_thread(streets, tmp_path):
    results = []
    thread = threading.Thread(target=lambda: results.append(run(new_state(), streets, tmp_path, iterations=1)))
    thread.start()
    thread.join()
    assert results[0][0].reason == "done"


def test_the_best_is_kept_and_the_log_tells(streets, tmp_path):
    figures = iter([3.0, 5.0, 4.0])
    _, best = run(new_state(), streets, tmp_path, lambda network: {"miou": next(figures)}, evaluate_every=2)
    assert best == [(3.0, 2), (5.0, 4)]
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [entry["miou"] for entry in log if "miou" in entry] == [3.0, 5.0, 4.0]
    assert log[-2]["eta_s"] == 0 and log[-2]["loss"] > 0


def test_a_loss_that_is_not_finite_is_an_error(streets, tmp_path):
    with pytest.raises(EdgesegError, match="training diverged; lower --lr"):
        run(new_state(), streets, tmp_path, backward=lambda *_: float("nan"))


def test_void_counts_for_nothing():
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    labels = torch.full((2, 8, 8), 255)
    assert balanced_cross_entropy(logits, labels, torch.ones(3)).item() == 0
    labels[0, :4] = 1
    upsampled = torch.nn.functional.interpolate(logits, (8, 8), mode="bilinear")
    by_hand = -upsampled.log_softmax(1)[0, 1, :4].mean()
    weights = torch.tensor([1.0, 7.0, 1.0])  # one class alone: its weight cancels
    assert balanced_cross_entropy(logits, labels, weights).item() == pytest.approx(by_hand.item(), rel=1e-5)


def test_schedule_and_running_mean():
    rates = [learning_rate(i, 100, 2.0, 50) for i in range(100)]
    assert rates[0] == pytest.approx(0.2) and max(rates) < 2 and min(rates) > 0
    assert rates[9:] == sorted(rates[9:], reverse=True)
    network, ema = small_network(), small_network()
    with torch.no_grad():
        network[0].weight.add_(1.0)
        network[1].running_mean.add_(2.0)
    update_ema(ema, network, 0.75)
    assert torch.allclose(ema[0].weight, small_network()[0].weight + 0.25)
    assert torch.allclose(ema[1].running_mean, torch.tensor(0.5))


def test_learning_rates_by_kind_of_network():
    plain = nn.Sequential(nn.Conv2d(3, 3, 1))
    assert default_learning_rate(small_network(), from_scratch=True) > default_learning_rate(plain, from_scratch=True)
    assert default_learning_rate(plain, from_scratch=False) == default_learning_rate(plain, from_scratch=True) / 10


def test_the_quicker_head_computes_the_same():
    torch.manual_seed(0)
    network = create_model("segformer-b0", 5).eval()
    images = torch.randn(1, 3, 65, 97)
    with torch.no_grad():
        expected = network(images)
        assert type(quicken_(network).decode_head) is not SegFormerHead
        torch.testing.assert_close(network(images), expected, rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def finished(streets, tmp_path_factory):
    """Two iterations of the bundled network's kind, from scratch."""
    folder = tmp_path_factory.mktemp("run")
    options = {"model": "segformer-b0", "data": streets, "weights": "random", "iterations": 2, "batch": 2}
    report = finetune(FinetuneOptions(**options, output=folder, crop=(32, 48), val_images=2))
    return folder, options, report


def test_the_best_weights_are_the_running_mean(finished):
    folder, _, report = finished
    assert report["stopped"] == "done" and report["val_images"] == 2
    assert 0 <= report["best_miou"] <= 100
    weights = load_weights(folder / "best.safetensors")
    assert (weights.model, weights.num_classes) == ("segformer-b0", 11)
    assert weights.class_names == LABEL_SETS["camvid"].classes  # as the data names them
    ema = torch.load(folder / "last.pt", weights_only=True)["ema"]
    for name, value in network_from_weights(weights).state_dict().items():
        if value.is_floating_point():  # stored as float16
            torch.testing.assert_close(value, ema[name], rtol=1e-3, atol=1e-3)


def test_a_bundles_network_is_found_again(finished, streets, tmp_path):
    folder, *_ = finished
    with writing_bundle(tmp_path / "b") as writer:
        writer.commit({"model": {"name": "segformer-b0", "weights": str(folder / "best.safetensors")}, "recipe": {}})
    given = {"data": streets, "iterations": 1, "batch": 2, "crop": (32, 48)}
    report = finetune(FinetuneOptions(model=str(tmp_path / "b"), output=tmp_path / "r", **given))
    assert report["model"] == "segformer-b0"
    assert report["learning_rate"] == pytest.approx(1.2e-4)  # a tenth, since the weights are trained


def test_a_bundle_of_another_network_is_refused(streets, tmp_path):
    with writing_bundle(tmp_path / "b") as writer:
        writer.commit({"model": {"name": "mine", "weights": "mine.onnx"}, "recipe": {}})
    with pytest.raises(InputError, match="a bundle of mine, which is no network of the zoo"):
        finetune(FinetuneOptions(model=str(tmp_path / "b"), data=streets, output=tmp_path / "r"))


def test_a_run_is_not_overwritten_and_not_mistaken(finished, tmp_path):
    folder, options, _ = finished
    with pytest.raises(InputError, match="holds a run already; go on with it"):
        finetune(FinetuneOptions(**options, output=folder))
    with pytest.raises(CheckpointError, match="holds a run with seed 0; this one has seed 1"):
        finetune(FinetuneOptions(**options, output=folder, resume=True, seed=1))
    with pytest.raises(InputError, match="holds no run to resume"):
        finetune(FinetuneOptions(**options, output=tmp_path, resume=True))
    (tmp_path / "last.pt").write_bytes(b"PK not a state")
    with pytest.raises(CheckpointError, match="is damaged"):
        finetune(FinetuneOptions(**options, output=tmp_path, resume=True))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"model": "segformer-b7"}, ValueError, "unknown model 'segformer-b7'"),
        ({"model": ""}, ValueError, "pass one of --model and --onnx, got none"),
        ({"onnx": "a.onnx"}, ValueError, "pass one of --model and --onnx, got both"),
        ({"scales": "s.json"}, ValueError, "--scales is for quantisation-aware training; add --qat"),
        ({"qat": True, "crop": (32, 32)}, ValueError, "leave out --crop"),
        ({"batch": 0}, ValueError, "--batch must be at least 1, got 0"),
        ({"learning_rate": 0.0}, ValueError, "--learning-rate must be above 0"),
        ({"time_limit": -1.0}, ValueError, "--time-limit must be above 0"),
        ({"scale": (0.0, 1.0)}, ValueError, "scale must be 0 < smallest"),
        ({"ema": 1.0}, ValueError, "ema must be"),
        ({"weight_offset": 1.0}, ValueError, "must be above 1"),
        ({"batch": 1}, ValueError, "batch norms, which need at least two images"),
        ({"weights": "none.pth"}, InputError, "there are no weights at none.pth"),
        ({"device": "cuda"}, EdgesegError, "this torch finds no GPU"),
    ],
)
def test_what_is_refused(streets, tmp_path, options, error, message):
    if options.get("device") and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    given = {"model": "segformer-b0", "data": streets, "output": tmp_path / "r", **options}
    with pytest.raises(error, match=message):
        finetune(FinetuneOptions(**given))
    assert not (tmp_path / "r").exists()


def test_data_without_names_is_refused(streets, tmp_path):
    for kind in ("images", "labels"):
        (tmp_path / kind).symlink_to(streets / kind)
    with pytest.raises(InputError, match="does not say what its classes are"):
        finetune(FinetuneOptions(model="segformer-b0", data=tmp_path, output=tmp_path / "r"))
