import copy
import dataclasses
import html.parser
import itertools
import re
from pathlib import Path

import pytest

from xuebu.charts.marks import Label
from xuebu.report import page
from xuebu.report.facts import ReportChart, ReportFacts
from xuebu.report.page import read_facts, render_page
from xuebu.report.svg import color_variables, inline_svg
from xuebu.report.view import headlines
from xuebu.report.words import Words

VOID = {"meta", "link", "br", "img", "input", "hr"}
SVG = (
    '<?xml version="1.0"?><!DOCTYPE svg PUBLIC "x" "http://www.w3.org/x">'
    '<svg xmlns:xlink="http://www.w3.org/1999/xlink" width="10pt" viewBox="0 0 10 10" xmlns="http://www.w3.org/2000/svg"><metadata>2020</metadata><defs>'
    '<style type="text/css">*{stroke: red}</style><clipPath id="p1"><rect/></clipPath><path id="m1"/></defs>'
    '<g id="axes_1"><path clip-path="url(#p1)" style="fill: #0072b2; stroke: #1b1f24"/>'
    '<use xlink:href="#m1"/></g></svg>'
)


class Reader(html.parser.HTMLParser):
    """Elements with their attributes, the order of headings, and whether every element is closed in its place."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.texts = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.texts.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.texts))


@pytest.fixture
def facts(run_folder):
    chart = ReportChart(name="curves", title=Label("A chart", "图"), description=Label("It rises"), pictures=(SVG, SVG))
    return dataclasses.replace(read_facts(run_folder), charts=(chart,))


def with_baselines(facts, **difference):
    tables = copy.deepcopy(dict(facts.baselines))
    tables["mlm"]["difference_from_ngram"] |= difference
    return dataclasses.replace(facts, baselines=tables)


def test_same_facts_same_page(facts):
    assert render_page(facts) == render_page(copy.deepcopy(facts))


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_page_is_well_formed_and_needs_no_host(facts, language):
    text = render_page(facts, language=language)
    reader = Reader(text)
    assert not re.search(r"https?://|@import|url\((?!#)|<script|<link|<iframe", text)
    (policy,) = [a["content"] for tag, a in reader.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")
    assert text.index("Content-Security-Policy") < text.index("<style>")
    assert ("html", {"lang": "en" if language == "en" else "zh-Hans"}) in reader.elements
    identities = [a["id"] for _, a in reader.elements if "id" in a]
    assert len(identities) == len(set(identities))
    references = set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', text))
    assert {one or other for one, other in references} <= set(identities)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_page_can_be_read_by_a_machine_that_reads_aloud(facts, language):
    reader = Reader(render_page(facts, language=language))
    levels = [int(tag[1]) for tag, _ in reader.elements if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    tags = [tag for tag, _ in reader.elements]
    assert tags.count("table") == tags.count("caption") == tags.count("thead") > 5
    assert all("scope" in attributes for tag, attributes in reader.elements if tag == "th")
    pictures = [attributes for tag, attributes in reader.elements if tag == "svg"]
    assert len(pictures) == 2
    assert all(one["role"] == "img" and one["aria-label"] == "It rises" for one in pictures)


def test_nothing_from_data_becomes_markup(facts):
    bad = '<script>alert(1)</script><img src=x onerror="alert(2)">'
    analysis = copy.deepcopy(dict(facts.analysis))
    analysis["verdict"] = [{"flag": bad, "severity": bad, "text": bad, "evidence": {}}]
    analysis["notes"] = [bad]
    analysis["rates"]["line"]["method"] = bad
    analysis["correlations"]["pearson"]["intervals"][0] |= {"assumption": bad, "doubt": bad}
    tables = copy.deepcopy(dict(facts.baselines))
    tables["mlm"]["most_frequent"]["token"] = tables["mlm"]["ngram"]["description"] = bad
    fills = [{"text": f"{bad}[MASK]", "truth": bad, "masks": [{"candidates": [{"token": bad, "probability": 0.5}]}]}]
    hostile = dataclasses.replace(
        facts,
        title=bad,
        run={bad: {bad: bad}, "run": {bad: [bad]}},
        analysis=analysis,
        baselines=tables,
        fills=tuple(fills),
        corpus_card={bad: bad, "sources": {bad: 1}, "refusals": {bad: {"count": 1, "meaning": bad}}},
        charts=(dataclasses.replace(facts.charts[0], description=Label(bad), title=Label(bad), name="x"),),
        absent=(bad,),
    )
    for language in ("en", "zh"):
        text = render_page(hostile, language=language)
        reader = Reader(text)
        assert {"script", "img"}.isdisjoint(tag for tag, _ in reader.elements)
        assert not any(name.startswith("on") for _, attributes in reader.elements for name in attributes)
        assert reader.text.count("<script>") >= 15


def test_the_verdict_comes_first_and_says_below_counting_first(facts):
    reader = Reader(render_page(facts))
    text = reader.text
    lead = text.index("After 2,000 steps the model fills in 17.7 % of 12,345 masked characters")
    counting = text.index("The run is too short to beat counting")
    assert lead < counting < text.index("A straight line is the wrong model") < text.rindex("Headline figures")
    assert "the model is 20.4 points below it (95 % interval 18.9 to 21.9)" in text
    assert text.count("too short to beat counting") == 1


@pytest.mark.parametrize(
    ("difference", "said", "severity"),
    [
        ({"value": 0.02, "low": 0.01, "high": 0.03}, "The model beats counting", "good"),
        ({"value": -0.02, "low": -0.05, "high": 0.01}, "not told apart from counting", "warn"),
        ({"value": -0.02, "low": None, "high": None}, "(no interval)", "warn"),
        ({"value": -0.2, "low": -0.3, "high": -0.1}, "20.0 points below it", "bad"),
    ],
)
def test_counting_is_judged_by_the_interval(facts, difference, said, severity):
    text = render_page(with_baselines(facts, **difference))
    first = re.search(r'<ul class="statements">\s*<li class="(\w+)">(.*?)</li>', text, re.DOTALL)
    assert first.group(1) == severity
    assert said in first.group(2)


def test_chinese_page_states_the_findings_in_chinese(facts):
    reader = Reader(render_page(facts, language="zh"))
    assert "训练步数太少，尚不如计数" in reader.text
    assert "直线不是这次训练的合适模型" in reader.text
    assert "A straight line is the wrong model" not in reader.text


def test_a_finding_without_chinese_words_is_shown_as_written(facts):
    analysis = dict(facts.analysis) | {
        "verdict": [
            {"flag": "of_tomorrow", "severity": "warn", "text": "Something new.", "evidence": {}},
            {"flag": "learning", "severity": "good", "text": "Still learning.", "evidence": {"rate": None}},
        ]
    }
    text = render_page(dataclasses.replace(facts, analysis=analysis), language="zh")
    assert '<span lang="en">Something new.</span>' in text
    assert '<span lang="en">Still learning.</span>' in text


def test_headline_figures_have_intervals_and_what_stands_behind_them(facts):
    found = {one.name: one for one in headlines(facts, Words("en"))}
    nbsp = "\N{NO-BREAK SPACE}"
    mlm = found["MLM accuracy, held out"]
    assert (mlm.value, mlm.basis) == (f"17.7{nbsp}%", "12,345 predictions")
    assert mlm.interval == "95_% interval 16.7_to_18.7_%".replace("_", nbsp)
    difference = found["Model minus n-gram"]
    assert (difference.value, difference.unit, difference.tone) == ("−20.4", "points", "bad")
    assert found["Model minus overlap rule"].tone == "good"
    pearson = facts.analysis["correlations"]["pearson"]
    assert found["Pearson r with the step"].value == f"{pearson['coefficient']:.3f}"
    assert difference.basis == "on the same 12,345 predictions"
    assert found["Model minus overlap rule"].basis == "on the same 2,000 predictions"
    assert found["Bits per character, held out"].basis == "12,345 predictions, n-gram counts: 5.41"
    assert all(one.interval for one in found.values())


def test_without_final_scores_the_last_evaluation_is_quoted(facts):
    bare = dataclasses.replace(facts, baselines=None)
    (mlm, nsp, *_) = headlines(bare, Words("en"))
    last = facts.history.column("eval", "mlm_accuracy").value[-1]
    assert mlm.value.startswith(f"{100 * last:.1f}") and mlm.basis == "4,000 predictions"
    assert nsp.name == "NSP accuracy, held out"
    text = Reader(render_page(bare)).text
    assert "No baseline was scored" in text
    assert "mlm_accuracy_mask" not in text and "By class of masked position" in text


def test_a_page_of_a_history_alone_says_what_is_not_there(facts):
    bare = ReportFacts(title="bare", history=facts.history, absent=("analysis.json", "baselines.json"))
    for language in ("en", "zh"):
        text = Reader(render_page(bare, language=language)).text
        assert "analysis.json, baselines.json" in text
    assert "not analyzed" in Reader(render_page(bare)).text


def test_a_log_of_training_batches_is_not_called_held_out(facts):
    from xuebu.analysis.analyze import analyze_history
    from xuebu.history.records import table_of

    history = dataclasses.replace(facts.history, eval=table_of([], "eval")[0])
    bare = ReportFacts(title="log", history=history, analysis=analyze_history(history).to_json())
    text = Reader(render_page(bare)).text
    assert "of its own training batches right (95 % interval " in text.replace("\N{NO-BREAK SPACE}", " ")
    assert "): nothing was held out" in text
    assert "MLM accuracy, training batches" in text and "MLM accuracy, held out" not in text


def test_an_empty_history_still_makes_a_page(facts):
    from xuebu.history.records import History, table_of

    empty = History("x", "xuebu history", table_of([], "train")[0], table_of([], "eval")[0])
    assert "No MLM accuracy was recorded" in render_page(ReportFacts(title="empty", history=empty))


def test_few_predictions_are_named_as_a_limit(facts):
    tables = copy.deepcopy(dict(facts.baselines))
    tables["mlm"]["model"]["predictions"] = 150
    text = Reader(render_page(dataclasses.replace(facts, baselines=tables))).text
    assert "Only 150 held-out predictions" in text
    assert "held-out predictions stand behind" not in Reader(render_page(facts)).text


def test_the_quoted_interval_keeps_the_doubt_about_it(facts):
    analysis = copy.deepcopy(dict(facts.analysis))
    intervals = [
        {"name": "naive", "low": 0.7, "high": 0.9, "assumption": "independent", "doubt": "they are not"},
        {"low": 0.5, "high": 0.95, "assumption": "noise", "residuals_of": "saturating", "effective_size": 13.8}
        | {"doubt": "only 13.8 effective readings", "recommended": True},
    ]
    analysis["correlations"] = {"pearson": {"coefficient": 0.857, "num": 40, "intervals": intervals}}
    text = Reader(render_page(dataclasses.replace(facts, analysis=analysis))).text
    assert "the one to quote; only 13.8 effective readings" in text
    assert "0.857 95 % interval 0.50 to 0.95 40 readings, as from 14 independent ones" in text
    intervals[1]["recommended"] = False
    text = Reader(render_page(dataclasses.replace(facts, analysis=analysis))).text
    assert "no interval can be vouched for" in text


def test_an_asymptote_that_the_data_do_not_fix_is_not_given(facts):
    fit = {"family": "power_law", "asymptote": {"value": 1.0, "low": -7.4, "high": 9.4}, "residuals": None}
    bent = {"family": "saturating", "asymptote": {"value": 0.2, "low": 0.18, "high": 0.22}, "r_squared": 0.9}
    analysis = dict(facts.analysis) | {"fits": {"power_law": fit, "saturating": bent, "linear": None}}
    text = Reader(render_page(dataclasses.replace(facts, analysis=analysis))).text
    assert "power law – – – – not fixed by the data" in text
    assert "saturating exponential 0.900 – – – 20.0 % (18.0 to 22.0)" in text


def test_examples_show_the_first_candidate_in_its_blank(facts):
    text = render_page(facts)
    assert "在<mark>冰</mark>上行走，也有人凿洞捕<mark>鱼</mark>。" in text
    assert "width: 83.0%" in text and "In the text: 冰鱼" in text


def test_an_example_whose_masks_do_not_match_its_text_is_shown_as_it_is(facts):
    odd = {
        "text": "没有空格的句子",
        "masks": [{"candidates": [{"token": "水", "probability": 1.5}]}, {"candidates": []}],
    }
    text = render_page(dataclasses.replace(facts, fills=(odd,)))
    assert "没有空格的句子</p>" in text and "width: 100.0%" in text


def test_recipe_card_and_run_are_all_there(facts):
    text = Reader(render_page(facts)).text
    for shown in (
        "mask_rate",
        "0.15",
        "learning_rate",
        "0.001",
        "a processor",
        "fewer characters",
        "3,321 (94.9",
        "43,477",
    ):
        assert shown in text
    assert re.search(r"Sessions \(start and resumes\)\s*2\b", text)
    assert re.search(r"Floating-point operations\s*8e\+13", text)
    assert re.search(r"Training time\s*8.min 20.s", text)


def test_colors_of_charts_are_variables_that_every_scheme_defines(facts):
    style = (Path(page.__file__).parent / "style.css").read_text(encoding="utf-8")
    light, dark, printed = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    used = set(re.findall(r"var\((--[\w-]+)\)", render_page(facts))) | set(color_variables().values())
    for scheme in (light, dark, printed):
        assert used <= set(re.findall(r"(--[\w-]+):", scheme))


def test_inline_svg_keeps_no_identity_or_style_of_its_own():
    text = inline_svg(SVG, prefix="curves-1", description='says "much"')
    assert text.startswith('<svg class="picture" viewBox="0 0 10 10" role="img" aria-label="says &#34;much&#34;">')
    assert not re.search("xml|metadata|<style|axes_1|xlink|#0072b2|width=", text)
    assert 'clipPath id="curves-1-p1"' in text and "url(#curves-1-p1)" in text
    assert '<use href="#curves-1-m1"/>' in text and 'path id="curves-1-m1"' in text
    assert "fill: var(--chart-held-out); stroke: var(--ink)" in text


def test_characters_and_calibration_are_tables(facts):
    text = Reader(render_page(facts)).text.replace("\N{NO-BREAK SPACE}", " ")
    assert "Han, rank 1–100 21.0 % 20.0 to 22.0 % 46.0 % 45.0 to 47.0 % 4,000 56,789" in text
    assert "50.0 % 42.0 % 41.0 to 43.0 % 4,938" in text
    assert "lie 4.5 points apart" in text and "sampling alone would make 0.4 points" in text
    chinese = Reader(render_page(facts, language="zh")).text
    assert "汉字，第 1,501 位起" in chinese and "期望校准误差" in chinese


@pytest.mark.parametrize(
    "changes",
    [
        {"calibration": None, "mlm": {}},
        {"calibration": {"bins": []}, "mlm": {"by_character": {}}},
        {"calibration": {"bins": [{"probability": 0.1}]}, "mlm": {"by_character": {"han_1_100": None}}},
        {"calibration": {"bins": [{"probability": 0.1, "accuracy": 0.2, "predictions": 5}]}, "mlm": None},
        {"calibration": 7, "mlm": {"by_character": {"new": {"model": {"accuracy": 0.5}}}}},
    ],
)
def test_tables_that_lack_parts_still_make_a_page(facts, changes):
    odd = dataclasses.replace(facts, baselines=dict(facts.baselines) | changes)
    for figure in page.run_figures(odd):
        page.report_chart(figure, None, "en")
    assert "Verdict" in render_page(odd)


def test_masks_are_told_as_set_and_as_counted(facts):
    found = Reader(render_page(facts)).text.replace("\N{NO-BREAK SPACE}", " ")
    assert "Share of tokens chosen 15.0 % 15.0 %" in found
    assert "The same, predictions – 9,876" not in found  # one class is missing, so nothing is claimed
    classes = {
        name: {"model": {"accuracy": 0.1, "predictions": count}}
        for name, count in (("mask", 800), ("random", 99), ("kept", 101))
    }
    tables = copy.deepcopy(dict(facts.baselines))
    tables["mlm"]["by_class"] = classes
    run = {"batches": {"mask_rate": 0.3, "mask_unit": "word", "mask_token_share": 0.9, "random_token_share": 0.05}}
    told = Reader(render_page(dataclasses.replace(facts, run=run, baselines=tables))).text
    told = told.replace("\N{NO-BREAK SPACE}", " ")
    assert "What is chosen whole words single tokens" in told
    assert "Share of tokens chosen 30.0 % 15.0 %" in told
    assert "90 % / 5 % / 5 % 80 % / 10 % / 10 %" in told
    assert "– 800 / 99 / 101" in told
    assert "score the first 4,000 of these" in told
    total = int(facts.history.column("train", "mlm_accuracy").count.sum())
    assert f"Predictions in all {total:,} 12,345" in told
    assert "Predictions in all" not in Reader(render_page(dataclasses.replace(facts, run={}))).text


def with_start(facts, *events, **more):
    start = dict(facts.history.event("start")) | more
    return dataclasses.replace(facts, history=dataclasses.replace(facts.history, events=(start, *events)))


def test_tokens_beyond_the_rows_are_told(facts):
    told = Reader(render_page(with_start(facts, training_tokens=153_885, cut_tokens=2_194))).text
    told = told.replace("\N{NO-BREAK SPACE}", " ")
    assert "Of these never trained on 2,194 (1.4 %, beyond the end of a row)" in told
    assert "1.4 % of the training tokens lie beyond the end of their row" in told
    few = Reader(render_page(with_start(facts, training_tokens=153_885, cut_tokens=20))).text
    assert "Of these never trained on" in few and "lie beyond the end" not in few
    assert "never trained on" not in Reader(render_page(facts)).text


def test_inexact_resumes_are_told(facts):
    events = ({"event": "inexact", "step": 120, "changes": ["torch has changed", "<b>"]}, {"event": "inexact"})
    for language, where in (("en", "at step 120: torch has changed; <b>; at step 0"), ("zh", "第 120 步: torch has")):
        told = Reader(render_page(with_start(facts, *events), language=language)).text
        assert told.count(where) == 2  # among the run's facts, and among what cannot be concluded
    assert "inexactly" not in Reader(render_page(facts)).text


def test_the_forecast_is_told_family_by_family(facts):
    told = Reader(render_page(facts)).text.replace("\N{NO-BREAK SPACE}", " ")
    forecast = facts.analysis["forecast"]
    for one in forecast["families"]:
        assert f"{100 * one['value']:.1f} % {100 * one['low']:.1f} to {100 * one['high']:.1f} %" in told
    value = forecast["interval"]["value"]
    assert f"Forecast at step {forecast['target_step']:,}" in told and f"{100 * value:.1f} %" in told
    analysis = dict(facts.analysis) | {"forecast": {"refused": "too short", "interval": None, "families": []}}
    assert "No forecast: too short" in Reader(render_page(dataclasses.replace(facts, analysis=analysis))).text
    analysis = dict(facts.analysis) | {"forecast": {"interval": {"value": 0.2}, "families": [7, {"family": "new"}]}}
    assert "the forecast 20.0 %" in Reader(render_page(dataclasses.replace(facts, analysis=analysis))).text.replace(
        "\N{NO-BREAK SPACE}", " "
    )


def test_the_leading_sentence_has_its_interval(facts):
    told = Reader(render_page(facts)).text.replace("\N{NO-BREAK SPACE}", " ")
    assert "of held-out text right (95 % interval 16.7 to 18.7 %)." in told


def test_masks_are_told_as_counted_in_the_first_batches(facts):
    masks = {
        "shares": {
            name: {"share": share}
            for name, share in (("mask", 0.801), ("matched", 0.0), ("random", 0.1), ("kept", 0.099))
        },
        "counts": {"touched_words": 9_168},
        "whole_word_share": 1.0,
        "by_class": {
            name: {"rate": rate}
            for name, rate in (("han", 0.149), ("latin", 0.138), ("digit", None), ("punctuation", 0.148))
        },
    }
    batches = {
        "mask_rate": 0.3, "final_mask_rate": 0.15, "mask_rate_steps": 1_000, "mask_unit": "ngram",
        "ngram_weights": [0.5, 0.3, 0.2], "mask_token_share": 0.8, "random_token_share": 0.1, "static_copies": 10,
    }  # fmt: skip
    page_of = dataclasses.replace(facts, run={"batches": batches}, masks=masks)
    told = Reader(render_page(page_of)).text.replace("\N{NO-BREAK SPACE}", " ")
    assert "one to 3 words in a row" in told and "30.0 % to 15.0 % over 1,000 steps" in told
    assert "80.1 % / 10.0 % / 9.9 %" in told and "100.0 % of 9,168" in told
    assert "14.9 % / 13.8 % / – / 14.8 %" in told and "10 fixed copies in turn" in told
    matched = dataclasses.replace(
        facts, run={"batches": batches | {"mask_replacement": "matched", "mask_unit": "span"}}
    )
    assert "Of these similar frequency / random / kept" in Reader(render_page(matched)).text
    assert "整词被遮" in Reader(render_page(page_of, language="zh")).text


def test_sentence_order_has_its_own_name(facts):
    tables = {name: value for name, value in facts.baselines.items() if name != "nsp"}
    tables["sop"] = {"model": {"accuracy": 0.61, "low": 0.58, "high": 0.64, "predictions": 2_000}}
    told = Reader(render_page(dataclasses.replace(facts, baselines=tables))).text
    assert "SOP accuracy, held out" in told and "Sentence order (SOP)" in told
