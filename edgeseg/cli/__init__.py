"""The command line: one file a command, each of them options and one library call.

Results go to stdout, progress and errors to stderr. Exit codes: 0 ok, 1 failure with one line, 2 usage, 130 Ctrl-C.
"""

import sys

import typer

from edgeseg.cli import bench, build, compare, doctor, evaluate, finetune, inspect, models, run

app = typer.Typer(
    name="edgeseg",
    help="Semantic-segmentation networks, fast, small and provably right on the device they ship on.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with: edgeseg build --model segformer-b0 --int8",
)
app.command("models")(models.models)
app.command("build")(build.build)
app.command("run")(run.run)
app.command("eval")(evaluate.evaluate)
app.command("finetune")(finetune.finetune)
app.command("bench")(bench.bench)
app.command("compare")(compare.compare)
app.command("inspect")(inspect.inspect)
app.command("doctor")(doctor.doctor)


CTRL_C = 130


def _version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        print(f"edgeseg {version('edgeseg')}")
        raise typer.Exit


@app.callback()
def options(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    pass


def main() -> None:
    """Run a command; print a failure as one line (EDGESEG_DEBUG=1: with its traceback) and exit with its code."""
    import os
    import warnings

    from edgeseg.errors import EdgesegError

    warnings.filterwarnings("ignore", module="PIL")  # damaged metadata of a picture that decodes all the same
    try:
        app()
    except (KeyboardInterrupt, SystemExit) as stop:
        if isinstance(stop, SystemExit) and stop.code != CTRL_C:  # Typer turns Ctrl-C into an exit of its own
            raise
        _fail("stopped by Ctrl-C; nothing was left half-written", CTRL_C)
    except (EdgesegError, ValueError, OSError, MemoryError) as error:
        if os.environ.get("EDGESEG_DEBUG"):
            raise
        _fail(_one_line(error), 2 if isinstance(error, ValueError) else 1)


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        where = f": {error.filename}" if error.filename else ""
        return f"{error.strerror}{where}"
    if isinstance(error, MemoryError):
        return "out of memory; try a smaller --size or --batch"
    return " ".join(str(error).split()) or type(error).__name__


def _fail(message: str, code: int) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)
