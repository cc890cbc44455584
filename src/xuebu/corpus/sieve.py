"""From one document to its sentences: cleaned, cut, and refused where they are not what the settings ask."""

from __future__ import annotations

from dataclasses import dataclass

from xuebu.corpus.clean import clean_line, clean_text, count_han, is_unreadable
from xuebu.corpus.document import Document, SentenceDocument
from xuebu.corpus.refusals import Refusals
from xuebu.corpus.sentences import split_sentences
from xuebu.corpus.settings import CorpusSettings
from xuebu.errors import InputError


@dataclass(frozen=True, slots=True)
class SievedDocument:
    """What came of a document.

    Attributes:
        document: its sentences that were kept; None if none was.
        characters: of the cleaned text, whether kept or refused.
    """

    document: SentenceDocument | None
    characters: int


def sieve_document(document: Document, settings: CorpusSettings, refusals: Refusals) -> SievedDocument:
    """Clean a document, cut it into sentences and keep those that pass; the others are counted in `refusals`.

    A first paragraph that only repeats the title, as wikiextractor writes it, is refused too if text follows. Lines
    without an end mark (headings, list items) are sentences like any other: the short ones fall to the length limit,
    the long ones are text. Neighbors across a paragraph's end stay neighbors.

    Raises:
        InputError: the document has no id.
    """
    source, id = clean_line(document.source), clean_line(document.id)
    if not id:
        raise InputError(f"a document of the source {source!r} has an empty id; give each document its own")
    title = clean_line(document.title)
    paragraphs = clean_text(document.text).split("\n")
    title_end = 1 if paragraphs[0] == title and len(paragraphs) > 1 else 0
    sentences: list[str] = []
    gaps: list[int] = []
    characters = 0
    broken = False
    for number, paragraph in enumerate(paragraphs):
        for piece in split_sentences(paragraph):
            sentence = piece.strip()
            if not sentence:
                continue
            characters += len(sentence)
            reason = "repeats_title" if number < title_end else reason_against(sentence, settings)
            if reason:
                refusals.add(reason, sentence, source=source, id=id)
                broken = True
                continue
            if broken and sentences:
                gaps.append(len(sentences))
            broken = False
            sentences.append(sentence)
    if not sentences:
        refusals.add("no_sentence_left" if characters else "empty_document", source=source, id=id)
        return SievedDocument(None, characters)
    sieved = SentenceDocument(
        id=id,
        title=title,
        group=clean_line(document.group) or title or id,
        source=source,
        sentences=tuple(sentences),
        gaps=tuple(gaps),
        script=document.script or settings.script,
        revision=clean_line(document.revision),
        licence=clean_line(document.licence),
        fetched_at=clean_line(document.fetched_at),
    )
    return SievedDocument(sieved, characters)


def reason_against(sentence: str, settings: CorpusSettings) -> str | None:
    """Return why a cleaned sentence is refused, or None if it is kept; the first reason that holds counts."""
    length = len(sentence)
    if length < settings.min_sentence_characters:
        return "too_short"
    if length > settings.max_sentence_characters:
        return "too_long"
    if is_unreadable(sentence):
        return "unreadable_character"
    if count_han(sentence) / length < settings.min_han_share:
        return "low_han_share"
    return None
