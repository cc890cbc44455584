"""Exact duplicates over a whole corpus: documents, paragraphs and sentences, by digest.

What a document, a paragraph or a sentence is here is what the sieve kept of it. Memory does not grow with the text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise

from xuebu.corpus.document import SentenceDocument
from xuebu.corpus.settings import Unit

UNITS: tuple[Unit, ...] = ("document", "paragraph", "sentence")
"""What can be repeated as a whole, the largest first."""


class Mark(IntEnum):
    """What a document, a paragraph or a sentence is among its equals; see `equals.find_repeats`."""

    FIRST = 0
    REPEATED = 1
    IN_TRAINING = 2


def sentence_digest(sentence: str) -> bytes:
    """Return 8 bytes that stand for a sentence, its spaces left out: the vocabulary leaves them out too.

    Two different sentences of a corpus of n share a digest with probability about n**2 / 2**65: 3e-8 for a million
    sentences, 3e-4 for a hundred million. Source: BLAKE2b (RFC 7693) with an 8-byte digest.
    """
    return hashlib.blake2b("".join(sentence.split()).encode("utf-8"), digest_size=8).digest()


@dataclass(frozen=True, slots=True)
class Digests:
    """The digests of a document: of itself, of each paragraph, of each sentence, 8 bytes each."""

    document: bytes
    paragraph: bytes
    sentence: bytes


def digests_of(document: SentenceDocument) -> Digests:
    """Return the digests of a document, its paragraphs and its sentences; the larger ones follow from the sentences'.

    Two paragraphs are equal where their sentences are, one by one, and so are two documents; the title does not count.
    """
    sentences = b"".join(map(sentence_digest, document.sentences))
    bounds = (0, *document.paragraphs, len(document.sentences))
    paragraphs = [_digest(sentences[8 * a : 8 * b]) for a, b in pairwise(bounds)]
    return Digests(_digest(sentences), b"".join(paragraphs), sentences)


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=8).digest()


def copies_in(
    document: SentenceDocument,
    mark: int,
    paragraph_marks: Sequence[int],
    sentence_marks: Sequence[int],
    unit: Unit | None,
) -> list[tuple[str, int, int]]:
    """Return what goes of a document as (reason, start, end) of its sentences, in order; the largest unit is named.

    Args:
        document: with its paragraphs.
        mark: `Mark` of the document.
        paragraph_marks: of its paragraphs.
        sentence_marks: of its sentences.
        unit: the smallest of which copies are dropped, with all that are larger; None drops none. What is held out and
            also in training goes whatever is asked.
    """
    count = len(sentence_marks)
    if unit and mark == Mark.REPEATED:
        return [("duplicate_document", 0, count)]
    found: list[tuple[str, int, int]] = []
    bounds = (0, *document.paragraphs, count)
    for paragraph_mark, (start, end) in zip(paragraph_marks, pairwise(bounds), strict=True):
        if unit in ("paragraph", "sentence") and paragraph_mark == Mark.REPEATED:
            found.append(("duplicate_paragraph", start, end))
            continue
        for place in range(start, end):
            if sentence_marks[place] == Mark.IN_TRAINING:
                found.append(("held_out_sentence_in_training", place, place + 1))
            elif sentence_marks[place] == Mark.REPEATED and unit == "sentence":
                found.append(("duplicate_sentence", place, place + 1))
    return found


def keep_sentences(
    sentences: Sequence[str], gaps: Sequence[int], keep: Sequence[bool]
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return the sentences that are kept, and the gaps between them: those there were, and one for each loss.

    Args:
        sentences: n sentences in order.
        gaps: increasing indices in [1, n), as in SentenceDocument.
        keep: n flags.

    Returns:
        Sentences and gaps as in SentenceDocument. What is lost before the first or after the last leaves no gap.
    """
    kept: list[str] = []
    left: list[int] = []
    broken = False
    had_gap = set(gaps)
    for index, (sentence, wanted) in enumerate(zip(sentences, keep, strict=True)):
        broken = broken or index in had_gap
        if not wanted:
            broken = True
            continue
        if broken and kept:
            left.append(len(kept))
        kept.append(sentence)
        broken = False
    return tuple(kept), tuple(left)
