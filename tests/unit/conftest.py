"""A font made on the spot: every character of the CJK block as one square, so that tests need no font installed."""

import contextlib

import pytest

_CJK = [chr(code) for code in range(0x4E00, 0xA000)] + list("，。：；（）、")


def _write_font(path, characters, family):
    from fontTools.fontBuilder import FontBuilder
    from fontTools.pens.ttGlyphPen import TTGlyphPen

    pen = TTGlyphPen(None)
    for number, corner in enumerate([(100, 0), (100, 800), (900, 800), (900, 0)]):
        (pen.lineTo if number else pen.moveTo)(corner)
    pen.closePath()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "square"])
    builder.setupCharacterMap({ord(character): "square" for character in characters})
    builder.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "square": pen.glyph()})
    builder.setupHorizontalMetrics({".notdef": (1000, 0), "square": (1000, 100)})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": family, "styleName": "Regular"})
    builder.setupOS2(sTypoAscender=800, sTypoDescender=-200, usWinAscent=800, usWinDescent=200)
    builder.setupPost()
    builder.save(path)


@pytest.fixture
def install_font(tmp_path):
    """Return a function (family, characters) that makes a font and tells matplotlib; all are forgotten afterwards."""
    from matplotlib import font_manager

    before = list(font_manager.fontManager.ttflist)

    def install(family, characters=_CJK, *, tell=True):
        path = tmp_path / f"{family}.ttf"
        _write_font(path, characters, family)
        if tell:
            font_manager.fontManager.addfont(path)
        return path

    yield install
    font_manager.fontManager.ttflist[:] = before
    with contextlib.suppress(AttributeError):  # a cache of matplotlib that older versions do not have
        font_manager.fontManager._findfont_cached.cache_clear()


@pytest.fixture
def chinese_font(install_font):
    """Return the family of an installed font with Chinese characters."""
    install_font("Xuebu Test CJK")
    return "Xuebu Test CJK"
