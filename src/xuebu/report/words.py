"""The report's texts in both languages, and numbers as the report writes them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Language = Literal["en", "zh"]
NO_BREAK = "\N{NO-BREAK SPACE}"
MINUS = "\N{MINUS SIGN}"

TEXTS: Mapping[str, tuple[str, str]] = {
    # the page
    "html_lang": ("en", "zh-Hans"),
    "title": ("Report of a pretraining run", "预训练报告"),
    "skip": ("Contents", "目录"),
    "written": (
        "Written by xuebu {version} from the files of the run folder alone; the same files give the same page.",
        "由 xuebu {version} 仅根据运行目录中的文件生成；文件相同，页面相同。",
    ),
    "not_there": (
        "Not in the run folder, so not in this report: {files}.",
        "运行目录中没有、因而未写入报告：{files}。",
    ),
    "verdict": ("Verdict", "结论"),
    "figures": ("Headline figures", "主要数字"),
    "baselines": ("Against baselines", "与基线比较"),
    "classes": ("By class of masked position", "按掩码类别"),
    "charts": ("Charts", "图表"),
    "growth": ("How accuracy grew", "准确率的增长"),
    "examples": ("Filled-in examples", "填空示例"),
    "corpus": ("Corpus card", "语料卡"),
    "recipe": ("Recipe", "配方"),
    "run": ("Run and environment", "运行与环境"),
    "limits": ("What cannot be concluded", "不能得出的结论"),
    # verdict
    "good": ("Good", "良好"),
    "info": ("Note", "说明"),
    "warn": ("Caution", "注意"),
    "bad": ("Problem", "问题"),
    "lead": (
        "After {steps} steps the model fills in {accuracy} of {predictions} masked characters of held-out text right.",
        "训练 {steps} 步后，模型答对留出文本中 {predictions} 个掩码字符的 {accuracy}。",
    ),
    "lead_train": (
        "After {steps} steps the model fills in {accuracy} of the masked characters of its own training batches "
        "right: nothing was held out.",
        "训练 {steps} 步后，模型在训练批次上答对 {accuracy} 的掩码字符；没有留出集。",
    ),
    "lead_nothing": ("No MLM accuracy was recorded.", "没有记录掩码预测准确率。"),
    "below_counting": (
        "The run is too short to beat counting: an n-gram model, which only counts characters and trains nothing, "
        "gets {other}, and the model is {difference} below it ({interval}).",
        "训练步数太少，尚不如计数：只统计字符、不作训练的 n 元模型答对 {other}，"
        "模型比它低 {difference}（{interval}）。",
    ),
    "above_counting": (
        "The model beats counting: an n-gram model gets {other}, and the model is {difference} above it ({interval}).",
        "模型优于计数：n 元模型答对 {other}，模型比它高 {difference}（{interval}）。",
    ),
    "counting_undecided": (
        "The model is not told apart from counting: an n-gram model gets {other}; model minus n-gram is {difference} "
        "({interval}).",
        "模型与计数难分高下：n 元模型答对 {other}；两者之差为 {difference}（{interval}）。",
    ),
    # figures
    "interval_of": ("{level} interval {interval}", "{level} 区间 {interval}"),
    "no_interval": ("no interval", "无区间"),
    "no_interval_because": ("no interval: {note}", "无区间：{note}"),
    "predictions": ("{count} predictions", "{count} 次预测"),
    "readings": ("{count} readings", "{count} 次读数"),
    "as_independent": ("as from {count} independent ones", "相当于 {count} 次独立读数"),
    "to": ("{low}\N{NO-BREAK SPACE}to\N{NO-BREAK SPACE}{high}", "{low}\N{NO-BREAK SPACE}至\N{NO-BREAK SPACE}{high}"),
    "comma": (", ", "，"),
    "named": ("{name}: {value}", "{name}：{value}"),
    "points": ("{value} points", "{value} 个百分点"),
    "unit_points": ("points", "个百分点"),
    "mlm_accuracy": ("MLM accuracy, held out", "掩码预测准确率（留出集）"),
    "mlm_accuracy_train": ("MLM accuracy, training batches", "掩码预测准确率（训练批次）"),
    "nsp_accuracy": ("NSP accuracy, held out", "下一句预测准确率（留出集）"),
    "nsp_accuracy_train": ("NSP accuracy, training batches", "下一句预测准确率（训练批次）"),
    "difference_ngram": ("Model minus n-gram", "模型减 n 元计数"),
    "difference_frequent": ("Model minus most frequent", "模型减最高频字"),
    "difference_overlap": ("Model minus overlap rule", "模型减重叠规则"),
    "same_predictions": ("on the same predictions", "在相同的预测上"),
    "pearson": ("Pearson r with the step", "与步数的皮尔逊 r"),
    "forecast": ("Forecast at step {step}", "第 {step} 步的预测"),
    "forecast_refused": ("No forecast: {reason}", "不作预测：{reason}"),
    "bits": ("Bits per character, held out", "每字符比特数（留出集）"),
    "chance_distance": ("{errors} standard errors from chance ({chance})", "距随机水平（{chance}）{errors} 个标准误"),
    # tables
    "method": ("Method", "方法"),
    "accuracy": ("Accuracy", "准确率"),
    "interval": ("{level} interval", "{level} 区间"),
    "num_predictions": ("Predictions", "预测次数"),
    "model_minus": ("Model minus it, points", "模型减之（百分点）"),
    "model": ("the model", "本模型"),
    "ngram": ("n-gram counts", "n 元计数"),
    "most_frequent": ("most frequent character", "最高频字"),
    "overlap_rule": ("character-overlap rule", "字符重叠规则"),
    "chance": ("chance", "随机"),
    "mlm": ("Masked characters (MLM)", "掩码预测（MLM）"),
    "nsp": ("Next sentence (NSP)", "下一句预测（NSP）"),
    "clusters": (
        "Intervals count held-out documents ({count}), not single predictions, as independent.",
        "区间以留出文档（{count} 篇）而非单次预测为独立单位。",
    ),
    "class": ("Position shows", "该位置显示"),
    "class_mask": ("[MASK]", "[MASK]"),
    "class_random": ("a random character", "随机字符"),
    "class_kept": ("the character itself", "原字符"),
    "class_note": (
        "The last row pays a copier: a model that repeats what it sees gets it right. Read the [MASK] row.",
        "末行奖励照抄：重复所见即可答对。应看 [MASK] 一行。",
    ),
    "by_character": ("By class of the hidden character", "按所遮字符的类别"),
    "character": ("Character", "字符"),
    "training_count": ("In the training text", "训练文本中的次数"),
    "character_note": (
        "Han characters are ranked by how often they stand in the training text. Intervals count held-out documents as "
        "independent.",
        "汉字按其在训练文本中的出现次数排位。区间以留出文档为独立单位。",
    ),
    "calibration": ("Calibration at [MASK]", "[MASK] 处的校准"),
    "probability_given": ("Mean probability of the first candidate", "首选的平均概率"),
    "share_right": ("Right", "答对"),
    "calibration_note": (
        "Probability and share right lie {ece} apart on average (expected calibration error); for a model that is "
        "right as often as it says, sampling alone would make {chance}.",
        "概率与答对比例平均相差 {ece}（期望校准误差）；即使模型言行一致，抽样本身也会造成 {chance} 的偏差。",
    ),
    "coefficient": ("Coefficient", "系数"),
    "value": ("Value", "数值"),
    "naive": ("naive interval", "朴素区间"),
    "honest": ("interval for correlated readings", "考虑自相关的区间"),
    "naive_note": (
        "The naive interval takes all readings for independent, which they are not.",
        "朴素区间假定各次读数相互独立，事实并非如此。",
    ),
    "correlations": ("Correlation with the step", "与步数的相关"),
    "pearson_name": ("Pearson's r", "皮尔逊 r"),
    "spearman_name": ("Spearman's rho", "斯皮尔曼 ρ"),
    "kendall_name": ("Kendall's tau", "肯德尔 τ"),
    "pearson_intervals": ("Intervals of Pearson's r, by what they assume", "皮尔逊 r 的各种区间及其假定"),
    "if_true": ("If this holds", "假定"),
    "noise_from": ("Noise seen around", "噪声取自"),
    "worth": ("Worth as many independent readings", "相当于独立读数"),
    "doubt": ("What speaks against it", "质疑"),
    "quote_this": ("the one to quote", "宜引用此区间"),
    "no_trusted_interval": ("no interval can be vouched for", "没有可信的区间"),
    "curves": ("Curves fitted to the readings", "拟合曲线"),
    "not_fixed": ("not fixed by the data", "数据不足以确定"),
    "curve": ("Curve", "曲线"),
    "linear": ("straight line", "直线"),
    "logarithmic": ("logarithm", "对数"),
    "power_law": ("power law", "幂律"),
    "saturating": ("saturating exponential", "饱和指数"),
    "slope": ("Slope", "斜率"),
    "asymptote": ("goes to", "趋于"),
    "lag1": ("lag-1 autocorrelation", "一阶自相关"),
    "durbin_watson": ("Durbin-Watson", "杜宾-沃森"),
    "rmse": ("scatter around it", "残差标准差"),
    "comparison": (
        "Predicting readings not used for the fit, the saturating curve was better at {wins} of {origins} cuts; "
        "the error of the straight line is {ratio} times as large ({interval}).",
        "预测未用于拟合的读数时，饱和曲线在 {origins} 处截断中的 {wins} 处更准；"
        "直线的误差是其 {ratio} 倍（{interval}）。",
    ),
    "rates_plain": ("Change per 10,000 steps", "每 1 万步的变化"),
    "rates": ("Points per 10,000 steps", "每 1 万步的百分点"),
    "rate_line": ("of the straight line, whole run", "直线，全程"),
    "rate_last_third": ("in the last third", "最后三分之一"),
    "rate_end_of_curve": ("of the saturating curve, at the end", "饱和曲线，末端"),
    "line_would_say": (
        "A straight line would say {value} at step {step}.",
        "若按直线外推，第 {step} 步为 {value}。",
    ),
    # the rest
    "chart_files": ("The charts also lie in charts/ as PNG and SVG.", "图表另存于 charts/（PNG 与 SVG）。"),
    "fill_note": (
        "Sentences with hidden characters: what the model puts first is marked, with the candidates and their "
        "probabilities below.",
        "句中字符被遮住：标出模型的首选，下列候选及概率。",
    ),
    "truth": ("In the text: {text}", "原文：{text}"),
    "blank": ("blank {number}", "第 {number} 空"),
    "no_examples": ("No examples were written.", "没有写出示例。"),
    "no_card": ("No corpus card lies in the run folder.", "运行目录中没有语料卡。"),
    "no_analysis": ("The run was not analyzed (no analysis.json).", "此次运行尚未分析（没有 analysis.json）。"),
    "no_baselines": (
        "No baseline was scored. Without one an accuracy says little: counting characters alone often reaches more "
        "than a short run.",
        "没有基线得分。缺少基线时准确率说明不了什么：仅靠字符计数往往就胜过一次短训练。",
    ),
    "counts": ("What it holds", "内容"),
    "whole": ("Whole", "全部"),
    "train_split": ("Training", "训练"),
    "held_out_split": ("Held out", "留出"),
    "documents": ("Documents", "文档"),
    "groups": ("Groups (titles)", "组（标题）"),
    "sentences": ("Sentences", "句子"),
    "characters": ("Characters", "字符"),
    "neighbors": ("True neighbor pairs", "真实相邻句对"),
    "distinct_characters": ("Distinct characters", "不同字符"),
    "mean_sentence_length": ("Mean sentence length, characters", "平均句长（字符）"),
    "refused": ("What was refused", "剔除的内容"),
    "reason": ("Reason", "原因"),
    "level_file": ("files", "文件"),
    "level_document": ("documents", "文档"),
    "level_sentence": ("sentences", "句子"),
    "count": ("Count", "数量"),
    "characters_lost": ("Characters lost", "损失字符"),
    "sources": ("Sources", "来源"),
    "name": ("Name", "名称"),
    "and_more": ("and {count} more", "另有 {count} 个"),
    "coverage": ("Coverage of character lists", "字表覆盖"),
    "list": ("List", "字表"),
    "size": ("Characters in it", "字数"),
    "covered": ("In the corpus", "语料中"),
    "covered_in_training": ("In the training text", "训练文本中"),
    "steps": ("Steps", "步数"),
    "tokens": ("Real tokens seen", "实际词元数"),
    "seconds": ("Training time", "训练用时"),
    "tokens_per_second": ("Real tokens per second", "每秒实际词元"),
    "num_parameters": ("Parameters", "参数量"),
    "device": ("Device", "设备"),
    "precision": ("Arithmetic", "运算精度"),
    "threads": ("Threads", "线程"),
    "flop": ("Floating-point operations", "浮点运算量"),
    "mfu": ("Share of the device's peak (MFU)", "占设备峰值比例（MFU）"),
    "sessions": ("Sessions (start and resumes)", "会话数（启动与续跑）"),
    "scroll": ("Table: {name}", "表格：{name}"),
    # limits
    "limit_seed": (
        "This is one run with one seed. Intervals say how far a figure would move with other held-out documents, not "
        "with another seed.",
        "这是单个随机种子的一次运行。区间反映换一批留出文档时数字的变动，不反映换种子的变动。",
    ),
    "limit_source": (
        "Held-out text comes from the same sources as the training text, whole titles kept apart. Nothing is said "
        "about other kinds of text, or about tasks.",
        "留出文本与训练文本同源，按标题整体分开。对其他文本或下游任务不作任何断言。",
    ),
    "limit_masks": (
        "The same masked positions are asked at every step: their sampling error moves the whole curve up or down, "
        "and does not blur differences between steps.",
        "每一步考的是同一批掩码位置：抽样误差使整条曲线上下平移，不影响步与步之间的差异。",
    ),
    "limit_correlation": (
        "A correlation of step and accuracy depends on where the run was cut and on how noisy each reading is. It does "
        "not measure how good a model is, and a higher one does not mean that more training pays.",
        "步数与准确率的相关取决于在何处截断以及每次读数的噪声。它不衡量模型好坏，相关更高也不表示继续训练划算。",
    ),
    "limit_forecast": (
        "A forecast holds for the same recipe and data. A learning rate that has fallen is part of the curve: "
        "a longer run would have had another schedule.",
        "预测仅适用于配方不变、继续训练。学习率衰减已包含在曲线之中：更长的训练本会有另一条学习率曲线。",
    ),
    "limit_train": (
        "Every reading is of one training batch: the figures mix learning with remembering.",
        "每次读数都来自一个训练批次：数字混有学习与记忆。",
    ),
    "limit_predictions": (
        "Only {count} held-out predictions stand behind the accuracy; 2,000 or more are wanted.",
        "准确率背后只有 {count} 次留出预测；宜有 2,000 次以上。",
    ),
}


@dataclass(frozen=True, slots=True)
class Words:
    """Texts and numbers in one language; what is put into a text is not yet escaped."""

    language: Language

    def __call__(self, key: str, **values: Any) -> str:
        """Return a text of `TEXTS` with its places filled."""
        return TEXTS[key][0 if self.language == "en" else 1].format(**values)

    def percent(self, fraction: float | None, digits: int = 1) -> str:
        """Return a fraction as "17.6 %", in Chinese "17.6%"."""
        return "–" if fraction is None else f"{_rounded(100 * fraction, digits)}{self.percent_sign}"

    @property
    def percent_sign(self) -> str:
        """The sign with the space before it that the language wants."""
        return f"{NO_BREAK}%" if self.language == "en" else "%"

    def shares(self, low: float | None, high: float | None) -> str:
        """Return the ends of an interval of fractions as "16.4 to 18.9 %"."""
        return self.span(
            low, high, factor=100.0, unit=self.percent_sign if low is not None and high is not None else ""
        )

    def points(self, difference: float | None) -> str:
        """Return a difference of fractions in points, with its sign: "+2.3"."""
        return "–" if difference is None else _rounded(100 * difference, 1, sign=True)

    def count(self, number: float | None) -> str:
        """Return a whole number with thousands separators."""
        return "–" if number is None else f"{number:,.0f}"

    def number(self, value: float | None, digits: int = 2, *, sign: bool = False) -> str:
        """Return a number with that many decimals."""
        return "–" if value is None else _rounded(value, digits, sign=sign)

    def span(
        self, low: float | None, high: float | None, *, factor: float = 1.0, unit: str = "", digits: int = 1
    ) -> str:
        """Return the ends of an interval, times `factor`, `unit` after them; a dash where there are none."""
        if low is None or high is None:
            return "–"
        ends = _rounded(factor * low, digits), _rounded(factor * high, digits, sign=low < 0 < high)
        return self("to", low=ends[0], high=ends[1]) + unit

    def duration(self, seconds: float | None) -> str:
        """Return a time as "1 h 02 min", "14 min 05 s" or "8 s"."""
        if seconds is None:
            return "–"
        minutes, rest = divmod(round(seconds), 60)
        hours, minutes = divmod(minutes, 60)
        if hours:
            return f"{hours:,}{NO_BREAK}h {minutes:02d}{NO_BREAK}min"
        return f"{minutes}{NO_BREAK}min {rest:02d}{NO_BREAK}s" if minutes else f"{rest}{NO_BREAK}s"

    def plain(self, value: Any) -> str:
        """Return any value of a recipe or card as text: numbers readable, lists joined, true and false as such."""
        match value:
            case bool():
                return str(value).lower()
            case int():
                return f"{value:,}".replace("-", MINUS)
            case float():
                return f"{value:,.6g}" if math.isfinite(value) else "–"
            case None:
                return "–"
            case list() | tuple():
                return ", ".join(map(self.plain, value))
            case _:
                return str(value)


def _rounded(value: float, digits: int, *, sign: bool = False) -> str:
    text = f"{value:{'+' if sign else ''},.{digits}f}"
    if not any(character in "123456789" for character in text):
        text = text.lstrip("+-")  # "-0.0" says a direction that the digits do not show
    return text.replace("-", MINUS)
