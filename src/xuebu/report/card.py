"""The corpus card as tables of the page, from the JSON that the corpus build wrote."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from xuebu.charts.corpus import LISTS, list_name
from xuebu.report.tables import Grid, Row
from xuebu.report.texts import TEXTS
from xuebu.report.view import flat_rows
from xuebu.report.words import Words

MAX_SOURCES = 20
_COUNTS = ("documents", "groups", "sentences", "neighbors", "characters", "distinct_characters", "mean_sentence_length")
_IN_TABLES = {*_COUNTS, "splits", "refusals", "coverage", "sources", "domains", "length_quantiles", "filled"}
_IN_TABLES |= {"settings", "profile"}

# The card gives the reasons in English.
_REASONS_ZH = {
    "unknown_file": "目录中不可读取的文件类型",
    "empty_file": "没有文档的文件",
    "other_namespace": "转储中不在 dump_namespaces 内的页面",
    "redirect": "转储中的重定向页",
    "not_wikitext": "转储中不是维基文本的页面：代码、数据",
    "hidden_text": "转储中文字被隐藏或缺失的页面",
    "older_revision": "页面的旧版本",
    "empty_document": "清洗后没有文字",
    "duplicate_document": "整篇与前面某一文档相同",
    "duplicate_paragraph": "整段与前面某一段落相同",
    "near_duplicate_document": "与前面某一文档的相似度不低于 near_duplicate_similarity",
    "no_sentence_left": "文档的所有句子都被剔除",
    "low_document_han_share": "文档字母中汉字比例低于 min_document_han_share",
    "gopher_word_count": "质量：词数过少或过多",
    "gopher_mean_word_length": "质量：平均词长过短或过长",
    "gopher_symbols": "质量：# 或 … 相对词数过多",
    "gopher_bullet_lines": "质量：以项目符号开头的行过多",
    "gopher_ellipsis_lines": "质量：以 … 结尾的行过多",
    "gopher_no_letters": "质量：含字母的词过少",
    "gopher_stop_words": "质量：停用词不足两个",
    "repeated_lines": "质量：与前面某行相同的行过多",
    "frequent_ngram": "质量：最常见的 2 至 4 词片段占比过高",
    "repeated_ngrams": "质量：重复的 5 至 10 词片段占比过高",
    "line_punctuation": "质量：以标点结尾的行过少",
    "many_lines": "质量：行数相对词数过多",
    "curly_bracket": "质量：含花括号",
    "placeholder_text": "质量：含占位文字 lorem ipsum",
    "few_sentences": "质量：剩余句子过少",
    "held_out_title_in_training": "留出文档的标题也出现在训练集中",
    "held_out_overlaps_training": "留出文档有三处以上连续 20 字也在训练集中",
    "repeats_title": "首段只是重复标题",
    "boilerplate_line": "质量：所在行没有句末标点、过短，或是脚本与 Cookie 的提示",
    "missing_part": "其中的公式、代码或模板已移除，或标记无法解析",
    "too_short": "句子过短",
    "too_long": "句子过长",
    "low_han_share": "汉字比例过低",
    "unreadable_character": "含无法辨认的字符",
    "duplicate_sentence": "与前面的句子重复",
    "held_out_sentence_in_training": "留出句也在训练集中",
    "template": "离开所在维基便不知其文字的模板",
    "template_in_sentence": "句子中间的此类模板",
    "table": "表格",
    "reference": "脚注或脚注列表",
    "apparatus": "只有参考资料与链接的章节",
    "formula": "不止于字母、数字与简单符号的公式",
    "code": "代码块，或由代码绘成之物",
    "file": "图片或其他文件及其说明",
    "gallery": "图库",
    "category": "分类",
    "interlanguage": "其他语言同一页面的链接",
    "link": "没有文字的网址",
    "conversion_rule": "不显示文字的字词转换规则",
    "comment": "注释",
    "hidden": "不显示的文字",
    "html": "HTML 块",
    "metadata": "Markdown 文件的头部信息",
    "broken_line": "标记无法解析的行",
    "html_residue": "纯文本中残留的 HTML 标签或实体",
    "conversion_residue": "纯文本中残留的字词转换标记，已解析",
    "repaired_line": "曾以错误编码读入、已修复的行",
    "evaluation_document": "泄漏检查：含有与评测集重叠的句子",
    "evaluation_sentence": "泄漏检查：与评测集中某句相同",
    "evaluation_overlap": "泄漏检查：与评测集有三处以上连续 20 字相同",
    "masked_email": "已遮盖的电子邮箱",
    "masked_phone": "已遮盖的电话号码",
    "empty_column": "某行的空列，该行不成对",
    "masked_id_number": "已遮盖的身份证号码",
}


def card_tables(card: Mapping[str, Any], words: Words) -> tuple[Grid, ...]:
    """Return the card's counts, refusals, sources, domains and coverage as tables, as far as it has them."""
    makers = (_count_table, _refusal_table, name_table, partial(name_table, kind="domains"), _coverage_table)
    return tuple(table for table in (make(card, words) for make in makers) if table is not None)


def card_rows(card: Mapping[str, Any], words: Words) -> tuple[Row, ...]:
    """Return what the tables do not show, digests and the like, as (name, value)."""
    rows = flat_rows({key: value for key, value in card.items() if key not in _IN_TABLES}, words)
    return tuple((_name_of(key, words), value) for key, value in rows)


def _name_of(key: str, words: Words) -> str:
    head, _, rest = key.partition(".")
    name = words(f"card_{head}") if f"card_{head}" in TEXTS else head
    return words("named", name=name, value=rest) if rest else name


def _table_of(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _count_table(card: Mapping[str, Any], words: Words) -> Grid | None:
    splits = _table_of(card.get("splits"))
    columns = (card, _table_of(splits.get("train")), _table_of(splits.get("held_out")))
    rows: list[Row] = []
    for name in _COUNTS:
        if card.get(name) is None:
            continue
        write = words.count if name != "mean_sentence_length" else words.number
        rows.append((words(name), *(write(column.get(name)) for column in columns)))
    heads = ("", words("whole"), words("train_split"), words("held_out_split"))
    return Grid(words("counts"), heads, tuple(rows)) if rows else None


def _refusal_table(card: Mapping[str, Any], words: Words) -> Grid | None:
    rows: list[Row] = []
    for reason, found in _table_of(card.get("refusals")).items():
        entry = found if isinstance(found, Mapping) else {"count": found}
        meaning = _REASONS_ZH.get(reason) if words.language == "zh" else None
        level = f"level_{entry.get('level')}"
        unit = f" {words(level)}" if level in TEXTS else ""
        told = meaning or str(entry.get("meaning") or reason.replace("_", " "))
        rows.append((told, f"{words.count(entry.get('count'))}{unit}", words.count(entry.get("characters"))))
    heads = (words("reason"), words("count"), words("characters_lost"))
    return Grid(words("refused"), heads, tuple(rows)) if rows else None


def name_table(card: Mapping[str, Any], words: Words, kind: str = "sources") -> Grid | None:
    """Return documents by source, or by "scripts", "licences" or "domains"; None where no name is known."""
    names = list(_table_of(card.get(kind)).items())
    if not any(name for name, _ in names):
        return None
    rows = tuple((str(name) or words("not_known"), words.plain(count)) for name, count in names[:MAX_SOURCES])
    more = len(names) - len(rows)
    note = (words("and_more", count=words.count(more)),) if more else ()
    title = words("sources" if kind == "sources" else f"card_{kind}")
    return Grid(title, (words("name"), words("documents")), rows, note)


def _coverage_table(card: Mapping[str, Any], words: Words) -> Grid | None:
    rows: list[Row] = []
    for entry in card.get("coverage") or []:
        size = entry.get("size")
        cells = [words.count(size)]
        for name in ("covered", "covered_in_training"):
            share = f" ({words.percent(entry[name] / size)})" if entry.get(name) is not None and size else ""
            cells.append(words.count(entry.get(name)) + share)
        name = str(entry.get("name"))
        rows.append((list_name(name).shown(words.language) if name in LISTS else name, *cells))
    heads = (words("list"), words("size"), words("covered"), words("covered_in_training"))
    return Grid(words("coverage"), heads, tuple(rows)) if rows else None
