"""Charts inside the page: an SVG document made into a part of HTML that follows the page's light and dark colors."""

from __future__ import annotations

import re

from markupsafe import Markup, escape

from xuebu.charts.draw import GRID, INK, MUTED, PAPER, STROKES

_UNWANTED = re.compile(r"<\?xml.*?\?>|<!DOCTYPE.*?>|<metadata>.*?</metadata>|<style.*?</style>", re.DOTALL)
_ROOT = re.compile(r'<svg [^>]*viewBox="([^"]+)"[^>]*>', re.DOTALL)
_IDENTITY = re.compile(r' id="([^"]*)"')
_REFERENCE = re.compile(r'(url\(#|href="#)([^")]*)')
_SPACE = re.compile(r"\n\s*")


def color_variables() -> dict[str, str]:
    """Return the page's variable for each color that charts use."""
    variables = {INK: "--ink", MUTED: "--muted", GRID: "--line", PAPER: "--paper"}
    for role, stroke in STROKES.items():
        variables.setdefault(stroke.color, f"--chart-{role.replace('_', '-')}")
    return variables


def inline_svg(document: str, *, prefix: str, description: str) -> Markup:
    """Return an SVG document of `charts.draw` as an element for the page.

    Args:
        document: as `draw` wrote it; its texts are escaped already.
        prefix: put before every id that is referred to, so that two charts of one page do not share them.
        description: what the picture shows, for readers who do not see it; escaped here.

    Returns:
        The element without prolog, metadata and fixed size. Colors are the page's variables, so that a dark page
        has dark charts.
    """
    text = _UNWANTED.sub("", document)
    used = {match.group(2) for match in _REFERENCE.finditer(text)}
    text = _IDENTITY.sub(lambda match: f' id="{prefix}-{match.group(1)}"' if match.group(1) in used else "", text)
    text = _REFERENCE.sub(lambda match: f"{match.group(1)}{prefix}-{match.group(2)}", text).replace(
        "xlink:href", "href"
    )
    for color, variable in color_variables().items():
        text = re.sub(rf": {color}(?![0-9a-f])", f": var({variable})", text)
    root = f'<svg class="picture" viewBox="\\1" role="img" aria-label="{escape(description)}">'.replace("\\1", "\0")
    text = _ROOT.sub(lambda match: root.replace("\0", match.group(1)), text, count=1)
    return Markup(_SPACE.sub("\n", text).strip())
