"""Four forms of one table: what stands in them, what is left out, and what must not break them."""

import csv
import io
import re

import pytest
from rich.console import Console

from edgeseg.bench.tables import csv_text, latex, markdown, print_table
from tests.bench.rows import latency, results, row

EAGER = row("torch eager", "torch", latency=latency(60), gmacs_deployed=8.4)
FAILED = row(precision="int8", latency=None, engine_bytes=None, failure="61.00% of pixels keep | the label & more_")
NOISY = row(precision="fp16", latency=latency(10, spread=0.3))
ACCURATE = row(model="segformer-b5", latency=latency(900))
OWN = row(model="mine.onnx", num_classes=5)
ALL = results(row(), NOISY, FAILED, EAGER, ACCURATE, OWN)


def terminal(found, width=200) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False, force_terminal=True, no_color=True)
    print_table(found, console)
    return console.file.getvalue()


def records(found) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(csv_text(found))))


def test_csv_has_figures_as_stored_and_nothing_for_what_was_not_measured():
    first = records(ALL)[0]
    assert float(first["p50_ms"]) == 20
    assert float(first["engine_bytes"]) == 14e6
    assert first["energy_joules"] == "" and first["miou"] == ""
    assert float(first["speed_by_torch_eager"]) == 3
    assert (first["published_miou"], first["published_fps"], first["published_on"]) == (
        "37.4",
        "50.5",
        "ade20k 512x512",
    )
    assert [record["noisy"] for record in records(ALL)] == ["false", "true", "", "false", "false", "false"]
    assert records(ALL)[2]["failure"] == FAILED.failure


def test_published_figures_are_those_of_the_rows_classes_or_none():
    assert records(results(row(num_classes=19, height=768, width=1536)))[0]["published_miou"] == "75.3"
    assert records(results(row(num_classes=11)))[0]["published_miou"] == ""


@pytest.mark.parametrize("write", [markdown, latex, terminal])
def test_groups_and_figures_stand_in_every_form(write):
    text = write(ALL)
    for group in ("Real-time", "Accuracy", "Own networks"):
        assert group in text
    assert text.index("segformer-b0") < text.index("segformer-b5") < text.index("mine.onnx")
    for figure in ("20.0", "50.0", "900", "99.99", "37.4"):
        assert figure in text, figure
    assert "61.00" in text  # why a row has no latency


def test_noise_and_what_is_missing_are_said():
    text = markdown(ALL)
    assert "~10.0" in text and "(1 of 6)" in text
    assert "not measured: INT8 %, copies, peak MB, J, mIoU" in text
    assert "✗" in text


def test_markdown_rows_have_as_many_cells_as_their_head():
    tables = [part for part in markdown(ALL).split("\n\n") if part.startswith("|")]
    assert len(tables) == 3
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1


def test_latex_rows_fit_the_form_and_nothing_is_left_unescaped():
    lines = latex(ALL).splitlines()
    form = re.search(r"\\begin\{tabular\}\{([lr]+)\}", latex(ALL))
    assert form
    body = [line for line in lines if line.endswith(r"\\") and "multicolumn" not in line]
    for line in body:
        assert len(re.findall(r"(?<!\\)&", line)) == len(form[1]) - 1
        assert not re.search(r"(?<!\\)[%$#_]", line.replace(r"$\times$", ""))
    assert sum("toprule" in line or "bottomrule" in line for line in lines) == 2


def test_what_all_rows_share_is_said_once():
    text = markdown(results(row(), row(precision="fp16")))
    assert "all rows: network segformer-b0, weights random, size 512x512, batch 1" in text
    assert text.count("segformer-b0") == 1


def test_a_narrow_terminal_loses_columns_and_names_them():
    wide, narrow = terminal(ALL, 200), terminal(ALL, 80)
    assert "not shown here" not in wide
    assert "not shown here" in narrow and "ms" in narrow and "FPS" in narrow
    assert "…" not in wide + narrow


@pytest.mark.parametrize("write", [markdown, latex, csv_text, terminal])
def test_no_rows_are_no_crash(write):
    assert isinstance(write(results()), str)
