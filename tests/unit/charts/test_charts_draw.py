import dataclasses
import io
import math
import os
import pickle
import re
import subprocess
import sys
import xml.etree.ElementTree as ET

import matplotlib
import pytest
from PIL import Image

from xuebu.charts.draw import MAX_VECTOR_POINTS, STROKES, draw, render, tick_text
from xuebu.charts.figures import step_correlation, training_curves
from xuebu.charts.marks import Figure, Label, Level, Line, Panel, Points

SVG = "{http://www.w3.org/2000/svg}"


def simple(*marks, title="a title", **changes):
    panel = {"title": Label("panel"), "x_label": Label("step"), "y_label": Label("y"), "y_unit": "number"}
    return Figure(
        name="simple", title=Label(title), description=Label(""), panels=(Panel(**(panel | changes), marks=marks),)
    )


def texts_of(svg):
    return [element.text or "" for element in ET.fromstring(svg).iter(f"{SVG}text")]


def height_of(text):
    """The y of an SVG text element, which lies in `y` or in its transform."""
    if text.get("y") is not None:
        return float(text.get("y"))
    return float(re.search(r"translate\([-\d.]+ ([-\d.]+)\)", text.get("transform")).group(1))


def axes_of(svg):
    """For each axes of a chart: the top of its frame, and the heights of the texts of its legend."""
    found = []
    for group in ET.fromstring(svg).iter(f"{SVG}g"):
        if re.fullmatch(r"axes_\d+", group.get("id", "")):
            frame = next(iter(group.iter(f"{SVG}path"))).get("d")
            top = min(float(y) for y in re.findall(r"[ML] [-\d.]+ ([-\d.]+)", frame))
            legends = [one for one in group.iter(f"{SVG}g") if one.get("id", "").startswith("legend")]
            found.append((top, [height_of(text) for one in legends for text in one.iter(f"{SVG}text")]))
    return found


@pytest.fixture
def curves(history, baselines):
    return training_curves(history, baselines=baselines)


def test_files_are_written_beside_each_other(tmp_path):
    paths = draw(simple(Level(y=1, role="chance")), tmp_path / "charts" / "simple")
    assert [path.name for path in paths] == ["simple.png", "simple.svg"]
    assert sorted(path.name for path in (tmp_path / "charts").iterdir()) == [path.name for path in paths]


def test_a_stem_with_a_point_keeps_it(tmp_path):
    (path,) = draw(simple(Level(y=1, role="chance")), tmp_path / "run.v2", formats=("svg",))
    assert path.name == "run.v2.svg"


def test_png_has_200_dots_an_inch(curves):
    image = Image.open(io.BytesIO(render(curves, "png")))
    assert image.size[0] == 2 * 5.6 * 200
    assert image.info["dpi"] == pytest.approx((200, 200), abs=0.1)


def test_same_figure_same_bytes_whatever_the_user_has_set(tmp_path, analysis, history):
    figure = step_correlation(history, analysis.to_json())
    before = {kind: render(figure, kind) for kind in ("png", "svg")}
    (tmp_path / "matplotlibrc").write_text("font.size: 22\naxes.grid: False\nlines.linewidth: 9\nsvg.fonttype: path\n")
    program = (
        "import sys, pickle; from xuebu.charts.draw import render; figure = pickle.load(sys.stdin.buffer);"
        "pickle.dump({kind: render(figure, kind) for kind in ('png', 'svg')}, sys.stdout.buffer);"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    settings = os.environ | {
        "MATPLOTLIBRC": str(tmp_path / "matplotlibrc"),
        "PYTHONHASHSEED": "77",
        "MPLBACKEND": "svg",
    }
    done = subprocess.run(
        [sys.executable, "-c", program], input=pickle.dumps(figure), env=settings, stdout=subprocess.PIPE, check=True
    )
    assert pickle.loads(done.stdout) == before


def test_no_setting_of_matplotlib_is_changed(curves):
    before = dict(matplotlib.rcParams)
    render(curves, "svg")
    assert dict(matplotlib.rcParams) == before


def test_svg_keeps_text_as_text_and_no_date(curves):
    svg = render(curves, "svg").decode()
    assert {"Training curves", "MLM accuracy", "held out", "n-gram counts 38.1 %", "1,000"} <= set(texts_of(svg))
    assert not re.search(r"dc:date|dc:creator|20\d\d-\d\d-\d\d", svg)


def test_markup_and_dollars_in_texts_are_only_texts():
    text = "<script>alert(1)</script> & $x^2$"
    svg = render(simple(Line(x=(1, 2), y=(1, 2), role="linear", label=Label(text)), title=text), "svg")
    assert b"<script" not in svg
    assert texts_of(svg).count(text) == 2


def test_without_a_font_chinese_labels_stay_english_and_chinese_data_is_escaped(curves):
    assert not re.search("[一-鿿]", render(curves, "svg", language="zh").decode())
    token = simple(Line(x=(1, 2), y=(1, 2), role="linear", label=Label("token 的")))
    assert r"token \u7684" in texts_of(render(token, "svg"))


def test_with_a_font_labels_are_in_the_language_asked_for(curves, chinese_font):
    shown = {
        language: set(texts_of(render(curves, "svg", font=chinese_font, language=language)))
        for language in ("both", "zh", "en")
    }
    assert {"掩码预测准确率 MLM accuracy", "步数 step"} <= shown["both"]
    assert {"掩码预测准确率", "步数"} <= shown["zh"]
    assert "MLM accuracy" in shown["en"] and not re.search("[一-鿿]", "".join(shown["en"]))


@pytest.mark.parametrize(("num_evals", "num_train", "language"), [(1, 1, "en"), (30, 30, "both"), (100, 1000, "en")])
def test_legends_lie_above_the_axes_and_cover_no_data(
    make_run, baselines, chinese_font, num_evals, num_train, language
):
    figure = training_curves(make_run(num_evals, num_train), baselines=baselines)
    axes = axes_of(render(figure, "svg", font=chinese_font, language=language))
    assert [len(heights) for _, heights in axes] == [5, 5, 2, 0]
    for top, heights in axes:
        assert all(0 < height < top for height in heights)


def test_a_legend_wider_than_its_axes_stands_in_one_column():
    marks = [Line(x=(1, 2), y=(1, 2), role="linear", label=Label("a rather long label " * 3)) for _ in range(2)]
    figure = simple(*marks)
    for width, rows in ((12.0, 1), (4.8, 2)):
        ((_, heights),) = axes_of(render(dataclasses.replace(figure, column_inches=width), "svg"))
        assert len(set(heights)) == rows


def test_a_panel_without_marks_says_what_is_missing(make_run):
    svg = render(training_curves(make_run(nsp=False)), "svg")
    assert {"NSP accuracy", "NSP accuracy was not recorded"} <= set(texts_of(svg))


@pytest.mark.parametrize("count", [MAX_VECTOR_POINTS, MAX_VECTOR_POINTS + 1])
def test_very_many_points_become_an_image(count):
    points = Points(x=tuple(range(count)), y=tuple(math.sin(step) for step in range(count)), role="train")
    svg = render(simple(points), "svg")
    assert (b"<image" in svg) == (count > MAX_VECTOR_POINTS)
    assert "step" in texts_of(svg)


def test_one_constant_reading_is_drawn():
    svg = render(simple(Line(x=(5,), y=(0.0,), role="held_out"), y_unit="fraction"), "svg")
    assert "5" in texts_of(svg) and b"<use" in svg


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (0.25, "fraction", "25 %"),
        (0.125, "fraction", "12.5 %"),
        (0.1 + 0.2, "fraction", "30 %"),
        (-0.05, "points", "−5"),
        (0.025, "points", "+2.5"),
        (0.0, "points", "0"),
        (-1e-18, "points", "0"),
        (5e-5, "rate", "5e−5"),
        (0.00012, "rate", "1.2e−4"),
        (0.5, "rate", "0.5"),
        (0.0, "rate", "0"),
        (12500.0, "number", "12,500"),
        (-1.5, "number", "−1.5"),
    ],
)
def test_ticks_are_written_in_their_unit(value, unit, shown):
    assert tick_text(value, unit) == shown


def luminance(color):
    channels = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4 for channel in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_lines_stand_out_from_white_paper():
    """WCAG 2.1, 1.4.11: graphics that carry meaning have a contrast of 3 to 1; training points are light on purpose."""
    for role, stroke in STROKES.items():
        assert role == "train" or 1.05 / (luminance(stroke.color) + 0.05) >= 3, role


@pytest.mark.parametrize(
    "together", [("held_out", "counting", "frequency", "chance"), ("held_out", "linear", "saturating", "forecast")]
)
def test_lines_of_one_panel_differ_without_color(together):
    dashes = [STROKES[role].dash for role in together if role not in ("held_out",)]
    assert len(set(dashes)) == len(dashes)
