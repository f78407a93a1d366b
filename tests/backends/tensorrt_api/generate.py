"""Writes down what of TensorRT's Python API our code uses, as each version's own binding declares it.

    python generate.py tensorrt_cu12_bindings-10.3.0-….whl tensorrt_cu13_bindings-11.4.0.106-….whl …
    python generate.py tensorrt_rtx

One `<module>-<version>/tensorrt.pyi` each (then `ruff format` them), against which `test_tensorrt_api.py` type-checks
the builder and the runtime. A binding's wheel (`pip download --no-deps tensorrt-cu13-bindings==11.4.0.106`, 1 MB)
imports without TensorRT's gigabytes of libraries once the nine C functions that it links to exist: empty ones are
compiled for it here. Only classes and members that the sources name are written, with their signatures.
"""

import importlib
import inspect
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

HERE = Path(__file__).parent
BACKENDS = HERE.parents[2] / "edgeseg" / "backends"
SOURCES = [BACKENDS / name for name in ("trt_builder.py", "trt_runtime.py")]
LINKED = (
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "getBuilderPluginRegistry",
    "getNvOnnxParserVersion",
    "getPluginRegistry",
    "initLibNvInferPlugins",
)
# Objects that the code holds without naming their class.
UNNAMED = {"EngineInspector", "IHostMemory", "IOptimizationProfile", "ITensor", "ITimingCache", "ParserError"}
OURS = {"Logger", "LayerType"}  # words that the sources use for something else
SCALARS = {"typing.SupportsInt": "int", "typing.SupportsFloat": "float", "capsule": "Any", "buffer": "Any"}


def main(arguments: list[str]) -> None:
    for argument in arguments:
        if argument.endswith(".whl"):
            print(_in_subprocess(Path(argument)), end="")
        else:
            module = importlib.import_module(argument)
            folder = HERE / f"{argument.removesuffix('_bindings')}-{module.__version__}"
            folder.mkdir(exist_ok=True)
            (folder / "tensorrt.pyi").write_text(stub(module))
            print(folder.name)


def stub(module) -> str:
    """The .pyi text of what the sources use of `module`."""
    names = set(re.findall(r"\w+", "\n".join(path.read_text() for path in SOURCES)))
    names |= {"__init__", "__int__"}
    wanted = (names | UNNAMED) & {name for name, value in vars(module).items() if inspect.isclass(value)} - OURS
    lines = ["from typing import Any, ClassVar, overload", "", "__version__: str", ""]
    for name in sorted(wanted):
        lines += _class(name, getattr(module, name), names, wanted, "")
    return "\n".join(lines) + "\n"


def _class(name: str, cls: type, names: set[str], wanted: set[str], indent: str) -> list[str]:
    inner = indent + "    "
    body: list[str] = []
    members = getattr(cls, "__members__", None)
    if members is not None:
        qualified = cls.__qualname__  # "ILogger.Severity"
        body += [f"{inner}__members__: ClassVar[dict[str, {qualified}]]", f"{inner}def __int__(self) -> int: ..."]
        body += [f"{inner}{member}: ClassVar[{qualified}]" for member in members if member in names]
    for member, value in sorted(vars(cls).items()):
        if member not in names or members is not None:
            continue
        if inspect.isclass(value):
            if hasattr(value, "__members__"):
                body += _class(member, value, names, wanted, inner)
        elif isinstance(value, property):
            returned = _type((value.fget.__doc__ or "").partition("->")[2].strip(), wanted)
            body += [f"{inner}@property", f"{inner}def {member}(self) -> {returned}: ..."]
            if value.fset:
                body += [f"{inner}@{member}.setter", f"{inner}def {member}(self, value: {returned}) -> None: ..."]
        elif callable(value):
            signatures = _signatures(member, value.__doc__ or "", wanted)
            for signature in signatures:
                body += [f"{inner}@overload"] if len(signatures) > 1 else []
                body += [f"{inner}def {signature}: ..."]
        else:
            body += [f"{inner}{member}: Any"]
    if name == "IHostMemory":  # a buffer: Python says so in `vars` from 3.12 on only
        body += [f"{inner}def __buffer__(self, flags: int) -> memoryview: ..."]
    return [f"{indent}class {name}:", *(body or [f"{inner}..."]), ""]


def _signatures(member: str, doc: str, wanted: set[str]) -> list[str]:
    """pybind11 writes them at the head of the docstring, one line, or numbered ones when overloaded."""
    found = re.findall(rf"^(?:\d+\. )?{re.escape(member)}(\(.*\)) -> (.+)$", doc, re.MULTILINE)
    found = [(arguments, returned) for arguments, returned in found if arguments != "(*args, **kwargs)"]
    lines = [f"{member}{_arguments(arguments, wanted)} -> {_type(returned, wanted)}" for arguments, returned in found]
    return list(dict.fromkeys(lines))  # overloads may differ in what is Any here


def _arguments(text: str, wanted: set[str]) -> str:
    text = re.sub(r"<[^<>]*>", "...", text)  # defaults that are no Python
    pieces, depth = [""], 0
    for character in text[1:-1]:
        depth += (character in "[(") - (character in "])")
        if character == "," and depth == 0:
            pieces.append("")
        else:
            pieces[-1] += character
    arguments = []
    for piece in filter(None, map(str.strip, pieces)):
        argument, _, rest = piece.partition(":")
        kind, _, default = rest.partition(" = ")
        if argument == "self":
            arguments.append("self")
        else:
            arguments.append(f"{argument}: {_type(kind.strip(), wanted)}" + (" = ..." if default else ""))
    return f"({', '.join(arguments)})"


def _type(text: str, wanted: set[str]) -> str:
    text = re.sub(r"\w+_bindings\.\w+\.", "", text.splitlines()[0] if text else "Any")
    text = SCALARS.get(text, text)
    if text in {"int", "str", "bool", "float", "bytes", "None", "Any"} or text.partition(".")[0] in wanted:
        return text
    return "Any"


def _in_subprocess(wheel: Path) -> str:
    """`main` on the module inside a wheel, with empty libraries for it to link to."""
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
        source = Path(folder) / "empty.c"
        source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in LINKED))
        for library in ("nvinfer", "nvinfer_plugin", "nvonnxparser"):
            for major in (10, 11):
                so_name = f"lib{library}.so.{major}"
                flags = ["-shared", "-fPIC", f"-Wl,-soname,{so_name}", "-o", so_name]
                subprocess.run(["cc", *flags, source.name], cwd=folder, check=True)
        environment = {**os.environ, "LD_LIBRARY_PATH": folder, "PYTHONPATH": folder}
        command = [sys.executable, __file__, "tensorrt_bindings"]
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    main(sys.argv[1:])
