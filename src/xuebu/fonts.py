"""Which installed font can draw Chinese in charts, and what to write where none can.

Charts carry Chinese and English labels where a font with Chinese characters is installed, and English alone where
none is: a label is never a row of empty boxes.
"""

from __future__ import annotations

import functools
import unicodedata
from pathlib import Path
from typing import Literal

LATIN_FONT = "DejaVu Sans"  # comes with matplotlib, so it is everywhere

# Simplified forms first, sans before serif. Before 3.11 matplotlib sees only the first face of a collection, which
# for Noto CJK is the Japanese one: it has the same characters, some in the Japanese form.
CJK_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans SC",
    "Source Han Sans SC",
    "Source Han Sans CN",
    "PingFang SC",
    "Hiragino Sans GB",
    "Microsoft YaHei",
    "HarmonyOS Sans SC",
    "Alibaba PuHuiTi",
    "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei",
    "Noto Sans CJK JP",
    "Noto Sans CJK TC",
    "Source Han Sans",
    "Heiti SC",
    "STHeiti",
    "SimHei",
    "DengXian",
    "Arial Unicode MS",
    "Droid Sans Fallback",
    "Noto Serif CJK SC",
    "Noto Serif SC",
    "Source Han Serif SC",
    "Noto Serif CJK JP",
    "Songti SC",
    "SimSun",
)

# Characters that any usable font must have: common ones, and the rarer ones that our own labels use.
_PROBE = "的一是步数据准确率损失学习基线残差留出集训练拟合饱和渐近预测区间掩码每百分点"


def cjk_font(candidates: tuple[str, ...] = CJK_FONTS) -> str | None:
    """Return the first installed font that really has Chinese characters, or None.

    Args:
        candidates: family names, best first.

    Returns:
        A family name that matplotlib finds and whose file maps every character of a probe, or None.
    """
    for family in candidates:
        if set(_PROBE) <= _characters(family):
            return family
    if _learn_new_fonts():
        return next((family for family in candidates if set(_PROBE) <= _characters(family)), None)
    return None


def lettering_line(font: str | None, language: Literal["en", "zh"] = "en") -> str:
    """Return the one line that says in which languages the chart files are labeled, and why."""
    if language == "zh":
        return (
            f"图表文件为中英双语，字体 {font}。"
            if font
            else "未找到中文字体，图表为英文（可安装例如 fonts-noto-cjk）。"
        )
    if font:
        return f"The chart files are labeled in Chinese and English, drawn with {font}."
    return (
        "The charts are labeled in English: no font with Chinese characters is installed "
        "(for Chinese and English install one, e.g. fonts-noto-cjk)."
    )


def drawable(text: str, font: str | None) -> str:
    r"""Return text from data (a title, a token) such that every character of it can be drawn in a chart.

    Args:
        text: anything.
        font: the family that is used beside the Latin one, or None.

    Returns:
        The text, with control characters and those that neither font has written as escapes: "\u5b66", "\x1b".
    """
    known = _characters(LATIN_FONT) | (_characters(font) if font else frozenset())
    return "".join(
        character
        if character in known and not unicodedata.category(character).startswith("C")
        else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


@functools.cache
def _known_characters(family: str, fonts_seen: int) -> frozenset[str]:
    from matplotlib import font_manager

    if family not in {entry.name for entry in font_manager.fontManager.ttflist}:
        return frozenset()
    try:
        path = font_manager.findfont(font_manager.FontProperties(family=family), fallback_to_default=False)
        return frozenset(map(chr, font_manager.get_font(path).get_charmap()))
    except (OSError, RuntimeError, ValueError):  # listed in matplotlib's cache, but gone or damaged since
        return frozenset()


def _characters(family: str) -> frozenset[str]:
    """Return the characters that an installed family has; empty where it is not installed."""
    from matplotlib import font_manager

    return _known_characters(family, len(font_manager.fontManager.ttflist))


def _learn_new_fonts() -> bool:
    """Add to matplotlib's list the fonts installed since it was cached; True if there were any."""
    from matplotlib import font_manager

    known = {str(Path(entry.fname)) for entry in font_manager.fontManager.ttflist}
    before = len(known)
    for path in sorted(set(map(str, map(Path, font_manager.findSystemFonts()))) - known):
        try:
            font_manager.fontManager.addfont(path)
        except (OSError, RuntimeError):  # bitmap and damaged fonts, which matplotlib's own scan leaves out too
            continue
    return len({entry.fname for entry in font_manager.fontManager.ttflist}) > before
