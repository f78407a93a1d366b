"""The page: what was measured, put into template.html section by section; a section without contents is left out."""

from __future__ import annotations

import base64
import binascii
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from edgeseg.bench.plan import BenchOptions
from edgeseg.bench.results import Results, Row
from edgeseg.labels import LABEL_SETS, generic_label_set
from edgeseg.report.bars import MOST_CLASSES, class_tables, stage_tables
from edgeseg.report.table import sources, table
from edgeseg.report.text import name_of, percent, plain, significant, unique
from edgeseg.report.trade_offs import trade_offs

_OPTIONS = {
    **{"models": "model", "bundles": "bundle", "backends": "backend", "precisions": "precision"},
    **{"sizes": "size", "batches": "batch", "baselines": "baseline"},
}
"""Options of the command line that are named otherwise than in `BenchOptions`: they are given once for each value."""


def html_of_results(results: Results) -> str:
    """The whole document."""
    rows = results.rows
    sections = (
        _section("results", "Results", _results(results)),
        _section("trade-offs", "Trade-offs", trade_offs(rows)),
        _section("stages", "Where the time goes", stage_tables(rows)),
        _section("classes", "IoU of each class, %", class_tables(rows)),
        _section("worst", "Worst images", _worst(results)),
        _section("remarks", "Failures, noise and notes", _remarks(rows)),
        _section("machine", "Machine and command", _machine(results)),
    )
    template = Template(files("edgeseg.report").joinpath("template.html").read_text(encoding="utf-8"))
    return template.substitute(title=_title(results), facts=_facts(results), sections="".join(sections))


def _section(anchor: str, heading: str, contents: str) -> str:
    if not contents:
        return ""
    return f'<section aria-labelledby="{anchor}"><h2 id="{anchor}">{heading}</h2>{contents}</section>'


def _title(results: Results) -> str:
    models = unique([row.model for row in results.rows])
    if not models:
        return "Benchmark"
    return escape(models[0] if len(models) == 1 else f"{len(models)} networks")


def _facts(results: Results) -> str:
    """The lines under the title: on what, on which data, when, and whether that is all."""
    facts = []
    devices = results.environment.get("devices")
    if devices:
        each = devices if isinstance(devices, list | tuple) else [devices]
        facts.append("; ".join(_words(device, ("name", "detail")) for device in each))
    if results.dataset:
        facts.append(_words(results.dataset, ("name", "split", "images")) + " images")
    elif results.rows:
        facts.append("no labelled data: agreement with the FP32 network stands in for mIoU")
    if results.started:
        facts.append(f"{escape(results.started)}, {significant(results.seconds)} s")
    lines = "".join(f"<p>{fact}</p>" for fact in facts)
    failures = sum(row.failure is not None for row in results.rows)
    noisy = sum(bool(row.latency and row.latency.is_noisy) for row in results.rows)
    warnings = []
    if not results.is_complete:
        warnings.append("This run is not complete: --resume goes on with it.")
    if failures:
        warnings.append(f"{failures} of {len(results.rows)} rows failed.")
    if noisy:
        warnings.append(f"{noisy} of {len(results.rows)} rows are noisy.")
    if failures or noisy:
        warnings.append('<a href="#remarks">Which, and why</a>')
    return lines + (f'<p class="warning">{" ".join(warnings)}</p>' if warnings else "")


def _words(data: Any, names: tuple[str, ...]) -> str:
    """Some of a mapping's values in a row; anything else as it is."""
    if not isinstance(data, Mapping) or not all(name in data for name in names):
        return plain(data)
    return ", ".join(plain(data[name]) for name in names)


def _results(results: Results) -> str:
    if not results.rows:
        return "<p>Nothing has been measured yet.</p>"
    return table(results.rows)


def _worst(results: Results) -> str:
    figures = []
    for row in results.rows:
        images = [image for image in row.worst_images if _is_base64(image.picture)]
        if images:
            items = "".join(
                f'<figure><img alt="{escape(image.name)}: image, truth and labels side by side" loading="lazy" '
                f'src="data:image/jpeg;base64,{image.picture}"><figcaption>{escape(image.name)} '
                f"<span>mIoU {percent(image.miou)}</span></figcaption></figure>"
                for image in images
            )
            figures.append(f"<h3>{escape(name_of(row))}</h3>{items}")
    if not figures:
        return ""
    note = (
        "From left to right: the image, the truth, the labels of the FP32 network (where a row is of another "
        "precision), the labels of the row."
    )
    return f'<p class="note">{note}</p>{_colours(results.classes)}{"".join(figures)}'


def _colours(classes: Sequence[str]) -> str:
    """Which colour is which class, where the classes are those of a label set that ships and few enough to read."""
    if not 0 < len(classes) <= MOST_CLASSES:
        return ""
    label_sets = [*LABEL_SETS.values(), generic_label_set(len(classes))]
    palette = next((found.palette for found in label_sets if found.classes == tuple(classes)), None)
    if palette is None:
        return ""
    items = (
        f'<li><i class="key" style="background:rgb({red},{green},{blue})"></i>{escape(name)}</li>'
        for name, (red, green, blue) in zip(classes, palette, strict=True)
    )
    return f'<ul class="legend">{"".join(items)}</ul>'


def _is_base64(text: str) -> bool:
    try:
        return bool(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        return False


def _remarks(rows: Sequence[Row]) -> str:
    items = []
    for row in rows:
        words = []
        if row.failure:
            words.append(f'<b class="failure">failed</b>: {escape(row.failure)}')
        if row.latency and row.latency.is_noisy:
            low, high = significant(row.latency.low), significant(row.latency.high)
            runs = f"the median of {row.latency.runs} runs lies between {low} and {high} ms"
            words.append(f'<span class="noisy">noisy</span>: {runs}')
        words += map(escape, row.notes)
        if words:
            items.append(f"<dt>{escape(name_of(row))}</dt>" + "".join(f"<dd>{word}</dd>" for word in words))
    return f'<dl class="remarks">{"".join(items)}</dl>' if items else ""


def _machine(results: Results) -> str:
    lines = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{plain(value)}</td></tr>'
        for name, value in _flat(results.environment)
    )
    command = command_line(results.arguments)
    published = "".join(f"<li>{escape(source)}</li>" for source in sources(results.rows))
    return (
        (f"<pre><code>{escape(command)}</code></pre>" if command else "")
        + (
            f'<table class="environment"><caption class="hidden">The machine</caption><tbody>{lines}</tbody></table>'
            if lines
            else ""
        )
        + (f'<h3>Published figures are from</h3><ul class="sources">{published}</ul>' if published else "")
    )


def _flat(data: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Nested mappings as one list of names and values."""
    flat: list[tuple[str, Any]] = []
    for key, value in data.items():
        name = f"{prefix}{key}".replace("_", " ")
        flat += _flat(value, f"{name} · ") if isinstance(value, Mapping) and value else [(name, value)]
    return flat


def command_line(arguments: Mapping[str, Any]) -> str:
    """The command of a run, from its options: those that are not as `edgeseg bench` has them by itself."""
    words = ["edgeseg", "bench"]
    defaults = asdict(BenchOptions())
    for name, default in defaults.items():
        value = arguments.get(name, default)
        option = "--" + _OPTIONS.get(name, name).replace("_", "-")
        if _listed(value) == _listed(default):
            continue
        if isinstance(value, bool):
            words.append(option if value else f"--no-{name}")
        elif name == "baselines" and not value:
            words.append("--no-baselines")
        elif name == "sizes":
            words += [part for height, width in value for part in (option, f"{height}x{width}")]
        else:
            words += [part for item in _listed(value) for part in (option, str(item))]
    return shlex.join(words) if arguments else ""


def _listed(value: Any) -> list:
    return (
        [_listed(v) if isinstance(v, list | tuple) else v for v in value]
        if isinstance(value, list | tuple)
        else [value]
    )
