"""The parent's side of `trt_builder`: starts it, draws its progress, stops it, and says why it failed."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from edgeseg.backends.base import BuildRequest, remove_files
from edgeseg.errors import EngineBuildError
from edgeseg.progress import Progress

PATIENCE_S = 3.0  # how long a stopped builder may take before it is killed


def builder_request(module: str, request: BuildRequest, plan: Path, workspace_bytes: int) -> dict[str, Any]:
    """The builder's JSON request, but for where its log goes."""
    return {
        "module": module,
        "onnx": str(request.onnx_path.absolute()),
        "plan": str(plan.absolute()),
        "precision": request.precision,
        "compute_capabilities": list(request.compute_capabilities),
        "workspace_bytes": workspace_bytes,
        "optimization_level": request.optimization_level,
        "threads": request.threads,
        "profiles": {name: [list(shape) for shape in shapes] for name, shapes in request.profiles.items()},
        "timing_cache": None,
    }


def run_builder(title: str, request: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Build in a process of its own; on any failure, Ctrl-C included, it is gone and so is the plan.

    Args:
        title: what to call the library: "TensorRT-RTX 1.7.1.116".
        request: of `builder_request`.

    Returns:
        What `trt_builder.build` returned, and the layers where the log has them.

    Raises:
        EngineBuildError: with the library's last words, and the path of its full log, which is kept.
    """
    with tempfile.NamedTemporaryFile("w", prefix="edgeseg-build-", suffix=".log", delete=False) as file:
        log = Path(file.name)
    kept = False
    try:
        with progress.task(f"build with {title}"):
            return _run({**request, "log": str(log)}, progress)
    except _BuilderError as error:
        kept = True
        raise EngineBuildError(f"{title} cannot build {request['onnx']}: {error} (its full log: {log})") from None
    finally:
        if not kept:
            log.unlink(missing_ok=True)


class _BuilderError(Exception):
    pass


def _run(request: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Events of the child until its result."""
    with tempfile.TemporaryFile() as errors, _Phases(progress) as phases:
        # Of its own session: Ctrl-C reaches this process alone, which then stops the child in an orderly way.
        child = subprocess.Popen(
            [sys.executable, "-m", "edgeseg.backends.trt_builder"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )
        assert child.stdin and child.stdout
        try:
            with contextlib.suppress(BrokenPipeError):  # it died at once; its exit says why
                child.stdin.write(json.dumps(request).encode() + b"\n")
                child.stdin.flush()
            for line in child.stdout:
                event = json.loads(line)
                if event["event"] == "done":
                    return {key: value for key, value in event.items() if key != "event"}
                if event["event"] == "error":
                    raise _BuilderError(event["message"])
                phases.show(event)
            raise _BuilderError(_why_it_died(child.wait(), errors, Path(request["log"])))
        except BaseException:
            _stop(child)
            plan = Path(request["plan"])
            remove_files(plan, *plan.parent.glob(f".{plan.name}.*"))
            raise
        finally:
            child.stdin.close()
            child.stdout.close()
            child.wait()


def _stop(child: subprocess.Popen[bytes]) -> None:
    """Ask by closing stdin, then kill."""
    try:
        if child.stdin:
            with contextlib.suppress(BrokenPipeError):
                child.stdin.close()
        child.wait(PATIENCE_S)
    except BaseException:
        child.kill()
        child.wait()


def _why_it_died(code: int, errors: Any, log: Path) -> str:
    """The words for a builder that ended without an answer."""
    if code == -signal.SIGKILL:
        how = "the builder was killed, most likely for lack of memory; free some, add swap, or lower workspace_bytes"
    elif code < 0:
        how = f"the builder crashed ({signal.Signals(-code).name})"
    else:
        how = f"the builder ended with code {code}"
    errors.seek(0)
    said = errors.read().decode(errors="replace").strip().splitlines()[-1:]
    logged = [line for line in log.read_text(errors="replace").splitlines() if line.startswith(("F ", "E "))][-2:]
    return "; ".join([how, *logged, *said])


class _Phases(AbstractContextManager["_Phases"]):
    """The builder's tree of phases as a stack of bars. Their names and number differ between versions."""

    def __init__(self, progress: Progress):
        self._progress = progress
        self._open: dict[str, tuple[AbstractContextManager[Callable[[int], None]], Callable[[int], None]]] = {}

    def show(self, event: dict[str, Any]) -> None:
        phase = event["phase"]
        if event["event"] == "phase" and phase not in self._open:
            task = self._progress.task(phase, event["steps"] or None)
            self._open[phase] = (task, task.__enter__())
        elif event["event"] == "step" and phase in self._open:
            self._open[phase][1](1)
        elif event["event"] == "end" and phase in self._open:
            self._open.pop(phase)[0].__exit__(None, None, None)

    def __exit__(self, *_: object) -> None:
        while self._open:
            self._open.popitem()[1][0].__exit__(None, None, None)
