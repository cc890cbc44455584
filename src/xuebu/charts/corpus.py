"""The charts of a corpus, as values and labels, from the JSON of its card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from xuebu.charts.figures import percent_text
from xuebu.charts.marks import Bars, Figure, Label, Line, Mark, Panel

MAX_REASONS, MAX_NAMES = 12, 24
WHOLE, TRAINING = Label("whole corpus", "全部语料"), Label("training text", "训练文本")
SENTENCES, DOCUMENTS = Label("sentences", "句子"), Label("documents", "文档")
_NOTHING = Label("", "")
_ROW_INCHES, _HEADING_INCHES = 0.24, 1.25

KINDS = {
    "han": Label("Han characters", "汉字"),
    "mark": Label("marks and signs", "标点与符号"),
    "digit": Label("digits", "数字"),
    "latin": Label("Latin letters", "拉丁字母"),
    "other_letter": Label("other letters", "其他文字"),
    "space": Label("spaces", "空格"),
    "other": Label("other", "其他"),
}
LISTS = {
    "standard level 1": Label("Level 1", "一级字"),
    "standard level 2": Label("Level 2", "二级字"),
    "standard level 3": Label("Level 3", "三级字"),
    "standard, all levels": Label("All levels", "全部"),
}
"""How the lists of standard characters are called; other lists have the names of their files."""

_REASONS_ZH = {
    "low_document_han_share": "文档汉字比例低",
    "duplicate_document": "重复文档",
    "near_duplicate_document": "近似重复文档",
    "held_out_title_in_training": "留出标题在训练集中",
    "held_out_overlaps_training": "留出文档与训练集重合",
    "evaluation_document": "与评测集重合的文档",
    "duplicate_paragraph": "重复段落",
    "repeats_title": "重复标题",
    "boilerplate_line": "模板化的行",
    "missing_part": "缺失部分内容",
    "too_short": "过短",
    "too_long": "过长",
    "low_han_share": "汉字比例低",
    "unreadable_character": "含无法辨认的字符",
    "duplicate_sentence": "重复句",
    "held_out_sentence_in_training": "留出句在训练集中",
    "evaluation_sentence": "与评测集相同的句子",
    "evaluation_overlap": "与评测集重合的句子",
    "gopher_word_count": "词数不合",
    "gopher_mean_word_length": "词长不合",
    "gopher_symbols": "符号过多",
    "gopher_bullet_lines": "列表行过多",
    "gopher_ellipsis_lines": "省略号行过多",
    "gopher_no_letters": "含字母的词过少",
    "gopher_stop_words": "停用词过少",
    "repeated_lines": "重复行过多",
    "frequent_ngram": "某片段过于频繁",
    "repeated_ngrams": "重复片段过多",
    "line_punctuation": "行末标点过少",
    "many_lines": "行数过多",
    "curly_bracket": "含花括号",
    "placeholder_text": "占位文字",
    "few_sentences": "句子过少",
}


def corpus_figures(card: Mapping[str, Any]) -> tuple[Figure, ...]:
    """Return the charts that a corpus card allows.

    Args:
        card: content of card.json; a card of format 1 has no distributions and gives fewer charts.
    """
    makers = (lengths, character_use, coverage, losses, origin)
    return tuple(figure for make in makers if (figure := make(card)) is not None)


def lengths(card: Mapping[str, Any]) -> Figure | None:
    """Return how long sentences and documents are; None without a profile."""
    profile = card.get("profile")
    if not profile or not card.get("sentences"):
        return None
    edges, counts = profile["sentence_lengths"]["edges"], profile["sentence_lengths"]["counts"]
    middle = (card.get("length_quantiles") or {}).get("0.5")
    note = None if middle is None else Label(f"median {middle:,} characters", f"中位数 {middle:,} 字")
    width = edges[1] - edges[0]
    sentences = Panel(
        title=Label("Length of sentences", "句子长度"),
        x_label=Label("characters", "字符"),
        y_label=SENTENCES,
        y_unit="number",
        marks=(
            Bars(
                at=tuple(edge + width / 2 for edge in edges[:-1]),
                value=_floats(counts),
                role="held_out",
                width=0.92 * width,
            ),
        ),
        note=note,
        x_range=(0.0, float(edges[-1])),
    )
    return Figure(
        name="corpus_lengths",
        title=Label("Lengths", "长度"),
        description=Label(
            f"{card['sentences']:,} sentences by their characters, and {card['documents']:,} documents by theirs.",
            f"{card['sentences']:,} 句按字符数的分布，{card['documents']:,} 篇文档按字符数的分布。",
        ),
        panels=(sentences, _ranges_panel(Label("Length of documents", "文档长度"), profile["document_lengths"])),
        num_columns=2,
        column_inches=5.6,
    )


def _ranges_panel(title: Label, histogram: Mapping[str, Any]) -> Panel:
    names = [Label(range_text(low, high)) for low, high in pairwise(histogram["edges"])]
    return _bars_panel(title, names, histogram["counts"], DOCUMENTS, y_label=Label("characters", "字符"))


def character_use(card: Mapping[str, Any]) -> Figure | None:
    """Return which share of the text common characters make up, and how many are rare; None without a profile."""
    profile = card.get("profile")
    if not profile or not profile["han"]:
        return None
    ranks = {int(rank): share for rank, share in profile["rank_shares"].items()}
    common = Panel(
        title=Label("Share of common characters", "常用字占文本的比例"),
        x_label=Label("most frequent Han characters", "最常用的汉字数"),
        y_label=Label("share of all Han", "占全部汉字"),
        y_unit="fraction",
        marks=(Line(x=_floats(ranks), y=_floats(ranks.values()), role="held_out"),) if ranks else (),
        nothing=Label("fewer than ten Han characters", "不足十个汉字"),
        y_range=(0.0, 1.02),
    )
    rarity = profile["rarity"]
    names = [Label(range_text(low, high)) for low, high in pairwise(rarity["edges"])]
    names[-1] = Label(f"{rarity['edges'][-2]:,} or more", f"{rarity['edges'][-2]:,} 以上", f"≥ {rarity['edges'][-2]:,}")
    rare = _bars_panel(
        Label("Characters by how often they occur", "各字出现次数"),
        names,
        rarity["counts"],
        Label("different Han characters", "不同汉字数"),
        y_label=Label("occurrences", "出现次数"),
    )
    once = rarity["counts"][0]
    return Figure(
        name="corpus_characters",
        title=Label("Common and rare characters", "常用字与罕用字"),
        description=Label(
            f"{profile['han']:,} different Han characters, {once:,} of which occur once.",
            f"共 {profile['han']:,} 个不同汉字，其中 {once:,} 个只出现一次。",
        ),
        panels=(common, rare),
        num_columns=2,
        column_inches=5.6,
    )


def coverage(card: Mapping[str, Any]) -> Figure | None:
    """Return how much of the standard characters, and of other lists, occurs; None where none was measured."""
    entries = [entry for entry in card.get("coverage") or [] if entry.get("size")]
    if not entries:
        return None
    names = []
    for entry in entries:
        name, size = list_name(entry["name"]), f" ({entry['size']:,})"
        names.append(Label(f"{name.en}{size}", f"{name.zh}{size}" if name.zh else "", f"{name.shown('both')}{size}"))
    pairs: tuple[tuple[str, Any, Label, float], ...] = (
        ("covered", "held_out", WHOLE, -0.2),
        ("covered_in_training", "train", TRAINING, 0.2),
    )
    marks: list[Mark] = [
        Bars(
            at=tuple(place + shift for place in range(len(entries))),
            value=tuple((entry.get(key) or 0) / entry["size"] for entry in entries),
            role=role,
            label=label,
            width=0.36,
            across=True,
        )
        for key, role, label, shift in pairs
    ]
    told = next((entry for entry in entries if entry["name"] == "standard, all levels"), entries[-1])
    share = percent_text(told["covered"] / told["size"])
    name = list_name(told["name"])
    return Figure(
        name="corpus_coverage",
        title=Label("Coverage of character lists", "字表覆盖"),
        description=Label(
            f"{name.en}: {told['covered']:,} of {told['size']:,} characters occur ({share}).",
            f"{name.zh or name.en}：{told['size']:,} 字中出现 {told['covered']:,} 字（{share.replace(' %', '%')}）。",
        ),
        panels=(
            Panel(
                title=Label("Share of a list that occurs", "字表中出现的比例"),
                x_label=Label("share of the list", "占字表的比例"),
                y_label=_NOTHING,
                y_unit="count",
                x_unit="fraction",
                marks=tuple(marks),
                note=Label("in brackets: characters in the list", "括号内为字表字数"),
                x_range=(0.0, 1.02),
                y_names=tuple(names),
            ),
        ),
        column_inches=6.8,
        shared_x=True,
        row_inches=_HEADING_INCHES + 0.3 + 0.45 * len(entries),
    )


def losses(card: Mapping[str, Any]) -> Figure | None:
    """Return what each reason for a refusal cost in characters; None where no text was refused."""
    refused = [
        (reason, entry["characters"])
        for reason, entry in (card.get("refusals") or {}).items()
        if isinstance(entry, Mapping) and entry.get("characters")
    ]
    if not refused:
        return None
    refused.sort(key=lambda item: -item[1])
    total = sum(count for _, count in refused)
    before = card.get("characters_cleaned") or 0
    share = percent_text(total / before) if before else ""
    shown = refused[:MAX_REASONS]
    panel = _bars_panel(
        Label("Characters lost, by reason", "各原因损失的字符"),
        [reason_name(reason) for reason, _ in shown],
        [count for _, count in shown],
        Label("characters", "字符"),
    )
    more = Label("", "")
    if len(refused) > len(shown):
        left = len(refused) - len(shown)
        more = Label(f" {left} smaller reasons are not drawn.", f"另有 {left} 种较小的原因未画出。")
    return Figure(
        name="corpus_refusals",
        title=Label("What was refused", "剔除的内容"),
        description=Label(
            f"Of {before:,} characters after cleaning {total:,} were refused{f' ({share})' if share else ''}.{more.en}",
            f"清洗后 {before:,} 字符中剔除 {total:,}"
            f"{f'（{share.replace(chr(32), str())}）' if share else ''}。{more.zh}",
        ),
        panels=(panel,),
        column_inches=6.8,
        shared_x=True,
        row_inches=_rows_inches(len(shown)),
    )


def origin(card: Mapping[str, Any]) -> Figure | None:
    """Return documents by domain, or by source where there are no domains; None where there is one name only."""
    domains = {name: count for name, count in (card.get("domains") or {}).items() if name}
    by_domain = len(domains) > 1
    names = domains if by_domain else card.get("sources") or {}
    if len(names) < 2:
        return None
    title = Label("Documents by domain", "各领域文档数") if by_domain else Label("Documents by source", "各来源文档数")
    ranked = sorted(names.items(), key=lambda item: -item[1])[:MAX_NAMES]
    panel = _bars_panel(title, [Label(_short(name)) for name, _ in ranked], [count for _, count in ranked], DOCUMENTS)
    kind = Label("domains", "个领域") if by_domain else Label("sources", "个来源")
    return Figure(
        name="corpus_origin",
        title=title,
        description=Label(
            f"{len(names):,} {kind.en}; the largest is {ranked[0][0]} with {ranked[0][1]:,} documents."
            + (f" {len(names) - len(ranked)} smaller ones are not drawn." if len(names) > len(ranked) else ""),
            f"{len(names):,} {kind.zh}；最大的是 {ranked[0][0]}，{ranked[0][1]:,} 篇。"
            + (f"另有 {len(names) - len(ranked)} 个较小的未画出。" if len(names) > len(ranked) else ""),
        ),
        panels=(panel,),
        column_inches=6.8,
        shared_x=True,
        row_inches=_rows_inches(len(ranked)),
    )


def list_name(name: str) -> Label:
    """Return what a list of characters is called."""
    return LISTS.get(name) or Label(_short(name))


def reason_name(reason: str) -> Label:
    """Return what a refusal is called in a chart; in a bilingual one in Chinese alone where there are words for it."""
    chinese = _REASONS_ZH.get(reason, "")
    return Label(reason.replace("_", " "), chinese, chinese)


def range_text(low: int, high: int) -> str:
    """Return the whole numbers from `low` up to, not including, `high`: "3", "1,000–1,499"."""
    return f"{low:,}" if high == low + 1 else f"{low:,}–{high - 1:,}"


def _bars_panel(
    title: Label, names: Sequence[Label], counts: Sequence[int], x_label: Label, *, y_label: Label = _NOTHING
) -> Panel:
    bars = Bars(at=_floats(range(len(names))), value=_floats(counts), role="held_out", across=True)
    return Panel(
        title=title,
        x_label=x_label,
        y_label=y_label,
        y_unit="count",
        marks=(bars,),
        x_range=(0.0, 1.04 * max(*counts, 1)),
        y_names=tuple(names),
    )


def _rows_inches(rows: int) -> float:
    return _HEADING_INCHES + _ROW_INCHES * rows


def _short(name: str) -> str:
    return name if len(name) <= 28 else f"{name[:27]}…"


def _floats(values: Any) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
