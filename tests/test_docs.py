"""The documents stay true: command lines parse, links lead somewhere, every command is documented."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from edgeseg.cli import app

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *ROOT.glob("*/README.md")]
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def command_lines() -> list[str]:
    lines = []
    for document in DOCUMENTS:
        for line in document.read_text(encoding="utf-8").splitlines():
            if line.startswith("    edgeseg "):
                lines.append(re.split(r"\s{2,}#", line)[0].strip())
    return lines


@pytest.mark.parametrize("line", command_lines())
def test_command_lines_parse(line):
    name, *arguments = shlex.split(line)[1:]
    assert name in COMMANDS, f"{line}: there is no such command"
    command = COMMANDS[name]
    command.make_context(name, arguments)  # raises a UsageError for an unknown option or a missing argument


def test_every_command_is_in_the_readme_and_has_help():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name, command in COMMANDS.items():
        assert f"edgeseg {name}" in readme
        assert command.help, name
        assert all(getattr(p, "help", "") for p in command.params if p.name != "help"), name


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (document.parent / target).exists(), f"{document.name} links to {target}"
