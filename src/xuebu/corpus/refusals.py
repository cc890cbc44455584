"""Counting what is dropped: every refusal has a named reason, and if asked its text is written aside."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Level = Literal["file", "document", "paragraph", "sentence", "part"]

REASONS: dict[str, tuple[Level, str]] = {
    "unknown_file": ("file", "in a folder, a file of a kind that is not read, a hidden folder or a link to one"),
    "empty_file": ("file", "a file without a document"),
    "other_namespace": ("document", "a page of a dump outside of dump_namespaces"),
    "redirect": ("document", "a page of a dump that only points to another"),
    "not_wikitext": ("document", "a page of a dump in another language than wikitext: code, data"),
    "hidden_text": ("document", "a page of a dump whose text is hidden or missing"),
    "older_revision": ("document", "a revision of a page that is not its last"),
    "empty_document": ("document", "no text is left after cleaning"),
    "no_sentence_left": ("document", "every sentence of the document was refused"),
    "low_document_han_share": ("document", "a smaller share of Han among its letters than min_document_han_share"),
    "gopher_word_count": ("document", "quality: fewer or more words than a document should have"),
    "gopher_mean_word_length": ("document", "quality: words too long or too short on average"),
    "gopher_symbols": ("document", "quality: too many # or … for its words"),
    "gopher_bullet_lines": ("document", "quality: too many lines begin with a bullet"),
    "gopher_ellipsis_lines": ("document", "quality: too many lines end with …"),
    "gopher_no_letters": ("document", "quality: too few words hold a letter"),
    "gopher_stop_words": ("document", "quality: fewer than two stop words"),
    "repeated_lines": ("document", "quality: too many lines equal an earlier one"),
    "frequent_ngram": ("document", "quality: its most frequent run of 2 to 4 words makes up too much of it"),
    "repeated_ngrams": ("document", "quality: repeated runs of 5 to 10 words make up too much of it"),
    "line_punctuation": ("document", "quality: too few lines end with a punctuation mark"),
    "many_lines": ("document", "quality: too many lines for its words"),
    "curly_bracket": ("document", "quality: holds a curly bracket"),
    "placeholder_text": ("document", "quality: holds lorem ipsum"),
    "few_sentences": ("document", "quality: too few sentences are left"),
    "duplicate_document": ("document", "equal to an earlier document, as a whole"),
    "near_duplicate_document": ("document", "at least near_duplicate_similarity to an earlier document"),
    "held_out_title_in_training": ("document", "a held-out document of another group whose title is also in training"),
    "held_out_overlaps_training": (
        "document",
        "a held-out document with three or more runs of shared_run letters that are also in training",
    ),
    "evaluation_document": ("document", "leak check: holds a sentence that overlaps an evaluation set"),
    "duplicate_paragraph": ("paragraph", "equal to an earlier paragraph, as a whole"),
    "repeats_title": ("sentence", "the first paragraph only repeats the title"),
    "boilerplate_line": ("sentence", "quality: of a line without an end mark, too short, or about scripts and cookies"),
    "missing_part": (
        "sentence",
        "something was removed from it, as empty quotes or a pause at its start show, or its markup could not be read",
    ),
    "too_short": ("sentence", "fewer characters than min_sentence_characters"),
    "too_long": ("sentence", "more characters than max_sentence_characters"),
    "low_han_share": ("sentence", "a smaller share of Han characters than min_han_share"),
    "unreadable_character": ("sentence", "holds a lost character: private use or U+FFFD"),
    "duplicate_sentence": ("sentence", "equal to an earlier sentence"),
    "held_out_sentence_in_training": ("sentence", "a held-out sentence that is also in training"),
    "evaluation_sentence": ("sentence", "leak check: equal to a sentence of an evaluation set"),
    "evaluation_overlap": (
        "sentence",
        "leak check: shares three or more runs of 20 characters with an evaluation set",
    ),
    "template": ("part", "a template whose text is not known without its wiki"),
    "template_in_sentence": ("part", "such a template inside of a sentence"),
    "table": ("part", "a table"),
    "reference": ("part", "a footnote or the list of them"),
    "apparatus": ("part", "a section that holds references and links only"),
    "formula": ("part", "a formula of more than letters, digits and simple signs"),
    "code": ("part", "a block of code, or what is drawn from code"),
    "file": ("part", "a picture or another file, with its caption"),
    "gallery": ("part", "a gallery of pictures"),
    "category": ("part", "a category"),
    "interlanguage": ("part", "a link to the same page in another language"),
    "link": ("part", "an address without a text"),
    "conversion_rule": ("part", "a rule of language conversion that shows no text"),
    "comment": ("part", "a comment"),
    "hidden": ("part", "text that is not displayed"),
    "html": ("part", "a block of HTML"),
    "metadata": ("part", "the front matter of a Markdown file"),
    "broken_line": ("part", "a line whose markup could not be read"),
    "html_residue": ("part", "a tag or an entity of HTML that was left in plain text"),
    "conversion_residue": ("part", "a wiki's conversion markup that was left in plain text, resolved"),
    "repaired_line": ("part", "a line that was read in a wrong encoding, repaired"),
    "empty_column": ("part", "an empty column of a row, which is then no pair"),
    "masked_email": ("part", "an e-mail address, masked"),
    "masked_phone": ("part", "a telephone number, masked"),
    "masked_id_number": ("part", "the number of an identity card, masked"),
}
"""Reason -> (what is refused, in plain words why). A part is removed or changed inside of a document that stays."""


@dataclass(frozen=True, slots=True)
class RefusalCount:
    """How much was refused under one reason.

    Attributes:
        count: files, documents, sentences or parts, as the reason's level says.
        characters: cleaned characters lost with them, each counted under one reason only; 0 for what goes before
            cleaning: files, pages of a dump, parts.
    """

    count: int
    characters: int


class Refusals:
    """A running account of refusals; `aside`, if given, receives each refused text as one line of JSON."""

    def __init__(self, aside: Callable[[str], None] | None = None) -> None:
        self._aside = aside
        self._counts: dict[str, list[int]] = {}

    def add(self, reason: str, *texts: str, source: str = "", id: str = "") -> None:
        """Count one refusal under a reason of `REASONS`, with the cleaned texts that are lost by it, if any."""
        level = REASONS[reason][0]
        entry = self._counts.setdefault(reason, [0, 0])
        entry[0] += 1
        entry[1] += sum(map(len, texts))
        if self._aside is not None:
            record = {"reason": reason, "level": level, "source": source, "id": id, "text": "\n".join(texts)}
            line = json.dumps(record, ensure_ascii=False)
            self._aside(line.encode("utf-8", "replace").decode("utf-8"))  # a file's name may be no UTF-8

    def add_count(self, reason: str, count: int) -> None:
        """Count parts that were removed inside of documents; their texts are not kept."""
        self._counts.setdefault(reason, [0, 0])[0] += count

    def include(self, other: Refusals) -> None:
        """Add another account's counts to this one."""
        for reason, (count, characters) in other._counts.items():
            entry = self._counts.setdefault(reason, [0, 0])
            entry[0] += count
            entry[1] += characters

    def counts(self) -> dict[str, RefusalCount]:
        """Return what was refused by reason, in the order of `REASONS`."""
        return {reason: RefusalCount(*self._counts[reason]) for reason in REASONS if reason in self._counts}

    def count_of(self, reason: str) -> int:
        """Return how often `reason` was given so far."""
        return self._counts.get(reason, [0, 0])[0]
