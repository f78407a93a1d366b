"""The training loop: steps, running mean of the weights, states on disk, evaluation."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from edgeseg.errors import EdgesegError
from edgeseg.progress import Progress
from edgeseg.training.data import LabelledImages, normalise, training_batch
from edgeseg.training.options import FinetuneOptions
from edgeseg.training.recipe import learning_rate, memory_format, update_ema
from edgeseg.training.state import Log, RunState, save_state, stop_on_signals

LOG_EVERY = 20  # iterations
LARGEST_GRADIENT = 1.0  # norm to which gradients are clipped

# network, (N, 3, h, w) input, (N, h, w) labels -> the loss, its gradients left in the parameters
Backward = Callable[[nn.Module, Tensor, Tensor], float]
Evaluate = Callable[[nn.Module], dict[str, object]]  # -> {"miou": percent, ...}, for the log


@dataclass(frozen=True)
class Stopped:
    """Why a run ended: "done", "time limit" or "signal"."""

    reason: str
    iteration: int


def fit(
    state: RunState,
    images: LabelledImages,
    options: FinetuneOptions,
    rate: float,
    crop: tuple[int, int],
    device: torch.device,
    *,
    backward: Backward,
    evaluate: Evaluate,
    save_best: Callable[[nn.Module, float, int], None],
    progress: Progress = Progress(),
) -> Stopped:
    """Train `state.network` until the iterations are done, the time is up or a signal asks to stop.

    The state is on disk (`options.output`) whenever this returns or raises, except for a second Ctrl-C.

    Raises:
        EdgesegError: the loss is not finite.
    """
    folder: Path = options.output
    log = Log(folder)
    begin = saved = time.monotonic()
    earlier = state.seconds
    with (
        torch.random.fork_rng(),
        stop_on_signals() as stop,
        progress.task(f"train {options.model}", options.iterations) as advance,
    ):
        advance(state.iteration)
        first = state.iteration
        while state.iteration < options.iterations:
            value = _step(state, images, options, rate, crop, device, backward)
            advance(1)
            now = time.monotonic()
            state.seconds = earlier + now - begin
            last = state.iteration == options.iterations
            if state.iteration % LOG_EVERY == 0 or last:
                pace = (now - begin) / (state.iteration - first)
                eta = round(pace * (options.iterations - state.iteration))
                log(iteration=state.iteration, loss=round(value, 4), seconds_per_iteration=round(pace, 3), eta_s=eta)
            if state.iteration % options.evaluate_every == 0 or last:
                report = evaluate(state.ema)
                log(iteration=state.iteration, loss=round(value, 4), **report)
                figure = float(report["miou"])  # type: ignore[arg-type]
                if figure > state.best:
                    state.best = figure
                    save_best(state.ema, figure, state.iteration)
            out_of_time = options.time_limit is not None and now - begin >= options.time_limit
            if last or stop or out_of_time or now - saved >= options.save_every:
                save_state(folder, state)
                saved = time.monotonic()
            if stop:
                return Stopped("signal", state.iteration)
            if out_of_time and not last:
                return Stopped("time limit", state.iteration)
    return Stopped("done", state.iteration)


def _step(
    state: RunState,
    images: LabelledImages,
    options: FinetuneOptions,
    rate: float,
    crop: tuple[int, int],
    device: torch.device,
    backward: Backward,
) -> float:
    """One iteration; the loss before it."""
    pictures, labels = training_batch(images, state.iteration, options.seed, options.batch, crop, options.scale)
    inputs = normalise(pictures).to(device, memory_format=memory_format(device))
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate(state.iteration, options.iterations, rate, options.warmup) * group.get("factor", 1)
    state.network.train()
    state.optimizer.zero_grad(set_to_none=True)
    value = backward(state.network, inputs, labels.to(device))
    if not math.isfinite(value):
        raise EdgesegError(
            f"the loss is {value} at iteration {state.iteration}: training diverged; lower --lr "
            f"(it was {rate:g}), or give --weights to start from"
        )
    nn.utils.clip_grad_norm_(state.network.parameters(), LARGEST_GRADIENT)
    state.optimizer.step()
    update_ema(state.ema, state.network, min(options.ema, (1 + state.iteration) / (10 + state.iteration)))
    state.iteration += 1
    return value
