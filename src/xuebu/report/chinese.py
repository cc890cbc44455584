"""What analysis, baselines and histories say in English, in Chinese: their sentences by pattern, figures kept."""

from __future__ import annotations

import re

_FAMILIES = {"linear": "直线", "saturating": "饱和曲线", "logarithmic": "对数曲线", "power_law": "幂律曲线"}
_F = r"(?P<{}>linear|saturating|logarithmic|power_law)"
_ONE, _TWO = _F.format("one"), _F.format("two")
_N = r"(?P<{}>[-−\d.,]+?)"
_A, _B, _C, _D = (_N.format(name) for name in "abcd")

# Whole sentences; {rest} is translated in its turn.
_SENTENCES: tuple[tuple[str, str], ...] = (
    # what an interval assumes
    (
        "step and reading are independent draws of a bivariate normal pair, over and over",
        "步数与读数是二元正态分布的独立重复抽样",
    ),
    (f"noise of first-order autoregressive form around the {_ONE} fit", "噪声围绕{one}，为一阶自回归"),
    (f"stationary noise around the {_ONE} fit", "噪声围绕{one}，平稳"),
    (
        "first-order autoregressive noise around a smooth trend without a formula; the steps are fixed",
        "噪声围绕没有公式的平滑趋势，为一阶自回归；步数固定",
    ),
    (f"the {_ONE} curve is the mean; the noise is stationary; the steps are fixed", "{one}为均值；噪声平稳；步数固定"),
    (
        "normal noise that remembers, the same throughout, around a smooth trend; the steps are fixed",
        "噪声围绕平滑趋势，为正态、有记忆、前后一致；步数固定",
    ),
    (
        f"the {_ONE} curve is the mean; the noise's memory is short against the run; fixed steps",
        "{one}为均值；噪声的记忆远短于训练；步数固定",
    ),
    # what speaks against it
    (
        f"{_A} effective readings, surely fewer than {_B}: no p-value. Trend and noise are hardly told apart",
        "有效读数 {a}，肯定少于 {b}：不给 p 值。趋势与噪声难以分开",
    ),
    (
        f"the interval, {_A} to {_B}, does not hold the coefficient: the readings are not what it supposes",
        "区间 {a} 至 {b} 不含该系数：读数不合其前提",
    ),
    (
        "not judged whether the readings are independent: too few of them, or no line was fitted",
        "未判断读数是否独立：读数太少，或没有拟合直线",
    ),
    (
        f"the readings are not independent around a line: lag-1 autocorrelation {_A}, Durbin-Watson {_B}",
        "读数围绕直线并不独立：一阶自相关 {a}，杜宾-沃森 {b}",
    ),
    (f"{_A} readings are too few to judge whether they are independent", "{a} 次读数太少，无法判断是否独立"),
    (
        f"the {_ONE} curve predicts better, so these residuals hold misfit, not only noise; no p-value",
        "{one}的预测更准，这些残差含有失拟，不只是噪声；不给 p 值",
    ),
    (
        rf"the estimators disagree \({_A} by AR\(1\), {_B} by lag sum\): the residuals hold misfit, not only noise; "
        "no p-value",
        "两种估计不一致（AR(1) 为 {a}，滞后求和为 {b}）：残差含有失拟，不只是噪声；不给 p 值",
    ),
    (
        f"only {_A} effective readings, fewer than {_B}; no p-value. Residuals so alike from reading to reading are "
        "often misfit and not noise",
        "有效读数仅 {a}，少于 {b}；不给 p 值。前后读数的残差如此相近，往往是失拟而非噪声",
    ),
    (
        f"only {_A} effective readings: blocks are too few, the interval too narrow",
        "有效读数仅 {a}：分块太少，区间偏窄",
    ),
    # how a slope was made
    ("least squares; noise around a smooth trend by its likelihood", "最小二乘；噪声取自平滑趋势周围，按其似然"),
    ("least squares, readings that do not differ", "最小二乘；读数全都相同"),
    ("least squares, too few readings for an error", "最小二乘；读数太少，不给误差"),
    ("delta method, (?P<rest>.*)", "δ 法；{rest}"),
    (
        rf"Newey-West, lag {_A}, prewhitened by AR\(1\) {_B}, critical value {_C}",
        "Newey-West（滞后 {a}，以 AR(1) {b} 预白化），临界值 {c}",
    ),
    (
        rf"AR\(1\) noise of correlation about {_A}, averaged over; critical value {_C}",
        "AR(1) 噪声相关约 {a}，对其取平均；临界值 {c}",
    ),
    (
        f"over {_A} steps it would allow for more change than all readings span",
        "在 {a} 步内，它容许的变化超过全部读数的跨度",
    ),
    (
        f"mean growth over steps {_A} to {_B}; a bent curve does not keep it",
        "第 {a} 至 {b} 步的平均增长；曲线不会保持它",
    ),
    (f"growth at step {_A} if the {_ONE} curve is right", "第 {a} 步的增长，以{one}正确为前提"),
    (
        r"Whether the run was still learning at its end cannot be told: (?P<rest>.*)\.",
        "无法判断训练结束时是否仍在学习：{rest}。",
    ),
    # line or curve
    (
        rf"undecided: {_ONE} predicts unseen readings better at {_A} of {_B} cuts of the run, the error of {_TWO} is "
        rf"{_C} times that of (?:\w+) \({_D} to (?P<e>[\d.,]+)\)",
        "未定：在 {b} 处截断中的 {a} 处，{one}对未见读数的预测更准，{two}的误差是其 {c} 倍（{d} 至 {e}）",
    ),
    (
        rf"{_ONE} predicts unseen readings better than {_TWO} at {_A} of {_B} cuts of the run; the error of (?:\w+) is "
        rf"{_C} times that of (?:\w+) \({_D} to (?P<e>[\d.,]+)\)",
        "在 {b} 处截断中的 {a} 处，{one}对未见读数的预测比{two}更准；后者的误差是前者的 {c} 倍（{d} 至 {e}）",
    ),
    (f"undecided between {_ONE} and {_TWO}: (?P<rest>.*)", "{one}与{two}难分：{rest}"),
    (
        f"{_A} readings give {_B} cuts with readings left to predict, fewer than {_C}",
        "{a} 次读数只有 {b} 处截断尚余读数可预测，少于 {c} 处",
    ),
    (
        f"{_A} readings leave {_B} places to forecast from and check as far ahead; at least {_C} readings and {_D} "
        "places are needed",
        "{a} 次读数只有 {b} 处可作同样远的预测并加以核对；至少需要 {c} 次读数和 {d} 处",
    ),
    # notes
    (
        rf"the first {_A} readings \(to step {_B}\) are the start-up, before growth was at its steepest: bent curves "
        f"and the forecast are of the readings from step {_C} on; the line, its comparison and the correlations are of "
        "all",
        "最初 {a} 次读数（至第 {b} 步）属于起步阶段，增长尚未最陡：曲线与预测只用第 {c} 步起的读数；"
        "直线及其比较、各相关系数用全部读数",
    ),
    (
        f"the run was extended at step {_A}: this is of the readings after it alone",
        "训练在第 {a} 步延长：这里只看其后的读数",
    ),
    (
        f"the run was extended at step {_A}: too few readings since, this is of those before",
        "训练在第 {a} 步延长：其后读数太少，这里看其前的读数",
    ),
    (f"line or curve, from step {_A} on alone: (?P<rest>.*)", "直线还是曲线，仅看第 {a} 步起：{rest}"),
    (
        "the steps are unevenly spaced: autocorrelations count readings, not steps",
        "步数间隔不均：自相关按读数而非步数计",
    ),
    ("the number of predictions behind it is not recorded", "未记录其预测次数"),
    (
        "nothing was held out: every reading is of one training batch, and the number of predictions is not given",
        "没有留出集：每个读数来自一个训练批次，且未给出预测次数",
    ),
    (
        f"(?P<kind>train|eval): {_A} places where steps go back; the records were sorted",
        "{kind}：步数有 {a} 处倒退；记录已重新排序",
    ),
    (
        rf"(?P<kind>train|eval): {_A} records of steps that come again later left out \(the last of a step counts\)",
        "{kind}：略去 {a} 条后来又出现的步数的记录（同一步以最后一条为准）",
    ),
    (
        rf"line {_A} is cut short and left out \(is the run still writing\?\)",
        "第 {a} 行不完整，已略去（是否仍在写入？）",
    ),
    (f"{_A} numbers that are not finite left out", "略去 {a} 个非有限的数"),
    ('the key "(?P<key>[^"]*)" is missing', "缺少键“{key}”"),
    ("keys that are not read: (?P<key>.*)", "未读取的键：{key}"),
    # what counting is
    (
        f"interpolated character n-gram that sees up to two characters on the left and two on the right, counted on "
        f"{_A}(?: of {_B})? training tokens, weights fitted on {_C} tokens of held-back training documents",
        "字符 n 元插值模型，左右各看至多两个字符，以 {a} 个训练词元计数，权重由预留的训练文档中 {c} 个词元拟合",
    ),
    (
        f"interpolated character n-gram that sees up to two characters on the left and two on the right, counted on "
        rf"{_A}(?: of {_B})? training tokens, equal weights \(.*\)",
        "字符 n 元插值模型，左右各看至多两个字符，以 {a} 个训练词元计数，各项等权（训练文档太少，无法预留）",
    ),
    (
        "sentences are called neighbors where the cosine of their sets of characters, weighted by inverse frequency, "
        rf"is at least {_A} \(chosen on {_B} training pairs\)",
        "两句字符集合（按频率倒数加权）的余弦不低于 {a} 者判为相邻（阈值由 {b} 对训练句选定）",
    ),
)
_PATTERNS = tuple((re.compile(english), chinese) for english, chinese in _SENTENCES)


def in_chinese(text: str) -> str | None:
    """Return an English sentence of the analysis in Chinese; None where it is not one of those known here."""
    for pattern, chinese in _PATTERNS:
        if match := pattern.fullmatch(text):
            return chinese.format(**{name: _inner(name, value) for name, value in match.groupdict().items()})
    return None


def _inner(name: str, value: str | None) -> str:
    match name:
        case "one" | "two":
            return _FAMILIES[value or ""]
        case "rest":
            return in_chinese(value or "") or value or ""
        case _:
            return value or ""
