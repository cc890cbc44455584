"""Markup that is left in what should be plain text: tags and entities of HTML, and a wiki's conversion markup."""

from __future__ import annotations

import html
import re
from collections import Counter

from xuebu.corpus.variants import PageRules, choose_variant

_BREAKING = "address|blockquote|br|center|dd|div|dl|dt|h[1-6]|hr|li|ol|p|table|tbody|td|th|thead|tr|ul"
_SILENT = (
    "a|abbr|b|big|code|del|em|font|gallery|i|img|includeonly|ins|kbd|mark|noinclude|nowiki|onlyinclude|poem|pre|ref|s|"
    "samp|small|span|strike|strong|sub|sup|tt|u|var"
)
_ATTRIBUTES = r"(?:\s[^<>]*)?/?>"
_TAG = re.compile(
    rf"<!--[^<>]*-->|</?(?P<breaking>{_BREAKING}){_ATTRIBUTES}|</?(?:{_SILENT}){_ATTRIBUTES}", re.IGNORECASE
)
_ENTITY = re.compile(r"&(?:[A-Za-z]{2,8}|#[0-9]{2,6}|#[xX][0-9A-Fa-f]{2,5});")
_CONVERSION = re.compile(r"-\{[^{}\n]*\}-")
_MAX_DEPTH = 5


def without_markup(text: str, variant: str | None = None) -> tuple[str, Counter[str]]:
    """Return text without the markup that extractors leave in it, and how much there was, by reason.

    Tags of HTML that are known by name go, and those that end a line or a paragraph become a line's end; entities
    become their characters; `-{zh-hans:甲;zh-hant:乙}-` becomes what the variant shows. Everything else between "<" and
    ">", such as `vector<int>`, stays.

    Args:
        text: plain text, as its source gives it.
        variant: a key of `variants.FALLBACKS`; None shows the first text of each.

    Returns:
        The text, and counts under "html_residue" and "conversion_residue".
    """
    found: Counter[str] = Counter()
    if "-{" in text and "}-" in text:
        text = _converted(text, variant, found)
    if "<" in text:
        text, tags = _TAG.subn(lambda tag: "\n" if tag["breaking"] else "", text)
        found["html_residue"] += tags
    if "&" in text:
        text, entities = _ENTITY.subn(lambda entity: html.unescape(entity[0]), text)
        found["html_residue"] += entities
    return text, +found


def _converted(text: str, variant: str | None, found: Counter[str]) -> str:
    rules = PageRules()
    for _ in range(_MAX_DEPTH):  # the innermost first
        text, count = _CONVERSION.subn(lambda match: choose_variant(match[0], variant, rules, Counter()), text)
        if not count:
            break
        found["conversion_residue"] += count
    return rules.apply(text)
