"""Builds one TensorRT or TensorRT-RTX engine; run as a process of its own, `python -m edgeseg.backends.trt_builder`.

A process of its own because a failed build leaves the library in a state that spoils the next one, and because a crash
or an out-of-memory kill then becomes a message. It reads one JSON request from a line of stdin and says what happens as
JSON lines on stdout; the end of stdin means stop. Precision is in the ONNX (strongly typed), never in builder flags.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TextIO

from edgeseg.backends.trt_layers import read_layers

if TYPE_CHECKING:
    import tensorrt

Emit = Callable[[dict[str, Any]], None]
GRACE_S = 10.0  # how long a stopped build may take to notice, before the process ends itself
SEVERITIES = "FEWIV"  # internal (fatal) error, error, warning, info, verbose: ILogger.Severity in order


class BuildFailedError(Exception):
    """The library said no; the message is for the user."""


def main() -> int:
    # The library's own prints must not mix with the events.
    events = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def emit(event: dict[str, Any]) -> None:
        with suppress(BrokenPipeError):  # the parent is gone, and stdin ends the build
            events.write(json.dumps(event) + "\n")

    request = json.loads(sys.stdin.readline())
    stopped = threading.Event()
    threading.Thread(target=_watch_stdin, args=(stopped,), daemon=True).start()
    with Path(request["log"]).open("w", buffering=1, encoding="utf-8", errors="replace") as log:
        try:
            result = build(importlib.import_module(request["module"]), request, log, emit, stopped)
        except (BuildFailedError, OSError) as error:
            emit({"event": "error", "message": str(error)})
            return 1
        except Exception as error:  # the binding raises TypeError where the library gives no object
            emit({"event": "error", "message": f"{type(error).__name__}: {error}"})
            return 1
    result |= read_layers(Path(request["log"]))
    emit({"event": "done", **result})
    return 0


def build(
    module: ModuleType, request: Mapping[str, Any], log: TextIO, emit: Emit, stopped: threading.Event
) -> dict[str, Any]:
    """Write the plan; returns {"seconds", "inputs"}.

    Args:
        module: `tensorrt` (10.3 - 11.x) or `tensorrt_rtx`.
        request: see `trt_process.builder_request`.
        log: every message of the library, one letter of severity in front.
        emit: takes the events of the progress bars.
        stopped: set to cancel.
    """
    if TYPE_CHECKING:
        import tensorrt as trt
    else:
        trt = module
    begin = time.perf_counter()
    logger = make_logger(module, log)
    builder = trt.Builder(logger.ilogger)
    if request["threads"] is not None:
        builder.max_threads = request["threads"]
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)  # newer versions know nothing else
    network = builder.create_network(0 if flag is None else 1 << int(flag))
    _parse(module, network, logger, request["onnx"])
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, request["workspace_bytes"])
    if request["precision"] == "fp32":
        config.clear_flag(trt.BuilderFlag.TF32)  # on by default, and ten bits of mantissa are no FP32
    if request["optimization_level"] is not None:
        config.builder_optimization_level = request["optimization_level"]
    inputs = _add_profile(builder, network, config, request["profiles"])
    _set_compute_capabilities(module, config, request["compute_capabilities"])
    cache_path = Path(request["timing_cache"]) if request["timing_cache"] else None
    if cache_path:
        blob = cache_path.read_bytes() if cache_path.is_file() else b""
        config.set_timing_cache(config.create_timing_cache(blob), ignore_mismatch=False)
    config.progress_monitor = make_monitor(module, emit, stopped)

    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise BuildFailedError("stopped" if stopped.is_set() else logger.last_errors())
    _write_atomically(Path(request["plan"]), memoryview(plan))
    if cache_path:
        cache_path.parent.mkdir(parents=True, exist_ok=True)
        _write_atomically(cache_path, memoryview(config.get_timing_cache().serialize()))
    return {"seconds": round(time.perf_counter() - begin, 3), "inputs": inputs}


class Log:
    """Where the library's messages go: all to a file, errors and warnings kept as well."""

    def __init__(self, file: TextIO | None = None):
        self.ilogger: Any = None
        self._file = file
        self._lines: list[tuple[int, str]] = []

    def add(self, severity: int, message: str) -> None:
        if self._file:
            self._file.write(f"{SEVERITIES[severity]} {message}\n")
        if severity <= 2:
            self._lines.append((severity, message.strip()))

    def last_errors(self, count: int = 3) -> str:
        """The library's last words, oldest first; warnings where there is no error."""
        errors = [message for severity, message in self._lines if severity <= 1]
        return "; ".join((errors or [message for _, message in self._lines])[-count:]) or "it gave no reason"


def make_logger(module: ModuleType, file: TextIO | None = None) -> Log:
    """A `Log` whose `ilogger` the library takes. Keep it alive as long as what was made with it."""
    if TYPE_CHECKING:
        import tensorrt as trt
    else:
        trt = module
    collected = Log(file)

    class Logger(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: tensorrt.ILogger.Severity, msg: str) -> None:
            collected.add(int(severity), msg)

    collected.ilogger = Logger()
    return collected


def make_monitor(module: ModuleType, emit: Emit, stopped: threading.Event) -> tensorrt.IProgressMonitor:
    """The library's progress as events, and its way to be stopped. TensorRT may call it from several threads."""
    if TYPE_CHECKING:
        import tensorrt as trt
    else:
        trt = module

    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._lock = threading.Lock()

        def _emit(self, event: str, phase: str, **rest: Any) -> None:
            with self._lock:
                emit({"event": event, "phase": phase, **rest})

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._emit("phase", phase_name, steps=num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            self._emit("step", phase_name)
            return not stopped.is_set()

        def phase_finish(self, phase_name: str) -> None:
            self._emit("end", phase_name)

    return Monitor()


def _parse(module: ModuleType, network: tensorrt.INetworkDefinition, logger: Log, onnx: str) -> None:
    if TYPE_CHECKING:
        import tensorrt as trt
    else:
        trt = module
    parser = trt.OnnxParser(network, logger.ilogger)
    if parser.parse_from_file(onnx):
        return
    errors = [parser.get_error(i) for i in range(parser.num_errors)]
    said = "; ".join(f"node {error.node_name() or error.node()}: {error.desc()}" for error in errors[:3])
    raise BuildFailedError(f"its ONNX parser: {said or logger.last_errors()}")


def _add_profile(
    builder: tensorrt.Builder,
    network: tensorrt.INetworkDefinition,
    config: tensorrt.IBuilderConfig,
    profiles: Mapping[str, list[list[int]]],
) -> dict[str, list[int]]:
    """Shapes of the inputs by name; a profile for the dynamic ones, which the library would otherwise refuse late."""
    inputs = [network.get_input(i) for i in range(network.num_inputs)]
    shapes = {tensor.name: list(tensor.shape) for tensor in inputs}
    if unknown := set(profiles) - set(shapes):
        raise BuildFailedError(f"there is a profile for {', '.join(unknown)}, the inputs are {', '.join(shapes)}")
    missing = [name for name, shape in shapes.items() if -1 in shape and name not in profiles]
    if missing:
        raise BuildFailedError(
            f"input {missing[0]} has the dynamic shape {shapes[missing[0]]} and no profile; "
            f"give its smallest, usual and largest shape (--batch 1:4:8), or export a static network"
        )
    if profiles:
        profile = builder.create_optimization_profile()
        for name, (smallest, usual, largest) in profiles.items():
            profile.set_shape(name, smallest, usual, largest)
        if config.add_optimization_profile(profile) < 0:
            raise BuildFailedError(f"the profiles {dict(profiles)} do not fit the inputs {shapes}")
    return shapes


def _set_compute_capabilities(module: ModuleType, config: tensorrt.IBuilderConfig, wanted: list[str]) -> None:
    """TensorRT-RTX builds for GPUs that are not here; TensorRT for the one that is."""
    if not wanted:
        return
    if TYPE_CHECKING:
        import tensorrt as trt
    else:
        trt = module
    if not hasattr(trt, "ComputeCapability"):
        raise BuildFailedError("it builds for the GPU at hand, a compute capability cannot be chosen")
    known = {name: value for name, value in trt.ComputeCapability.__members__.items() if name.startswith("SM")}
    config.num_compute_capabilities = len(wanted)  # type: ignore[attr-defined, unused-ignore]
    for i, capability in enumerate(wanted):
        name = "SM" + capability.replace(".", "")
        if name not in known or not config.set_compute_capability(known[name], i):  # type: ignore[attr-defined, unused-ignore]
            there = ", ".join(f"{n[2:-1]}.{n[-1]}" for n in known)
            raise BuildFailedError(f"it does not build for compute capability {capability}; it knows {there}")


def _write_atomically(path: Path, content: memoryview) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _watch_stdin(stopped: threading.Event) -> None:
    """The parent closes stdin to stop the build, and its death closes it too."""
    sys.stdin.read()
    stopped.set()
    time.sleep(GRACE_S)
    os._exit(130)


if __name__ == "__main__":
    sys.exit(main())
