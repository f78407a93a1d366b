"""The HTML report as a browser's parser sees it: structure, escaping, nothing from the network, nothing made up."""

import base64
import io
import shlex
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import typer
from PIL import Image

from edgeseg.bench.results import Latency, Results, Row, Stages, WorstImage
from edgeseg.cli import app
from edgeseg.errors import InputError
from edgeseg.labels import LABEL_SETS
from edgeseg.report import html_of_results, write_html
from edgeseg.report.page import command_line
from edgeseg.report.scale import ACCURACY, OTHER, REAL_TIME, group_of, published_for
from edgeseg.report.scatter import Point, pareto_front, scatter
from edgeseg.report.text import number, significant

VOID = {"meta", "link", "img", "br", "input", "hr"}


class Page(HTMLParser):
    """Elements with their texts and attributes; fails where tags do not close in order."""

    def __init__(self, html: str):
        super().__init__()
        self.elements: list[tuple[str, dict, list[str]]] = []
        self._open: list[tuple[str, dict, list[str]]] = []
        self.feed(html)
        self.close()
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag, attrs):
        element: tuple[str, dict, list[str]] = (tag, dict(attrs), [])
        self.elements.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs), []))

    def handle_endtag(self, tag):
        assert self._open and self._open[-1][0] == tag, f"</{tag}> closes {self._open[-1:]}"
        self._open.pop()

    def handle_data(self, data):
        for _, _, texts in self._open:
            texts.append(data)

    def texts(self, tag: str) -> list[str]:
        return ["".join(texts).strip() for name, _, texts in self.elements if name == tag]

    def all(self, tag: str, **attributes: str) -> list[dict]:
        wanted = {key.rstrip("_"): value for key, value in attributes.items()}
        return [a for name, a, _ in self.elements if name == tag and wanted.items() <= a.items()]


def row(**changes) -> Row:
    usual = Row(
        "edgeseg", "segformer-b0", "camvid", "openvino", "fp32", 360, 480, 1, 11,
        params=3_717_000, gmacs_published=4.94, gmacs_deployed=2.11, engine_bytes=14_400_000,
        latency=Latency(60.0, 66.0, 90.0, 59.0, 61.0, 30, False), stages=Stages(2.0, 57.0, 1.0),
        label_agreement=1.0, agreement_miou=1.0, miou=0.5781, per_class_iou={"sky": 0.9, "road": 0.8, "car": None},
    )  # fmt: skip
    return replace(usual, **changes)


def results(*rows: Row, **changes) -> Results:
    environment = {"devices": [{"kind": "cpu", "name": "A CPU", "detail": "2 threads"}], "cpu": {"governor": None}}
    arguments = {"models": ["segformer-b0"], "data": "my data", "memory": False, "rounds": 30, "split": None}
    usual = Results(rows, environment, arguments, {"name": "camvid", "split": "val", "images": 101}, ("sky", "road"))
    return replace(usual, **{"started": "2026-01-02T03:04:05Z", "seconds": 12.0, **changes})


INT8 = row(precision="int8", miou=0.571, agreement_miou=0.97, int8_share=0.963, per_class_iou={"sky": 0.8, "road": 0.7})


def test_structure():
    eager = row(system="torch eager", backend="torch", latency=Latency(210, 220, 230, 209, 211, 30, False))
    html = html_of_results(results(row(), INT8, eager))
    page = Page(html)
    assert page.texts("h1") == ["segformer-b0"]
    headings = ["Results", "Trade-offs", "Where the time goes", "IoU of each class, %", "Machine and command"]
    assert page.texts("h2") == headings
    anchors = {a["id"] for _, a, _ in page.elements if "id" in a}
    assert {a["aria-labelledby"] for a in page.all("section")} <= anchors
    assert len(page.all("svg", role="img")) == 2
    assert {"A CPU, 2 threads", "camvid, val, 101 images"} <= set(page.texts("p"))
    assert "edgeseg bench --model segformer-b0 --data 'my data' --no-memory" in page.texts("code")
    assert html.count("<strong>16.7</strong>") == 1 and "57.81" in html and "96.3" in html
    assert all(a.get("scope") or a.get("colspan") for a in page.all("th"))
    for body_row in html.split("<tr>")[1:]:  # every line of the big table has as many cells as titles
        if 'class="figure published"' in body_row:
            cells = body_row.split("</tr>")[0]
            assert cells.count("<td") + cells.count("<th") == len(page.all("button"))


def test_nothing_comes_from_the_network():
    html = html_of_results(results(row(), INT8))
    page = Page(html)
    assert "://" not in html and "@import" not in html and "url(" not in html
    for _, attributes, _ in page.elements:
        assert not {"srcset", "data", "action"} & attributes.keys()
        assert all(attributes.get(name, "#").startswith(("#", "data:")) for name in ("src", "href"))


def test_everything_is_escaped():
    evil = "<script>alert('x')</script>\"&"
    strange = row(
        model=evil, weights=evil, backend=evil, precision=evil, failure=evil, notes=(evil,), per_class_iou={evil: 0.5},
        worst_images=(WorstImage(evil, 0.1, "AAAA"), WorstImage("not base64", 0.2, '"><script>')),
    )  # fmt: skip
    environment = {"devices": evil, evil: {evil: [evil, None]}}
    document = results(
        strange, replace(strange, failure=None, system=evil), environment=environment, arguments={"models": [evil]},
        dataset={"name": evil}, started=evil,
    )  # fmt: skip
    html = html_of_results(document)
    assert html.count("<script>") == 1  # our own
    assert "alert('x')" not in html
    page = Page(html)
    assert len(page.all("img")) == 2  # one for each row; what is not base64 does not get in
    assert any(evil in text for text in page.texts("h1"))


def test_empty():
    page = Page(html_of_results(Results((), {}, {})))
    assert page.texts("h1") == ["Benchmark"] and "Nothing has been measured yet." in page.texts("p")


def test_without_miou():
    html = html_of_results(results(replace(row(), miou=None), replace(INT8, miou=None), dataset=None))
    assert "agreement with the FP32 network stands in for mIoU" in html and "it does not rank networks" in html
    assert "Not measured in this run: mIoU on the labelled data, memory, MB, energy, J" in html
    bare = row(miou=None, agreement_miou=None, label_agreement=None, per_class_iou=None, stages=Stages(), latency=None)
    page = Page(html_of_results(results(bare)))
    assert any("Neither mIoU nor agreement-mIoU was measured" in text for text in page.texts("p"))
    assert not page.all("svg", role="img")


def test_missing_figures_are_not_zero():
    html = html_of_results(results(row(peak_memory_bytes=500_000_000), replace(INT8, int8_share=None)))
    page = Page(html)
    assert "not measured" in page.texts("td") and "500" in page.texts("td")
    assert "0" not in page.texts("td")
    assert "–" in page.texts("td")  # the class that is not there
    assert Page(html_of_results(results(row(), INT8))).texts("td").count("not measured") == 1  # the governor


def test_failures_and_noise_are_said():
    noisy = row(latency=Latency(60.0, 80.0, 90.0, 50.0, 70.0, 30, True), notes=("no AVX-512 here",))
    html = html_of_results(results(noisy, replace(INT8, failure="the gate: 3 points"), is_complete=False))
    page = Page(html)
    (warning,) = [text for text in page.texts("p") if "not complete" in text]
    assert "1 of 2 rows failed. 1 of 2 rows are noisy." in warning
    assert page.texts("dd") == [
        "noisy: the median of 30 runs lies between 50.0 and 70.0 ms", "no AVX-512 here", "failed: the gate: 3 points"
    ]  # fmt: skip
    assert "failed the gate: 3 points" in page.texts("td")
    assert "1 of 2 rows have no mIoU and are not here." in html


def test_worst_images_are_embedded():
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(buffer, "JPEG")
    picture = base64.b64encode(buffer.getvalue()).decode()
    page = Page(html_of_results(results(row(worst_images=(WorstImage("street-7", 0.123, picture),)))))
    (image,) = page.all("img")
    assert Image.open(io.BytesIO(base64.b64decode(image["src"].split(",")[1]))).size == (6, 4)
    assert image["alt"].startswith("street-7") and page.texts("figcaption") == ["street-7 mIoU 12.30"]


def test_colours_of_the_worst_images_are_named():
    bad = row(worst_images=(WorstImage("a", 0.1, "AAAA"),))
    camvid = html_of_results(results(bad, classes=LABEL_SETS["camvid"].classes))
    assert camvid.count('style="background:rgb(') == 11 and "rgb(128,128,128)" in camvid  # sky, in CamVid's grey
    generic = html_of_results(results(bad, classes=("class 0", "class 1")))
    assert 'rgb(0,0,0)"></i>class 0' in generic and 'rgb(128,0,0)"></i>class 1' in generic
    for unknown in (("road", "sky"), (), LABEL_SETS["ade20k"].classes):
        assert "rgb(" not in html_of_results(results(bad, classes=unknown)).split("</style>")[1]


def test_many_classes_are_cut_to_those_that_differ():
    names = [f"class {i}" for i in range(150)]
    first = row(per_class_iou=dict.fromkeys(names, 0.5))
    second = replace(INT8, per_class_iou={name: 0.5 - (i == 140) * 0.3 for i, name in enumerate(names)})
    html = html_of_results(results(first, second))
    assert "the 30 of 150 classes that differ most" in html
    assert "class 140" in html and "class 149" not in html


def test_sizes_get_their_own_column_and_tables():
    page = Page(html_of_results(results(row(), row(height=720, width=960))))
    assert "size" in page.texts("button")
    assert "720×960, milliseconds" in page.texts("caption")


@pytest.mark.parametrize(
    ("model", "group"),
    [("segformer-b0", REAL_TIME), ("icnet", REAL_TIME), ("pspnet-mobilenetv2", REAL_TIME), ("segformer-b4", ACCURACY),
     ("pspnet-resnet101", ACCURACY), ("mine", OTHER)],
)  # fmt: skip
def test_groups_of_the_segformer_paper(model, group):
    assert group_of(model) == group


def test_published_figures_of_the_nearest_setting():
    cityscapes = published_for(row(num_classes=19, height=768, width=1536))
    assert cityscapes and (cityscapes.dataset, cityscapes.size, cityscapes.miou) == ("cityscapes", (768, 1536), 75.3)
    ade20k = published_for(row(num_classes=150, height=512, width=512))
    assert ade20k and ade20k.miou == 37.4
    assert published_for(row(model="mine")) is None


def test_pareto_front():
    def at(x, y):
        return Point(x, y, "n", "n", 0, "fp32")

    points = [at(1, 9), at(2, 8), at(2, 7), at(3, 8.5), at(4, 1), at(4, 2)]
    for sign in (1, -1):
        front = pareto_front(points, "right" if sign == 1 else "left")  # against the definition, pair by pair
        dominated = [
            any(sign * q.x >= sign * p.x and q.y >= p.y and (q.x, q.y) != (p.x, p.y) for q in points) for p in points
        ]
        assert front == [p for p, is_worse in zip(points, dominated, strict=True) if not is_worse]


def test_scatter_of_one_point_and_of_none():
    svg = scatter([Point(10, 57.8, "n", "n", 9, "mixed", 9.5, 10.5)], x_title="x", y_title="y", better="right")
    assert "series1" in svg and "nan" not in svg and "NaN" not in svg
    with pytest.raises(ValueError, match="at least one point"):
        scatter([], x_title="x", y_title="y", better="right")


def test_numbers():
    assert [significant(v) for v in (0, 0.01234, 1.0, 9.996, 12.345, 123.45, 1234.5)] == [
        "0", "0.0123", "1.00", "10.00", "12.3", "123", "1\u202f230"
    ]  # fmt: skip
    assert [number(v) for v in (3.717, 12345.67)] == ["3.72", "12\u202f345.7"]


def test_command_can_be_given_again():
    """Parsed by the command line itself, the printed command holds the options that it was made from."""
    options = {
        "models": ["segformer-b0", "icnet"], "weights": ["random"], "backends": ["onnxruntime"], "precisions": ["int8"],
        "sizes": [[512, 1024], [64, 96]], "batches": [1, 4], "baselines": ["torch"], "data": "my data", "limit": 3,
        "threads": None, "memory": False, "energy_seconds": 10, "inputs": {"no": "option"},
    }  # fmt: skip
    name, *words = shlex.split(command_line(options))[1:]
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    found = command.make_context(name, words).params
    assert found["model"] == ["segformer-b0", "icnet"] and found["weights"] == ["random"]
    assert found["size"] == ["512x1024", "64x96"] and list(found["batch"]) == [1, 4]
    assert found["baseline"] == ["torch"] and found["precision"] == ["int8"] and found["backend"] == ["onnxruntime"]
    assert str(found["data"]) == "my data" and found["limit"] == 3 and found["memory"] is False
    assert command_line({"baselines": []}) == "edgeseg bench --no-baselines"
    assert command_line({}) == ""


def test_writes_a_file_or_says_why_not(tmp_path):
    path = tmp_path / "report.html"
    write_html(results(row()), path)
    assert path.read_text(encoding="utf-8") == html_of_results(results(row()))
    assert html_of_results(Results.from_json(results(row(), INT8).to_json())) == html_of_results(results(row(), INT8))
    with pytest.raises(InputError, match="does not exist"):
        write_html(results(row()), tmp_path / "none" / "report.html")
