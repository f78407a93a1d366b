"""edgeseg doctor."""

from edgeseg.cli.output import JSON_OPTION, print_json


def doctor(json: bool = JSON_OPTION) -> None:
    """What this machine can build and run, which kernels are compiled, and versions known to be bad."""
    from edgeseg.doctor import examine

    report = examine()
    if json:
        print_json(report)
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table("backend", "version", "builds", "runs", "why not", box=SIMPLE_HEAD)
    for name, status in report["backends"].items():
        table.add_row(
            name,
            status["version"] or "–",
            *("yes" if status[k] else "no" for k in ("can_build", "usable")),
            status["reason"],
        )
    console = Console(markup=False)
    console.print(table)
    for name, kernel in report["kernels"].items():
        console.print(f"kernels, {name}: {'yes' if kernel['available'] else 'no'}; {kernel['detail']}", soft_wrap=True)
    for device in report["devices"]:
        console.print(f"device: {device['name']} ({device['detail']})", soft_wrap=True)
    for warning in report["warnings"]:
        console.print(f"warning: {warning}", style="yellow", soft_wrap=True)
    console.print(
        f"`--backend auto` would choose {report['auto']['backend']}: {report['auto']['reason']}", soft_wrap=True
    )
