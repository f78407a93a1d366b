"""What a run leaves on disk: its state for resuming, its best weights, its log; and how it is asked to stop."""

import json
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgeseg.errors import CheckpointError, InputError
from edgeseg.files import make_folder, replacing, write_error

STATE, BEST, LOG = "last.pt", "best.safetensors", "log.jsonl"


@dataclass
class RunState:
    """Where a run stands: what is needed to go on as if it had never stopped."""

    network: nn.Module
    ema: nn.Module
    optimizer: torch.optim.Optimizer
    recipe: Mapping[str, Any]  # what must not change between two parts of a run
    iteration: int = 0  # iterations done
    best: float = -1.0  # best validation figure so far
    seconds: float = field(default=0.0)  # spent in all parts


def save_state(folder: Path, state: RunState) -> None:
    """Written whole or not at all, on the disk when this returns."""
    content = {
        "network": state.network.state_dict(),
        "ema": state.ema.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "recipe": dict(state.recipe),
        "iteration": state.iteration,
        "best": state.best,
        "seconds": state.seconds,
    }
    with replacing(folder / STATE, durable=True) as temporary:
        try:
            torch.save(content, temporary)
        except (OSError, RuntimeError) as error:  # torch turns a full disk into a RuntimeError
            raise write_error(folder / STATE, error if isinstance(error, OSError) else OSError(str(error))) from error


def restore_state_(folder: Path, state: RunState) -> None:
    """Fill `state` from the folder of an earlier part of the run.

    Raises:
        CheckpointError: it is damaged, or another network's run.
    """
    path = folder / STATE
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        recipe = content["recipe"]
    except Exception as error:  # a damaged pickle raises anything
        raise CheckpointError(f"{path} is damaged ({type(error).__name__}); begin again in another folder") from error
    different = [key for key in state.recipe if recipe.get(key) != state.recipe[key]]
    if different:
        raise CheckpointError(
            f"{folder} holds a run with {', '.join(f'{key} {recipe.get(key)}' for key in different)}; this one has "
            f"{', '.join(f'{key} {state.recipe[key]}' for key in different)}: give the same, or another --output"
        )
    state.network.load_state_dict(content["network"])
    state.ema.load_state_dict(content["ema"])
    state.optimizer.load_state_dict(content["optimizer"])
    state.iteration, state.best, state.seconds = content["iteration"], content["best"], content["seconds"]


def claim_folder(folder: Path, *, resume: bool) -> Path:
    """The run's folder; refused where it holds a run that is not to be resumed, or none that is.

    Raises:
        InputError: so it is, or it cannot be made.
    """
    holds_run = (folder / STATE).is_file()
    if resume and not holds_run:
        raise InputError(f"{folder} holds no run to resume ({STATE} is not there); leave out --resume to begin one")
    make_folder(folder)
    if holds_run and not resume:
        raise InputError(f"{folder} holds a run already; go on with it (--resume), or choose another --output")
    return folder


class Log:
    """One JSON object a line, appended and flushed, so that a run can be watched from outside."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOG

    def __call__(self, **entry: Any) -> None:
        line = json.dumps(entry | {"time": round(time.time())})
        with self.path.open("a") as file:
            file.write(line + "\n")


class StopRequest:
    """True once Ctrl-C or a termination signal came; a second Ctrl-C stops at once."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __bool__(self) -> bool:
        return self.signal is not None

    def handle(self, number: int, _: object) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = number


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Signals wait for the end of the iteration, so that the state on disk is that of a whole one."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, request.handle) for number in numbers}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
