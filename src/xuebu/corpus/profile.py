"""How the text of a corpus is spread: lengths of sentences and documents, kinds of characters, common and rare Han."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from xuebu.corpus.clean import HAN

Kind = Literal["han", "mark", "digit", "latin", "other_letter", "space", "other"]

MAX_COMMON, MAX_RARE_OCCURRENCES, MAX_RARE = 50, 10, 1000
RANKS = (10, 25, 50, 75, *range(100, 1000, 100), *range(1000, 5000, 250), *range(5000, 20_001, 1000))
RARE_EDGES = (1, 2, 3, 6, 11, 21, 51, 101, 1001, 10_001)
_BINS = 40
DOCUMENT_EDGES = (*(step * 10**power for power in range(9) for step in (1, 2, 5)), 10**9)

# Written out, since `unicodedata` changes from one Python to the next; the first that holds counts.
_KINDS: tuple[tuple[Kind, str], ...] = (
    ("han", HAN),
    ("digit", "0-9\uff10-\uff19"),
    ("latin", "A-Za-z\u00aa\u00ba\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u1e00-\u1eff\uff21-\uff3a\uff41-\uff5a"),
    (
        "other_letter",  # Greek to Thai, Georgian to Khmer, kana, bopomofo, Yi, Hangul
        "\u0250-\u02af\u0370-\u0e7f\u10a0-\u17ff\u1f00-\u1fff\u3041-\u3096\u30a1-\u30fa\u30fc-\u318f\u31a0-\u31bf"
        "\u31f0-\u31ff\ua000-\ua48f\uac00-\ud7af\uff66-\uffdc",
    ),
    ("space", "\\s"),
    (
        "mark",  # ASCII and Latin-1 signs, punctuation, symbols, arrows, CJK marks, their full-width forms
        "!-/:-@\\[-`{-~\u00a1-\u00bf\u00d7\u00f7\u02b0-\u02ff\u2010-\u2bff\u3001-\u3040\u30a0\u30fb\u3200-\u33ff"
        "\ufe10-\ufe6f\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65\uffe0-\uffee\U0001f000-\U0001faff",
    ),
)
_PATTERNS = tuple((kind, re.compile(f"[{characters}]")) for kind, characters in _KINDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """How many values lie in each range: `edges[i]` up to, not including, `edges[i + 1]` holds `counts[i]`."""

    edges: tuple[int, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """How the text of a corpus is spread.

    Attributes:
        sentence_lengths: sentences by their characters.
        document_lengths: documents by the characters of their sentences.
        kinds: kind of character -> occurrences; those that do not occur are left out.
        han: different Han characters.
        common: the 50 most frequent Han characters, each with its occurrences.
        rank_shares: number k as text -> share of all Han in the text that the k most frequent ones make up.
        rarity: different Han characters by how often they occur; the last range has no end of its own.
        rare: number of occurrences as text, up to 10 -> the Han characters that occur so often, by code point; at most
            1,000 of each.
    """

    sentence_lengths: Histogram
    document_lengths: Histogram
    kinds: dict[str, int]
    han: int
    common: tuple[tuple[str, int], ...]
    rank_shares: dict[str, float]
    rarity: Histogram
    rare: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """Return the profile as plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, table: Mapping[str, Any]) -> Profile:
        """Return the profile that `to_json` wrote; raises KeyError or TypeError where the table is none."""
        histograms = {
            name: Histogram(edges=tuple(table[name]["edges"]), counts=tuple(table[name]["counts"]))
            for name in ("sentence_lengths", "document_lengths", "rarity")
        }
        return cls(
            kinds=dict(table["kinds"]),
            han=table["han"],
            common=tuple((text, count) for text, count in table["common"]),
            rank_shares=dict(table["rank_shares"]),
            rare=dict(table["rare"]),
            **histograms,
        )


def kind_of(character: str) -> Kind:
    """Return what kind of character this is."""
    return next((kind for kind, pattern in _PATTERNS if pattern.match(character)), "other")


def document_bin(characters: int) -> int:
    """Return in which range of `DOCUMENT_EDGES` a document of so many characters lies."""
    return min(bisect_right(DOCUMENT_EDGES, characters), len(DOCUMENT_EDGES) - 1) - 1


def profile_of(
    characters: Mapping[str, int], sentence_lengths: Mapping[int, int], document_bins: Mapping[int, int]
) -> Profile:
    """Return the profile of counted text; equal counts give an equal profile, whatever order they came in.

    Args:
        characters: character -> occurrences.
        sentence_lengths: characters of a sentence -> sentences.
        document_bins: `document_bin` -> documents.
    """
    kinds: dict[str, int] = {}
    ranked: list[tuple[str, int]] = []
    for character, count in sorted(characters.items(), key=lambda item: (-item[1], item[0])):
        kind = kind_of(character)
        kinds[kind] = kinds.get(kind, 0) + count
        if kind == "han":
            ranked.append((character, count))
    occurrences = np.array([count for _, count in ranked], dtype=np.int64)
    running = np.cumsum(occurrences)
    return Profile(
        sentence_lengths=_even_histogram(sentence_lengths),
        document_lengths=_trimmed(DOCUMENT_EDGES, [document_bins.get(i, 0) for i in range(len(DOCUMENT_EDGES) - 1)]),
        kinds=dict(sorted(kinds.items(), key=lambda item: (-item[1], item[0]))),
        han=len(ranked),
        common=tuple(ranked[:MAX_COMMON]),
        rank_shares={str(k): float(running[k - 1] / running[-1]) for k in RANKS if k <= len(ranked)},
        rarity=_rarity(occurrences),
        rare=_rare(ranked),
    )


def _rare(ranked: Sequence[tuple[str, int]]) -> dict[str, str]:
    """Return what occurs at most ten times, by how often."""
    found: dict[str, str] = {}
    for number in range(1, MAX_RARE_OCCURRENCES + 1):
        if those := [character for character, count in ranked if count == number]:
            found[str(number)] = "".join(those[:MAX_RARE])
    return found


def _rarity(occurrences: npt.NDArray[np.int64]) -> Histogram:
    edges = (*RARE_EDGES, max(int(occurrences.max(initial=0)), RARE_EDGES[-1]) + 1)
    return Histogram(edges=edges, counts=tuple(np.histogram(occurrences, bins=edges)[0].tolist()))


def _even_histogram(values: Mapping[int, int]) -> Histogram:
    """Return a histogram of at most 40 ranges of one width: 1, 2 or 5 times a power of ten, from 0 on."""
    largest = max(values, default=0)
    width = next(step * 10**power for power in range(9) for step in (1, 2, 5) if largest < _BINS * step * 10**power)
    counts = [0] * (largest // width + 1)
    for value, count in values.items():
        counts[value // width] += count
    return Histogram(edges=tuple(width * number for number in range(len(counts) + 1)), counts=tuple(counts))


def _trimmed(edges: tuple[int, ...], counts: list[int]) -> Histogram:
    """Return a histogram without the empty ranges at its ends."""
    used = [number for number, count in enumerate(counts) if count] or [0]
    first, end = used[0], used[-1] + 1
    return Histogram(edges=edges[first : end + 1], counts=tuple(counts[first:end]))
