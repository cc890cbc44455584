"""From one document to its sentences: cleaned, cut, and refused where they are not what the settings ask."""

from __future__ import annotations

import re
from dataclasses import dataclass

from xuebu.corpus import quality
from xuebu.corpus.clean import clean_line, clean_text, count_han, is_unreadable
from xuebu.corpus.document import Document, SentenceDocument
from xuebu.corpus.encoding import repair_encoding
from xuebu.corpus.latin import split_latin
from xuebu.corpus.personal import mask_personal
from xuebu.corpus.refusals import Refusals
from xuebu.corpus.residue import without_markup
from xuebu.corpus.script import chinese_marks, convert_script, narrow_forms, target_script
from xuebu.corpus.sentences import split_sentences
from xuebu.corpus.settings import CorpusSettings
from xuebu.errors import InputError

_MISSING_PART = "\ufffc"
_INCOMPLETE = re.compile("^[，、；：]|“”|「」|『』|《》|〈〉")


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

    In this order, each step where the settings ask for it: wrongly decoded lines repaired, left-over markup resolved
    (`residue.without_markup`), `clean_text`, conversion of
    the script, half-width forms, personal data masked, Chinese marks; then the document as a whole is judged, by its
    share of Han and the rules of `quality`, and at last each sentence. The group stays as the source
    gives it, so that which side of the held-out split a document falls on does not depend on the settings; so does the
    title, a wrong encoding apart.

    A first paragraph that only repeats the title, as wikiextractor writes it, is refused too if text follows. Lines
    without an end mark (headings, list items) are sentences like any other: the short ones fall to the length limit,
    the long ones are text. Neighbors across a paragraph's end stay neighbors. Where the layout says that lines or
    columns are sentences, they are not cut; token ids are taken as they are, and only their number is judged.

    Raises:
        InputError: the document has no id.
    """
    source, id = clean_line(document.source), clean_line(document.id)
    if not id:
        raise InputError(f"a document of the source {source!r} has an empty id; give each document its own")
    title = clean_line(repair_encoding(document.title)[0] if settings.repair_encoding else document.title)
    text, script, begins_with_title = _prepared(document, title, settings, refusals)
    paragraphs = text.split("\n")
    reason, boilerplate = _judged(text, paragraphs, settings)
    if reason:
        whole = [sentence for each in paragraphs for piece in _cut(each, settings) if (sentence := piece.strip())]
        refusals.add(reason, *whole, source=source, id=id)
        return SievedDocument(None, sum(map(len, whole)))
    title_end = 1 if begins_with_title and len(paragraphs) > 1 else 0
    sentences: list[str] = []
    gaps: list[int] = []
    starts: list[int] = []
    characters = 0
    broken = False
    for number, paragraph in enumerate(paragraphs):
        if sentences and (not starts or starts[-1] < len(sentences)):
            starts.append(len(sentences))
        for piece in _cut(paragraph, settings):
            sentence = piece.strip()
            if not sentence:
                continue
            characters += len(sentence)
            reason = reason_against(sentence, settings)
            if number < title_end:
                reason = "repeats_title"
            elif number in boilerplate:
                reason = "boilerplate_line"
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
        group=clean_line(document.group or document.title) or id,
        source=source,
        sentences=tuple(sentences),
        gaps=tuple(gaps),
        script=script,
        revision=clean_line(document.revision),
        licence=clean_line(document.licence),
        fetched_at=clean_line(document.fetched_at),
        domain=clean_line(document.domain),
        paragraphs=tuple(start for start in starts if start < len(sentences)),
    )
    return SievedDocument(sieved, characters)


def _cut(paragraph: str, settings: CorpusSettings) -> list[str]:
    """Return the sentences of a paragraph, as the layout says where they are."""
    if settings.layout != "prose":
        return [paragraph]
    return split_sentences(paragraph) if settings.sentence_ends == "chinese" else split_latin(paragraph)


def _prepared(document: Document, title: str, settings: CorpusSettings, refusals: Refusals) -> tuple[str, str, bool]:
    """Return a document's text, cleaned and changed as the settings ask, its script, and whether the title comes first.

    What is changed is counted.
    """
    text, script = document.text, document.script or settings.script
    if settings.token_ids:
        return text, script, False
    repaired = 0
    if settings.repair_encoding:  # before the controls go that a repair needs, and after, when fewer stand in its way
        text, repaired = repair_encoding(text)
    text, left = without_markup(text, settings.wiki_variant or None)
    for reason, count in sorted(left.items()):
        refusals.add_count(reason, count)
    cleaned = clean_text(text)
    while settings.repair_encoding and (more := repair_encoding(cleaned))[1]:
        cleaned = clean_text(more[0])
        repaired += more[1]
    if repaired:
        refusals.add_count("repaired_line", repaired)
    text = cleaned
    begins_with_title = cleaned.partition("\n")[0] == title
    if settings.convert != "none" and document.script != target_script(settings.convert):
        text, script = convert_script(text, settings.convert), target_script(settings.convert)
    if settings.full_width == "half":
        text = narrow_forms(text)
    if settings.mask_personal:
        text, masked = mask_personal(text, settings.mask_personal)
        for reason, count in sorted(masked.items()):
            refusals.add_count(reason, count)
    if settings.punctuation == "chinese":
        text = chinese_marks(text)
    return (text if text == cleaned else clean_text(text)), script, begins_with_title


def _judged(text: str, paragraphs: list[str], settings: CorpusSettings) -> tuple[str | None, frozenset[int]]:
    """Return why the document as a whole is refused, None if it is not, and which of its paragraphs are boilerplate."""
    boilerplate: frozenset[int] = frozenset()
    if not text or settings.token_ids:
        return None, boilerplate
    if settings.min_document_han_share and quality.han_share(text) < settings.min_document_han_share:
        return "low_document_han_share", boilerplate
    reason: str | None = None
    if "c4" in settings.quality:
        kept = quality.c4_lines(paragraphs)
        boilerplate = frozenset(number for number, keep in enumerate(kept) if not keep)
        reason = quality.reason_by_c4(text, [line for line, keep in zip(paragraphs, kept, strict=True) if keep])
    if reason is None and ("gopher" in settings.quality or "fineweb2" in settings.quality):
        words = quality.cut_words(text)
        for name, limits in (("gopher", quality.GOPHER), ("fineweb2", quality.FINEWEB2)):
            if name in settings.quality and reason is None:
                reason = quality.reason_by_gopher(text, words, limits)
    return reason, boilerplate


def reason_against(sentence: str, settings: CorpusSettings) -> str | None:
    """Return why a cleaned sentence is refused, or None if it is kept; the first reason that holds counts."""
    length = len(sentence)
    if _MISSING_PART in sentence or _INCOMPLETE.search(sentence):
        return "missing_part"
    if length < settings.min_sentence_characters:
        return "too_short"
    if length > settings.max_sentence_characters:
        return "too_long"
    if settings.token_ids:
        return None
    if is_unreadable(sentence):
        return "unreadable_character"
    if count_han(sentence) / length < settings.min_han_share:
        return "low_han_share"
    return None
