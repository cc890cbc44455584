"""The Chinese page speaks Chinese: what analysis and baselines say in English is known to it, with every figure."""

import dataclasses
import re

import numpy as np
import pytest

from xuebu.analysis.analyze import FIXED_MASKS, analyze_history
from xuebu.batches.baselines import Baselines
from xuebu.corpus.refusals import REASONS
from xuebu.history.records import History, table_of
from xuebu.report.card import card_tables
from xuebu.report.chinese import in_chinese
from xuebu.report.facts import ReportFacts
from xuebu.report.page import read_facts, render_page
from xuebu.report.verdict import verdict_of
from xuebu.report.words import Words

ENGLISH = re.compile(r"[A-Za-z]{2,} [A-Za-z]{2,} [A-Za-z]{2,}")


def history_of(num, *, kind="eval", noise=0.003, rho=0.0, bend=0.3, stall=0, seed=5):
    rng = np.random.default_rng(seed)
    steps, drift, records = np.arange(1, num + 1) * 20, 0.0, []
    for place, step in enumerate(steps):
        drift = rho * drift + rng.normal(0, noise)
        share = max(0.0, (place - stall) / num)
        level = 0.02 + 0.2 * (1 - np.exp(-share / bend) if bend else share)
        records.append({"step": int(step), "mlm_accuracy": float(np.clip(level + drift, 0, 1))})
    empty, full = table_of([], "train")[0], table_of(records, kind)[0]
    tables = (empty, full) if kind == "eval" else (full, table_of([], "eval")[0])
    return History("memory", "xuebu history", *tables)


HISTORIES = {
    "short": history_of(6),
    "forty": history_of(40),
    "line": history_of(60, bend=0),
    "slow start": history_of(60, stall=8, noise=0.0005),
    "long": history_of(400, kind="train", rho=0.5),
    "long line": history_of(300, bend=0, rho=0.3),
    "drift": history_of(150, rho=0.97),
}


def sentences_of(analysis):
    """Return what a page shows of an analysis as the analysis wrote it."""
    for one in (analysis["correlations"].get("pearson") or {}).get("intervals", ()):
        yield from filter(None, (one["assumption"], one["doubt"]))
    for name in ("line", "last_third", "end_of_curve"):
        if rate := (analysis["rates"] or {}).get(name):
            yield rate["method"]
            if rate["low"] is None:
                yield rate["note"]
    yield from filter(
        None, [(analysis["comparison"] or {}).get("verdict"), (analysis["forecast"] or {}).get("refused")]
    )
    yield from (note for note in analysis["notes"] if note != FIXED_MASKS)


@pytest.mark.parametrize("name", HISTORIES)
def test_every_sentence_of_an_analysis_is_known_with_its_figures(name):
    analysis = analyze_history(HISTORIES[name]).to_json()
    for english in sentences_of(analysis):
        chinese = in_chinese(english)
        assert chinese is not None, f"report/chinese.py has no words for: {english}"
        assert re.search("[一-鿿]", chinese) and not ENGLISH.search(chinese), english
        figures = [sorted(re.findall(r"\d[\d.,]*\d|\d", text)) for text in (english, chinese)]
        assert set(figures[1]) <= set(figures[0]) | {"1", "2"}, english
        assert len(figures[0]) - len(figures[1]) <= 1, english


@pytest.mark.parametrize("name", HISTORIES)
def test_a_chinese_page_holds_no_english_sentence(name):
    history = HISTORIES[name]
    page = render_page(
        ReportFacts(title="x", history=history, analysis=analyze_history(history).to_json()), language="zh"
    )
    body = re.sub(r"<[^>]+>", "\n", page.split("<body>")[1])
    assert ENGLISH.findall(body) == []


def test_a_chinese_page_of_a_whole_run_holds_no_english_sentence(run_folder):
    facts = read_facts(run_folder)
    fallback = dataclasses.replace(facts, corpus_card=None)  # the fixture's own meanings are English
    body = re.sub(r"<[^>]+>", "\n", render_page(fallback, language="zh").split("<body>")[1])
    assert [
        found for found in ENGLISH.findall(body) if found not in ("interpolated, both sides", "two characters in")
    ] == []


@pytest.mark.parametrize(("counted", "fitted"), [(1000, 500), (800, 500), (1000, 0)])
def test_what_counting_is_has_words(counted, fitted):
    found = Baselines(
        most_frequent_correct=np.ones(3, bool),
        ngram_correct=np.ones(3, bool),
        ngram_log_probability=np.zeros(3),
        overlap_correct=np.ones(3, bool),
        most_frequent_token="的",
        counted_tokens=counted,
        training_tokens=1000,
        fitted_predictions=fitted,
        ngram_weights=np.zeros((0, 0)),
        overlap_threshold=0.064,
        overlap_training_accuracy=0.7,
        overlap_training_pairs=3136,
    )
    assert f"{counted:,} 个训练词元" in in_chinese(found.ngram_description)
    assert "0.064" in in_chinese(found.overlap_description) and "3,136" in in_chinese(found.overlap_description)


def test_what_is_not_known_is_left_to_the_caller():
    assert in_chinese("something of tomorrow") is None
    assert (
        in_chinese("line or curve, from step 240 on alone: of tomorrow") == "直线还是曲线，仅看第 240 步起：of tomorrow"
    )


def test_every_refusal_of_a_corpus_has_words():
    refusals = {
        reason: {"level": level, "count": 3, "characters": 7, "meaning": meaning}
        for reason, (level, meaning) in REASONS.items()
    }
    (table,) = card_tables({"refusals": refusals}, Words("zh"))
    for (reason, (_, meaning)), row in zip(REASONS.items(), table.rows, strict=True):
        assert row[0] != meaning and re.search("[一-鿿]", row[0]), f"report/card.py has no Chinese for {reason}"
        assert re.fullmatch("3 (文件|文档|段落|句子|处)", row[1]), reason


def said_in_chinese(flag, **evidence):
    finding = {"flag": flag, "severity": "warn", "text": "English only", "evidence": evidence}
    history = History("memory", "xuebu history", table_of([], "train")[0], table_of([], "eval")[0])
    _, (statement,) = verdict_of(ReportFacts(title="x", history=history, analysis={"verdict": [finding]}), Words("zh"))
    assert statement.language == "zh"
    return statement.text


def test_a_rate_has_the_unit_of_its_metric():
    rate = {"rate": -0.25, "low": -0.3, "high": -0.2, "rate_spent": False}
    assert "每 1 万步 −0.25 nats（" in said_in_chinese("learning", unit="nats per 10,000 steps", **rate)
    points = said_in_chinese("learning", unit="percentage points per 10,000 steps", **rate | {"rate_spent": True})
    assert "每 1 万步 −0.25 个百分点（" in points and "学习率已接近零" in points


def test_held_out_readings_share_their_noise():
    assert "共用同一批预测" in said_in_chinese("few_predictions", standard_error=0.012, held_out=True)
    assert "多来自这种噪声" in said_in_chinese("few_predictions", standard_error=0.012, held_out=False)


def test_findings_on_broken_values_have_words():
    for flag in ("not_finite", "not_finite_passing"):
        assert "第 70 步起" in said_in_chinese(flag, step=70, metrics="loss")
