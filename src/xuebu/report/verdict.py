"""The verdict in plain words: what came out, whether it beats counting, and what the analysis found."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from xuebu.report.facts import ReportFacts
from xuebu.report.tables import interval_text
from xuebu.report.view import model_entry
from xuebu.report.words import MINUS, Words

_MINUS = re.compile(r"(?<![\w.])-(?=\d)")
SEVERITIES = ("bad", "warn", "good", "info")
_COUNTING = ("below_counting", "above_counting", "counting_undecided")


# The analysis writes its findings in English; these say the same in Chinese from the same evidence.
_CHINESE = {
    "too_few_points": "只有 {points} 个读数，不足以区分直线与曲线、噪声与趋势。应更频繁地评估，或训练更久。",
    "constant": "{points} 个读数完全相同：常数没有相关或拟合可言。",
    "line_is_wrong_model": (
        "直线不是这次训练的合适模型：在 {origins} 处截断后预测未见的读数，直线的误差是饱和曲线的 {error_ratio:.2f} 倍"
        "（{low:.2f} 至 {high:.2f}）。由直线外推得到的数值不成立。"
    ),
    "line_not_refuted": "数据未能否定直线：两种曲线的误差之比为 {error_ratio:.2f}（{low:.2f} 至 {high:.2f}）。",
    "nsp_learned": "学会了下一句预测：准确率 {accuracy:.1%}，高于随机水平 {standard_errors:.1f} 个标准误。",
    "nsp_at_chance": (
        "下一句预测与随机猜测无法区分：准确率 {accuracy:.1%}，距随机水平 {standard_errors:.1f} 个标准误。"
        "配对前句子是否被打乱？还是训练步数太少？"
    ),
    "sop_learned": "学会了句序预测：准确率 {accuracy:.1%}，高于随机水平 {standard_errors:.1f} 个标准误。",
    "sop_at_chance": (
        "句序预测与随机猜测无法区分：准确率 {accuracy:.1%}，距随机水平 {standard_errors:.1f} 个标准误。"
        "配对前句子是否被打乱？还是训练步数太少？"
    ),
    "few_predictions": "准确率的预测次数太少：单次读数通常有 {standard_error:.1%} 的误差。{whose_zh}",
    "learning": "训练结束时模型仍在学习：最后三分之一每 1 万步 {rate:+.2f}{unit_zh}（{low:.2f} 至 {high:.2f}）。",
    "worsening": "训练结束时模型在变差：最后三分之一每 1 万步 {rate:+.2f}{unit_zh}（{low:.2f} 至 {high:.2f}）。",
    "plateaued": "训练已趋平：最后三分之一每 1 万步 {rate:+.2f}{unit_zh}（{low:.2f} 至 {high:.2f}）。",
    "not_finite": "第 {step} 步起记录到非有限数值（{metrics}）：训练已崩溃。",
    "not_finite_passing": (
        "第 {step} 步起记录到非有限数值（{metrics}），其后又有有限值：个别步被跳过或记录有误，梯度裁剪或损失缩放可致。"
    ),
    "overfitting": (
        "过拟合：留出集损失在第 {best_step} 步最低（{best:.3f}），此后上升 {rise:.3f}，而训练损失仍变化 {train:+.3f}。"
        "应采用该步的检查点。"
    ),
    "memorizing": "死记硬背：末端训练损失 {train:.3f}，留出集损失 {held_out:.3f}。更多文本有益，更多步数无益。",
    "diverging": "发散：训练损失在第 {since} 步前后为 {best:.3f}，最后十分之一升至 {end:.3f}。",
    "disturbed": "值得留意：突刺 {spike} 次，水平跃变 {level_shift} 次，学习率跳变 {learning_rate_jump} 次。",
    "moving": (
        "训练结束时读数仍在变化：最后三分之一每 1 万步 {rate:+.2f}{unit_zh}（{low:.2f} 至 {high:.2f}）。"
        "由指标名称无法判断这是否为改善。"
    ),
    "trend_undecided": (
        "无法判断结束时是否仍在学习：最后三分之一每 1 万步 {rate:+.2f}{unit_zh}（{low:.2f} 至 {high:.2f}）。"
    ),
}


_SPENT = "此时学习率已接近零，任何曲线都会因此变平。"


def _turns_of(evidence: Mapping[str, Any]) -> dict[str, str]:
    """Return the Chinese for what the evidence decides: the unit of a rate, and whose noise a reading has."""
    unit = str(evidence.get("unit", "")).removesuffix(" per 10,000 steps")
    held_out = "各次读数共用同一批预测，因此水平有这样的不确定，曲线的形状则较少。"
    own = "读数的散布以及对 r 的限制，多来自这种噪声而非模型。"
    return {
        "unit_zh": " 个百分点" if unit == "percentage points" else f" {unit}",
        "whose_zh": held_out if evidence.get("held_out") else own,
    }


@dataclass(frozen=True, slots=True)
class Statement:
    """One sentence of the verdict.

    Attributes:
        severity: one of SEVERITIES.
        text: the sentence.
        language: of the sentence, for the page's language attribute.
    """

    severity: str
    text: str
    language: str


def verdict_of(facts: ReportFacts, words: Words) -> tuple[str, tuple[Statement, ...]]:
    """Return the leading sentence, and the statements after it: counting first, then by severity."""
    counting = _counting_statement(facts, words)
    findings = [finding for finding in (facts.analysis or {}).get("verdict") or [] if isinstance(finding, Mapping)]
    said = [counting] if counting else []
    rest: list[Statement] = []
    for finding in findings:
        if counting and finding.get("flag") in _COUNTING:
            continue  # said already, with the difference and its interval
        statement = _statement(finding, words)
        (said if finding.get("flag") in _COUNTING else rest).append(statement)
    rest.sort(key=lambda statement: SEVERITIES.index(statement.severity))
    return _lead(facts, words), (*said, *rest)


def _lead(facts: ReportFacts, words: Words) -> str:
    entry, kind = model_entry(facts, "mlm")
    if entry.get("accuracy") is None:
        return words("lead_nothing")
    tables = (facts.history.eval, facts.history.train)
    steps = words.count(max((int(table.step[-1]) for table in tables if len(table)), default=0))
    accuracy, count = words.percent(entry["accuracy"]), words.count(entry.get("predictions"))
    interval = interval_text(words, {**entry, "note": ""}, factor=100.0, unit=words.percent_sign)
    key = "lead" if kind == "eval" else "lead_train"
    return words(key, steps=steps, accuracy=accuracy, predictions=count, interval=interval)


def counting_flag(baselines: Mapping[str, Any] | None) -> str | None:
    """Return which of below, above or undecided the difference from the n-gram shows; None where it is not known."""
    difference = ((baselines or {}).get("mlm") or {}).get("difference_from_ngram") or {}
    value, low, high = (difference.get(name) for name in ("value", "low", "high"))
    if value is None:
        return None
    if high is not None and high < 0:
        return "below_counting"
    if low is not None and low > 0:
        return "above_counting"
    return "counting_undecided"


def _counting_statement(facts: ReportFacts, words: Words) -> Statement | None:
    flag = counting_flag(facts.baselines)
    if flag is None or facts.baselines is None:
        return None
    mlm = facts.baselines["mlm"]
    difference = dict(mlm["difference_from_ngram"])
    if flag == "below_counting":  # "20.4 points below", not "-20.4 points below"
        ends = difference.get("high"), difference.get("low")
        difference["low"], difference["high"] = (None if end is None else -end for end in ends)
        difference["value"] = -difference["value"]
    value = words.number(100 * difference["value"], 1, sign=flag == "counting_undecided")
    shown, interval = words("points", value=value), interval_text(words, difference, factor=100.0)
    other = words.percent((mlm.get("ngram") or {}).get("accuracy"))
    severity = {"below_counting": "bad", "above_counting": "good", "counting_undecided": "warn"}[flag]
    return Statement(severity, words(flag, other=other, difference=shown, interval=interval), words.language)


def _statement(finding: Mapping[str, Any], words: Words) -> Statement:
    """Return a finding in the page's language where the report has words for it, else as the analysis wrote it."""
    severity = finding.get("severity")
    severity = severity if severity in SEVERITIES else "info"
    template = _CHINESE.get(str(finding.get("flag")))
    if words.language == "zh" and template is not None:
        with suppress(KeyError, TypeError, ValueError):  # an older or newer analysis
            evidence = dict(finding.get("evidence") or {})
            text = template.format(**evidence, **_turns_of(evidence)) + (_SPENT if evidence.get("rate_spent") else "")
            return Statement(severity, _MINUS.sub(MINUS, text), "zh")
    text = str(finding.get("text", ""))
    said = words.said(text)
    return Statement(severity, _MINUS.sub(MINUS, said), "en" if said == text else words.language)
