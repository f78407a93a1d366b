"""The verdict on precisions and the search for mixed precision as tables; of a manifest, for `build` and `inspect`."""

from edgeseg.cli.output import human_bytes


def share_in_words(manifest: dict) -> str:
    """', 97 % of them in INT8'; '' for a bundle without INT8."""
    share = manifest.get("int8_share")
    return "" if share is None else f", {100 * share:.0f} % of them in INT8"


def print_precision(manifest: dict) -> None:
    """Both tables, where the manifest has them."""
    if manifest.get("verdict"):
        print_verdict(manifest["verdict"])
    if manifest.get("fallback"):
        print_fallback(manifest["fallback"])


def print_verdict(verdict: dict) -> None:
    """`edgeseg.verdict.Verdict` as JSON."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    title = "precisions tried" + ("" if verdict["timed"] else ", not timed")
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    columns = ["", "gate", "labels", "lost", "latency", "size", "INT8"]
    told = any(option["layers"] for option in verdict["options"])
    columns += ["layers", "moves", "Q/DQ"] if told else []
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number < 2 else "right", no_wrap=True)
    for option in verdict["options"]:
        layers = option["layers"] or {}
        built = option["engine_bytes"] is not None
        counts = [_or_dash(layers.get(name), "{}") for name in ("layers", "reformats", "unfused_qdq")]
        table.add_row(
            ("▸ " if option["precision"] == verdict["chosen"] else "  ") + option["precision"],
            "pass" if option["passed"] else "fail" if built else "none",
            _or_dash(option["label_agreement"], "{:.2%}"),
            _or_dash(option["drop"], "{:.2f}"),
            _or_dash(option["latency"], "{:.2f}"),
            human_bytes(option["engine_bytes"]) if built else "–",
            _or_dash(option["int8_share"], "{:.0%}"),
            *(counts if told else []),
        )
    console = Console(markup=False)
    console.print(table)
    console.print(verdict["why"], style="dim")


def print_fallback(fallback: dict, *, stderr: bool = False) -> None:
    """`edgeseg.precision.fallback.Fallback` as JSON: the trade-off curve, fewest blocks in floating point first."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    steps = fallback["steps"]
    table = Table(
        title=f"blocks kept in floating point, at most {fallback['max_drop']:g} points of {fallback['measure']} lost "
        f"on {fallback['images']} images",
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    for column, justify in (("blocks", "right"), ("MACs in INT8", "right"), ("points lost", "right"),
                            ("same labels", "right"), ("", "left"), ("kept high", "left")):  # fmt: skip
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    order = sorted(range(len(steps)), key=lambda i: (len(steps[i]["kept_high"]), -steps[i]["int8_share"]))
    for index in order:
        step = steps[index]
        names = step["kept_high"]
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        table.add_row(
            str(len(names)),
            f"{step['int8_share']:.0%}",
            f"{step['drop']:.2f}",
            f"{step['label_agreement']:.2%}",
            "◀ taken" if index == fallback["chosen"] else "fits" if step["fits"] else "",
            shown or "none: plain INT8",
        )
    Console(markup=False, stderr=stderr).print(table)


def _or_dash(value: float | None, spelled: str) -> str:
    return "–" if value is None else spelled.format(value)
